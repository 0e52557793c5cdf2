"""Checkpoints that an interrupted run goes on from."""

import time
from dataclasses import replace
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from fcdl_envs.arguments import check, integer
from sb3_fcdl.runs.checkpoint import complete_run, save_checkpoint
from sb3_fcdl.runs.record import TrainRecord


class RunCheckpointCallback(BaseCallback):
    """
    Saves all that a run needs to go on, its model, replay buffer and record, see ``runs.checkpoint``.

    SB3's ``CheckpointCallback`` keeps models to look at later; this one keeps the latest state alone, and always a whole one.

    :param folder: the run's folder
    :param record: what the run is; timesteps and time before this part of it
    :param frequency: timesteps between two checkpoints
    :raises ValueError: if it is below 1
    :raises TypeError: if it is no integer
    """

    def __init__(self, folder: Path, record: TrainRecord, frequency: int) -> None:
        check(frequency=(frequency, integer(1)))
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
        """Leave a checkpoint of now."""
        assert isinstance(self.model, OffPolicyAlgorithm)
        record = self.current_record
        self._last_save = record.timesteps
        save_checkpoint(self.folder, self.model, record)

    @property
    def current_record(self) -> TrainRecord:
        """The record as of now."""
        wall_s = self.record.wall_s + time.perf_counter() - self._start
        return replace(self.record, timesteps=self.model.num_timesteps, wall_s=wall_s)

    def finish(self) -> None:
        """The run is complete: its record stays, its checkpoints go."""
        complete_run(self.folder, self.current_record)
