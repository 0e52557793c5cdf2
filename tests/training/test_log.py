import numpy as np
import pytest
import torch as th
from stable_baselines3.common.logger import configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import tiny_fcdl, tiny_vec_env

from sb3_fcdl.dynamics import FCDLDynamics
from sb3_fcdl.graphs.score import hamming_distance

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
    "causal/f1",
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
    distances, n_both, n_either = [], 0, 0
    for state, action, truth in samples:
        observation = {"state": state.numpy(), "goal": np.zeros(12, dtype=np.float32)}
        graph = model.local_graph(observation, int(action.argmax())).edges
        free = model.dynamics.free_entries
        n_both, n_either = n_both + (graph & truth)[free].sum(), n_either + graph[free].sum() + truth[free].sum()
        distances.append(hamming_distance(graph[None], truth[None], model.dynamics.free_entries))
    summary = model._meter.summary(model.policy)
    assert summary["causal/shd"] == pytest.approx(np.mean(distances))
    assert summary["causal/f1"] == pytest.approx(2 * n_both / n_either)


def test_tensorboard_shows_graphs_contexts_errors_and_hyperparameters(tmp_path):
    pytest.importorskip("matplotlib")
    model = tiny_fcdl(tiny_vec_env(2), tensorboard_log=str(tmp_path)).learn(150, log_interval=2)
    events = EventAccumulator(str(tmp_path / "FCDL_1"))
    events.Reload()
    tags = events.Tags()
    assert set(tags["images"]) == {"causal/codes", "causal/union"}
    names = [f"obj{index}" for index in range(4)]
    expected = {f"model_error_{steps}/{name}" for steps in (1, 2, 3) for name in names}
    expected |= {"model/error_1", "model/error_2", "model/error_3", "model/imagined_return", "model/recorded_return"}
    assert set(tags["scalars"]) >= expected | {f"code_share/{code}" for code in range(model.dynamics_kwargs["n_codes"])}
    assert events.Scalars("model/error_1")[0].value == pytest.approx(
        np.mean([events.Scalars(f"model_error_1/{name}")[0].value for name in names])
    )
    shares = [events.Scalars(f"code_share/{code}")[0].value for code in range(4)]
    assert sum(shares) == pytest.approx(1)
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_tensorboard_shows_what_each_variable_is_worth_for_the_context(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    worth = {"obj0": 0.5, "obj1": 0.0, "obj2": -0.25, "obj3": 0.0, "action": 0.125}
    monkeypatch.setattr(FCDLDynamics, "MEASURE_EVERY", 1)
    monkeypatch.setattr(FCDLDynamics, "_measure_importance", lambda model, windows: th.tensor(list(worth.values())))
    tiny_fcdl(tiny_vec_env(2), tensorboard_log=str(tmp_path)).learn(150, log_interval=2)
    events = EventAccumulator(str(tmp_path / "FCDL_1"))
    events.Reload()
    assert {name: events.Scalars(f"variable_importance/{name}")[0].value for name in worth} == worth


def test_training_is_the_same_without_tensorboard(tmp_path):
    pytest.importorskip("matplotlib")
    with_log = tiny_fcdl(tiny_vec_env(2), tensorboard_log=str(tmp_path)).learn(100, log_interval=1)
    without = tiny_fcdl(tiny_vec_env(2)).learn(100)
    assert with_log._n_dumps > 0 and without._n_dumps == 0
    for one, other in zip(with_log.policy.parameters(), without.policy.parameters(), strict=True):
        assert th.equal(one, other)
