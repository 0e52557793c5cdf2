"""Progress bars, as SB3's ``progress_bar=True`` has them: of tqdm and rich (extra ``extra``), on the error stream."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from sb3_fcdl.extras import needs


def has_terminal() -> bool:
    """Whether somebody can see a bar, and it can be drawn: the default of the command line."""
    return sys.stderr.isatty() and all(find_spec(name) is not None for name in ("tqdm", "rich"))


@contextmanager
def progress(what: str, total: int, is_shown: bool) -> Iterator[Callable[[], Any]]:
    """
    A bar with the number of things done, the time taken and the time left.

    :param what: in words, in front of the bar
    :param total: things to do
    :param is_shown: False: nothing happens
    :return: to be called whenever a thing is done
    :raises ImportError: if a bar is to be shown, and tqdm or rich is missing
    """
    if not is_shown:
        yield lambda: None
        return
    with needs("tqdm", "extra"), needs("rich", "extra"):
        from rich.console import Console
        from tqdm import TqdmExperimentalWarning
        from tqdm.rich import tqdm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmExperimentalWarning)
        bar = tqdm(total=total, desc=what, options={"console": Console(file=sys.stderr)})
    try:
        yield bar.update
    finally:
        bar.close()
