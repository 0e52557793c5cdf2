"""Pictures of causal graphs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from sb3_fcdl.plots.style import BLUE, COLOUR_MAP, GREY, ORANGE, ROW

if TYPE_CHECKING:
    from sb3_fcdl.graphs.graph import CausalGraph


def heatmap(graph: "CausalGraph") -> Figure:
    """
    A cell an entry, ``[child, parent]``: the darker the more probable; a dot where there is an edge.

    :param graph: of any number of variables
    """
    n_children, n_parents = graph.probabilities.shape
    figure = Figure(figsize=(2.0 + ROW * n_parents, 1.6 + ROW * n_children), layout="constrained")
    axes = figure.add_subplot()
    image = _draw_heatmap(axes, graph)
    axes.set_xlabel("parent, now")
    axes.set_ylabel("child, at the next step")
    axes.set_title(graph.label)
    figure.colorbar(image, ax=axes, label="probability of the edge", shrink=0.8)
    return figure


def _draw_heatmap(axes: Axes, graph: "CausalGraph") -> AxesImage:
    """
    :param axes: where to draw
    :param graph: what
    :return: what a colour bar is made for
    """
    n_children, n_parents = graph.probabilities.shape
    image = axes.imshow(graph.probabilities, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="equal")
    children, parents = np.nonzero(graph.edges)
    # White on a dark cell: seen at any size, in print too.
    axes.scatter(parents, children, s=ROW * 30, color="white", linewidths=0)
    axes.axvline(n_children - 0.5, color=ORANGE, linewidth=1)  # state variables on its left, the action on its right
    axes.set_xticks(np.arange(n_parents + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n_children + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.set_xticks(range(n_parents), graph.parent_names, rotation=90, fontsize=8)
    axes.set_yticks(range(n_children), [f"{name}'" for name in graph.child_names], fontsize=8)
    return image


def nodes(graph: "CausalGraph") -> Figure:
    """
    The variables now on the left, at the next step on the right, a line an edge.

    What a variable passes on to itself is grey, what it passes on to another blue, what the action does orange.

    :param graph: of any number of variables
    """
    n_children, n_parents = graph.probabilities.shape
    height = 1.4 + ROW * max(n_children, n_parents)
    # The more edges cross, the flatter they should run.
    figure = Figure(figsize=(max(6.0, 1.1 * height), height), layout="constrained")
    axes = figure.add_subplot()
    for child, parent in np.argwhere(graph.edges):
        is_action, is_self = parent >= n_children, parent == child
        colour = ORANGE if is_action else GREY if is_self else BLUE
        strength = 0.3 + 0.7 * float(graph.probabilities[child, parent])
        axes.plot(
            (0, 1), (parent, child), color=colour, alpha=strength, linewidth=1 if is_self else 1.4, zorder=int(not is_self)
        )
    for x, names, side in ((0, graph.parent_names, "right"), (1, [f"{name}'" for name in graph.child_names], "left")):
        axes.scatter([x] * len(names), range(len(names)), s=24, color="black", zorder=3)
        for row, name in enumerate(names):
            axes.text(x + (0.03 if x else -0.03), row, name, ha=side, va="center", fontsize=8)
    axes.set_xlim(-0.45, 1.45)
    axes.set_ylim(max(n_children, n_parents) - 0.4, -0.6)
    axes.set_axis_off()
    axes.set_title(graph.label)
    keys = {"of another variable": BLUE, "of the action": ORANGE, "of itself": GREY}
    lines = [Line2D([], [], color=colour) for colour in keys.values()]
    figure.legend(lines, keys, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def grid(graphs: Sequence["CausalGraph"], titles: Sequence[str]) -> Figure:
    """
    Heat maps side by side, on the same scale, with a title each.

    All are tiles of one image: an axes a graph takes ten times as long, and training waits for it.

    :param graphs: of the same variables
    :param titles: one a graph
    """
    n_children, n_parents = graphs[0].probabilities.shape
    n_columns = min(4, len(graphs))
    n_rows, height, width = -(-len(graphs) // n_columns), n_children + 2, n_parents + 1
    figure = Figure(figsize=(0.9 + 0.2 * width * n_columns, 0.7 + 0.2 * height * n_rows), layout="tight")
    axes = figure.add_subplot()
    tiles = np.full((n_rows * height - 1, n_columns * width - 1), np.nan)
    # As large as there is room above a graph: TensorBoard shrinks the picture to the width of a card.
    title_size = min(20, 2 * n_parents)
    for index, (graph, title) in enumerate(zip(graphs, titles, strict=True)):
        top, left = index // n_columns * height + 1, index % n_columns * width
        tiles[top : top + n_children, left : left + n_parents] = graph.probabilities
        children, parents = np.nonzero(graph.edges)
        axes.scatter(parents + left, children + top, s=ROW * 20, color="white", linewidths=0)
        axes.vlines(left + n_children - 0.5, top - 0.5, top + n_children - 0.5, color=ORANGE, linewidth=1)
        axes.text(left + n_parents / 2 - 0.5, top - 0.7, title, ha="center", va="bottom", fontsize=title_size)
    axes.imshow(tiles, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="equal")
    rows = [row * height + 1 + child for row in range(n_rows) for child in range(n_children)]
    columns = [column * width + parent for column in range(n_columns) for parent in range(n_parents)]
    axes.set_yticks(rows, [f"{name}'" for name in graphs[0].child_names] * n_rows, fontsize=7)
    axes.set_xticks(columns, graphs[0].parent_names * n_columns, rotation=90, fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure
