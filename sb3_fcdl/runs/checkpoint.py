"""What an interrupted training run goes on from."""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from sb3_fcdl.runs.record import TrainRecord

MODEL, BUFFER = "model.zip", "replay_buffer.pkl"


class CheckpointCallback(BaseCallback):
    """
    Saves model, replay buffer and record every so many timesteps in a folder ``checkpoint_TIMESTEPS``, which is there only
    when it is complete. The last one stays until the next is there; none is left by a run that has ended as it should.

    :param folder: the run's folder
    :param record: what the run is; timesteps and time before this part of it
    :param frequency: timesteps between two checkpoints
    """

    def __init__(self, folder: Path, record: TrainRecord, frequency: int) -> None:
        super().__init__()
        self.folder = folder
        self.record = record
        self.frequency = frequency
        self._last_save = record.timesteps

    def _on_training_start(self) -> None:
        self._start = time.perf_counter()

    def _on_step(self) -> bool:
        if self.num_timesteps - self._last_save >= self.frequency:
            self.save()
        return True

    def save(self) -> None:
        """Leaves a checkpoint of now; the one of this very timestep, if there is one, stays."""
        partial, record, last = self.folder / "checkpoint_partial", self.current_record, _checkpoints(self.folder)
        self._last_save = record.timesteps
        path = self.folder / f"checkpoint_{record.timesteps}"
        if path.exists():
            return
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        self.model.save(partial / MODEL)
        self.model.save_replay_buffer(partial / BUFFER)  # type: ignore[attr-defined]
        record.save(partial)
        partial.rename(path)
        for checkpoint in last:
            shutil.rmtree(checkpoint)
        record.save(self.folder)

    @property
    def current_record(self) -> TrainRecord:
        """The record as of now."""
        wall_s = self.record.wall_s + time.perf_counter() - self._start
        return replace(self.record, timesteps=self.model.num_timesteps, wall_s=wall_s)

    def finish(self) -> None:
        """Leaves the record of a run that is complete."""
        self.current_record.save(self.folder)
        for checkpoint in self.folder.glob("checkpoint_*"):
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
