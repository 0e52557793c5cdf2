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
    :return: their mean [lowest, highest]; the mean alone where these are equal; nothing if there is none
    """
    if not values:
        return ""
    mean, lowest, highest = (f"{value:.1f}" for value in (sum(values) / len(values), min(values), max(values)))
    return mean if lowest == highest else f"{mean} [{lowest}, {highest}]"
