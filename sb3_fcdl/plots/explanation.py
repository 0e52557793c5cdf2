"""A picture of an explanation."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_fcdl.plots.style import BLUE, GREY, ORANGE, ROW

if TYPE_CHECKING:
    from sb3_fcdl.inspection.explain import Explanation, Trajectory


def draw(explanation: "Explanation") -> Figure:
    """
    On the left the imagined values, a column a step, what changes on a blue ground; on the right the reward of each step, of
    the plan and of the runner-up.

    :param explanation: what to draw
    """
    plan, runner_up = explanation.plan, explanation.runner_up
    n_steps, n_variables = len(plan.rewards), plan.values.shape[1]
    figure = Figure(figsize=(4.5 + 1.3 * n_steps, 1.8 + 1.1 * ROW * n_variables), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(n_steps + 1, 2))
    _draw_values(left, plan)
    steps = np.arange(1, n_steps + 1)
    right.bar(steps - 0.2, plan.rewards, 0.4, color=BLUE, label=f"{plan.action_in_words()} ({plan.value:.3g})")
    if runner_up is not None:
        right.bar(
            steps + 0.2, runner_up.rewards, 0.4, color=ORANGE, label=f"{runner_up.action_in_words()} ({runner_up.value:.3g})"
        )
    right.set_xticks(steps)
    right.set_xlabel("step", fontsize=8)
    right.tick_params(labelsize=8)
    right.set_title("reward of the plan and the runner-up", fontsize=9)
    figure.legend(fontsize=8, title="first action (value of the plan)", title_fontsize=8, loc="outside lower right", ncols=2)
    return figure


def _draw_values(axes: Axes, plan: "Trajectory") -> None:
    n_steps = len(plan.rewards)
    changes = np.diff(plan.values, axis=0, prepend=plan.values[:1]).T != 0
    axes.imshow(changes, cmap="Blues", vmin=0, vmax=2, aspect="auto")
    for row, variable in enumerate(plan.factors.state_variables):
        for step in range(n_steps + 1):
            text, color = variable.in_words(plan.values[step, row], digits=3), "black" if changes[row, step] else GREY
            axes.text(step, row, text, ha="center", va="center", fontsize=8, color=color)
    axes.set_yticks(range(len(plan.factors.state_names)), plan.factors.state_names, fontsize=8)
    labels = ["now"]
    for step in range(n_steps):
        context = "" if plan.codes is None else f"\ncode {plan.codes[step]}"
        labels.append(f"{plan.action_in_words(step)}{context}")
    axes.set_xticks(range(n_steps + 1), labels, fontsize=7)
    axes.tick_params(length=0)
    axes.set_title("imagined values", fontsize=9)
