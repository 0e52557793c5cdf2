"""One run of an experiment, in a folder of its own: what is left to do is done, what is done is not repeated."""

import json
import os
import shutil
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import stable_baselines3
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.common.utils import should_collect_more_steps

from sb3_fcdl.evaluation import make_env
from sb3_fcdl.experiments.experiment import FCDL as FCDL_NAME
from sb3_fcdl.experiments.experiment import REFERENCES, PlannedRun
from sb3_fcdl.experiments.measuring import Policies, learned, measure, references
from sb3_fcdl.experiments.training import TrainingArguments, TrainingRun, trained
from sb3_fcdl.fcdl import FCDL
from sb3_fcdl.runs import read_csv
from sb3_fcdl.runs.clock import Clock
from sb3_fcdl.runs.record import TrainRecord
from sb3_fcdl.runs.stop import StoppedBySignal, StopRequest
from sb3_fcdl.training.checkpoint import MODEL, sync

SETTINGS = "run.json"
ERROR = "error.txt"
RESULTS = "results.csv"


def results_folder(folder: Path, timesteps: int) -> Path:
    """:return: where a run has the results of an evaluation; it is there only when they are complete"""
    return folder / f"results_{timesteps}"


def csv_of(csv: Path, evaluation: str) -> Path:
    """:return: the file of a named evaluation that belongs to that of the plain one, whose name is empty"""
    return csv.with_stem(f"{csv.stem}_{evaluation}") if evaluation else csv


def is_evaluated(run: PlannedRun, folder: Path) -> bool:
    """
    :param run: planned
    :param folder: of the run
    :return: whether it has the results of the plain evaluation and of all named ones, with their keyword arguments
    """
    csv = results_folder(folder, run.timesteps) / RESULTS
    for name in ("", *run.evaluations):
        path = csv_of(csv, name)
        if not path.exists() or run.evaluated(name).row.env_kwargs not in {row.env_kwargs for row in read_csv(path)}:
            return False
    return True


def check_folder(run: PlannedRun, folder: Path) -> None:
    """
    :param run: planned
    :param folder: of the run, if it was begun
    :raises ValueError: if the run that was begun there is another; evaluations may differ, and so may a run that failed
        before it left anything
    """
    path = folder / SETTINGS
    if not path.exists() or not _has_left_anything(folder):
        return
    before, now = json.loads(path.read_text()), run.settings
    differ = [key for key in now if before.get(key) != now[key]]
    if differ:
        words = "; ".join(f"{key} {before.get(key)!r}, now {now[key]!r}" for key in differ)
        raise ValueError(f"the run in {folder} was begun with {words}: choose another --log-dir, or delete the folder")


def _has_left_anything(folder: Path) -> bool:
    """Whether the folder has a checkpoint, the record of a trained model, or results."""
    return any(any(folder.glob(name)) for name in (TrainRecord.FILE_NAME, "checkpoint_*", "end_*", "results_*"))


def carry_out(run: PlannedRun, folder: Path, saved: Callable[[], object] = lambda: None) -> bool:
    """
    Train and evaluate, as far as that is not done, and leave the results in the folder. What goes wrong is left there too, as
    ``error.txt``, and raised. In training SIGINT and SIGTERM leave a checkpoint of FCDL; any other algorithm begins anew.

    :param run: which
    :param folder: its own
    :param saved: called when the folder has something new that is worth keeping: a checkpoint, a trained model, results
    :return: whether the run is complete; False: a signal stopped it
    :raises ValueError: if the run that was begun in the folder is another
    """
    check_folder(run, folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not ((folder / SETTINGS).exists() and _has_left_anything(folder)):
        partial = folder / f"partial_{SETTINGS}"
        partial.write_text(json.dumps(run.settings, indent=2) + "\n")
        os.replace(partial, folder / SETTINGS)
    (folder / ERROR).unlink(missing_ok=True)
    run.find_modules()
    try:
        return _Work(run, folder, saved).do()
    except Exception:
        (folder / ERROR).write_text(traceback.format_exc())
        raise


class _Work:
    """
    :param run: which
    :param folder: its own
    :param saved: called when there is something new to keep
    """

    def __init__(self, run: PlannedRun, folder: Path, saved: Callable[[], object]) -> None:
        self.run = run
        self.folder = folder
        self.saved = saved
        self.stop = StopRequest()

    def do(self) -> bool:
        """:return: whether it is complete"""
        run, folder = self.run, self.folder
        if is_evaluated(run, folder):
            return True
        if run.algo == REFERENCES:
            record = TrainRecord(run.algo, run.env, run.env_kwargs, run.seed, 0, 0.0)
            self.evaluate(None, record, lambda made: references(made.env, made.env_kwargs, made.seed))
            return True
        with self.stop:
            record_or_none = self.train_fcdl() if run.algorithm == FCDL_NAME else self.train_other()
        if record_or_none is None:
            return False
        record = replace(record_or_none, algo=run.algo)
        if record.timesteps != run.timesteps:
            raise ValueError(
                f"the run ended after {record.timesteps} timesteps, between two updates, not after {run.timesteps}: "
                "give timesteps that are a multiple of train_freq * n_envs"
            )
        model = self.algorithm.load(folder / MODEL, device=self.kwargs["device"])
        self.evaluate(model, record, lambda made: learned(model, made))
        return True

    @property
    def algorithm(self) -> type[BaseAlgorithm]:
        """Its class."""
        name = self.run.algorithm
        if name == FCDL_NAME:
            return FCDL
        found = getattr(stable_baselines3, name, None)
        if found is None:
            import sb3_contrib

            found = getattr(sb3_contrib, name, None)
        if not (isinstance(found, type) and issubclass(found, BaseAlgorithm)):
            raise ValueError(f"there is no algorithm {name!r} in stable_baselines3 and sb3_contrib")
        return found

    @property
    def kwargs(self) -> dict[str, Any]:
        """Of the algorithm. The networks are small, and one process runs on each core."""
        given = self.run.model.get("algorithm_kwargs", {}) if self.run.algorithm == FCDL_NAME else self.run.model
        return {"device": "cpu", **given}

    def train_fcdl(self) -> TrainRecord | None:
        """:return: the record of the complete run; None: it was stopped"""
        run = self.run
        names = ("env", "env_kwargs", "timesteps", "seed", "n_envs", "preset", "checkpoint_freq")
        same = {name: getattr(run, name) for name in names}
        arguments = TrainingArguments(**{**same, **run.model, "algorithm_kwargs": self.kwargs})

        def on_the_way(training: TrainingRun) -> list[BaseCallback]:
            return [_OnTheWay(self, training.checkpoints.clock)]

        return trained(arguments, self.folder, on_the_way, stop=self.stop, saved=self.saved)

    def train_other(self) -> TrainRecord | None:
        """:return: the record of the complete run; None: it was stopped"""
        run = self.run
        if (self.folder / TrainRecord.FILE_NAME).exists():
            return TrainRecord.load(self.folder)
        env = make_env(run.env, run.n_envs, run.env_kwargs)
        policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
        model = self.algorithm(policy, env, seed=run.seed, **self.kwargs)
        watch = _OnTheWay(self, Clock())
        watch.clock.start()
        try:
            model.learn(run.timesteps, watch)
        except StoppedBySignal:
            return None
        wall_s = watch.clock.seconds
        model.save(self.folder / MODEL)
        arguments = {"n_envs": run.n_envs, **self.kwargs}
        record = TrainRecord(run.algorithm, run.env, run.env_kwargs, run.seed, model.num_timesteps, wall_s, arguments)
        record.save(self.folder)
        self.saved()
        return record

    def evaluate(self, model: BaseAlgorithm | None, record: TrainRecord, policies: Callable[[TrainRecord], Policies]) -> None:
        """
        The plain evaluation and the named ones, into one folder.

        :param model: whose graphs and predictions are measured, if it is an FCDL
        :param record: of its training
        :param policies: function of a record; returns what is evaluated in its environment
        """
        run = self.run
        partial, complete = self.folder / "partial_results", results_folder(self.folder, record.timesteps)
        shutil.rmtree(partial, ignore_errors=True)
        evaluations: Mapping[str, Mapping[str, Any]] = {"": {}, **run.evaluations}
        for name, env_kwargs in evaluations.items():
            made = replace(record, env_kwargs={**record.env_kwargs, **env_kwargs})
            fcdl = model if isinstance(model, FCDL) else None
            measured = measure(policies(made), made, run.episodes, run.seed, fcdl)
            measured.append_to(csv_of(partial / RESULTS, name), made)
        for each in partial.iterdir():
            sync(each)
        shutil.rmtree(complete, ignore_errors=True)
        partial.rename(complete)
        sync(self.folder)
        self.saved()


class _OnTheWay(BaseCallback):
    """
    Evaluates a model at several points of one ``learn()``, because SB3's schedules depend on its length: as of its last
    update. An algorithm that learns after whole rollouts stops at the run's timesteps, within the last one.

    :param work: its run
    :param clock: of the run; evaluations do not count
    """

    def __init__(self, work: _Work, clock: Clock) -> None:
        super().__init__()
        self.work = work
        self.clock = clock

    def _on_step(self) -> bool:
        run, now = self.work.run, self.num_timesteps
        is_resumable = isinstance(self.model, FCDL)
        if now in run.evaluate_at:
            record = TrainRecord(run.algo, run.env, run.env_kwargs, run.seed, now, self.clock.seconds)
            with self.clock.stopped():
                self.work.evaluate(None, record, lambda made: learned(self.model, made))
        if self.work.stop.signal is not None and not is_resumable:
            raise StoppedBySignal
        return now < run.timesteps or is_resumable or self._is_end_of_rollout

    @property
    def _is_end_of_rollout(self) -> bool:
        """Of an algorithm that goes on to learn from it; an on-policy one asks before it has the last transition."""
        if not isinstance(self.model, OffPolicyAlgorithm):
            return False
        frequency = self.model.train_freq
        assert isinstance(frequency, TrainFreq)  # since it was made
        collected = (self.locals[f"num_collected_{what}"] for what in ("steps", "episodes"))
        return not should_collect_more_steps(frequency, *collected)
