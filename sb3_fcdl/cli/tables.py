"""``sb3-fcdl table`` and ``sb3-fcdl plot``: what result files say."""

import argparse
from pathlib import Path

from sb3_fcdl.cli.mistakes import mistakes_end_the_program
from sb3_fcdl.experiments.lines import Line, lines_of
from sb3_fcdl.experiments.pictures import picture
from sb3_fcdl.experiments.tables import Layout, table


def print_table(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl table``"""
    with mistakes_end_the_program():
        print(table_of(arguments))


def plot(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl plot``"""
    with mistakes_end_the_program():
        figure = picture(_lines(arguments, Path()), _layout(arguments), arguments.kind, arguments.statistic)
        figure.savefig(arguments.out)


def table_of(arguments: argparse.Namespace, folder: Path = Path()) -> str:
    """
    :param arguments: those of ``sb3-fcdl table``
    :param folder: that its files are in
    :raises OSError: if a file cannot be read
    :raises ValueError: if a file is none of ours or SB3's, or has nothing to show
    """
    return table(_lines(arguments, folder), _layout(arguments))


def _lines(arguments: argparse.Namespace, folder: Path) -> list[Line]:
    return [line for name in arguments.files for line in lines_of(folder / name)]


def _layout(arguments: argparse.Namespace) -> Layout:
    names = ("rows", "columns", "values", "cell", "over", "also", "digits")
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    only = getattr(arguments, "only", [])
    return Layout(
        **given,
        order=only or getattr(arguments, "order", []),
        has_others=not only,
        where=dict(word.split("=", 1) for word in arguments.where),
        labels=dict(word.split(":", 1) for word in arguments.label),
        normalize=None if arguments.normalize is None else tuple(arguments.normalize),
    )
