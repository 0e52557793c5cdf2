"""Checkpoints that an interrupted run goes on from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from fcdl_envs.arguments import check, integer
from sb3_fcdl.fcdl import FCDL
from sb3_fcdl.runs.checkpoint import complete_run, save_checkpoint
from sb3_fcdl.runs.clock import Clock
from sb3_fcdl.runs.record import TrainRecord
from sb3_fcdl.runs.stop import StoppedBySignal, StopRequest


class RunCheckpointCallback(BaseCallback):
    """
    Saves all that a run needs to go on bit for bit, see ``runs.checkpoint``. It does so before a rollout: when SB3 calls back
    in the middle of one, it has stepped the environments and not yet stored the step.

    SB3's ``CheckpointCallback`` keeps models to look at later; this one keeps the latest state alone, and always a whole one.

    :param folder: the run's folder
    :param record: what the run is; timesteps and time before this part of it
    :param frequency: timesteps between two checkpoints
    :param evaluation: the environments that the run is evaluated in; None: it is not
    :param stop: once a signal has come, the next rollout raises ``StoppedBySignal`` instead, behind a checkpoint
    :param saved: called when there is a new checkpoint
    :raises ValueError: if ``frequency`` is below 1
    :raises TypeError: if it is no integer
    """

    def __init__(
        self,
        folder: Path,
        record: TrainRecord,
        frequency: int,
        evaluation: VecEnv | None = None,
        stop: StopRequest | None = None,
        saved: Callable[[], object] = lambda: None,
    ) -> None:
        check(frequency=(frequency, integer(1)))
        super().__init__()
        self.folder = folder
        self.record = record
        self.frequency = frequency
        self.evaluation = evaluation
        self.stop = stop
        self.saved = saved
        self.clock = Clock(record.wall_s)
        self._last_save = record.timesteps

    def _on_training_start(self) -> None:
        self.clock.start()

    def _on_rollout_start(self) -> None:
        is_stopped = self.stop is not None and self.stop.signal is not None
        if is_stopped or self.num_timesteps - self._last_save >= self.frequency:
            self.save()
        if is_stopped:
            raise StoppedBySignal

    def _on_step(self) -> bool:
        return True

    def save(self) -> None:
        """Leave a checkpoint of now, unless there is one already. Call it between two rollouts."""
        record = self.current_record
        is_saved = self._last_save == record.timesteps and (self.folder / f"checkpoint_{record.timesteps}").exists()
        if not is_saved:
            save_checkpoint(self.folder, self._fcdl, record, self.evaluation)
            self.saved()
        self._last_save = record.timesteps

    @property
    def _fcdl(self) -> FCDL:
        assert isinstance(self.model, FCDL)
        return self.model

    @property
    def current_record(self) -> TrainRecord:
        """The record as of now."""
        return replace(self.record, timesteps=self.model.num_timesteps, wall_s=self.clock.seconds)

    def finish(self) -> None:
        """The run is complete: its model and record stay, and what is needed to train on."""
        self.save()
        complete_run(self.folder, self._fcdl, self.current_record)
