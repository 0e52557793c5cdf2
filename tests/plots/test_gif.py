import io

import numpy as np
import pytest

image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")


def test_frames_come_back_with_their_colours_and_durations():
    from sb3_fcdl.plots.gif import gif

    frames = [np.full((8, 6, 3), 255, dtype=np.uint8) for _ in range(3)]
    for number, (frame, colour) in enumerate(zip(frames, [(255, 0, 0), (0, 0, 255), (0, 128, 0)], strict=True)):
        frame[number] = colour
    movie = image.open(io.BytesIO(gif(frames, [100, 200, 800])))
    assert movie.n_frames == 3 and movie.info["loop"] == 0
    for number, (frame, duration) in enumerate(zip(frames, [100, 200, 800], strict=True)):
        movie.seek(number)
        assert movie.info["duration"] == duration
        assert np.array_equal(np.asarray(movie.convert("RGB")), frame)
