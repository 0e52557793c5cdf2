"""Datasets of Minari: written from replay buffers, and learned from."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_fcdl import FCDL
from sb3_fcdl.datasets import to_minari

minari = pytest.importorskip("minari")

# What Minari asks of published datasets.
pytestmark = pytest.mark.filterwarnings("ignore:.*(is set to None|env_spec is None).*:UserWarning")

QUICK = {"learning_starts": 1000, "exploration_rate": 1.0, "seed": 0}


@pytest.fixture(autouse=True)
def local_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def recorded(env_id: str, n_steps: int, policy: str = "MlpPolicy") -> FCDL:
    """An algorithm that has recorded random transitions."""
    return FCDL(policy, env_id, dynamics="mlp", **QUICK).learn(n_steps)


def same_transitions(one: ReplayBuffer, other: ReplayBuffer) -> None:
    assert one.pos == other.pos
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        mine, theirs = (getattr(buffer, name) for buffer in (one, other))
        for part, same in [(mine[k], theirs[k]) for k in mine] if isinstance(mine, dict) else [(mine, theirs)]:
            np.testing.assert_allclose(part[: one.pos], same[: one.pos], atol=1e-6)


@pytest.mark.parametrize(
    ("env_id", "policy"),
    [("CartPole-v1", "MlpPolicy"), ("FCDL/Thermostat-v0", "MultiInputPolicy"), ("FrozenLake-v1", "MlpPolicy")],
)
def test_a_model_gets_back_what_was_written(env_id, policy):
    model = recorded(env_id, 60, policy)
    # The last episode is cut off by the end of the buffer: in the dataset it is truncated, as by a time limit.
    model.replay_buffer.timeouts[59] = not model.replay_buffer.dones[59] or model.replay_buffer.timeouts[59]
    model.replay_buffer.dones[59] = True
    dataset = to_minari(model.replay_buffer, "test/random-v0")
    assert dataset.total_steps == 60 and dataset.total_episodes == model.replay_buffer.dones[:60].sum()
    reader = FCDL(policy, env_id, dynamics="mlp", **QUICK).fit_offline("test/random-v0", gradient_steps=2, batch_size=8)
    same_transitions(model.replay_buffer, reader.replay_buffer)
    assert reader._n_updates == 2 and reader.num_timesteps == 0


def test_actions_are_written_in_the_units_of_the_environment():
    """Torques of Pendulum are in [-2, 2], SB3's buffer has them in [-1, 1]."""
    model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=1000, seed=0).learn(20)
    dataset = to_minari(model.replay_buffer, "test/pendulum-v0")
    (episode,) = dataset.iterate_episodes()
    np.testing.assert_allclose(episode.actions, 2 * model.replay_buffer.actions[:20, 0], atol=1e-6)
    assert episode.truncations.tolist() == [False] * 19 + [True] and not episode.terminations.any()
    assert episode.observations.shape == (21, 3)


def test_episodes_are_cut_at_ends_gaps_and_the_wrap_of_a_full_buffer():
    space = gym.spaces.Box(-100, 100, (1,), np.float32)
    buffer = ReplayBuffer(6, space, gym.spaces.Discrete(2), n_envs=1)
    # An end after 2, a time limit after 4, a jump from 6 to 10; the first two of eight transitions are overwritten.
    steps = [(0, 1), (1, 2), (2, 3, True, False), (3, 4, True, True), (4, 5), (5, 6), (10, 11), (11, 12)]
    for before, after, *end in steps:
        is_over, is_truncated = end or (False, False)
        one, other = (np.array([[value]], np.float32) for value in (before, after))
        buffer.add(one, other, np.array([1]), np.array([before]), np.array([is_over]), [{"TimeLimit.truncated": is_truncated}])
    episodes = list(to_minari(buffer, "test/gaps-v0").iterate_episodes())
    assert [episode.observations[:, 0].tolist() for episode in episodes] == [[2, 3], [3, 4], [4, 5, 6], [10, 11, 12]]
    assert [bool(episode.terminations[-1]) for episode in episodes] == [True, False, False, False]
    assert [bool(episode.truncations[-1]) for episode in episodes] == [False, True, True, True]
    assert episodes[2].rewards.tolist() == [4, 5] and episodes[2].actions.tolist() == [1, 1]


def test_a_single_transition_is_an_episode():
    buffer = ReplayBuffer(4, gym.spaces.Box(-9, 9, (2,), np.float32), gym.spaces.Box(-3, 5, (1, 2), np.float32))
    before, after = np.array([[1, 2]], np.float32), np.array([[3, 4]], np.float32)
    buffer.add(before, after, np.array([[[-0.5, 1]]]), np.array([7.0]), np.array([True]), [{}])
    (episode,) = to_minari(buffer, "test/single-v0").iterate_episodes()
    assert episode.observations.tolist() == [[1, 2], [3, 4]] and episode.rewards.tolist() == [7]
    assert episode.actions.tolist() == [[[-1, 5]]]  # a quarter of the way from -3 to 5, and all of it
    assert episode.terminations.tolist() == [True] and episode.truncations.tolist() == [False]


def test_what_does_not_fit_is_refused():
    model = recorded("CartPole-v1", 20)
    to_minari(model.replay_buffer, "test/cartpole-v0")
    before = FCDL("MlpPolicy", "Pendulum-v1", dynamics="mlp", **QUICK)
    with pytest.raises(ValueError, match="test/cartpole-v0 has observation_space = Box"):
        before.fit_offline("test/cartpole-v0")
    assert before.replay_buffer.size() == 0
    with pytest.raises(FileNotFoundError, match="nowhere"):
        model.fit_offline("test/nowhere-v0")
    with pytest.raises(ValueError, match="gradient_steps=-1 is not allowed"):
        model.fit_offline("test/cartpole-v0", gradient_steps=-1)
    empty = ReplayBuffer(5, gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2))
    with pytest.raises(ValueError, match="the replay buffer is empty"):
        to_minari(empty, "test/empty-v0")
    untold = ReplayBuffer(5, gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2), handle_timeout_termination=False)
    with pytest.raises(ValueError, match=r"does not tell a time limit from a termination: collect with replay_buffer_kwargs="):
        to_minari(untold, "test/untold-v0")
