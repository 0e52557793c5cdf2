"""A picture of an explanation."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_fcdl.plots.style import BLUE, GREY, ORANGE, ROW


class Rewards(NamedTuple):
    """
    What a plan pays.

    :param label: of the plan
    :param rewards: of each step, ``[H]``
    """

    label: str
    rewards: np.ndarray


def draw(
    names: Sequence[str], texts: Sequence[Sequence[str]], changes: np.ndarray, steps: Sequence[str], plans: Sequence[Rewards]
) -> Figure:
    """
    On the left the imagined values, a column a step, what changes on a blue ground; on the right the rewards of the plans.

    :param names: of the variables, ``V``
    :param texts: the value of each variable now and after each step, ``[V][H + 1]``
    :param changes: whether it is another one than before, ``[V, H + 1]``, bool
    :param steps: what was done in each step, ``H``
    :param plans: the plan that is shown, and perhaps the runner-up
    """
    n_steps = len(steps)
    figure = Figure(figsize=(4.5 + 1.3 * n_steps, 1.8 + 1.1 * ROW * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(n_steps + 1, 2))
    _draw_values(left, names, texts, changes, steps)
    places = np.arange(1, n_steps + 1)
    for offset, color, plan in zip((-0.2, 0.2), (BLUE, ORANGE), plans, strict=False):
        right.bar(places + offset, plan.rewards, 0.4, color=color, label=plan.label)
    right.set_xticks(places)
    right.set_xlabel("step", fontsize=8)
    right.tick_params(labelsize=8)
    right.set_title("reward of the plan and the runner-up", fontsize=9)
    figure.legend(fontsize=8, title="first action (value of the plan)", title_fontsize=8, loc="outside lower right", ncols=2)
    return figure


def _draw_values(
    axes: Axes, names: Sequence[str], texts: Sequence[Sequence[str]], changes: np.ndarray, steps: Sequence[str]
) -> None:
    axes.imshow(changes, cmap="Blues", vmin=0, vmax=2, aspect="auto")
    for row, values in enumerate(texts):
        for step, text in enumerate(values):
            axes.text(step, row, text, ha="center", va="center", fontsize=8, color="black" if changes[row, step] else GREY)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xticks(range(len(steps) + 1), ["now", *steps], fontsize=7)
    axes.tick_params(length=0)
    axes.set_title("imagined values", fontsize=9)
