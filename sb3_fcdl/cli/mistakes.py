"""How the command says that what the user gave cannot be used."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import gymnasium as gym

from sb3_fcdl.cli.options import PROGRAM


@contextmanager
def mistakes_end_the_program() -> Iterator[None]:
    """Report a user's mistake in one line and exit with code 2. Use it only around code that checks what the user gave."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, gym.error.Error) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        sys.exit(2)
