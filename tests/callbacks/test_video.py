import io

import numpy as np
import pytest
from stable_baselines3 import A2C
from stable_baselines3.common.vec_env import VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import tiny_env, tiny_fcdl, tiny_vec_env

from sb3_fcdl.callbacks import VideoCallback


@pytest.mark.usefixtures("quick_plans")
def test_video_is_the_episode_of_the_policy(tmp_path):
    image = pytest.importorskip("PIL.Image")
    env = tiny_env(render_mode="rgb_array", max_episode_steps=10)
    tiny_fcdl(tensorboard_log=str(tmp_path)).learn(70, VideoCallback(env, video_freq=40))
    events = EventAccumulator(str(tmp_path / "FCDL_1"))
    events.Reload()
    (event,) = events.Images("eval/episode")
    assert event.step == 40
    movie = image.open(io.BytesIO(event.encoded_image_string))
    # Equal pictures in a row are merged by the format, and shown longer.
    assert 1 < movie.n_frames <= 11
    first = np.asarray(movie.convert("RGB"))
    env.reset(seed=0)
    assert abs(first.astype(int) - env.render()).mean() < 4  # a GIF has 256 colours


def test_the_policy_is_given_observations_as_vec_normalize_has_them(tmp_path, monkeypatch):
    pytest.importorskip("PIL.Image")
    model = A2C("MultiInputPolicy", VecNormalize(tiny_vec_env()), tensorboard_log=str(tmp_path), device="cpu")
    first, _ = tiny_env().reset(seed=0)
    n_played, predict = [], model.predict

    def look(observation, state, episode_start, deterministic):
        if episode_start[0]:
            expected = model.get_vec_normalize_env().normalize_obs(first)
            for key, values in first.items():
                assert np.array_equal(observation[key], expected[key]) and not np.array_equal(observation[key], values)
            n_played.append(1)
        return predict(observation, state, episode_start, deterministic)

    monkeypatch.setattr(model, "predict", look)
    model.learn(60, VideoCallback(tiny_env(render_mode="rgb_array", max_episode_steps=5), video_freq=20))
    assert n_played


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="render_mode='rgb_array', got None"):
        VideoCallback(tiny_env())
    with pytest.raises(ValueError, match="video_freq must be an integer, at least 1"):
        VideoCallback(tiny_env(render_mode="rgb_array"), video_freq=0)
    with pytest.raises(ValueError, match="tensorboard_log"):
        tiny_fcdl().learn(10, VideoCallback(tiny_env(render_mode="rgb_array")))
