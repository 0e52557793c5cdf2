"""Moving pictures. Needs pillow (extra ``plot``)."""

import io
from collections.abc import Sequence

import numpy as np

from sb3_fcdl.extras import needs


def gif(frames: Sequence[np.ndarray], durations: Sequence[float] | float) -> bytes:
    """
    Frames as an endless animation. All have one palette: without it a still background flickers, and the file is several
    times as large.

    :param frames: of one size, ``[height, width, 3]`` uint8
    :param durations: of each frame, or one for all, in ms
    :return: the GIF file
    """
    with needs("PIL", "plot"):
        from PIL import Image
    # Up to twenty frames stand for all colours that occur.
    sample = np.concatenate(frames[:: -(-len(frames) // 20)])
    palette = Image.fromarray(sample).quantize(128, dither=Image.Dither.NONE)
    pictures = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    shown = durations if isinstance(durations, int | float) else list(durations)
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=shown, loop=0)
    return buffer.getvalue()
