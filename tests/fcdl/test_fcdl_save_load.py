"""SB3's topic test `test_save_load` for FCDL."""

import pathlib

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.logger import Logger
from tiny import tiny_env, tiny_fcdl, tiny_vec_env

from sb3_fcdl import FCDL, FCDLPolicy
from sb3_fcdl.planning import CEM, MPPI


@pytest.fixture(scope="module")
def model():
    return tiny_fcdl(tiny_vec_env(2)).learn(100)


@pytest.fixture(scope="module")
def observation(model):
    return {key: np.stack([value] * 3) for key, value in tiny_env().reset(seed=0)[0].items()}


def assert_same_policy(one, other, observation):
    for name, value in one.policy.state_dict().items():
        assert th.equal(value, other.policy.state_dict()[name]), name
    expected, _ = one.predict(observation, deterministic=True)
    assert other.predict(observation, deterministic=True)[0].tolist() == expected.tolist()


def test_load_for_inference_needs_no_environment(model, observation, tmp_path):
    model.save(tmp_path / "model")
    loaded = FCDL.load(tmp_path / "model")
    assert_same_policy(model, loaded, observation)
    assert loaded.get_env() is None
    assert str(loaded.local_graph({key: value[0] for key, value in observation.items()}, 1)).startswith("code ")


def test_load_and_continue(model, observation, tmp_path):
    model.save(tmp_path / "model")
    loaded = FCDL.load(tmp_path / "model", env=tiny_vec_env(2))
    assert_same_policy(model, loaded, observation)
    moments = model.policy.optimizer.state_dict()["state"]
    for index, state in loaded.policy.optimizer.state_dict()["state"].items():
        assert th.equal(state["exp_avg"], moments[index]["exp_avg"])
    loaded.learn(60, reset_num_timesteps=False)
    # The new buffer is beyond the warm-up at once: an update for each of 15 rollouts of four transitions.
    assert loaded.num_timesteps == 160 and loaded._n_updates == model._n_updates + 15
    assert not any(map(th.equal, model.policy.learner.parameters(), loaded.policy.learner.parameters()))


@pytest.mark.parametrize("trusted", [True, False])
def test_a_loaded_model_does_not_repeat_its_first_episodes(trusted, tmp_path):
    def first_of(model):
        rows = model.replay_buffer.observations["state"][: model.replay_buffer.size()]
        return rows.reshape(len(rows), -1)[::25]  # each begins an episode

    settings = {"exploration_rate": 1.0, "learning_starts": 1000}
    model = tiny_fcdl(tiny_vec_env(2), **settings).learn(200)
    model.save(tmp_path / "model")
    starts = []
    for _ in range(2):
        loaded = FCDL.load(tmp_path / "model", env=tiny_vec_env(2), trusted=trusted)
        starts.append(first_of(loaded.learn(200, reset_num_timesteps=False)))
        assert loaded.seed == 0 and len(starts[-1]) == 4
    assert not (first_of(model) == starts[0]).all(axis=1).any()
    assert np.array_equal(*starts), "training on can be repeated"


def test_load_with_other_settings(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = FCDL.load(tmp_path / "model", planner_kwargs={"horizon": 4}, exploration_rate=0.5, gamma=0.8)
    assert loaded.policy.planner.horizon == 4
    assert loaded.exploration_rate == 0.5 and loaded.policy.gamma == 0.8


def test_load_with_another_planner(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = FCDL.load(tmp_path / "model", planner="mppi", planner_kwargs={"horizon": 3}, dynamics="fcdl_tree")
    assert isinstance(loaded.policy.planner, MPPI) and isinstance(model.policy.planner, CEM)
    loaded.save(tmp_path / "again")
    assert isinstance(FCDL.load(tmp_path / "again").policy.planner, MPPI)


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        ({"planner": "nonsense"}, ValueError, "planner='nonsense' is not allowed; planner must be one of cem"),
        ({"planner": "mppi"}, TypeError, "planner_kwargs has an unknown key 'n_elites'"),
        ({"dynamics": "nonsense"}, ValueError, "nonsense"),
        ({"dynamics": "mlp", "dynamics_kwargs": {}}, RuntimeError, "loading state_dict for FCDLPolicy"),
    ],
)
def test_load_refuses_what_the_file_does_not_fit(model, tmp_path, other, error, message):
    model.save(tmp_path / "model")
    with pytest.raises(error, match=message):
        FCDL.load(tmp_path / "model", **other)


def test_same_parameters_after_set_parameters(model, observation):
    other = tiny_fcdl(tiny_vec_env(2), seed=9)
    randomised = {
        key: th.rand_like(value) if value.is_floating_point() else th.ones_like(value)
        for key, value in model.policy.state_dict().items()
    }
    # Learner and world have one factorization, and tell alike what is new.
    shared = [key for key in randomised if key.startswith(("learner.factorization", "learner.novelty"))]
    randomised |= {key.replace("learner", "world"): randomised[key] for key in shared}
    # Values of another discount would be forgotten.
    randomised |= {key: value for key, value in model.policy.state_dict().items() if "learned_for" in key}
    other.set_parameters({"policy": randomised}, exact_match=False)
    assert all(th.equal(other.policy.state_dict()[key], value) for key, value in randomised.items())
    other.set_parameters(model.get_parameters())
    assert_same_policy(model, other, observation)


def test_wrong_parameters_are_refused(model):
    parameters = model.get_parameters()
    with pytest.raises(ValueError):
        model.set_parameters({"policy": parameters["policy"]}, exact_match=True)
    del parameters["policy"]["learner.dynamics.features.weight"]
    with pytest.raises(RuntimeError):
        model.set_parameters(parameters)


def test_set_env(model):
    other = tiny_vec_env(2, task="test", n_noisy=0)
    fresh = tiny_fcdl(tiny_vec_env(2)).learn(30)
    fresh.set_env(other)
    # A rollout is two steps of two environments: 30 timesteps take 32.
    assert fresh.learn(30, reset_num_timesteps=False).num_timesteps == 64
    with pytest.raises(AssertionError):
        fresh.set_env(tiny_vec_env(3))


def test_replay_buffer_round_trip(model, tmp_path):
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = FCDL.load(tmp_path / "model", env=tiny_vec_env(2))
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.replay_buffer.pos == model.replay_buffer.pos
    assert (loaded.replay_buffer.observations["state"] == model.replay_buffer.observations["state"]).all()
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.replay_buffer.pos == model.replay_buffer.pos + 30


def test_replay_buffer_of_other_environments_is_refused_and_nothing_is_lost(model, tmp_path):
    model.save_replay_buffer(tmp_path / "buffer")
    other = tiny_fcdl(tiny_vec_env(3)).learn(30)
    present = other.replay_buffer
    with pytest.raises(ValueError, match=r"2.*, the model has n_envs = 3"):
        other.load_replay_buffer(tmp_path / "buffer")
    assert other.replay_buffer is present and other.learn(30).replay_buffer.pos == 20


def test_first_buffer_sets_the_scale_of_the_variables_and_a_later_one_does_not(tmp_path):
    options = {"policy": "MlpPolicy", "dynamics": "mlp", "dynamics_kwargs": {"hidden_dim": 8}, "learning_starts": 1000}
    collected = tiny_fcdl("Pendulum-v1", **options).learn(400)
    collected.save_replay_buffer(tmp_path / "buffer")
    held = collected.replay_buffer.observations[:400, 0].astype(np.float64)
    fresh = tiny_fcdl("Pendulum-v1", **options)
    fresh.load_replay_buffer(tmp_path / "buffer")
    moments = fresh.policy.world.factorization.moments
    np.testing.assert_allclose(moments.mean, held.mean(0), atol=0.1 * held.std(0).max())
    np.testing.assert_allclose(moments.std, held.std(0), rtol=0.1)
    count = collected.policy.world.factorization.moments.count.item()
    collected.load_replay_buffer(tmp_path / "buffer")
    assert collected.policy.world.factorization.moments.count.item() == count == 400

    filled = tiny_fcdl("Pendulum-v1", **options)
    filled.replay_buffer = collected.replay_buffer
    filled.set_logger(Logger(None, []))
    filled.train(gradient_steps=2, batch_size=16)
    for name in ("mean", "std"):
        assert th.equal(getattr(filled.policy.world.factorization.moments, name), getattr(moments, name))


def test_policy_alone(model, observation, tmp_path):
    model.policy.save(tmp_path / "policy")
    loaded = FCDLPolicy.load(tmp_path / "policy")
    expected, _ = model.predict(observation, deterministic=True)
    assert loaded.predict(observation, deterministic=True)[0].tolist() == expected.tolist()


def test_learning_rate_schedule():
    model = tiny_fcdl(learning_rate=lambda remaining: 1e-4 + 1e-3 * remaining, exploration_rate=1.0)
    assert model.policy.optimizer.param_groups[0]["lr"] == pytest.approx(1.1e-3)
    # The last update is made when nothing remains.
    assert model.learn(60).policy.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_learned_heads_follow_the_schedule_at_their_own_speed():
    rate = {"learning_rate": lambda remaining: 3e-4 + 3e-3 * remaining, "exploration_rate": 1.0}
    model = tiny_fcdl("CartPole-v1", policy="MlpPolicy", dynamics_kwargs={"hidden_dim": 8}, **rate)
    assert [group["lr"] for group in model.policy.optimizer.param_groups] == pytest.approx([3.3e-3, 3.3e-2, 3.3e-2, 1e-3])
    model.learn(60)
    assert [group["lr"] for group in model.policy.optimizer.param_groups] == pytest.approx([3e-4, 3e-3, 3e-3, 1e-3])


def test_a_file_of_another_algorithm_is_refused(tmp_path):
    DQN("MlpPolicy", "CartPole-v1", device="cpu", buffer_size=10).save(tmp_path / "dqn")
    for env in (None, gym.make("CartPole-v1")):
        with pytest.raises(ValueError, match="the policy is a DQNPolicy, FCDL has an FCDLPolicy"):
            FCDL.load(tmp_path / "dqn", env=env)


def test_nothing_but_the_model_is_saved(model, tmp_path):
    """No planner state, no aliases: what load() rebuilds is not in the file twice."""
    model.save(tmp_path / "model")
    from stable_baselines3.common.save_util import load_from_zip_file

    data, parameters, _ = load_from_zip_file(tmp_path / "model")
    assert not {"dynamics", "model_log", "trainer", "experience", "_window_rng", "replay_buffer", "policy"} & set(data)
    assert set(parameters) == {"policy", "policy.optimizer"}
    assert pathlib.Path(tmp_path / "model.zip").stat().st_size < 2_500_000
