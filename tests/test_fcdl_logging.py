import numpy as np
import pytest
from stable_baselines3.common.logger import configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import tiny_fcdl, tiny_vec_env

from sb3_fcdl.graph import hamming_distance

KEYS = {
    "rollout/ep_rew_mean",
    "rollout/ep_len_mean",
    "rollout/exploration_rate",
    "rollout/success_rate",
    "train/learning_rate",
    "train/dynamics_loss",
    "train/reg_loss",
    "train/commit_loss",
    "causal/code_perplexity",
    "causal/edges_per_code",
    "causal/shd",
    "time/plan_ms",
    "time/update_ms",
    "time/fps",
}


def test_tensorboard_has_the_keys_and_runs_are_numbered(tmp_path):
    model = tiny_fcdl(tiny_vec_env(2), tensorboard_log=str(tmp_path)).learn(150, log_interval=2)
    model.learn(50, reset_num_timesteps=False)
    model.learn(50)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FCDL_1", "FCDL_2"]
    events = EventAccumulator(str(tmp_path / "FCDL_1"))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= KEYS
    for key in KEYS:
        assert all(np.isfinite(event.value) for event in events.Scalars(key)), key


def test_numbers_are_what_they_say(tmp_path):
    model = tiny_fcdl(tiny_vec_env(2), learning_starts=40, train_freq=10)
    model.set_logger(configure(str(tmp_path), []))
    model.learn(150, log_interval=None)
    summary = model._meter.summary(model.policy)
    assert 1 <= summary["causal/code_perplexity"] <= 4
    # Given: four self edges and four action edges; free: six.
    assert 8 <= summary["causal/edges_per_code"] <= 14
    assert summary["train/commit_loss"] >= 0 and summary["time/plan_ms"] > 0
    assert model._meter.summary(model.policy).keys() == set()


def test_distance_from_the_truth_is_that_of_the_latest_samples():
    model = tiny_fcdl(tiny_vec_env(2)).learn(60)
    samples = list(model._meter._graph_samples)
    assert len(samples) == 60
    distances = []
    for state, action, truth in samples:
        observation = {"state": state.numpy(), "goal": np.zeros(12, dtype=np.float32)}
        graph = model.local_graph(observation, int(action.argmax())).edges
        distances.append(hamming_distance(graph[None], truth[None], model.dynamics.free_entries))
    assert model._meter.summary(model.policy)["causal/shd"] == pytest.approx(np.mean(distances))
