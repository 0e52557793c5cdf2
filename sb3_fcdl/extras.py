"""Libraries that not every installation has."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(library: str, extra: str) -> Iterator[None]:
    """
    Around an import.

    :param library: what is imported
    :param extra: of ``sb3_fcdl``, that installs it
    :raises ImportError: if it is not there; says how to install it
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise ImportError(f"this needs {library}: pip install 'sb3_fcdl[{extra}]'", name=library) from error
