"""A picture of a robustness report."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from sb3_fcdl.plots.style import BLUE, ORANGE

if TYPE_CHECKING:
    from sb3_fcdl.evaluation.shifts import ShiftReport


def draw(report: "ShiftReport") -> Figure:
    """
    Returns with their intervals on the left, one-step errors of what is not shifted on the right; without the shift blue,
    with it orange.

    :param report: of any number of models
    """
    results, places = report.results, np.arange(len(report.results))
    figure = Figure(figsize=(8, 1.6 + 0.5 * len(results)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    pairs = [(-0.2, BLUE, "as it is"), (0.2, ORANGE, ", ".join(f"{name}: {shift}" for name, shift in report.shifts.items()))]
    for (offset, colour, label), is_shifted in zip(pairs, (False, True), strict=True):
        means = np.array([r.shifted_mean if is_shifted else r.mean for r in results])
        bounds = np.array([r.shifted_ci if is_shifted else r.ci for r in results])
        errors = [r.shifted_error if is_shifted else r.error for r in results]
        left.barh(places + offset, means, 0.4, color=colour, label=label, xerr=abs(bounds - means[:, None]).T)
        right.bar_label(right.barh(places + offset, errors, 0.4, color=colour), fmt="%.2g", padding=2, fontsize=8)
    left.set_yticks(places, [result.model for result in results])
    left.invert_yaxis()
    left.set_xlabel(f"return, {report.n_episodes} episodes, 95 % interval")
    right.set_xlabel("error of the other variables")
    right.margins(x=0.15)  # room for the numbers
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
