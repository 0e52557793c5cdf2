"""
What an interrupted training run goes on from: a folder ``checkpoint_TIMESTEPS`` in the run's folder, with the model, its
replay buffer and the record of the run so far. It is there only when it is complete. The last one stays until the next is
there; a run that has ended as it should leaves none.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_fcdl.runs.record import TrainRecord

MODEL, BUFFER = "model.zip", "replay_buffer.pkl"


def save_checkpoint(folder: Path, model: OffPolicyAlgorithm, record: TrainRecord) -> None:
    """
    Replaces the last checkpoint by one of now. If there is one of this very timestep, it stays.

    :param folder: of the run
    :param model: with its replay buffer
    :param record: of the run so far
    """
    partial, last = folder / "checkpoint_partial", _checkpoints(folder)
    path = folder / f"checkpoint_{record.timesteps}"
    if path.exists():
        return
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    model.save(partial / MODEL)
    model.save_replay_buffer(partial / BUFFER)
    record.save(partial)
    partial.rename(path)
    for checkpoint in last:
        shutil.rmtree(checkpoint)
    record.save(folder)


def complete_run(folder: Path, record: TrainRecord) -> None:
    """
    Leaves the record of a run that is complete, and no checkpoint.

    :param folder: of the run
    :param record: of the whole run
    """
    record.save(folder)
    for checkpoint in folder.glob("checkpoint_*"):
        shutil.rmtree(checkpoint)


def _checkpoints(folder: Path) -> list[Path]:
    """Complete ones of a run, the newest last. There are several if it died while it deleted an old one."""
    return sorted(folder.glob("checkpoint_[0-9]*"), key=lambda path: int(path.name.rpartition("_")[2]))


def is_finished(folder: Path) -> bool:
    """
    :param folder: of a run
    :return: whether it ended as it should: it left a model, and nothing to go on from
    """
    return (folder / MODEL).exists() and not _checkpoints(folder)


def load_checkpoint(folder: Path, load: Callable[[Path], Any]) -> tuple[Any, TrainRecord]:
    """
    :param folder: of an interrupted run
    :param load: loads a model from its file, beside which is its record
    :return: the model with its replay buffer, and the record of the run so far
    :raises FileNotFoundError: if there is no checkpoint
    """
    checkpoints = _checkpoints(folder)
    if not checkpoints:
        raise FileNotFoundError(f"there is no checkpoint in {folder}: only a run that was interrupted can go on")
    model = load(checkpoints[-1] / MODEL)
    model.load_replay_buffer(checkpoints[-1] / BUFFER)
    return model, TrainRecord.load(checkpoints[-1])
