"""A training run of FCDL in a folder of its own: begun, interrupted, gone on with, completed."""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import Logger, make_output_format
from stable_baselines3.common.vec_env import VecEnv

from sb3_fcdl.benchmark import benchmark_of
from sb3_fcdl.callbacks import RunCheckpointCallback, TaskEvalCallback
from sb3_fcdl.evaluation import make_env
from sb3_fcdl.evaluation.returns import EVALUATION_SEED_OFFSET
from sb3_fcdl.fcdl import FCDL, FCDLPolicy
from sb3_fcdl.presets import preset, schedule
from sb3_fcdl.runs.checkpoint import is_finished, load_checkpoint, put_back_curves, put_back_evaluation, save_model
from sb3_fcdl.runs.record import TrainRecord
from sb3_fcdl.runs.stop import StoppedBySignal, StopRequest

# Timesteps between two checkpoints: some minutes of training, while a checkpoint takes less than a second.
CHECKPOINT_FREQUENCY = 10_000


@dataclass(frozen=True)
class TrainingArguments:
    """
    What a run of FCDL is made with.

    :param env: registered name of the environment
    :param env_kwargs: its keyword arguments, complete
    :param timesteps: transitions to learn from
    :param seed: of the run
    :param n_envs: environments stepped at once
    :param dynamics: the model; None: that of the preset
    :param preset: settings known for the environment, see ``sb3_fcdl.presets``
    :param dynamics_kwargs: keyword arguments of the model, which replace those of the preset
    :param planner_kwargs: of the planner, likewise
    :param policy_kwargs: of the policy, likewise
    :param algorithm_kwargs: further ones of ``FCDL``
    :param eval_freq: transitions between evaluations that go into the learning curve; None: there are none
    :param checkpoint_freq: timesteps between two checkpoints; None: ``CHECKPOINT_FREQUENCY``
    """

    env: str
    env_kwargs: dict[str, Any]
    timesteps: int
    seed: int = 0
    n_envs: int = 10
    dynamics: str | None = None
    preset: str = "default"
    dynamics_kwargs: dict[str, Any] = field(default_factory=dict)
    planner_kwargs: dict[str, Any] = field(default_factory=dict)
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    algorithm_kwargs: dict[str, Any] = field(default_factory=dict)
    eval_freq: int | None = None
    checkpoint_freq: int | None = None

    @property
    def dynamics_name(self) -> str:
        """
        The name of the model.

        :raises ValueError: if the environment has no such preset
        """
        name: str = preset(self.env, self.preset, self.dynamics)["dynamics"]
        return name

    @classmethod
    def of(cls, record: TrainRecord) -> "TrainingArguments":
        """:param record: of a run that was made with them"""
        named = {each.name for each in fields(cls)}
        said = {key: value for key, value in record.arguments.items() if key in named}
        return cls(**{**said, "env": record.env, "env_kwargs": record.env_kwargs, "seed": record.seed})


class TrainingRun:
    """
    A run, ready to learn. Make it with ``new`` or ``resumed``.

    :param model: new, or resumed
    :param folder: of the run
    :param record: of the run so far
    :param checkpoint: folder of the checkpoint that it is resumed from; None: it is new
    :param stop: within its context; once a signal has come, ``learn`` leaves a checkpoint and returns
    :param saved: called when there is a new checkpoint
    :raises ImportError: if evaluations need a package that is not there
    """

    def __init__(
        self,
        model: FCDL,
        folder: Path,
        record: TrainRecord,
        checkpoint: Path | None,
        stop: StopRequest | None = None,
        saved: Callable[[], object] = lambda: None,
    ) -> None:
        self.model = model
        self.folder = folder
        self.record = record
        self.checkpoint = checkpoint
        self.arguments = TrainingArguments.of(record)
        self._evaluation = self._eval_callback() if self.arguments.eval_freq else None
        environments = None if self._evaluation is None else self._evaluation.eval_env
        frequency = self.arguments.checkpoint_freq or CHECKPOINT_FREQUENCY
        self.checkpoints = RunCheckpointCallback(folder, record, frequency, environments, stop, saved)

    @classmethod
    def new(cls, arguments: TrainingArguments, folder: Path, **hooks: Any) -> "TrainingRun":
        """
        :param arguments: what it is made with
        :param folder: of the run, which is made
        :param hooks: ``stop`` and ``saved``, see the class
        :raises ValueError: if the environment, the preset or FCDL does not take the arguments
        :raises OSError: if the folder cannot be made
        """
        model = _make_model(arguments, str(folder.parent))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(
                f"cannot make the folder {folder} ({reason}): choose another --log-dir, a folder to write in"
            ) from error
        algo = arguments.dynamics_name.upper()
        record = TrainRecord(algo, arguments.env, arguments.env_kwargs, arguments.seed, 0, 0.0, asdict(arguments))
        return cls(model, folder, record, None, **hooks)

    @classmethod
    def resumed(cls, folder: Path, timesteps: int | None = None, **hooks: Any) -> "TrainingRun":
        """
        From the newest checkpoint that is complete. Warns if there is a newer one.

        :param folder: of a run
        :param timesteps: transitions to learn from in all; None: as many as the run was to have
        :param hooks: ``stop`` and ``saved``, see the class
        :raises FileNotFoundError: if there is no checkpoint
        :raises ValueError: if all are damaged, or the run has these timesteps
        """

        def resume(path: Path) -> FCDL:
            record = TrainRecord.load(path)
            device = record.arguments.get("algorithm_kwargs", {}).get("device", "auto")
            return FCDL.resume(path, make_env(record.env, record.arguments["n_envs"], record.env_kwargs), device=device)

        path, model, record = load_checkpoint(folder, resume)
        total = timesteps or record.arguments["timesteps"]
        if total <= record.timesteps and (timesteps is not None or is_finished(folder)):
            raise ValueError(f"the run in {folder} has {record.timesteps} timesteps: give --timesteps above that to train on")
        return cls(model, folder, replace(record, arguments={**record.arguments, "timesteps": total}), path, **hooks)

    def learn(self, callbacks: Sequence[BaseCallback] = (), *, is_quiet: bool = False, has_bar: bool = False) -> bool:
        """
        Learn what is left, and leave the model: the last one, or that of where a signal stopped it, behind a checkpoint.

        :param callbacks: called after the run's own
        :param is_quiet: whether nothing is logged on the terminal
        :param has_bar: whether there is a progress bar instead
        :return: whether the run is complete
        """
        own: list[BaseCallback] = [self.checkpoints, *([] if self._evaluation is None else [self._evaluation])]
        is_complete = self._learn([*own, *callbacks], is_quiet or has_bar, has_bar)
        if is_complete:
            self.checkpoints.finish()
        else:
            save_model(self.folder, self.model)
        return is_complete

    def _learn(self, callbacks: list[BaseCallback], is_quiet: bool, has_bar: bool) -> bool:
        n_before, is_new = self.record.timesteps, self.checkpoint is None
        if self.checkpoint is not None:
            put_back_curves(self.checkpoint)
        formats = ["tensorboard", "csv"] + ([] if is_quiet else ["stdout"])
        suffix = f"_from_{n_before}" if n_before else ""
        folder, model = str(self.folder), self.model
        model.set_logger(Logger(folder, [make_output_format(name, folder, suffix) for name in formats]))
        # If all episodes have one length, n_envs of them end in the same step: log once then, not once for every four.
        log_interval = self.arguments.n_envs
        n_left = self.arguments.timesteps - n_before
        try:
            model.learn(n_left, callbacks, log_interval, reset_num_timesteps=is_new, progress_bar=has_bar)
        except StoppedBySignal:
            return False
        finally:
            model.logger.close()
        return True

    def _eval_callback(self) -> EvalCallback:
        arguments, folder = self.arguments, self.folder
        env = make_env(arguments.env, arguments.n_envs, arguments.env_kwargs)
        env.seed(EVALUATION_SEED_OFFSET + arguments.seed)
        benchmark = benchmark_of(arguments.env)
        tests = benchmark.tasks(arguments.env_kwargs)[1:]
        on_tests = TaskEvalCallback(
            arguments.env, arguments.env_kwargs, tests, benchmark.clean_kwargs, benchmark.tells_graphs, seed=arguments.seed
        )
        assert arguments.eval_freq is not None
        callback = _eval_callback_class(env)(
            env,
            n_eval_episodes=10,
            eval_freq=max(1, arguments.eval_freq // arguments.n_envs),
            log_path=str(folder),
            best_model_save_path=str(folder),
            callback_after_eval=on_tests if tests else None,
            verbose=0,
        )
        if self.checkpoint is not None:
            callback.n_calls = self.record.timesteps // arguments.n_envs
            is_repeated = put_back_evaluation(self.checkpoint, env) and self.model._last_obs is not None
            _take_up(callback, self.checkpoint, best_of=self.checkpoint if is_repeated else folder)
        return callback


def trained(
    arguments: TrainingArguments,
    folder: Path,
    callbacks: Callable[[TrainingRun], Sequence[BaseCallback]] = lambda run: (),
    **hooks: Any,
) -> TrainRecord | None:
    """
    The run of a folder, complete: begun there or gone on with, unless it is complete already.

    :param arguments: what it is made with, if it is new
    :param folder: of the run
    :param callbacks: function of the run; returns further callbacks
    :param hooks: ``stop`` and ``saved``, see ``TrainingRun``
    :return: its record; None: a signal stopped it
    """
    if is_finished(folder):
        return TrainRecord.load(folder)
    try:
        run = TrainingRun.resumed(folder, **hooks)
    except FileNotFoundError:
        run = TrainingRun.new(arguments, folder, **hooks)
    is_complete = run.learn(callbacks(run), is_quiet=True)
    return TrainRecord.load(folder) if is_complete else None


def _make_model(arguments: TrainingArguments, log_dir: str) -> FCDL:
    env = make_env(arguments.env, arguments.n_envs, arguments.env_kwargs)
    kwargs = {name: getattr(arguments, name) for name in ("dynamics_kwargs", "planner_kwargs", "policy_kwargs")}
    settings = {
        **schedule(arguments.env, arguments.n_envs),
        # Not longer than the run, because a checkpoint holds all of it.
        "buffer_size": min(1_000_000, arguments.timesteps),
        **preset(arguments.env, arguments.preset, arguments.dynamics, **kwargs),
        "tensorboard_log": log_dir,
        "seed": arguments.seed,
    }
    settings["learning_starts"] = min(settings["learning_starts"], arguments.timesteps // 3)
    return FCDL(FCDLPolicy, env, **{**settings, **arguments.algorithm_kwargs})


def _eval_callback_class(env: VecEnv) -> type[EvalCallback]:
    """SB3's own, or, for an environment with action masks, sb3-contrib's."""
    if not env.has_attr("action_masks"):
        return EvalCallback
    try:
        from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
    except ImportError as error:
        raise ImportError(
            f"--eval-freq needs sb3-contrib ({error}), because the environment has action masks: "
            "pip install 'sb3_fcdl[contrib]', or train without --eval-freq"
        ) from error
    return MaskableEvalCallback


def _take_up(callback: EvalCallback, checkpoint: Path, best_of: Path) -> None:
    """
    Restores the evaluations of an interrupted run, so that its best model is replaced by a better one only.

    :param callback: of the resumed run
    :param checkpoint: with the evaluations before it
    :param best_of: the folder whose evaluations the best model is to exceed: the run's own if it will not repeat them
    """
    for folder in (best_of, checkpoint):
        try:
            with np.load(folder / "evaluations.npz") as file:
                found = dict(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            # There is none yet, or the run was killed while it wrote them.
            continue
        callback.best_mean_reward = max(callback.best_mean_reward, float(found["results"].mean(axis=1).max()))
        if folder == checkpoint:
            callback.evaluations_timesteps = found["timesteps"].tolist()
            callback.evaluations_results = found["results"].tolist()
            callback.evaluations_length = found["ep_lengths"].tolist()
            callback.evaluations_successes = found["successes"].tolist() if "successes" in found else []
