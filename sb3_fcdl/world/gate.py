"""The gate where recorded numbers enter: what a model cannot learn from is refused here, by name."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from sb3_fcdl.observations import Observations
from sb3_fcdl.world.factorization import Factorization

REMEDY = "FCDL learns from finite numbers within their spaces. This one was not stored, and the model is as it was"
OF_A_BUFFER = "FCDL learns from finite numbers within their spaces: take such transitions out before you load or fill a buffer"


def check_observations(
    factorization: Factorization, observations: Observations, where: str, remedy: str = REMEDY, env: int | None = None
) -> None:
    """
    :param factorization: knows the spaces and what their columns mean
    :param observations: ``[n_envs, *obs_shape]``, or a single one
    :param where: what errors call the place
    :param remedy: what errors say at the end
    :param env: the environment of a single one; None: the rows are environments
    :raises ValueError: if a number is NaN or infinite, or a category outside of its space; names variable, value, environment
    """
    for key, space, array in _parts(factorization, observations):
        bad = _first_bad(space, array)
        if bad is not None:
            row, column = divmod(bad, _width(space))
            name, value = _name(factorization, key, space, column), np.asarray(array).reshape(-1)[bad]
            raise ValueError(f"{where} {name} = {value} in environment {row if env is None else env}. {remedy}")


def check_step(
    factorization: Factorization,
    next_observations: Observations,
    actions: np.ndarray,
    rewards: np.ndarray,
    infos: list[dict[str, Any]],
    timestep: int,
) -> None:
    """
    :param factorization: knows the spaces and what their columns mean
    :param next_observations: what the step led to, ``[n_envs, *obs_shape]``
    :param actions: ``[n_envs, *]``
    :param rewards: ``[n_envs]``
    :param infos: of the step; the last observation of an ended episode is in them
    :param timestep: that errors name
    :raises ValueError: if a number is NaN or infinite, or a category outside of its space; names variable, value, environment
        and timestep
    """
    where = f"at timestep {timestep} the environment"
    check_observations(factorization, next_observations, f"{where} observed")
    for env, info in enumerate(infos):
        if "terminal_observation" in info:
            check_observations(factorization, info["terminal_observation"], f"{where} ended an episode with", env=env)
    for name, numbers, verb in (("reward", rewards, "paid"), ("action", actions, "was given")):
        bad = _first_bad(None, numbers)
        if bad is not None:
            env, value = bad * len(numbers) // numbers.size, numbers.reshape(-1)[bad]
            raise ValueError(f"{where} {verb} {name} = {value} in environment {env}. {REMEDY}")


def originals(
    observations: Observations, rewards: np.ndarray, vec_normalize: VecNormalize | None
) -> tuple[Observations, np.ndarray]:
    """
    :param observations: of a step, as an algorithm is given them
    :param rewards: likewise
    :param vec_normalize: that made them of the environment's own; None: they are the environment's
    :return: the environment's own: ``VecNormalize`` clips what is infinite
    """
    if vec_normalize is None:
        return observations, rewards
    return vec_normalize.get_original_obs(), vec_normalize.get_original_reward()


def check_buffer(factorization: Factorization, replay_buffer: ReplayBuffer) -> None:
    """
    :param factorization: knows the spaces and what their columns mean
    :param replay_buffer: that was filled by somebody else
    :raises ValueError: if it holds a number that is NaN or infinite, or a category outside of its space; names variable,
        value, environment and row
    """
    n_rows = replay_buffer.size()
    # With optimize_memory_usage the newest next observation stands where the next one will be observed.
    n_observed = min(n_rows + int(replay_buffer.optimize_memory_usage), replay_buffer.buffer_size)
    recorded = [("observation ", replay_buffer.observations, n_observed)]
    if not replay_buffer.optimize_memory_usage:
        recorded.append(("next observation ", replay_buffer.next_observations, n_rows))
    places: list[tuple[str, spaces.Space | None, Any, str]] = [
        (what, space, array[:n], key)
        for what, observations, n in recorded
        for key, space, array in _parts(factorization, observations)
    ]
    action_space = factorization.action_space
    places += [
        ("action", None if isinstance(action_space, spaces.Box) else action_space, replay_buffer.actions[:n_rows], ""),
        ("reward", None, replay_buffer.rewards[:n_rows], ""),
    ]
    for what, space, stored, key in places:
        bad = _first_bad(space, stored)
        if bad is not None:
            row, env, column = np.unravel_index(bad, (len(stored), stored.shape[1], stored[0, 0].size))
            name = what + (_name(factorization, key, space, int(column)) if space is not None and what != "action" else "")
            value = stored.reshape(-1)[bad]
            raise ValueError(f"the replay buffer holds {name} = {value} in row {row} of environment {env}. {OF_A_BUFFER}")


def is_usable(factorization: Factorization, *recorded: Observations) -> bool:
    """Whether all numbers of these observations are finite and in their spaces."""
    return all(_first_bad(space, array) is None for each in recorded for _, space, array in _parts(factorization, each))


def is_finite(*arrays: np.ndarray) -> bool:
    """Whether all numbers are."""
    return all(_first_bad(None, array) is None for array in arrays)


def _parts(factorization: Factorization, observations: Observations) -> Iterator[tuple[str, spaces.Space, Any]]:
    """Key, space and numbers of each part of observations; the key of what is no ``Dict`` is empty."""
    space = factorization.observation_space
    if isinstance(observations, dict):
        assert isinstance(space, spaces.Dict)
        yield from ((key, space[key], array) for key, array in observations.items() if key in space.spaces)
    else:
        yield "", space, observations


def _first_bad(space: spaces.Space | None, array: Any) -> int | None:
    """Index, in the flat array, of the first number that is not finite or not in its space."""
    numbers = np.asarray(array)
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        return int(np.flatnonzero(~np.isfinite(numbers.reshape(-1)))[0])
    if space is None or isinstance(space, spaces.Box):
        return None
    low, high = _bounds(space)
    rows = numbers.reshape(-1, len(low))
    is_outside = (rows < low) | (rows > high)
    return int(np.flatnonzero(is_outside)[0]) if is_outside.any() else None


def _bounds(space: spaces.Space) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest category of each variable."""
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(_width(space), int), np.ones(_width(space), int)
    sizes = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)  # type: ignore[attr-defined]
    start = np.broadcast_to(np.ravel(space.start), len(sizes))  # type: ignore[attr-defined]
    return start, start + sizes - 1


def _width(space: spaces.Space) -> int:
    """Numbers that an observation of this space is given in."""
    return int(np.prod(space.shape or ()))


def _name(factorization: Factorization, key: str, space: spaces.Space, column: int) -> str:
    """Of a number of an observation; of what is no state variable the key."""
    state = factorization.factors.state
    variables = state.get(key, ()) if isinstance(state, dict) else state
    if isinstance(space, spaces.Box):
        owners = [variable for variable in variables for _ in range(variable.width)]
    else:
        owners = list(variables)
    return owners[column].name if column < len(owners) else key
