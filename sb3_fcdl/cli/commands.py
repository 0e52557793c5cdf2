"""The commands of ``sb3-fcdl``. Each takes the options that ``make_parser`` reads for it."""

import argparse
import errno
import json
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import Logger, make_output_format
from stable_baselines3.common.type_aliases import PolicyPredictor
from stable_baselines3.common.utils import get_latest_run_id
from stable_baselines3.common.vec_env import VecEnv

from sb3_fcdl.benchmark import benchmark_of, evaluate_predictions
from sb3_fcdl.callbacks import RunCheckpointCallback, TaskEvalCallback
from sb3_fcdl.cli.env_options import DEFAULT_ENV, env_options, name_parts
from sb3_fcdl.cli.options import DEFAULT_TIMESTEPS, PROGRAM
from sb3_fcdl.dynamics import DEFAULT_DYNAMICS
from sb3_fcdl.evaluation import (
    evaluate_shift,
    evaluate_tasks,
    format_accuracy,
    format_graphs,
    format_transitions,
    make_env,
    parse_shift,
)
from sb3_fcdl.evaluation.returns import EVALUATION_SEED_OFFSET
from sb3_fcdl.fcdl import FCDL, FCDLPolicy
from sb3_fcdl.presets import preset, schedule
from sb3_fcdl.runs import Run, format_table
from sb3_fcdl.runs.checkpoint import is_finished, load_checkpoint, missing, put_back_curves, put_back_evaluation, save_model
from sb3_fcdl.runs.measurements import NOT_CORRUPTED, Measurements, check_files
from sb3_fcdl.runs.profile import available_devices, format_speeds, load_on, measure_model, recommendation
from sb3_fcdl.runs.record import TrainRecord, machine, package_versions
from sb3_fcdl.runs.stop import StoppedBySignal, StopRequest
from sb3_fcdl.training.checkpoint import MODEL

# Timesteps between two checkpoints: some minutes of training, while a checkpoint takes less than a second.
CHECKPOINT_FREQUENCY = 10_000
# What a full or read-only disk says. Other errors of the operating system may be the environment's.
NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def train(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl train``"""
    with StopRequest() as stop:
        with _mistakes_end_the_program():
            start = _new_run(arguments) if arguments.resume is None else _old_run(arguments)
            arguments = argparse.Namespace(**{**start.record.arguments, "progress": arguments.progress})
            evaluation = _eval_callback(arguments, start) if arguments.eval_freq else None
            environments = None if evaluation is None else evaluation.eval_env
            checkpoint = RunCheckpointCallback(start.folder, start.record, CHECKPOINT_FREQUENCY, environments, stop)
        callbacks: list[BaseCallback] = [checkpoint, *([] if evaluation is None else [evaluation])]
        with _full_disks_end_the_program(start):
            is_complete = _learn(arguments, start, callbacks)
            if is_complete:
                checkpoint.finish()
            else:
                save_model(start.folder, start.model)
    n_timesteps = start.model.num_timesteps
    if not is_complete:
        print(f"interrupted after {n_timesteps} timesteps; go on with: {_go_on(start.folder)}", file=sys.stderr)
        sys.exit(stop.status)
    wall_s = checkpoint.current_record.wall_s
    print(f"{n_timesteps} timesteps in {wall_s:.0f} s. Next:\n  {PROGRAM} evaluate --model {start.folder / MODEL}")


def _learn(arguments: argparse.Namespace, start: "_Start", callbacks: list[BaseCallback]) -> bool:
    """:return: whether the run is complete; False: a signal stopped it"""
    model, n_before = start.model, start.record.timesteps
    if start.checkpoint is not None:
        put_back_curves(start.checkpoint)
    formats = ["tensorboard", "csv"] + ([] if arguments.progress else ["stdout"])
    suffix = f"_from_{n_before}" if n_before else ""
    folder, is_new = str(start.folder), start.checkpoint is None
    model.set_logger(Logger(folder, [make_output_format(name, folder, suffix) for name in formats]))
    # If all episodes have one length, n_envs of them end in the same step: log once then, not once for every four.
    log_interval = arguments.n_envs
    n_left = arguments.timesteps - n_before
    try:
        model.learn(n_left, callbacks, log_interval, reset_num_timesteps=is_new, progress_bar=arguments.progress)
    except StoppedBySignal:
        return False
    finally:
        model.logger.close()
    return True


def _go_on(folder: Path) -> str:
    return f"{PROGRAM} train --resume {folder}"


class _Start(NamedTuple):
    """
    Where a run starts from.

    :param model: new, or resumed
    :param folder: the run's
    :param record: of the run so far
    :param checkpoint: folder of the checkpoint that it is resumed from; None: it is new
    """

    model: FCDL
    folder: Path
    record: TrainRecord
    checkpoint: Path | None


def _new_run(arguments: argparse.Namespace) -> _Start:
    if arguments.timesteps is None:
        arguments.timesteps = DEFAULT_TIMESTEPS
    env_kwargs = _env_kwargs(arguments)
    model = _make_model(arguments, make_env(arguments.env, arguments.n_envs, env_kwargs))
    name = _run_name(arguments, env_kwargs)
    folder = Path(arguments.log_dir) / f"{name}_{get_latest_run_id(arguments.log_dir, name) + 1}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot make the folder {folder} ({reason}): choose another --log-dir, a folder to write in") from error
    said = {key: value for key, value in vars(arguments).items() if key not in ("command", "resume")}
    record = TrainRecord(_dynamics(arguments).upper(), arguments.env, env_kwargs, arguments.seed, 0, 0.0, said)
    return _Start(model, folder, record, None)


def _old_run(arguments: argparse.Namespace) -> _Start:
    folder = Path(arguments.resume)

    def resume(path: Path) -> FCDL:
        record = TrainRecord.load(path)
        return FCDL.resume(path, make_env(record.env, record.arguments["n_envs"], record.env_kwargs))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path, model, record = load_checkpoint(folder, resume)
    for warning in caught:
        print(f"{PROGRAM}: {warning.message}", file=sys.stderr)
    timesteps = arguments.timesteps or record.arguments["timesteps"]
    if timesteps <= record.timesteps and (arguments.timesteps is not None or is_finished(folder)):
        raise ValueError(f"the run in {folder} has {record.timesteps} timesteps: give --timesteps above that to train on")
    record = replace(record, arguments={**record.arguments, "timesteps": timesteps})
    return _Start(model, folder, record, path)


def evaluate(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl evaluate``"""
    path, seed = Path(arguments.model), arguments.seed
    with _mistakes_end_the_program():
        if arguments.csv is not None:
            check_files(Path(arguments.csv))
        record = _load_record(path, arguments.env_kwargs)
        record = replace(record, env_kwargs={**record.env_kwargs, **env_options(arguments, "evaluate", record.env)})
        model = _load_model(path, record.env, record.env_kwargs)
        policies = _policies(model, record, seed)
    tasks = benchmark_of(record.env).tasks(record.env_kwargs)
    returns = {}
    for name, (policy, made_with) in policies.items():
        print(f"evaluating {name} ...", file=sys.stderr)
        returns[name] = evaluate_tasks(policy, record.env, made_with, tasks, arguments.episodes, seed)
    run = Run.of(record)
    print(f"{run.env} {run.env_kwargs}; trained for {run.timesteps} timesteps\n\n{format_table(returns)}")
    contexts, accuracies, transitions = evaluate_predictions(model, record, seed)
    if contexts:
        print(f"\nBeside the local graphs:\n\n{format_graphs(contexts)}")
    if transitions:
        print(f"\nBeside what matters in each transition:\n\n{format_transitions(transitions)}")
    selecting = {name: value for name, value in model.dynamics.variable_importance().items() if value}
    if selecting:
        words = ", ".join(f"{name} {value:.4f}" for name, value in selecting.items())
        print(f"\nWhat chooses the context, and what it is worth in nats: {words}")
    if accuracies:
        print(f"\n{format_accuracy(accuracies)}")
    if arguments.csv is not None:
        Measurements(returns, contexts, accuracies, transitions).append_to(Path(arguments.csv), record)


def _policies(model: FCDL, record: TrainRecord, seed: int) -> dict[str, tuple[PolicyPredictor, dict[str, Any]]]:
    """Each policy with the keyword arguments of its environment, by name; the model first."""
    benchmark = benchmark_of(record.env)
    policies: dict[str, tuple[PolicyPredictor, dict[str, Any]]] = {record.algo: (model, record.env_kwargs)}
    if benchmark.clean_kwargs:
        policies[record.algo + NOT_CORRUPTED] = (model, {**record.env_kwargs, **benchmark.clean_kwargs})
    references = benchmark.references(record.env, record.env_kwargs, seed, model.policy.planner)
    return policies | {name: (policy, record.env_kwargs) for name, policy in references.items()}


def robustness(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl robustness``"""
    with _mistakes_end_the_program():
        shifts = {name: parse_shift(text) for name, text in (word.split("=", 1) for word in arguments.shift)}
        record = _load_record(Path(arguments.model[0]), arguments.env_kwargs)
        models = {
            path.removesuffix("/model.zip"): _load_model(Path(path), record.env, record.env_kwargs) for path in arguments.model
        }
        n_envs = min(10, arguments.episodes)
        report = evaluate_shift(
            models, lambda: make_env(record.env, n_envs, record.env_kwargs), shifts, arguments.episodes, arguments.seed
        )
        print(report)
        if arguments.json is not None:
            Path(arguments.json).write_text(report.to_json() + "\n")
        if arguments.plot is not None:
            report.plot().savefig(arguments.plot)


def report(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl report``"""
    with _mistakes_end_the_program():
        # Needs matplotlib, which the other commands do not.
        from sb3_fcdl.runs.model_page import write_model_page

        path, output = Path(arguments.model), Path(arguments.output)
        shifts = None
        if arguments.shift is not None:
            shifts = {name: parse_shift(text) for name, text in (word.split("=", 1) for word in arguments.shift)}
        record = _load_record(path, arguments.env_kwargs)
        model = _load_model(path, record.env, record.env_kwargs)
        if not output.resolve().parent.is_dir():
            raise FileNotFoundError(f"there is no folder {output.parent} for {output.name}")

        def tell(text: str) -> None:
            print(f"{PROGRAM} report: {text}", file=sys.stderr, flush=True)

        write_model_page(output, model, record, path.parent, shifts, arguments.episodes, arguments.seed, tell)
    print(output)


def profile(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl profile``"""
    with _mistakes_end_the_program():
        models = [load_on(Path(arguments.model), device) for device in available_devices()]
    speeds = [measure_model(model, sorted({1, arguments.n_envs})) for model in models]
    print(f"median times in ms\n\n{format_speeds(speeds)}\n\n{recommendation(speeds)}")
    if arguments.json is not None:
        result = {
            "model": arguments.model,
            "devices": [asdict(speed) for speed in speeds],
            "recommendation": recommendation(speeds),
            "versions": package_versions(),
            "machine": machine(),
        }
        with _mistakes_end_the_program():
            Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n")


def _env_kwargs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of the environment: the benchmark's for this seed, unless the user gives others."""
    options = env_options(arguments, "train", arguments.env)
    return {**benchmark_of(arguments.env).env_kwargs(arguments.seed), **options, **arguments.env_kwargs}


def _dynamics(arguments: argparse.Namespace) -> str:
    """The name of the model: the user's, or that of the preset."""
    name: str = preset(arguments.env, arguments.preset, arguments.dynamics)["dynamics"]
    return name


def _run_name(arguments: argparse.Namespace, env_kwargs: dict[str, Any]) -> str:
    dynamics = _dynamics(arguments)
    model = [] if dynamics == DEFAULT_DYNAMICS else [dynamics]
    name = re.split("[:/]", arguments.env)[-1]
    return "_".join([name, *name_parts(arguments.env, env_kwargs), *model, f"seed{arguments.seed}"])


def _make_model(arguments: argparse.Namespace, env: VecEnv) -> FCDL:
    kwargs = {name: getattr(arguments, name) for name in ("dynamics_kwargs", "planner_kwargs", "policy_kwargs")}
    settings = {
        **schedule(arguments.env, arguments.n_envs),
        # Not longer than the run, because a checkpoint holds all of it.
        "buffer_size": min(1_000_000, arguments.timesteps),
        **preset(arguments.env, arguments.preset, arguments.dynamics, **kwargs),
        "tensorboard_log": arguments.log_dir,
        "seed": arguments.seed,
    }
    settings["learning_starts"] = min(settings["learning_starts"], arguments.timesteps // 3)
    return FCDL(FCDLPolicy, env, **settings)


def _eval_callback(arguments: argparse.Namespace, start: _Start) -> EvalCallback:
    env_kwargs, folder = start.record.env_kwargs, start.folder
    env = make_env(arguments.env, arguments.n_envs, env_kwargs)
    env.seed(EVALUATION_SEED_OFFSET + arguments.seed)
    benchmark = benchmark_of(arguments.env)
    tests = benchmark.tasks(env_kwargs)[1:]
    on_tests = TaskEvalCallback(
        arguments.env, env_kwargs, tests, benchmark.clean_kwargs, benchmark.tells_graphs, seed=arguments.seed
    )
    callback = _eval_callback_class(env)(
        env,
        n_eval_episodes=10,
        eval_freq=max(1, arguments.eval_freq // arguments.n_envs),
        log_path=str(folder),
        best_model_save_path=str(folder),
        callback_after_eval=on_tests if tests else None,
        verbose=0,
    )
    if start.checkpoint is not None:
        callback.n_calls = start.record.timesteps // arguments.n_envs
        is_repeated = put_back_evaluation(start.checkpoint, env) and start.model._last_obs is not None
        _take_up(callback, start.checkpoint, best_of=start.checkpoint if is_repeated else folder)
    return callback


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


def _load_record(path: Path, env_kwargs: dict[str, Any]) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    if (path.parent / TrainRecord.FILE_NAME).exists():
        record = TrainRecord.load(path.parent)
        return replace(record, env_kwargs={**record.env_kwargs, **env_kwargs})
    if not env_kwargs:
        words = " ".join(f"{key}={value}" for key, value in benchmark_of(DEFAULT_ENV).env_kwargs(0).items())
        raise FileNotFoundError(
            f"there is no {TrainRecord.FILE_NAME} beside {path}: say by --env-kwargs which {DEFAULT_ENV} it was trained on, "
            f"such as {words}"
        )
    return TrainRecord("FCDL", DEFAULT_ENV, env_kwargs, seed=0, timesteps=0, wall_s=0.0)


def _load_model(path: Path, env_id: str, env_kwargs: dict[str, Any]) -> FCDL:
    model = FCDL.load(path)
    env = make_env(env_id, 1, env_kwargs)
    if env.observation_space != model.observation_space:
        raise ValueError(f"{path} was trained on {model.observation_space}, the environment has {env.observation_space}")
    env.close()
    return model


@contextmanager
def _full_disks_end_the_program(start: _Start) -> Iterator[None]:
    """Report in one line that a run cannot be written, and how to go on, and exit with code 2."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = _not_written(error)
        if reason is None:
            raise
        can_go_on = any(not missing(path) for path in start.folder.glob("*_[0-9]*"))
        then = f"go on with: {_go_on(start.folder)}" if can_go_on else "train anew, as there is no checkpoint yet"
        print(f"{PROGRAM}: error: cannot write to {start.folder} ({reason}): make room there, then {then}", file=sys.stderr)
        sys.exit(2)


def _not_written(error: BaseException | None) -> str | None:
    """What the operating system says of a file that it does not write; None: the error, and what it came from, is another."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NOT_WRITTEN:
            return error.strerror
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" in str(error):
            return "torch cannot write"
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def _mistakes_end_the_program() -> Iterator[None]:
    """Report a user's mistake in one line and exit with code 2. Use it only around code that checks what the user gave."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, gym.error.Error) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        sys.exit(2)
