"""Pictures of the states of factored systems, with NumPy alone: a band a variable, from the first at the top to the last."""

from collections.abc import Mapping, Sequence

import numpy as np

from fcdl_envs.variables import Variable

IMAGE_SIZE = 480
MARGIN = 4  # pixels around each band
BACKGROUND, EMPTY, CATEGORY, NUMBER = (255, 255, 255), (225, 225, 225), (200, 90, 30), (40, 90, 180)


def render_rgb(
    variables: Sequence[Variable], values: Sequence[float] | np.ndarray, ranges: Mapping[str, tuple[float, float]]
) -> np.ndarray:
    """
    Of a categorical variable a row of fields, of which the one that holds is orange. Of a number a blue bar that is as long as
    the number is far between the ends of its range.

    :param variables: ``V`` of them, at most 48
    :param values: a number or the index of a category for each, ``[V]``
    :param ranges: lowest and highest value that the bar of a number shows, by name
    :return: ``[480, 480, 3]`` uint8
    """
    picture = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), BACKGROUND, dtype=np.uint8)
    edges = np.linspace(0, IMAGE_SIZE, len(variables) + 1).astype(int)
    for variable, value, top, bottom in zip(variables, values, edges, edges[1:], strict=False):
        band = picture[top + MARGIN : bottom - MARGIN, MARGIN:-MARGIN]
        if variable.is_categorical:
            fields = np.array_split(band, variable.n_categories, axis=1)
            for index, field in enumerate(fields):
                field[:, : field.shape[1] - MARGIN] = CATEGORY if index == int(value) else EMPTY
        else:
            low, high = ranges[variable.name]
            share = min(max((value - low) / (high - low), 0.0), 1.0)
            band[:] = EMPTY
            band[:, : round(share * band.shape[1])] = NUMBER
    return picture
