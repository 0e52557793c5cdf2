"""SB3's topic test `test_predict`, and what FCDL promises of its plans."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from tiny import N_ACTIONS, TINY, tiny_env, tiny_fcdl, tiny_vec_env

from sb3_fcdl import FCDL, GymVectorVecEnv
from sb3_fcdl.planning import generators_of


@pytest.fixture(scope="module")
def model():
    return tiny_fcdl(tiny_vec_env(2)).learn(100)


@pytest.fixture(scope="module")
def observations():
    env = GymVectorVecEnv(gym.make_vec("FCDL/Chemical-v0", num_envs=20, task="train", **TINY))
    env.seed(5)
    return env.reset()


def rows(observations, index):
    return {key: value[index] for key, value in observations.items()}


def test_shapes_and_types(model, observations):
    one, _ = model.predict(rows(observations, 0))
    assert one.shape == () and one.dtype == np.int64
    batch, state = model.predict(observations)
    assert batch.shape == (20,) and state is None
    assert all(model.action_space.contains(action) for action in batch)


def test_deterministic_plan_is_a_function_of_the_observation(model, observations):
    first, _ = model.predict(observations, deterministic=True)
    model.predict(observations, deterministic=False)
    th.manual_seed(17)
    again, _ = model.predict(observations, deterministic=True)
    alone = [model.predict(rows(observations, index), deterministic=True)[0] for index in range(20)]
    assert first.tolist() == again.tolist() == [int(action) for action in alone]


def test_every_observation_searches_among_its_own_candidates(model, observations):
    """Else one unlucky draw of candidates would be repeated at every step of every episode."""
    tensors, _ = model.policy.obs_to_tensor(observations)
    state, goal = model.policy.world.encode(tensors), model.policy.world.goal(tensors)
    seeds = [generator.initial_seed() for generator in generators_of(state, goal)]
    assert seeds == [generator.initial_seed() for generator in generators_of(state, goal)]
    assert len(set(seeds)) == len(th.cat([state, goal], dim=1).unique(dim=0))


def test_deterministic_plan_draws_no_random_number(model, observations):
    before = th.get_rng_state()
    model.predict(observations, deterministic=True)
    assert th.equal(before, th.get_rng_state())


def test_policy_predicts_as_the_algorithm_does(model, observations):
    ours, _ = model.predict(observations, deterministic=True)
    theirs, _ = model.policy.predict(observations, deterministic=True)
    assert ours.tolist() == theirs.tolist()
    tensors, _ = model.policy.obs_to_tensor(observations)
    assert model.policy(tensors, deterministic=True).tolist() == ours.tolist()


@pytest.mark.parametrize("deterministic", [True, False])
def test_masked_actions_are_never_planned(model, observations, deterministic):
    masks = np.zeros((20, N_ACTIONS), dtype=bool)
    masks[:, [3, 7]] = True
    actions, _ = model.predict(observations, deterministic=deterministic, action_masks=masks)
    assert set(actions.tolist()) <= {3, 7}
    action, _ = model.predict(rows(observations, 0), deterministic=deterministic, action_masks=masks[0])
    assert int(action) in (3, 7)


def test_gym_tuple_is_refused(model):
    with pytest.raises(ValueError, match="mixing"):
        model.predict(tiny_env().reset())


def test_plan_maximises_the_modelled_reward(model, observations):
    """With a horizon of 1 the best action is known: evaluate all of them on the model."""
    wide = {"horizon": 1, "n_iterations": 3, "n_candidates": 200, "n_elites": 10}
    policy = tiny_fcdl(planner_kwargs=wide, gamma=1.0).policy
    policy.load_state_dict(model.policy.state_dict())
    chosen, _ = policy.predict(observations, deterministic=True)
    tensors, _ = policy.obs_to_tensor(observations)
    state, goal = policy.world.encode(tensors), policy.world.goal(tensors)
    with th.no_grad():
        rewards = []
        for action in range(N_ACTIONS):
            encoded = policy.world.encode_action(th.full((20,), action))
            next_state = policy.dynamics.step(state, encoded).next_state.mode()
            rewards.append(policy.world.reward_fn(state, encoded, next_state, goal))
    rewards = th.stack(rewards)
    assert th.equal(rewards.gather(0, th.as_tensor(chosen)[None])[0], rewards.amax(0))


def test_local_graph_has_names_and_the_codes_graph(model, observations):
    graph = model.local_graph(rows(observations, 0), 5)
    assert graph.child_names == ("obj0", "obj1", "obj2", "obj3")
    assert graph.parent_names == ("obj0", "obj1", "obj2", "obj3", "action")
    assert graph.label.startswith("code ")
    # What the prior gives: every variable depends on itself and on the action, none on a later one.
    assert graph.edges[:, :4].diagonal().all() and graph.edges[:, 4].all()
    assert not np.triu(graph.edges[:, :4], k=1).any()


def test_local_graph_of_a_batch_is_refused(model, observations):
    with pytest.raises(ValueError, match="batch"):
        model.local_graph(observations, 5)


class Masked(gym.Env):
    observation_space, action_space = spaces.Box(-1, 1, (1,), np.float32), spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, True, {}

    def action_masks(self):
        return np.array([True, self.allowed, True])

    def __init__(self, allowed):
        self.allowed = allowed


@pytest.mark.parametrize(
    ("env", "masks", "n_warnings"),
    [(Masked(False), None, 1), (Masked(False), [True, False, True], 0), (Masked(True), None, 0), ("CartPole-v1", None, 0)],
)
def test_predictions_without_masks_are_warned_of_once(env, masks, n_warnings):
    model = FCDL("MlpPolicy", env, buffer_size=10).learn(3)
    observation = np.zeros(model.observation_space.shape, np.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            model.predict(observation, action_masks=None if masks is None else np.array(masks))
    assert ["MaskableEvalCallback" in str(warning.message) for warning in caught] == n_warnings * [True]
