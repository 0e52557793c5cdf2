"""The time that a run has taken, without what does not belong to it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """
    :param before: seconds that the run took before, until it was interrupted
    """

    def __init__(self, before: float = 0.0) -> None:
        self._before = before
        self._start: float | None = None

    def start(self) -> None:
        """From now on it goes."""
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Of the run until now."""
        return self._before + (0.0 if self._start is None else time.perf_counter() - self._start)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done within does not count."""
        start = time.perf_counter()
        yield
        assert self._start is not None
        self._start += time.perf_counter() - start
