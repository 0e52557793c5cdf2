"""What an environment publishes about itself, on its unwrapped class."""

from typing import Any

import numpy as np
from stable_baselines3.common.save_util import data_to_json
from stable_baselines3.common.vec_env import VecEnv

from fcdl_envs.variables import Factors
from sb3_fcdl.planning import RewardFn, TerminationFn
from sb3_fcdl.world.factorization import default_factors
from sb3_fcdl.world.rewards import never_ends


def factors_of(env: VecEnv) -> Factors:
    """The variables that the environment names, or else those of its spaces."""
    return _published(env, "factorization") or default_factors(env.observation_space, env.action_space)


def outcome_functions(
    env: VecEnv, reward_fn: RewardFn | str | None, termination_fn: TerminationFn | str | None
) -> tuple[RewardFn | str | None, TerminationFn | str | None]:
    """
    :param env: may publish functions of its own
    :param reward_fn: what the user gives; it goes before what the environment publishes
    :param termination_fn: likewise
    :return: both, None for what is to be learned. An environment that publishes its reward alone ends by time limits alone
    :raises ValueError: if one of them could not be saved with the model
    """
    published = _published(env, "reward_fn")
    otherwise = None if published is None else never_ends
    reward_fn, termination_fn = reward_fn or published, termination_fn or _published(env, "termination_fn") or otherwise
    _check_saves("reward_fn", reward_fn)
    _check_saves("termination_fn", termination_fn)
    return reward_fn, termination_fn


def action_masks_of(env: VecEnv) -> np.ndarray | None:
    """Allowed actions, ``[n_envs, n_actions]``, where the environment tells (sb3-contrib's convention)."""
    return np.stack(env.env_method("action_masks")) if env.has_attr("action_masks") else None


def _check_saves(name: str, function: RewardFn | TerminationFn | str | None) -> None:
    """What SB3 cannot save it refuses after the training."""
    try:
        data_to_json({name: function})
    except Exception as error:
        raise ValueError(
            f"{name} cannot be saved with the model, because of what it refers to: {function!r} ({error}). Make it a function "
            "of its arguments alone, in an environment a staticmethod"
        ) from error


def _published(env: VecEnv, attribute: str) -> Any:
    """None if the environment has no such attribute."""
    return env.get_attr(attribute, indices=0)[0] if env.has_attr(attribute) else None
