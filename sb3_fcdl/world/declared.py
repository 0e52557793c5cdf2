"""What is said of an environment: by the environment itself, on its unwrapped class, and by the user."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.save_util import data_to_json
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from fcdl_envs.variables import Factors
from sb3_fcdl.planning import RewardFn, TerminationFn
from sb3_fcdl.world.factorization import default_factors
from sb3_fcdl.world.rewards import never_ends


@dataclass(frozen=True)
class Declared:
    """
    What need not be learned of an environment.

    :param factors: what observation and action mean
    :param reward_fn: a function or ``"package.module:function"``; None: the reward is learned
    :param termination_fn: likewise
    """

    factors: Factors
    reward_fn: RewardFn | str | None = None
    termination_fn: TerminationFn | str | None = None

    def with_given(self, reward_fn: RewardFn | str | None, termination_fn: TerminationFn | str | None) -> "Declared":
        """
        :param reward_fn: what the user gives; it goes before what the environment publishes. None: nothing
        :param termination_fn: likewise
        """
        return Declared(self.factors, reward_fn or self.reward_fn, termination_fn or self.termination_fn)


def declared_by(
    env: VecEnv,
    reward_fn: RewardFn | str | None = None,
    termination_fn: TerminationFn | str | None = None,
    sees_own_units: bool = False,
) -> Declared:
    """
    :param env: may publish a ``factorization``, a ``reward_fn`` and a ``termination_fn``
    :param reward_fn: what the user gives; it goes before what the environment publishes
    :param termination_fn: likewise
    :param sees_own_units: whether the model is given the environment's units even where there is a ``VecNormalize``
    :return: all of it. An environment that publishes its reward alone ends by time limits alone
    :raises ValueError: if a function could not be saved with the model, or is given in the environment's units while
        ``VecNormalize`` hides them
    """
    published = _published(env, "reward_fn")
    otherwise = None if published is None else never_ends
    own = Declared(factors_of(env), published, _published(env, "termination_fn") or otherwise)
    declared = own.with_given(reward_fn, termination_fn)
    _check_saves("reward_fn", declared.reward_fn)
    _check_saves("termination_fn", declared.termination_fn)
    is_given = declared.reward_fn is not None or declared.termination_fn not in (None, never_ends)
    if is_given and normalizes(env) and not sees_own_units:
        raise ValueError(
            "reward_fn and termination_fn are written in the environment's units, which VecNormalize hides: pass "
            "norm_obs=False to it. FCDL has a normalization of its own"
        )
    return declared


def check_fits(declared: Declared, factors: Factors, heads: Sequence[str]) -> None:
    """
    :param declared: of an environment that a model is to be used in
    :param factors: of the model
    :param heads: what the model learns beside the dynamics: ``"reward"``, ``"termination"``
    :raises ValueError: if the environment has other variables, or nobody says what the model does not learn
    """
    if declared.factors != factors:
        raise ValueError(f"the environment has other variables than the model: {_difference(declared.factors, factors)}")
    for head in ("reward", "termination"):
        if getattr(declared, f"{head}_fn") is None and head not in heads:
            raise ValueError(
                f"the environment publishes no {head}_fn, and the model has not learned one, as it was trained with a given "
                f"one: give {head}_fn to the model, as in FCDL.load(path, env=env, {head}_fn=...)"
            )


def factors_of(env: VecEnv) -> Factors:
    """The variables that the environment names, or else those of its spaces."""
    return _published(env, "factorization") or default_factors(env.observation_space, env.action_space)


def normalizes(env: Any) -> bool:
    """Whether a ``VecNormalize`` changes the observations of an environment."""
    normalizer = unwrap_vec_normalize(env) if isinstance(env, VecEnv) else None
    return normalizer is not None and normalizer.norm_obs


def action_masks_of(env: VecEnv) -> np.ndarray | None:
    """
    Allowed actions, ``[n_envs, n_actions]``, bool, where the environment tells (sb3-contrib's convention).

    :raises ValueError: if a mask has another shape, holds something else, or allows no action; names the environment
    """
    if not env.has_attr("action_masks"):
        return None
    masks = env.env_method("action_masks")
    return np.stack([checked_mask(mask, env.action_space, index) for index, mask in enumerate(masks)])


def checked_mask(mask: Any, space: spaces.Space, env: int) -> np.ndarray:
    """
    :param mask: of one environment
    :param space: of its actions
    :param env: its index
    :return: the mask, ``[n_actions]``, bool
    :raises ValueError: if it is none for this space
    """
    where = f"action_masks() of environment {env}"
    sizes = mask_sizes(space)
    if not sizes:
        raise ValueError(f"{where}: a Box has no action masks, leave the method out")
    array = np.asarray(mask)
    if array.dtype.kind not in "biuf" or array.shape != (sum(sizes),) or not np.isin(array, (0, 1)).all():
        raise ValueError(f"{where} must return {sum(sizes)} booleans for {space}, it returned {mask!r}")
    allowed = array.astype(bool)
    if not all(part.any() for part in np.split(allowed, np.cumsum(sizes)[:-1])):
        raise ValueError(f"{where} allows no action, or no value of one of its variables: {mask!r}")
    return allowed


def mask_sizes(space: spaces.Space) -> tuple[int, ...]:
    """Entries of an action mask for each variable of the action; none for a ``Box``."""
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(int(size) for size in space.nvec)
    return (2,) * math.prod(space.shape) if isinstance(space, spaces.MultiBinary) else ()


def sampling_mask(space: spaces.Space, mask: np.ndarray) -> Any:
    """The mask of one action, in sb3-contrib's convention, as the space's own ``sample`` wants it."""
    mask = mask.astype(np.int8)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(np.split(mask, np.cumsum(mask_sizes(space))[:-1]))
    if isinstance(space, spaces.MultiBinary):
        zero, one = mask.reshape(-1, 2).T
        return np.where(zero & one, 2, one).astype(np.int8)
    return mask


def check_normalized(factors: Factors, keys: Sequence[str] | None) -> None:
    """
    :raises ValueError: if VecNormalize would turn one-hot variables into other numbers
    """
    observed = factors.state if isinstance(factors.state, dict) else {"": factors.state}
    touched = [name for name in observed if keys is None or name in keys]
    categorical = [variable.name for name in touched for variable in observed[name] if variable.is_categorical]
    if categorical:
        raise ValueError(
            f"VecNormalize would turn the categories of {', '.join(categorical)} into other numbers: pass norm_obs=False to "
            "it, or norm_obs_keys without them"
        )


def _difference(theirs: Factors, ours: Factors) -> str:
    """The first variable that differs, in words."""
    pairs = zip(theirs.parents, ours.parents, strict=False)
    for one, other in pairs:
        if one != other:
            return f"{one} instead of {other}"
    if len(theirs.parents) != len(ours.parents):
        return f"{len(theirs.parents)} variables ({', '.join(theirs.parent_names)}), the model has {len(ours.parents)}"
    return f"they stand elsewhere in the observation, or the goal is another one: {theirs.goal} instead of {ours.goal}"


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
