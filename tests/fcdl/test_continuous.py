"""FCDL on mixed variables and Box actions, from the buffer to the plan."""

import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from tiny import tiny_fcdl

from sb3_fcdl import FCDL


def gated_fcdl(**kwargs) -> FCDL:
    defaults = {"dynamics_kwargs": {"hidden_dim": 16, "n_codes": 4, "graph_prior": "self"}}
    return tiny_fcdl(GatedEnv(), **(defaults | kwargs))


def test_the_environment_is_valid():
    with pytest.warns(UserWarning, match="symmetric and normalized"):
        check_env(GatedEnv(), skip_render_check=True)


@pytest.mark.parametrize("n_envs", [1, 3])
def test_learns_saves_and_loads(tmp_path, n_envs):
    env = make_vec_env(GatedEnv, n_envs=n_envs)
    model = tiny_fcdl(env, dynamics_kwargs={"hidden_dim": 16, "graph_prior": "self"}).learn(60)
    model.save(tmp_path / "model")
    loaded = FCDL.load(tmp_path / "model", env=env)
    observation = env.reset()
    actions, _ = model.predict(observation, deterministic=True)
    assert actions.shape == (n_envs, 1) and (np.abs(actions) <= 2).all()
    assert np.array_equal(actions, loaded.predict(observation, deterministic=True)[0])
    assert th.equal(model.policy.world.factorization.moments.std, loaded.policy.world.factorization.moments.std)
    assert loaded.learn(30, reset_num_timesteps=False).num_timesteps >= 90


def test_buffer_holds_scaled_actions_and_the_model_reads_them():
    model = gated_fcdl().learn(40)
    stored = model.replay_buffer.actions[:40, 0]
    steps = np.diff(model.replay_buffer.observations[:40, 0, 2])
    taken = 2 * stored[:39, 0]
    inside = steps * taken > -1e9
    inside[9::10] = False  # the next row is a new episode
    np.testing.assert_allclose(steps[inside], taken[inside] / 10, atol=1e-6)
    windows = model.experience.draw(30).windows
    assert windows.action.abs().max() <= 1


def test_running_moments_are_those_of_the_observations_met():
    model = gated_fcdl(learning_starts=1000).learn(50)
    seen = model.replay_buffer.observations[:50, 0].astype(np.float64)
    factorization = model.policy.world.factorization
    np.testing.assert_allclose(factorization.moments.mean[2:], seen.mean(0)[2:], rtol=1e-6)
    np.testing.assert_allclose(factorization.moments.std[2:], seen.std(0)[2:], rtol=1e-6)
    assert factorization.moments.mean[:2].tolist() == [0, 0] and factorization.moments.std[:2].tolist() == [1, 1]


def test_far_inputs_pass_unclipped_unless_asked():
    far = np.array([0, 1, 1e4, 5], dtype=np.float32)
    for clip_obs, expected in ((None, None), (10.0, 10.0)):
        policy = gated_fcdl(learning_starts=1000, policy_kwargs={"clip_obs": clip_obs}).learn(50).policy
        encoded = policy.world.factorization.encode_state(th.as_tensor(far))
        raw = (1e4 - policy.world.factorization.moments.mean[2].item()) / policy.world.factorization.moments.std[2].item()
        assert encoded[2].item() == pytest.approx(raw if expected is None else expected, rel=1e-5)
        assert encoded[:2].tolist() == [0, 1]


def test_local_graph_of_an_observation_in_environment_units():
    model = gated_fcdl().learn(40)
    graph = model.local_graph(np.array([0, 1, 0.3, 5], dtype=np.float32), np.array([1.5], dtype=np.float32))
    assert graph.child_names == ("gate", "x", "y") and graph.parent_names == ("gate", "x", "y", "push")
    assert "gate" in graph.parents_of("gate")


@pytest.mark.parametrize("dynamics", [pytest.param("fcdl", marks=pytest.mark.slow), "mlp"])
def test_learned_model_and_plans_are_near_the_closed_form(dynamics):
    """x = 1 is reached at full speed in five steps of 0.2 and then held: the return is -(0.8 + 0.6 + 0.4 + 0.2)."""
    kwargs = {"fcdl": {"hidden_dim": 32, "n_codes": 4, "graph_prior": "self"}, "mlp": {"hidden_dim": 64, "n_layers": 2}}
    model = tiny_fcdl(
        GatedEnv(),
        learning_rate=5e-3,
        learning_starts=500,
        exploration_rate=1.0,
        gamma=1.0,
        train_freq=2,
        batch_size=64,
        dynamics=dynamics,
        dynamics_kwargs=kwargs[dynamics],
        planner_kwargs={"horizon": 1, "n_iterations": 4, "n_candidates": 32, "n_elites": 8},
    ).learn(1000)
    env = GatedEnv()
    for seed in range(4):
        observation, _ = env.reset(seed=seed)
        total, done = 0.0, False
        while not done:
            action, _ = model.predict(observation, deterministic=True)
            observation, reward, _, done, _ = env.step(action)
            total += reward
        assert total == pytest.approx(-2.0, abs=0.4)
