"""Runs in processes of this machine, one a core, one thread each."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch as th
from filelock import FileLock

from sb3_fcdl.experiments.experiment import PlannedRun
from sb3_fcdl.experiments.run import ERROR, carry_out
from sb3_fcdl.experiments.workers import Ended, Ending, last_line

LOG = "log.txt"
# Exit statuses of a process of ours: 1 is Python's after an exception.
STOPPED = 75
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


class LocalWorkers:
    """
    See ``Workers``.

    :param log_dir: with the folders of the runs
    :param n_workers: processes at once; None: as many as there are cores for this program
    """

    def __init__(self, log_dir: Path, n_workers: int | None = None) -> None:
        self.log_dir = log_dir
        self.n_workers = n_workers or _n_cores()
        # As SB3's SubprocVecEnv: torch does not survive a plain fork.
        has_server = "forkserver" in multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context("forkserver" if has_server else "spawn")
        self._processes: dict[str, tuple[PlannedRun, BaseProcess]] = {}

    @property
    def n_free(self) -> int:
        """See ``Workers``."""
        return self.n_workers - len(self._processes)

    @property
    def n_left(self) -> int:
        """See ``Workers``."""
        return len(self._processes)

    @property
    def running(self) -> list[PlannedRun]:
        """See ``Workers``."""
        return [run for run, _ in self._processes.values()]

    def start(self, run: PlannedRun) -> None:
        """See ``Workers``."""
        process = self._context.Process(target=_work, args=(run, self.log_dir / run.name), name=run.name)  # type: ignore[attr-defined]
        with _environment(ONE_THREAD):
            process.start()
        self._processes[run.name] = run, process

    def wait(self, seconds: float) -> list[Ended]:
        """See ``Workers``."""
        wait_for([process.sentinel for _, process in self._processes.values()], seconds)
        ended = [(run, process) for run, process in self._processes.values() if process.exitcode is not None]
        for run, process in ended:
            del self._processes[run.name]
            process.join()
        return [self._ended(run, process.exitcode) for run, process in ended]

    def _ended(self, run: PlannedRun, status: int | None) -> Ended:
        if status == 0:
            return Ended(run, Ending.FINISHED)
        if status == STOPPED:
            return Ended(run, Ending.STOPPED)
        error = self.log_dir / run.name / ERROR
        if error.exists():
            return Ended(run, Ending.FAILED, f"{last_line(error)} (all of it: {error})")
        return Ended(run, Ending.DIED, f"its process ended with {status}, see {error.with_name(LOG)}")

    def stop(self) -> None:
        """See ``Workers``."""
        for _, process in self._processes.values():
            process.terminate()

    def close(self) -> None:
        """See ``Workers``."""
        for _, process in self._processes.values():
            process.kill()
            process.join()


def _work(run: PlannedRun, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _detach(folder / LOG)
    th.set_num_threads(1)
    # A program that was killed may have left a process at the same run, which is about to end.
    with FileLock(folder / "lock"):
        status = 0 if carry_out(run, folder) else STOPPED
    sys.exit(status)


def _detach(log: Path) -> None:
    """Write to a log, leave Ctrl-C on the terminal to the program that started this process, and do not outlive it."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    program = multiprocessing.parent_process()
    assert program is not None

    def follow() -> None:
        program.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """What is started within it has these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
