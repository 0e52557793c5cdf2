"""Many Chemicals at once: the same episodes, seeds, states and infos as single ones."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from chemicals import COLOR_TEST, NOISY_TEST, decode
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from fcdl_envs.chemical import ChemicalEnv, ChemicalVectorEnv

ENV_ID = "FCDL/Chemical-v0"


@pytest.mark.parametrize("task", [{}, NOISY_TEST, COLOR_TEST], ids=["train", "scale", "color"])
@pytest.mark.parametrize("rule", ["full_fork", "full_chain"])
def test_batch_is_the_same_episodes_as_singles(rule, task):
    kwargs = {"rule": rule, "dynamics_seed": 2, **task}
    batch = gym.make_vec(ENV_ID, num_envs=5, **kwargs)
    singles = SyncVectorEnv([lambda: gym.make(ENV_ID, **kwargs)] * 5, autoreset_mode=AutoresetMode.SAME_STEP)
    assert batch.observation_space == singles.observation_space
    assert batch.action_space == singles.action_space
    assert_same(batch.reset(seed=11), singles.reset(seed=11))
    actions = np.random.default_rng(0).integers(50, size=(60, 5))
    for row in actions:
        assert_same(batch.step(row), singles.step(row))


def assert_same(one, other):
    """Bit for bit, in nested tuples and dicts of arrays."""
    assert type(one) is type(other)
    if isinstance(one, tuple):
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif one is not None and one.dtype == object:
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    elif one is not None:
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


def test_infos_of_environments_that_end_at_different_times_follow_gymnasium():
    batch = ChemicalVectorEnv(3, max_episode_steps=4)
    batch.reset(seed=0)
    states = batch.get_state()
    states[1]["steps"] = 2
    batch.set_state(states)
    for _ in range(2):
        _, _, terminated, truncated, infos = batch.step(np.full(3, 49))
    assert not terminated.any()
    assert truncated.tolist() == [False, True, False]
    assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [False, True, False]
    assert infos["_local_graph"].tolist() == infos["_is_success"].tolist() == [True, False, True]
    assert infos["final_info"]["_local_graph"].tolist() == [False, True, False]
    assert infos["local_graph"].dtype == infos["is_success"].dtype == bool
    assert not infos["local_graph"][1].any()
    assert infos["final_info"]["local_graph"][1].any()
    assert infos["final_obs"][0] is None
    assert decode(infos["final_obs"][1])[9] == 4


def test_states_move_between_one_and_many_environments():
    batch, single = ChemicalVectorEnv(3, **NOISY_TEST), ChemicalEnv(**NOISY_TEST)
    batch.reset(seed=0)
    for actions in np.random.default_rng(0).integers(50, size=(30, 3)):
        batch.step(actions)
    single.set_state(batch.get_state()[1])
    saved = batch.get_state()
    for action in np.random.default_rng(1).integers(50, size=15):
        observation, rewards, *_ = batch.step(np.full(3, action))
        single_observation, reward, *_ = single.step(action)
        assert np.array_equal(observation["state"][1], single_observation["state"])
        assert rewards[1] == reward
    batch.set_state(saved)
    assert str(batch.get_state()) == str(saved)
    assert pickle.loads(pickle.dumps(batch)).get_state()[2]["steps"] == saved[2]["steps"] == 5


def test_seeds_of_a_batch_may_be_a_list():
    batch, single = ChemicalVectorEnv(2), ChemicalEnv()
    observation, _ = batch.reset(seed=[9, 4])
    assert np.array_equal(observation["state"][1], single.reset(seed=4)[0]["state"])
    with pytest.raises(ValueError, match=r"seed=\[1\] is not allowed"):
        batch.reset(seed=[1])


@pytest.mark.parametrize("seed", [7, np.int64(7), [7, 8], np.array([7, 8])])
def test_generators_of_a_batch_are_those_of_sync_environments(seed):
    batch, sync = ChemicalVectorEnv(2), SyncVectorEnv([ChemicalEnv] * 2)
    batch.reset(seed=seed)
    sync.reset(seed=[7, 8])
    assert batch.np_random_seed == sync.np_random_seed == (7, 8)
    batch.step(np.zeros(2, dtype=int))
    assert [each.random() for each in batch.np_random] != [0.0, 0.0]
    batch.reset(seed=seed)
    sync.reset(seed=[7, 8])
    assert [each.random() for each in batch.np_random] == [each.random() for each in sync.np_random]


def test_an_environment_without_a_seed_keeps_its_generator():
    batch = ChemicalVectorEnv(2)
    first, second = batch.np_random_seed
    assert first != second
    assert batch.np_random[1].random() == np.random.default_rng(second).random()
    generator = batch.np_random[1]
    batch.reset(seed=[3, None])
    assert batch.np_random_seed == (3, second)
    assert batch.np_random[1] is generator
    batch.reset()
    assert batch.np_random_seed == (3, second)


@pytest.mark.parametrize("seed", [-1, 7.0, "ab", [1, 2, 3], [1, 2.5], [1, -2], [[1, 2]]])
def test_bad_seeds_are_named_and_change_nothing(seed):
    batch = ChemicalVectorEnv(2)
    batch.reset(seed=4)
    with pytest.raises(ValueError, match=r"seed=.* is not allowed; seed must be a non-negative integer or 2 of them"):
        batch.reset(seed=seed)
    assert batch.np_random_seed == (4, 5)


def test_gymnasium_makes_a_batch():
    env = gym.make_vec(ENV_ID, num_envs=8, rule="full_chain")
    assert isinstance(env, ChemicalVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observation, _ = env.reset(seed=0)
    for _ in range(25):
        observation, rewards, terminated, truncated, infos = env.step(env.action_space.sample())
    assert observation in env.observation_space
    assert rewards.shape == terminated.shape == truncated.shape == (8,)
    assert truncated.all()
    assert infos["final_info"]["local_graph"].shape == (8, 10, 11)


@pytest.mark.parametrize("name", ["num_envs", "max_episode_steps"])
def test_bad_sizes_are_named(name):
    with pytest.raises(ValueError, match=f"{name}=0 is not allowed; {name} must be an integer, at least 1"):
        ChemicalVectorEnv(**{name: 0})


@pytest.mark.parametrize(
    "actions", [np.array([7]), np.array([7, 7, 7]), np.array(7), np.array([[7, 7]]), [], [7.0, 7.0], [True, False], ["7", "7"]]
)
def test_a_batch_takes_one_integer_for_each_environment(actions):
    env = ChemicalVectorEnv(2)
    env.reset(seed=0)
    before = str(env.get_state())
    with pytest.raises(ValueError, match=r"actions=.* must be one integer for each environment, shape \(2,\), got shape"):
        env.step(actions)
    assert str(env.get_state()) == before
    assert env.step([7, 7])[1].shape == (2,)
