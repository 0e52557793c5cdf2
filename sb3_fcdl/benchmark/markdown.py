"""Numbers as Markdown tables."""

from collections.abc import Iterable, Sequence


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """
    A Markdown table, aligned for reading as it is.

    :param header: of each column
    :param rows: each as long as the header
    """
    lines = [list(header), *map(list, rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


def over_seeds(values: Sequence[float]) -> str:
    """
    :param values: a number a training seed
    :return: their mean [lowest, highest]; nothing if there is none
    """
    return f"{sum(values) / len(values):.1f} [{min(values):.1f}, {max(values):.1f}]" if values else ""
