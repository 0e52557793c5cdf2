"""Pictures of a few runs: intervals, performance profiles, learning curves."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_intervals(estimates: Mapping[str, tuple[float, float, float]], title: str, is_even: float | None = None) -> "Figure":
    """
    :param estimates: by name: a value, and the two ends of its interval
    :param title: what the values are
    :param is_even: where a vertical line is drawn; None: there is none
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.6 + 0.35 * len(estimates)), layout="constrained")
    axes = figure.subplots()
    for place, (value, low, high) in enumerate(estimates.values()):
        axes.barh(place, high - low, left=low, height=0.6, alpha=0.4, color=f"C{place % 10}")
        axes.plot([value, value], [place - 0.3, place + 0.3], color="black")
    # A bar holds its ends to the edge of the picture, which hides the values of a single seed.
    axes.use_sticky_edges = False
    axes.margins(x=0.05)
    axes.set_yticks(range(len(estimates)), list(estimates))
    axes.invert_yaxis()
    axes.set_xlabel(title)
    if is_even is not None:
        axes.axvline(is_even, color="grey", linestyle=":")
    return figure


def draw_curves(
    curves: Mapping[str, tuple[Sequence[float] | np.ndarray, np.ndarray, np.ndarray, np.ndarray]], xlabel: str, ylabel: str
) -> "Figure":
    """
    :param curves: by name: places on the x axis, values, lower and upper ends of their intervals; ``[n]`` each
    :param xlabel: of the x axis
    :param ylabel: of the y axis
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, (places, values, low, high) in curves.items():
        (line,) = axes.plot(places, values, label=name, marker="." if len(places) < 20 else "")
        axes.fill_between(places, low, high, alpha=0.2, color=line.get_color())
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.legend()
    return figure
