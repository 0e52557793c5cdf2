"""Recorded transitions as datasets of Minari, and back. Needs minari (extra ``minari``); nothing is downloaded."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_fcdl.extras import needs
from sb3_fcdl.observations import Observations, map_observations
from sb3_fcdl.world.spaces import unscaled

if TYPE_CHECKING:
    from minari import MinariDataset


def open_minari(dataset: "str | MinariDataset") -> "MinariDataset":
    """
    :param dataset: the id of a dataset on this machine, or an opened one
    :raises FileNotFoundError: if there is none of this id in ``MINARI_DATASETS_PATH``
    """
    if not isinstance(dataset, str):
        return dataset
    with needs("minari", "minari"):
        import minari

        return minari.load_dataset(dataset)


def read_minari(
    dataset: "MinariDataset", replay_buffer: ReplayBuffer, buffer_actions: Callable[[np.ndarray], np.ndarray]
) -> None:
    """
    Adds all transitions to a replay buffer. A truncated episode is recorded as SB3 does: as over, by time limit.

    :param dataset: an opened one
    :param replay_buffer: of one environment, with room for all
    :param buffer_actions: from actions as environments take them, ``[T, *]``, to those of the buffer
    """
    for episode in dataset.iterate_episodes():
        actions = buffer_actions(np.asarray(episode.actions))
        over = zip(np.asarray(episode.terminations, bool), np.asarray(episode.truncations, bool), strict=True)
        for step, (is_terminated, is_truncated) in enumerate(over):
            before, after = (
                map_observations(lambda array, row=row: np.asarray(array)[row : row + 1], episode.observations)
                for row in (step, step + 1)
            )
            replay_buffer.add(
                before,
                after,
                actions[step : step + 1],
                np.asarray(episode.rewards[step : step + 1]),
                np.array([is_terminated or is_truncated]),
                [{"TimeLimit.truncated": bool(is_truncated and not is_terminated)}],
            )


def to_minari(replay_buffer: ReplayBuffer, dataset_id: str, **about: Any) -> "MinariDataset":
    """
    Write the transitions of a replay buffer as a dataset into ``MINARI_DATASETS_PATH``. Where a transition does not go on from
    the one before, and at the end of the buffer, the episode counts as truncated.

    :param replay_buffer: of SB3, without ``optimize_memory_usage``; with the actions of a ``Box`` scaled to [-1, 1], as in SB3
    :param dataset_id: such as ``"house/random-v0"``
    :param about: further arguments of ``minari.create_dataset_from_buffers``: ``env``, ``algorithm_name``, ``author``, ...
    :return: the dataset
    :raises ValueError: if the buffer is empty, saves memory or does not record time limits, or there is such a dataset
    """
    with needs("minari", "minari"):
        import minari
        from minari.data_collector import EpisodeBuffer
    if replay_buffer.optimize_memory_usage:
        raise ValueError("the replay buffer has optimize_memory_usage=True, so it does not hold the last observations")
    if not replay_buffer.handle_timeout_termination:
        raise ValueError(
            "the replay buffer has handle_timeout_termination=False, so it does not tell a time limit from a termination: "
            "collect with replay_buffer_kwargs={'handle_timeout_termination': True}, SB3's default"
        )
    if not replay_buffer.size():
        raise ValueError("the replay buffer is empty: learn() first, or load_replay_buffer()")
    episodes = [
        EpisodeBuffer(
            id=number,
            observations=observations,
            actions=list(actions),
            rewards=rewards.tolist(),
            terminations=[False] * (len(rewards) - 1) + [is_terminated],
            truncations=[False] * (len(rewards) - 1) + [not is_terminated],
        )
        for number, (observations, actions, rewards, is_terminated) in enumerate(_episodes(replay_buffer))
    ]
    return minari.create_dataset_from_buffers(
        dataset_id,
        episodes,
        **{"observation_space": replay_buffer.observation_space, "action_space": replay_buffer.action_space, **about},
    )


def _episodes(replay_buffer: ReplayBuffer) -> Iterator[tuple[Any, np.ndarray, np.ndarray, bool]]:
    """Observations, actions in the environment's units, rewards, and whether the end is one, of each episode."""
    n_rows = replay_buffer.size()
    # The oldest transition of a full buffer stands where the next one will.
    rows = (np.arange(n_rows) + (replay_buffer.pos if replay_buffer.full else 0)) % n_rows
    for env in range(replay_buffer.n_envs):
        space = replay_buffer.observation_space
        before, after = (
            map_observations(lambda array: array[rows, env], _all(observations))  # noqa: B023
            for observations in (replay_buffer.observations, replay_buffer.next_observations)
        )
        actions = _env_actions(replay_buffer.action_space, replay_buffer.actions[rows, env])
        rewards, dones, timeouts = (getattr(replay_buffer, name)[rows, env] for name in ("rewards", "dones", "timeouts"))
        goes_on = ~dones[:-1].astype(bool) & _same_rows(after, before)
        ends = [*np.flatnonzero(~goes_on), n_rows - 1]
        for first, last in zip([0, *(end + 1 for end in ends[:-1])], ends, strict=True):
            part = slice(first, last + 1)
            joined = map_observations(
                lambda one, other, part=part, last=last: np.concatenate([one[part], other[last : last + 1]]), before, after
            )
            is_terminated = bool(dones[last] and not timeouts[last])
            yield _of_space(joined, space), actions[part], rewards[part], is_terminated


def _all(observations: Any) -> Observations:
    return dict(observations) if isinstance(observations, dict) else observations


def _same_rows(after: Observations, before: Observations) -> np.ndarray:
    """Whether each transition leads to where the next one begins, ``[R - 1]``, bool."""
    pairs = [(after[key], before[key]) for key in after] if isinstance(after, dict) else [(after, before)]
    rows = [(one[:-1] == other[1:]).all(tuple(range(1, one.ndim))) for one, other in pairs]  # type: ignore[index]
    return np.logical_and.reduce(rows)


def _of_space(observations: Any, space: spaces.Space) -> Any:
    """As the environment's space has them: SB3's buffers keep a number of a ``Discrete`` in an array of one."""
    if isinstance(space, spaces.Dict):
        return {key: _of_space(observations[key], space[key]) for key in space}
    return observations.reshape(-1) if isinstance(space, spaces.Discrete) else observations


def _env_actions(space: spaces.Space, actions: np.ndarray) -> np.ndarray:
    """As the environment takes them."""
    if isinstance(space, spaces.Box):
        return unscaled(space, actions.reshape(len(actions), *space.shape))
    return actions.reshape(-1) if isinstance(space, spaces.Discrete) else actions
