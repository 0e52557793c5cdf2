"""Pictures of causal graphs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from sb3_fcdl.plots.style import BLUE, COLOUR_MAP, GREY, ORANGE, ROW


def heatmap(
    probabilities: np.ndarray,
    edges: np.ndarray,
    child_names: Sequence[str],
    parent_names: Sequence[str],
    title: str,
    gain: np.ndarray | None = None,
) -> Figure:
    """
    A cell for each entry, ``[child, parent]``: the darker the more probable; a dot, or its gain, where there is an edge.

    :param probabilities: ``[child, parent]``, ``[V, P]``, in [0, 1]
    :param edges: where there is an edge, ``[V, P]``, bool
    :param child_names: of the rows
    :param parent_names: of the columns: state variables, then action variables
    :param title: over the picture
    :param gain: of the entries, in nats a transition, ``[V, P]``, NaN where it is unknown; None: of no entry
    """
    n_children, n_parents = probabilities.shape
    figure = Figure(figsize=(2.0 + ROW * n_parents, 1.6 + ROW * n_children), layout="constrained")
    axes = figure.add_subplot()
    gain = np.full(probabilities.shape, np.nan) if gain is None else gain
    image = _draw_heatmap(axes, probabilities, edges & np.isnan(gain), child_names, parent_names)
    for child, parent in np.argwhere(edges & ~np.isnan(gain)):
        value = gain[child, parent]
        text = f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
        # As large as fits into a cell.
        axes.text(parent, child, text, color="white", fontsize=6, ha="center", va="center")
    axes.set_xlabel("parent, now")
    axes.set_ylabel("child, at the next step")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="probability of the edge", shrink=0.8)
    return figure


def _draw_heatmap(
    axes: Axes, probabilities: np.ndarray, dots: np.ndarray, child_names: Sequence[str], parent_names: Sequence[str]
) -> AxesImage:
    """
    :param axes: where to draw
    :param dots: which cells have a dot, ``[V, P]``, bool
    :return: what a colour bar is made for
    """
    n_children, n_parents = probabilities.shape
    image = axes.imshow(probabilities, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="equal")
    children, parents = np.nonzero(dots)
    # White on a dark cell: seen at any size, in print too.
    axes.scatter(parents, children, s=ROW * 30, color="white", linewidths=0)
    axes.axvline(n_children - 0.5, color=ORANGE, linewidth=1)  # state variables on its left, the action on its right
    axes.set_xticks(np.arange(n_parents + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n_children + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.set_xticks(range(n_parents), parent_names, rotation=90, fontsize=8)
    axes.set_yticks(range(n_children), [f"{name}'" for name in child_names], fontsize=8)
    return image


def nodes(
    probabilities: np.ndarray, edges: np.ndarray, child_names: Sequence[str], parent_names: Sequence[str], title: str
) -> Figure:
    """
    Variables now on the left, at the next step on the right, with a line for each edge: grey from a variable to itself, blue
    to another one, orange from the action.

    :param probabilities: ``[child, parent]``, ``[V, P]``, in [0, 1]
    :param edges: where there is an edge, ``[V, P]``, bool
    :param child_names: of the rows
    :param parent_names: of the columns: state variables, then action variables
    :param title: over the picture
    """
    n_children, n_parents = probabilities.shape
    height = 1.4 + ROW * max(n_children, n_parents)
    # The more edges cross, the flatter they should run.
    figure = Figure(figsize=(max(6.0, 1.1 * height), height), layout="constrained")
    axes = figure.add_subplot()
    for child, parent in np.argwhere(edges):
        is_action, is_self = parent >= n_children, parent == child
        colour = ORANGE if is_action else GREY if is_self else BLUE
        strength = 0.3 + 0.7 * float(probabilities[child, parent])
        axes.plot(
            (0, 1), (parent, child), color=colour, alpha=strength, linewidth=1 if is_self else 1.4, zorder=int(not is_self)
        )
    for x, names, side in ((0, parent_names, "right"), (1, [f"{name}'" for name in child_names], "left")):
        axes.scatter([x] * len(names), range(len(names)), s=24, color="black", zorder=3)
        for row, name in enumerate(names):
            axes.text(x + (0.03 if x else -0.03), row, name, ha=side, va="center", fontsize=8)
    axes.set_xlim(-0.45, 1.45)
    axes.set_ylim(max(n_children, n_parents) - 0.4, -0.6)
    axes.set_axis_off()
    axes.set_title(title)
    keys = {"of another variable": BLUE, "of the action": ORANGE, "of itself": GREY}
    lines = [Line2D([], [], color=colour) for colour in keys.values()]
    figure.legend(lines, keys, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def grid(
    probabilities: np.ndarray,
    edges: np.ndarray,
    child_names: Sequence[str],
    parent_names: Sequence[str],
    titles: Sequence[str],
) -> Figure:
    """
    Heat maps side by side, on the same scale, each with a title.

    All are tiles of one image, because one axes for each graph is much slower, and training waits for the picture.

    :param probabilities: of ``R`` graphs of the same variables, ``[R, V, P]``
    :param edges: where there is an edge, ``[R, V, P]``, bool
    :param child_names: of the rows
    :param parent_names: of the columns: state variables, then action variables
    :param titles: one for each graph
    """
    n_graphs, n_children, n_parents = probabilities.shape
    n_columns = min(4, n_graphs)
    n_rows, height, width = -(-n_graphs // n_columns), n_children + 2, n_parents + 1
    figure = Figure(figsize=(0.9 + 0.2 * width * n_columns, 0.7 + 0.2 * height * n_rows), layout="tight")
    axes = figure.add_subplot()
    tiles = np.full((n_rows * height - 1, n_columns * width - 1), np.nan)
    # As large as fits above a graph: TensorBoard shrinks the picture to the width of a card.
    title_size = min(20, 2 * n_parents)
    for index, title in enumerate(titles):
        top, left = index // n_columns * height + 1, index % n_columns * width
        tiles[top : top + n_children, left : left + n_parents] = probabilities[index]
        children, parents = np.nonzero(edges[index])
        axes.scatter(parents + left, children + top, s=ROW * 20, color="white", linewidths=0)
        axes.vlines(left + n_children - 0.5, top - 0.5, top + n_children - 0.5, color=ORANGE, linewidth=1)
        axes.text(left + n_parents / 2 - 0.5, top - 0.7, title, ha="center", va="bottom", fontsize=title_size)
    axes.imshow(tiles, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="equal")
    rows = [row * height + 1 + child for row in range(n_rows) for child in range(n_children)]
    columns = [column * width + parent for column in range(n_columns) for parent in range(n_parents)]
    axes.set_yticks(rows, [f"{name}'" for name in child_names] * n_rows, fontsize=7)
    axes.set_xticks(columns, list(parent_names) * n_columns, rotation=90, fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure
