"""How a signal ends a training run: between two rollouts, where nothing is lost."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# Ctrl-C, and what clusters and `kill` send.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedBySignal(Exception):
    """A run has come to the point where it can stop, and a signal has asked for it."""


class StopRequest:
    """
    Within it the first signal is only remembered; a second one ends the program at once, with the exit status of a program
    that this signal ended. The handlers before are put back afterwards. Outside the main thread, where Python has no signals,
    it does nothing.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._before.items():
            # None: not set from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise SystemExit(128 + number)
        self.signal = number

    @property
    def status(self) -> int:
        """The exit status of a program that the signal ended, as shells have it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.signal or 0)
