"""Lines of results as pictures."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sb3_fcdl.evaluation.statistics import estimate, iqm, mean, performance_profile, probability_of_improvement
from sb3_fcdl.experiments.lines import Line
from sb3_fcdl.experiments.tables import Layout, grouped, select
from sb3_fcdl.plots.statistics import draw_curves, draw_intervals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("intervals", "profile", "improvement", "curves")
STATISTICS = {"iqm": iqm, "mean": mean}
N_THRESHOLDS = 101


def picture(lines: Sequence[Line], layout: Layout, kind: str, statistic: str = "iqm") -> "Figure":
    """
    One figure over all chosen tasks, which are the strata of the intervals (95 %).

    * ``intervals``: a statistic of each algorithm
    * ``profile``: the share of its runs above each score
    * ``improvement``: the probability that its runs are better than those of ``layout.over``
    * ``curves``: a statistic by timesteps

    :param lines: of any files
    :param layout: which lines, what was measured, and what an algorithm is called; its columns do not matter
    :param kind: of the picture
    :param statistic: ``"iqm"`` or ``"mean"``
    :raises ValueError: if there is nothing to show, or an algorithm lacks a task of the other
    """
    value = layout.values[0]
    columns = ("timesteps",) if kind == "curves" else ()
    layout = Layout(**{**vars(layout), "columns": columns})
    chosen = select(lines, layout)
    cells = {
        layout.labels.get(str(row[0]), ", ".join(map(str, row))): by_column
        for row, by_column in grouped(chosen, layout, value).items()
    }
    if kind == "curves":
        drawn = {name: _curve(by_column, STATISTICS[statistic]) for name, by_column in cells.items()}
        return draw_curves(drawn, "timesteps", f"{value}, {statistic} and 95 % interval")
    tasks = {name: by_column[()] for name, by_column in cells.items()}
    scores = {name: [np.array(list(each.values())) for each in by_task.values()] for name, by_task in tasks.items()}
    if kind == "intervals":
        estimates = {name: estimate(each, STATISTICS[statistic]) for name, each in scores.items()}
        return draw_intervals(estimates, f"{value}, {statistic} and 95 % interval")
    if kind == "profile":
        values = np.concatenate([each for by_task in scores.values() for each in by_task])
        thresholds = np.linspace(values.min(), values.max(), N_THRESHOLDS)
        profiles = {name: performance_profile(each, thresholds) for name, each in scores.items()}
        return draw_curves(profiles, value, "share of runs above")
    return _improvement(tasks, layout)


def _improvement(tasks: Mapping[str, Mapping[Any, Mapping[Any, float]]], layout: Layout) -> "Figure":
    over = layout.labels.get(str(layout.over), str(layout.over))
    if over not in tasks:
        raise ValueError(f"there are no runs of {layout.over!r} to compare with, only of {', '.join(tasks)}: say --over")
    others = tasks[over]
    estimates = {}
    for name, by_task in tasks.items():
        if name != over:
            if set(by_task) != set(others):
                raise ValueError(f"{name} and {over} were not measured on the same tasks: choose by --where")
            ours, theirs = ([np.array(list(each[task].values())) for task in others] for each in (by_task, others))
            estimates[name] = probability_of_improvement(ours, theirs)
    return draw_intervals(estimates, f"probability of improvement over {over}", is_even=0.5)


def _curve(
    by_column: Mapping[Any, Mapping[Any, Mapping[Any, float]]], statistic: Callable[[np.ndarray], np.ndarray]
) -> tuple[list[float], np.ndarray, np.ndarray, np.ndarray]:
    places = sorted(by_column)
    found = [estimate([np.array(list(each.values())) for each in by_column[place].values()], statistic) for place in places]
    values, low, high = np.array(found).T
    return [place[0] for place in places], values, low, high
