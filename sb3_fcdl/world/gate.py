"""The gate where recorded numbers enter: what a model cannot learn from is refused here, by name."""

from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from fcdl_envs.variables import Factors, consecutive_slices
from sb3_fcdl.observations import Observations

REMEDY = "FCDL learns from finite numbers. Nothing has been learned from this one, and the model is as it was"


def check_observations(
    factors: Factors, observations: Observations, where: str, remedy: str = REMEDY, env: int | None = None
) -> None:
    """
    :param factors: what the columns mean
    :param observations: ``[n_envs, *obs_shape]``, or a single one
    :param where: what errors call the place
    :param env: the environment of a single one; None: the rows are environments
    :param remedy: what errors say at the end
    :raises ValueError: if one is NaN or infinite; names variable, value and environment
    """
    for key, array in observations.items() if isinstance(observations, dict) else (("", observations),):
        place = _first_bad(array)
        if place is not None:
            row, column = (0, place) if array.ndim < 2 else divmod(place, int(np.prod(array.shape[1:])))
            value, number = array.reshape(-1)[place], row if env is None else env
            raise ValueError(f"{where} {_name(factors, key, column)} = {value} in environment {number}. {remedy}")


def check_step(
    factors: Factors,
    next_observations: Observations,
    actions: np.ndarray,
    rewards: np.ndarray,
    infos: list[dict[str, Any]],
    timestep: int,
) -> None:
    """
    :param factors: what the columns mean
    :param next_observations: what the step led to, ``[n_envs, *obs_shape]``
    :param actions: ``[n_envs, *]``
    :param rewards: ``[n_envs]``
    :param infos: of the step; the last observation of an ended episode is in them
    :param timestep: that errors name
    :raises ValueError: if a number is NaN or infinite; names variable, value, environment and timestep
    """
    where = f"at timestep {timestep} the environment"
    check_observations(factors, next_observations, f"{where} observed")
    for env, info in enumerate(infos):
        if "terminal_observation" in info:
            last = info["terminal_observation"]
            ended = {key: np.asarray(each)[np.newaxis] for key, each in last.items()} if isinstance(last, dict) else last
            check_observations(factors, ended, f"{where} ended an episode with", env=env)
    for name, numbers, verb in (("reward", rewards, "paid"), ("action", actions, "was given")):
        place = _first_bad(numbers)
        if place is not None:
            env = place * len(numbers) // numbers.size
            raise ValueError(f"{where} {verb} {name} = {numbers.reshape(-1)[place]} in environment {env}. {REMEDY}")


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


def check_buffer(factors: Factors, replay_buffer: ReplayBuffer) -> None:
    """
    :param factors: what the columns mean
    :param replay_buffer: that was filled by somebody else
    :raises ValueError: if it holds a number that is NaN or infinite; names variable, value, environment and row
    """
    arrays: dict[str, Any] = {"observation": replay_buffer.observations, "action": replay_buffer.actions}
    arrays |= {"reward": replay_buffer.rewards}
    if not replay_buffer.optimize_memory_usage:
        arrays["next observation"] = replay_buffer.next_observations
    n_rows = replay_buffer.size()
    for what, value in arrays.items():
        for key, array in value.items() if isinstance(value, dict) else (("", value),):
            stored = array[:n_rows]
            place = _first_bad(stored)
            if place is None:
                continue
            row, env, column = np.unravel_index(place, (n_rows, stored.shape[1], stored[0, 0].size))
            name = f"{what} {_name(factors, key, int(column))}" if "observation" in what else what
            number = stored.reshape(-1)[place]
            raise ValueError(f"the replay buffer holds {name} = {number} in row {row} of environment {env}. {REMEDY}")


def is_finite(*recorded: Observations) -> bool:
    """Whether all numbers are, of arrays or dictionaries of arrays."""
    arrays = [array for each in recorded for array in (each.values() if isinstance(each, dict) else (each,))]
    return all(_first_bad(array) is None for array in arrays)


def _first_bad(array: Any) -> int | None:
    """Index of the first number in the flat array that is not finite."""
    numbers = np.asarray(array)
    if numbers.dtype.kind != "f" or np.isfinite(numbers).all():
        return None
    return int(np.flatnonzero(~np.isfinite(numbers.reshape(-1)))[0])


def _name(factors: Factors, key: str, column: int) -> str:
    """Of a column of an observation; of what is no state variable the key."""
    variables = factors.state.get(key, ()) if isinstance(factors.state, dict) else factors.state
    slices = consecutive_slices(variable.width for variable in variables)
    return next((each.name for each, columns in zip(variables, slices, strict=True) if column < columns.stop), key)
