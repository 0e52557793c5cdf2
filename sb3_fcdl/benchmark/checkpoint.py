"""What an interrupted training run goes on from."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from sb3_fcdl.benchmark.record import TrainRecord

MODEL, BUFFER = "checkpoint.zip", "checkpoint_buffer.pkl"


class CheckpointCallback(BaseCallback):
    """
    Saves model, replay buffer and record every so many timesteps, each time over the last ones, and deletes the first two at
    the end.

    :param folder: the run's folder
    :param record: what the run is; timesteps and time before this part of it
    :param frequency: timesteps between two checkpoints
    """

    def __init__(self, folder: Path, record: TrainRecord, frequency: int) -> None:
        super().__init__()
        self.folder = folder
        self.record = record
        self.frequency = frequency

    def _on_training_start(self) -> None:
        self._start = time.perf_counter()
        self._last_save = self.num_timesteps

    def _on_step(self) -> bool:
        if self.num_timesteps - self._last_save >= self.frequency:
            self._last_save = self.num_timesteps
            self._save()
        return True

    def _save(self) -> None:
        self.model.save(self.folder / MODEL)
        self.model.save_replay_buffer(self.folder / BUFFER)  # type: ignore[attr-defined]
        self.current_record.save(self.folder)

    @property
    def current_record(self) -> TrainRecord:
        """The record as of now."""
        wall_s = self.record.wall_s + time.perf_counter() - self._start
        return replace(self.record, timesteps=self.num_timesteps, wall_s=wall_s)

    def finish(self) -> None:
        """Leaves the record of a run that is complete."""
        self.current_record.save(self.folder)
        for name in (MODEL, BUFFER):
            (self.folder / name).unlink(missing_ok=True)


def load_checkpoint(folder: Path, load: Callable[[Path], Any]) -> tuple[Any, TrainRecord]:
    """
    :param folder: of an interrupted run
    :param load: loads a model from its file
    :return: the model with its replay buffer, and the record of the run so far
    :raises FileNotFoundError: if there is no checkpoint
    """
    if not (folder / MODEL).is_file():
        raise FileNotFoundError(f"there is no {MODEL} in {folder}: only a run that was interrupted can go on")
    record = TrainRecord.load(folder)
    model = load(folder / MODEL)
    model.load_replay_buffer(folder / BUFFER)
    return model, record
