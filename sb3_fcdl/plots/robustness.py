"""A picture of a robustness report."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from sb3_fcdl.plots.style import BLUE, ORANGE


def draw(
    names: Sequence[str], means: np.ndarray, intervals: np.ndarray, errors: np.ndarray, shift: str, n_episodes: int
) -> Figure:
    """
    Returns with their intervals on the left, one-step errors of what is not shifted on the right; without the shift blue,
    with it orange.

    :param names: of n models
    :param means: mean returns without and with the shift, ``[2, n]``
    :param intervals: lower and upper end of their intervals, ``[2, n, 2]``
    :param errors: of one-step predictions without and with the shift, ``[2, n]``; NaN where there is none
    :param shift: in words
    :param n_episodes: that each mean is of
    """
    places = np.arange(len(names))
    figure = Figure(figsize=(8, 1.6 + 0.5 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    bars = zip((-0.2, 0.2), (BLUE, ORANGE), ("as it is", shift), means, intervals, errors, strict=True)
    for offset, colour, label, mean, interval, error in bars:
        left.barh(places + offset, mean, 0.4, color=colour, label=label, xerr=abs(interval - mean[:, None]).T)
        right.bar_label(right.barh(places + offset, error, 0.4, color=colour), fmt="%.2g", padding=2, fontsize=8)
    left.set_yticks(places, names)
    left.invert_yaxis()
    left.set_xlabel(f"return, {n_episodes} episodes, 95 % interval")
    right.set_xlabel("error of the other variables")
    right.margins(x=0.15)  # room for the numbers
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
