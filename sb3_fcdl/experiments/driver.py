"""From the runs of an experiment to its result files: who does what next, who died, what is done."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sb3_fcdl.experiments.experiment import PlannedRun
from sb3_fcdl.experiments.results import Results
from sb3_fcdl.experiments.run import check_folder, is_evaluated
from sb3_fcdl.experiments.workers import Ended, Ending, Workers
from sb3_fcdl.runs.record import TrainRecord
from sb3_fcdl.runs.stop import StopRequest

# A run that dies again and again without having got any further does so because of what it is: it needs too much memory,
# perhaps. One that got further since has lost its machine.
MAX_DEATHS = 3
SECONDS = 1.0


@dataclass
class Progress:
    """
    How far an experiment is.

    :param n_runs: all of them
    :param timesteps: of all runs
    :param timesteps_before: that were done when the program started
    :param timesteps_done: of finished runs, and of others up to their last checkpoints
    :param n_finished: runs
    :param failed: runs that failed
    :param running: names of the runs that are being worked on
    """

    n_runs: int
    timesteps: int
    timesteps_before: int = 0
    timesteps_done: int = 0
    n_finished: int = 0
    failed: list[Ended] = field(default_factory=list)
    running: list[str] = field(default_factory=list)


class Driver:
    """
    Has the runs carried out that the result files do not have yet. A run that fails does not stop the others; one whose
    process or machine dies goes on from its last checkpoint.

    :param runs: of the experiment
    :param log_dir: with the folders of the runs
    :param results: the files
    :param stop: within its context; once a signal has come, runs leave checkpoints and end
    :param said: called with one line whenever something happens
    :raises ValueError: if a folder has a run that was begun with other settings
    """

    def __init__(
        self, runs: Sequence[PlannedRun], log_dir: Path, results: Results, stop: StopRequest, said: Callable[[str], object]
    ) -> None:
        self.log_dir = log_dir
        self.results = results
        self.stop = stop
        self.said = said
        self.progress = Progress(len(runs), sum(run.timesteps for run in runs))
        self._left: deque[PlannedRun] = deque()
        self._deaths: Counter[str] = Counter()
        self._died_at: dict[str, int] = {}
        self._timesteps: dict[str, int] = {}
        for run in runs:
            check_folder(run, log_dir / run.name)
        for run in runs:
            if results.has(run) or self._take(run):
                self._note_finished(run)
            else:
                self._left.append(run)
        self._look(self._left)
        self.progress.timesteps_before = self.progress.timesteps_done
        if self.progress.n_finished:
            said(f"{self.progress.n_finished} of {len(runs)} runs are done already")

    def perform(self, workers: Workers, shown: Callable[[Progress], object] = lambda progress: None) -> bool:
        """
        :param workers: who carry the runs out
        :param shown: called about once a second with how far it is
        :return: whether all runs were tried; False: a signal stopped them
        """
        is_stopping = False
        while (self._left and not is_stopping) or workers.n_left:
            if self.stop.signal is not None and not is_stopping:
                is_stopping = True
                self.said(f"stopping {workers.n_left} runs: they leave checkpoints")
                workers.stop()
            while self._left and workers.n_free > 0 and not is_stopping:
                workers.start(self._left.popleft())
            for ended in workers.wait(SECONDS):
                self._handle(ended, is_stopping)
            self.progress.running = [run.name for run in workers.running]
            self._look(workers.running)
            shown(self.progress)
        return not is_stopping

    def _handle(self, ended: Ended, is_stopping: bool) -> None:
        run, progress = ended.run, self.progress
        if ended.ending is Ending.FINISHED:
            self._take(run)
            self._note_finished(run)
            self.said(f"finished {progress.n_finished} of {progress.n_runs}: {run.name}")
        elif ended.ending is Ending.FAILED or (ended.ending is Ending.DIED and self._dies_always(run)):
            progress.failed.append(ended)
            self.said(f"failed: {run.name}: {ended.reason}")
        elif not is_stopping:
            self.said(f"died: {run.name} ({ended.reason}): goes on from its last checkpoint")
            self._left.appendleft(run)

    def _dies_always(self, run: PlannedRun) -> bool:
        self._look([run])
        timesteps = self._timesteps.get(run.name, 0)
        is_further = timesteps > self._died_at.get(run.name, 0)
        self._died_at[run.name] = timesteps
        self._deaths[run.name] = 1 if is_further else self._deaths[run.name] + 1
        return self._deaths[run.name] > MAX_DEATHS

    def _take(self, run: PlannedRun) -> bool:
        """:return: whether the run's folder has its results, which then are in the files"""
        folder = self.log_dir / run.name
        if not is_evaluated(run, folder):
            return False
        self.results.add(run, folder)
        return True

    def _note_finished(self, run: PlannedRun) -> None:
        self._timesteps[run.name] = run.timesteps
        self.progress.n_finished += 1

    def _look(self, runs: Iterable[PlannedRun]) -> None:
        """How far these have come, which have not finished, by their last checkpoints."""
        for run in runs:
            try:
                self._timesteps[run.name] = TrainRecord.load(self.log_dir / run.name).timesteps
            except (OSError, ValueError):
                # It has none yet.
                continue
        self.progress.timesteps_done = sum(self._timesteps.values())
