"""
What a training run goes on from: a folder ``checkpoint_TIMESTEPS`` in the run's folder, with the model's own checkpoint (see
``FCDL.save_checkpoint``), the record of the run so far, its curves, and the environments of its evaluations. It is there only
when it is complete. The last one stays until the next is there; that of a run that has ended is called ``end_TIMESTEPS``.
"""

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch as th
from stable_baselines3.common.vec_env import VecEnv

from sb3_fcdl.fcdl import FCDL
from sb3_fcdl.runs.record import TrainRecord
from sb3_fcdl.training.checkpoint import BUFFER, MODEL, STATE, sync, take_environments
from sb3_fcdl.training.snapshot import put_back

EVALUATION = "evaluation.pt"
# What a run writes by and by. A resumed run writes again what came after the checkpoint.
CURVES = ("progress*.csv", "evaluations.npz")


class Checkpoint(NamedTuple):
    """
    What a run goes on from.

    :param path: its folder
    :param model: with its replay buffer and environments
    :param record: of the run so far
    """

    path: Path
    model: FCDL
    record: TrainRecord


def save_checkpoint(folder: Path, model: FCDL, record: TrainRecord, evaluation: VecEnv | None = None) -> None:
    """
    Replaces the last checkpoint by one of now.

    :param folder: of the run
    :param model: between two rollouts
    :param record: of the run so far
    :param evaluation: the environments that it is evaluated in; None: it is not
    """
    partial, path = folder / "checkpoint_partial", folder / f"checkpoint_{record.timesteps}"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_checkpoint(partial)
    if evaluation is not None:
        th.save(take_environments(evaluation), partial / EVALUATION)
    for curve in _curves(folder):
        shutil.copyfile(curve, partial / curve.name)
    record.save(partial)
    for each in partial.iterdir():
        sync(each)
    sync(partial)
    # A damaged one, if any: the run was resumed from one before it.
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)
    sync(folder)
    record.save(folder)
    for each in folder.iterdir():
        if each.is_dir() and each.name.startswith(("checkpoint_", "end_")) and each != path:
            shutil.rmtree(each, ignore_errors=True)


def complete_run(folder: Path, model: FCDL, record: TrainRecord) -> None:
    """
    Leaves the model and the record of a run that is complete, and what is needed to train on.

    :param folder: of the run, with a checkpoint of its end
    :param model: at the end
    :param record: of the whole run
    """
    save_model(folder, model)
    record.save(folder)
    end = folder / f"end_{record.timesteps}"
    shutil.rmtree(end, ignore_errors=True)
    (folder / f"checkpoint_{record.timesteps}").rename(end)
    sync(folder)
    for checkpoint in folder.glob("checkpoint_*"):
        shutil.rmtree(checkpoint)


def save_model(folder: Path, model: FCDL) -> None:
    """
    Writes ``model.zip``; the one before stays until the new one is complete.

    :param folder: of the run
    :param model: of now
    """
    partial = folder / f"partial_{MODEL}"
    model.save(partial)
    sync(partial)
    os.replace(partial, folder / MODEL)
    sync(folder)


def missing(checkpoint: Path) -> list[str]:
    """
    :param checkpoint: its folder
    :return: the files that it lacks; none if it is complete
    """
    return [name for name in (TrainRecord.FILE_NAME, MODEL, BUFFER, STATE) if not (checkpoint / name).is_file()]


def _checkpoints(folder: Path, kind: str = "checkpoint") -> list[Path]:
    """Those of a run, the newest first. There are several if it died while it deleted an old one."""
    return sorted(folder.glob(f"{kind}_[0-9]*"), key=lambda path: -int(path.name.rpartition("_")[2]))


def is_finished(folder: Path) -> bool:
    """
    :param folder: of a run
    :return: whether it ended as it should: it left a model, and no checkpoint of a time before the end
    """
    return (folder / MODEL).exists() and all(map(missing, _checkpoints(folder)))


def load_checkpoint(folder: Path, resume: Callable[[Path], FCDL]) -> Checkpoint:
    """
    Takes the newest checkpoint that is complete and not damaged. Warns if there is a newer one.

    :param folder: of a run
    :param resume: resumes a model from the folder of a checkpoint, in which is its record
    :return: what the run goes on from
    :raises FileNotFoundError: if there is no checkpoint
    :raises ValueError: if all are damaged, or the environment does not fit; names the newest
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no checkpoint in {folder}, which is not the folder of a run")
    checkpoints = [path for path in _checkpoints(folder) if any(path.iterdir())] + _checkpoints(folder, "end")
    problems: list[str] = []
    for path in checkpoints:
        lacks = missing(path)
        if lacks:
            problems.append(f"the checkpoint {path} is not complete: it has no {', '.join(lacks)}")
            continue
        try:
            checkpoint = Checkpoint(path, resume(path), TrainRecord.load(path))
        except ValueError as error:
            problems.append(str(error) if str(path) in str(error) else f"the checkpoint {path}: {error}")
            continue
        for problem in problems:
            warnings.warn(f"{problem}. The run goes on from {path}", stacklevel=2)
        return checkpoint
    if problems:
        raise ValueError(f"{problems[0]}. There is no other checkpoint in {folder}: train anew")
    raise FileNotFoundError(f"there is no checkpoint in {folder}: the run ended before its first one, train anew")


def put_back_curves(checkpoint: Path) -> None:
    """
    Puts the curves of a run into the state that they had at its checkpoint. What came later the resumed run writes again.

    :param checkpoint: its folder, in the run's folder
    """
    folder, saved = checkpoint.parent, _curves(checkpoint)
    for curve in _curves(folder):
        if curve.name not in {each.name for each in saved}:
            curve.unlink()
    for curve in saved:
        shutil.copyfile(curve, folder / curve.name)


def put_back_evaluation(checkpoint: Path, env: VecEnv) -> bool:
    """
    :param checkpoint: its folder
    :param env: environments of evaluations, put into the state of the old ones
    :return: whether the checkpoint has their state
    """
    if not (checkpoint / EVALUATION).exists():
        return False
    state = th.load(checkpoint / EVALUATION, weights_only=True)["environments"]
    if state is not None:
        put_back(state, env)
    return state is not None


def _curves(folder: Path) -> list[Path]:
    return [path for pattern in CURVES for path in sorted(folder.glob(pattern))]
