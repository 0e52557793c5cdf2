"""How far an experiment is, on the terminal."""

import sys
from types import TracebackType
from typing import Any

from sb3_fcdl.experiments.driver import Progress


class Display:
    """
    Lines of what happens; below them, on a terminal and with ``rich``, a bar of timesteps with the estimated end, and the
    names of the runs that are being worked on.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            try:
                from rich.console import Console
                from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
            except ImportError:
                return
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} % of the timesteps, ends in"),
                # The whole session: timesteps come by checkpoints, in steps.
                TimeRemainingColumn(),
                TextColumn("{task.fields[running]}"),
                speed_estimate_period=7 * 24 * 3600,
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("", total=None, running="")

    def __enter__(self) -> "Display":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        """:param line: what happened"""
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False)

    def show(self, progress: Progress) -> None:
        """:param progress: as of now"""
        if self._bar is None:
            return
        counts = f"{progress.n_finished} of {progress.n_runs} done, {len(progress.running)} running"
        failed = f", {len(progress.failed)} failed" if progress.failed else ""
        self._bar.update(
            self._task,
            description=counts + failed,
            total=progress.timesteps - progress.timesteps_before,
            completed=progress.timesteps_done - progress.timesteps_before,
            running=", ".join(progress.running[:4]),
        )
