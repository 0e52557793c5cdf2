"""Pictures of Chemical states, with NumPy alone: discs are objects, rings their goals, arrows what drives what now."""

import numpy as np

IMAGE_SIZE = 480
# Everything is drawn this many times larger and then averaged, which smooths the edges.
OVERSAMPLING = 2
WHITE, GREY, BLACK = (255, 255, 255), (150, 150, 150), (30, 30, 30)
# Three columns by five rows, one bit a pixel, row by row from the top left.
_DIGITS = (
    *("111101101101111", "010110010010111", "111001111100111", "111001111001111", "101101111001001"),
    *("111100111001111", "111100111101111", "111001010010010", "111101111101111", "111101111001111"),
)


def render_rgb(colors: np.ndarray, goals: np.ndarray, edges: np.ndarray, n_colors: int) -> np.ndarray:
    """
    Objects clockwise from the top. A ring in the goal colour surrounds each object of the match set, with a black rim once the
    object matches; objects outside the match set are pale and have no ring.

    :param colors: ``[V]``
    :param goals: ``[V]``, -1 outside the match set
    :param edges: ``[V, V]`` bool, ``edges[child, parent]``
    :param n_colors: how many colours there are
    :return: ``[480, 480, 3]`` uint8
    """
    size = IMAGE_SIZE * OVERSAMPLING
    canvas = np.full((size, size, 3), 255, dtype=np.uint8)
    angles = 2 * np.pi * np.arange(len(colors)) / len(colors)
    centers = size / 2 + 0.39 * size * np.stack([np.sin(angles), -np.cos(angles)], axis=1)
    rim = min(0.4 * float(np.linalg.norm(centers[1] - centers[0])), 0.09 * size)
    for child, parent in np.argwhere(edges):
        _draw_arrow(canvas, centers[parent], centers[child], rim)
    palette = _palette(n_colors)
    for index, (center, color, goal) in enumerate(zip(centers, colors, goals, strict=True)):
        if goal >= 0:
            _draw_disc(canvas, center, rim, BLACK if color == goal else palette[goal])
            _draw_disc(canvas, center, 0.94 * rim, palette[goal])
        _draw_disc(canvas, center, 0.72 * rim, WHITE)
        _draw_disc(canvas, center, 0.64 * rim, palette[color] if goal >= 0 else 0.35 * palette[color] + 0.65 * 255)
        _draw_number(canvas, center, index, int(0.08 * rim) + 1)
    blocks = canvas.reshape(IMAGE_SIZE, OVERSAMPLING, IMAGE_SIZE, OVERSAMPLING, 3)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8)


def render_ansi(colors: np.ndarray, goals: np.ndarray, edges: np.ndarray) -> str:
    """
    One line an object: its colour, its goal colour (``-`` outside the match set), ``*`` if they match, what drives it now.

    :param colors: ``[V]``
    :param goals: ``[V]``, -1 outside the match set
    :param edges: ``[V, V]`` bool, ``edges[child, parent]``
    """
    lines = ["object color goal   parents"]
    for index, (color, goal, parents) in enumerate(zip(colors, goals, edges, strict=True)):
        aim = "-" if goal < 0 else str(goal)
        names = " ".join(map(str, np.flatnonzero(parents)))
        lines.append(f"{index:6d} {color:5d} {aim:>4s} {'*' if color == goal else ' '} {names}".rstrip())
    return "\n".join(lines)


def _palette(n_colors: int) -> np.ndarray:
    """:return: colours of equally spaced hues, from red, ``[C, 3]``"""
    hues = 6 * np.arange(n_colors)[:, None] / n_colors
    strength = np.clip(np.abs((hues - np.array([0, 2, 4]) + 3) % 6 - 3), 1, 2)
    return 240 - 190 * (strength - 1)


def _draw_disc(canvas: np.ndarray, center: np.ndarray, radius: float, color: np.ndarray | tuple[int, ...]) -> None:
    rows, columns = np.ogrid[: len(canvas), : len(canvas)]
    canvas[(columns - center[0]) ** 2 + (rows - center[1]) ** 2 <= radius**2] = color


def _draw_arrow(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, gap: float) -> None:
    """A thin line from disc to disc, which widens to a head where it ends."""
    length = np.linalg.norm(end - start)
    along = (end - start) / length
    across = np.array([-along[1], along[0]])
    distance = np.arange(gap, length - gap, 0.5)
    half_width = np.where(length - gap - distance < 18, (length - gap - distance) * 0.4, 1.0)
    offsets = np.arange(-8, 8.5, 0.5)
    points = start + distance[:, None, None] * along + offsets[:, None] * across
    columns, rows = points[np.abs(offsets) <= half_width[:, None]].round().astype(int).T
    canvas[rows, columns] = GREY


def _draw_number(canvas: np.ndarray, center: np.ndarray, number: int, scale: int) -> None:
    glyphs = [np.array(list(_DIGITS[int(digit)])).reshape(5, 3) == "1" for digit in str(number)]
    spaced = [part for glyph in glyphs for part in (glyph, np.zeros((5, 1), dtype=bool))][:-1]
    bitmap = np.kron(np.hstack(spaced), np.ones((scale, scale), dtype=bool))
    column, row = (center - np.array(bitmap.shape[::-1]) / 2).astype(int)
    canvas[row : row + bitmap.shape[0], column : column + bitmap.shape[1]][bitmap] = BLACK
