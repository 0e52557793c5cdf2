import io

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import tiny_env, tiny_fcdl

from sb3_fcdl.callbacks import VideoCallback


def test_video_is_the_episode_of_the_policy(tmp_path):
    image = pytest.importorskip("PIL.Image")
    env = tiny_env(render_mode="rgb_array")
    tiny_fcdl(tensorboard_log=str(tmp_path)).learn(70, VideoCallback(env, video_freq=40))
    events = EventAccumulator(str(tmp_path / "FCDL_1"))
    events.Reload()
    (event,) = events.Images("eval/episode")
    assert event.step == 40
    movie = image.open(io.BytesIO(event.encoded_image_string))
    # Equal pictures in a row are merged by the format, and shown longer.
    assert 1 < movie.n_frames <= 26
    first = np.asarray(movie.convert("RGB"))
    env.reset(seed=0)
    assert abs(first.astype(int) - env.render()).mean() < 4  # a GIF has 256 colours


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="render_mode='rgb_array', got None"):
        VideoCallback(tiny_env())
    with pytest.raises(ValueError, match="video_freq must be at least 1, got 0"):
        VideoCallback(tiny_env(render_mode="rgb_array"), video_freq=0)
    with pytest.raises(ValueError, match="tensorboard_log"):
        tiny_fcdl().learn(10, VideoCallback(tiny_env(render_mode="rgb_array")))
