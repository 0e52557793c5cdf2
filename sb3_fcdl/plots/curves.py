"""Pictures of what happens over time, in training and in an episode, and of how much variables matter."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from sb3_fcdl.plots.style import BLUE, GREY, ORANGE, ROW


def learning_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """
    :param curves: timesteps and mean returns, ``[n]`` each, by name
    """
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, (timesteps, returns)) in enumerate(curves.items()):
        axes.plot(
            timesteps,
            returns,
            color=(BLUE, ORANGE, GREY, "black")[number % 4],
            label=name,
            linewidth=1.5,
            marker=".",
            markersize=4,
        )
    axes.set_xlabel("timesteps")
    axes.set_ylabel("mean return")
    axes.grid(color="#e5e5e5")
    axes.legend(frameon=False, fontsize=8)
    return figure


def importances(values: Mapping[str, float]) -> Figure:
    """
    :param values: what each variable is worth, nats, by name
    """
    figure = Figure(figsize=(7, 0.8 + ROW * len(values)), layout="constrained")
    axes = figure.add_subplot()
    axes.bar_label(axes.barh(list(values), list(values.values()), color=BLUE), fmt="%.3g", padding=2, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("nats")
    return figure


def episode(
    names: Sequence[str],
    values: np.ndarray,
    categories: Sequence[Sequence[str]],
    rewards: np.ndarray,
    codes: np.ndarray | None,
) -> Figure:
    """
    A strip for each variable, one for the rewards, and one for the contexts.

    :param names: of the state variables
    :param values: before each step and after the last, ``[T + 1, V]``: the category, or the number in the environment's units
    :param categories: names of the categories of each variable; none of a number
    :param rewards: ``[T]``
    :param codes: the context of each step, ``[T]``; None for a model without contexts
    """
    strips = len(names) + 1 + (codes is not None)
    figure = Figure(figsize=(8, 0.6 + 0.62 * strips), layout="constrained")
    all_axes = figure.subplots(strips, 1, sharex=True, squeeze=False)[:, 0]
    for axes, name, of_variable, allowed in zip(all_axes, names, values.T, categories, strict=False):
        if allowed:
            axes.step(range(len(values)), of_variable, where="post", color=BLUE, linewidth=1.2)
            axes.set_yticks(range(len(allowed)), allowed)
            axes.set_ylim(-0.4, len(allowed) - 0.6)
        else:
            axes.plot(of_variable, color=BLUE, linewidth=1.2)
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    places = np.arange(len(rewards))
    all_axes[len(names)].bar(places + 0.5, rewards, 0.9, color=ORANGE)
    all_axes[len(names)].set_ylabel("reward", rotation=0, ha="right", va="center", fontsize=8)
    if codes is not None:
        met, index = np.unique(codes, return_inverse=True)
        all_axes[-1].step(range(len(codes) + 1), [*index, index[-1]], where="post", color="black", linewidth=1.2)
        all_axes[-1].set_yticks(range(len(met)), [str(code) for code in met])
        all_axes[-1].set_ylim(-0.4, len(met) - 0.6)
        all_axes[-1].set_ylabel("code", rotation=0, ha="right", va="center", fontsize=8)
    all_axes[-1].set_xlabel("step")
    for axes in all_axes:
        axes.tick_params(labelsize=6)
        axes.grid(axis="x", color="#e5e5e5")
    return figure
