"""Windows of consecutive transitions out of SB3's replay buffers."""

import math
from typing import NamedTuple

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_fcdl.observations import Observations, map_observations

# Where a model asks for it, one of several successive blocks of an environment's transitions is held out: blocks long enough
# that few windows meet their ends, short enough that each phase of training has some.
BLOCK_LENGTH = 16


class Part(NamedTuple):
    """
    A part of the transitions that a buffer holds.

    :param n_blocks: of so many blocks one is held out
    :param is_held_out: whether the part is that one, or the others
    """

    n_blocks: int
    is_held_out: bool

    def has(self, row: np.ndarray, env: np.ndarray) -> np.ndarray:
        """Which transitions belong to it. Of a single environment the last block is held out, to train on the first."""
        return ((row // BLOCK_LENGTH + env) % self.n_blocks == self.n_blocks - 1) == self.is_held_out


class WindowBatch(NamedTuple):
    """
    Windows of T consecutive transitions of one episode of one environment. The shapes below are those of ``Box``
    observations; of ``Dict`` observations there is one array per key.

    :param observations: ``[B, T, *obs_shape]``
    :param actions: as the buffer stores them, ``[B, T, action_dim]``
    :param rewards: ``[B, T]``
    :param next_observations: what the environment returned, the last observation of an episode included,
        ``[B, T, *obs_shape]``
    :param terminated: whether the episode ended here other than by a time limit, ``[B, T]``, bool
    :param valid: whether the transition belongs to the window, ``[B, T]``, bool. Once False it stays False: the episode is
        over, or the buffer is
    """

    observations: Observations
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: Observations
    terminated: np.ndarray
    valid: np.ndarray


def sample_windows(
    replay_buffer: ReplayBuffer, batch_size: int, length: int, rng: np.random.Generator, part: Part | None = None
) -> WindowBatch:
    """
    Windows that start at transitions drawn uniformly, with replacement, from all that the buffer holds.

    A window is marked rather than rejected where it meets the end of its episode, a reset that the buffer was not told of
    (a second ``learn()``), or the newest transition: short episodes still contribute.

    :param replay_buffer: any of SB3's, its arrays are read directly
    :param batch_size: number of windows
    :param length: transitions per window
    :param rng: source of the starts
    :param part: only its transitions are valid; None: all are
    :return: the windows
    :raises ValueError: if the buffer is empty or ``length`` below 1
    """
    n_envs, n_stored = replay_buffer.n_envs, _checked_rows(replay_buffer, length)
    age, env = rng.integers(n_stored, size=(batch_size, 1)), rng.integers(n_envs, size=(batch_size, 1))
    return _windows(replay_buffer, age, env, length, part)


def sample_distinct_windows(
    replay_buffer: ReplayBuffer, batch_size: int, length: int, rng: np.random.Generator, part: Part | None = None
) -> WindowBatch:
    """
    Like ``sample_windows``, but no two start at the same transition, and all start at one of ``part``. Where
    there are fewer than ``batch_size`` there are fewer, perhaps none.
    """
    n_stored = _checked_rows(replay_buffer, length)
    age, env = (each.reshape(-1, 1) for each in np.indices((n_stored, replay_buffer.n_envs)))
    if part is not None:
        suits = part.has(_row(replay_buffer, age), env)[:, 0]
        age, env = age[suits], env[suits]
    choice = rng.choice(len(age), size=min(batch_size, len(age)), replace=False)
    return _windows(replay_buffer, age[choice], env[choice], length, part)


def sample_ends(replay_buffer: ReplayBuffer, batch_size: int, rng: np.random.Generator) -> WindowBatch | None:
    """
    Transitions that ended their episode other than by a time limit, drawn uniformly with replacement.

    :param replay_buffer: any of SB3's
    :param batch_size: number of transitions
    :param rng: source of the choice
    :return: windows of one transition each; None if the buffer holds no such transition, or not the observation after it
        (``optimize_memory_usage``)
    """
    if replay_buffer.optimize_memory_usage:
        return None
    oldest, n_stored = _stored_rows(replay_buffer)
    rows, envs = np.nonzero((replay_buffer.dones[:n_stored] > 0) & (replay_buffer.timeouts[:n_stored] == 0))
    if not len(rows):
        return None
    choice = rng.integers(len(rows), size=(batch_size, 1))
    return _windows(replay_buffer, (rows[choice] - oldest) % replay_buffer.buffer_size, envs[choice], 1)


def _windows(
    replay_buffer: ReplayBuffer, age: np.ndarray, env: np.ndarray, length: int, part: Part | None = None
) -> WindowBatch:
    """
    :param age: of the first transitions, in rows after the oldest one, ``[B, 1]``
    :param env: their environments, ``[B, 1]``
    :param part: see ``sample_windows``
    """
    n_rows, n_envs = replay_buffer.buffer_size, replay_buffer.n_envs
    _, n_stored = _stored_rows(replay_buffer)
    # beyond the newest row there is nothing, and its stand-in is marked below
    age = age + np.arange(length)
    row = _row(replay_buffer, np.minimum(age, n_stored - 1))
    index = row * n_envs + env

    done = _take(replay_buffer.dones, index) > 0
    truncated = _take(replay_buffer.timeouts, index) > 0
    observations = _take_each(replay_buffer.observations, index)
    valid = age < n_stored
    if replay_buffer.optimize_memory_usage:
        next_observations = _take_each(replay_buffer.observations, (row + 1) % n_rows * n_envs + env)
        # the next row holds the first observation of the next episode instead of the last one of this
        valid &= ~done
        continues = ~done[:, :-1]
    else:
        next_observations = _take_each(replay_buffer.next_observations, index)
        continues = ~done[:, :-1] & _joined(next_observations, observations)
    if part is not None:
        suits = part.has(row, env)
        valid[:, 0] &= suits[:, 0]
        continues &= suits[:, :-1] & suits[:, 1:]
    valid[:, 1:] &= np.logical_and.accumulate(continues, axis=1)
    return WindowBatch(
        observations=observations,
        actions=_take(replay_buffer.actions, index),
        rewards=_take(replay_buffer.rewards, index),
        next_observations=next_observations,
        terminated=done & ~truncated,
        valid=valid,
    )


def _stored_rows(replay_buffer: ReplayBuffer) -> tuple[int, int]:
    """Index of the oldest usable row, and number of usable rows; from there they follow in time, round the end."""
    if not replay_buffer.full:
        return 0, replay_buffer.pos
    # with optimize_memory_usage the newest transition has left its next observation in the oldest row
    n_overwritten = int(replay_buffer.optimize_memory_usage)
    return replay_buffer.pos + n_overwritten, replay_buffer.buffer_size - n_overwritten


def _checked_rows(replay_buffer: ReplayBuffer, length: int) -> int:
    """Number of rows that windows may start at."""
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    _, n_stored = _stored_rows(replay_buffer)
    if n_stored < 1:
        raise ValueError("replay_buffer must hold at least one transition, it is empty")
    return n_stored


def _row(replay_buffer: ReplayBuffer, age: np.ndarray) -> np.ndarray:
    """Where a transition is stored that is so many rows younger than the oldest one."""
    return (_stored_rows(replay_buffer)[0] + age) % replay_buffer.buffer_size


def _take(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    """
    :param array: ``[n_rows, n_envs, ...]``
    :param index: ``row * n_envs + env``, ``[B, T]``
    :return: ``[B, T, ...]``
    """
    # several times faster than array[row, env]
    return array.reshape(-1, *array.shape[2:]).take(index, axis=0)


def _take_each(observations: Observations, index: np.ndarray) -> Observations:
    return map_observations(lambda array: _take(array, index), observations)


def _joined(next_observations: Observations, observations: Observations) -> np.ndarray:
    """
    Whether each step but the first starts where the step before it arrived, bit for bit.

    :return: ``[B, T - 1]``, bool
    """

    def joined(arrived: np.ndarray, started: np.ndarray) -> np.ndarray:
        return (_bits(arrived)[:, :-1] == _bits(started)[:, 1:]).all(axis=2)

    by_key = map_observations(joined, next_observations, observations)
    return np.logical_and.reduce(list(by_key.values())) if isinstance(by_key, dict) else by_key


def _bits(array: np.ndarray) -> np.ndarray:
    """The bytes of ``[B, T, ...]`` as integers, ``[B, T, n]``: a NaN equals itself."""
    return array.reshape(*array.shape[:2], math.prod(array.shape[2:])).view(f"i{array.itemsize}")
