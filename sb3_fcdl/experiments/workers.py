"""What carries out runs elsewhere: the interface of local processes and of Ray."""

from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from sb3_fcdl.experiments.experiment import PlannedRun


class Ending(Enum):
    """How the work on a run ended. Died: the process or its machine, not the run: it can go on elsewhere."""

    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    DIED = "died"


class Ended(NamedTuple):
    """
    :param run: which
    :param ending: how
    :param reason: why, if it failed or died; one line
    """

    run: PlannedRun
    ending: Ending
    reason: str = ""


class Workers(Protocol):
    """Carry out runs, each in its folder below one for all."""

    @property
    def n_workers(self) -> int:
        """How many runs can be worked on at once."""

    @property
    def n_free(self) -> int:
        """How many more runs may be started now."""

    @property
    def n_left(self) -> int:
        """How many runs were started and have not ended."""

    @property
    def running(self) -> list[PlannedRun]:
        """What is being worked on now."""

    def start(self, run: PlannedRun) -> None:
        """:param run: to be worked on, from its last checkpoint if it has one"""

    def wait(self, seconds: float) -> list[Ended]:
        """
        :param seconds: at most
        :return: those that have ended since the last call
        """

    def stop(self) -> None:
        """Ask all for a checkpoint and an end; ``wait`` tells when it has come."""

    def close(self) -> None:
        """Leave nothing running."""


def last_line(path: Path) -> str:
    """:return: of a traceback: what went wrong"""
    lines = path.read_text().strip().splitlines() if path.exists() else []
    return lines[-1] if lines else "it left no message"
