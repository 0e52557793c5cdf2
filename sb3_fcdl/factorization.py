"""From Gymnasium spaces to named variables: how observations and actions become flat encoded tensors, and back."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.planning import BoxActions, DiscreteActions

Observations = th.Tensor | Mapping[str, th.Tensor]
"""A batch of observations as SB3 hands them on: one tensor of a ``Box`` space, a tensor by key of a ``Dict``."""

# A variable whose values differ by less, relative to nothing in particular, counts as constant and is not scaled.
MIN_STD = 1e-6


class Factorization(nn.Module):
    """
    The encoded view of an environment's spaces.

    The encoded state is one flat float tensor ``[..., D]``, with a slice a variable: one-hot for a categorical one; a
    continuous one less its mean and over its standard deviation in the data so far. Nothing else is done to values: an input
    that is not exactly one-hot, or a hundred standard deviations away, goes through as it is.

    The encoded action is ``[..., A]``: one-hot, or the numbers of a ``Box`` scaled to [-1, 1], as SB3's buffers hold them.

    :param observation_space: a one-dimensional ``Box``, or a flat ``Dict`` of such
    :param action_space: ``Discrete`` or a bounded one-dimensional ``Box``
    :param factors: what the columns of the observation mean
    :param clip_obs: largest absolute value of an encoded continuous variable; None: no limit
    :raises ValueError: if the spaces are of another kind or disagree with ``factors``, or ``clip_obs`` is not positive
    """

    mean: th.Tensor
    std: th.Tensor
    sum_of_squares: th.Tensor
    count: th.Tensor
    is_continuous: th.Tensor

    def __init__(
        self, observation_space: spaces.Space, action_space: spaces.Space, factors: Factors, clip_obs: float | None = None
    ) -> None:
        super().__init__()
        _check_observation(observation_space, factors)
        _check_action(action_space, factors)
        if clip_obs is not None and not clip_obs > 0:
            raise ValueError(f"clip_obs must be positive or None, got {clip_obs}")
        self.factors = factors
        self.action_space = action_space
        self.clip_obs = clip_obs
        continuous = [not variable.is_categorical for variable in factors.state_variables for _ in range(variable.width)]
        self.has_continuous = any(continuous)
        self.register_buffer("is_continuous", th.tensor(continuous), persistent=False)
        # Welford's running moments. Columns of categorical variables keep mean 0 and standard deviation 1.
        self.register_buffer("count", th.zeros((), dtype=th.float64))
        self.register_buffer("mean", th.zeros(factors.state_width, dtype=th.float64))
        self.register_buffer("sum_of_squares", th.zeros(factors.state_width, dtype=th.float64))
        self.register_buffer("std", th.ones(factors.state_width, dtype=th.float64))
        self._state_radix = _mixed_radix(factors.state_variables)

    @property
    def actions(self) -> DiscreteActions | BoxActions:
        """The encoded actions, for a planner."""
        if isinstance(self.action_space, spaces.Discrete):
            return DiscreteActions(int(self.action_space.n))
        width = self.factors.action_width
        return BoxActions(low=(-1.0,) * width, high=(1.0,) * width)

    def observe(self, observation: Observations) -> None:
        """
        Take observations into the running mean and standard deviation of continuous variables.

        :param observation: a batch, ``[R, width]``
        """
        if not self.has_continuous:
            return
        values = self.raw_state(observation).double()
        n_new = len(values)
        total = self.count + n_new
        new_mean = values.mean(0)
        shift = (new_mean - self.mean).where(self.is_continuous, 0)
        spread = (values - new_mean).square().sum(0) + shift.square() * self.count * n_new / total
        self.mean += shift * n_new / total
        self.sum_of_squares += spread.where(self.is_continuous, 0)
        self.count.copy_(total)
        std = (self.sum_of_squares / total).sqrt()
        self.std.copy_(std.where(std > MIN_STD, 1))

    def raw_state(self, observation: Observations) -> th.Tensor:
        """
        :param observation: ``[..., width]``
        :return: the flat state in the environment's units, ``[..., D]``, float32
        """
        if isinstance(self.factors.state, tuple):
            assert isinstance(observation, th.Tensor)
            return observation.float()
        assert not isinstance(observation, th.Tensor)
        return th.cat([observation[key] for key in self.factors.state], dim=-1).float()

    def encode_state(self, observation: Observations) -> th.Tensor:
        """
        :param observation: ``[..., width]``
        :return: ``[..., D]``, float32
        """
        state = self.raw_state(observation)
        if not self.has_continuous:
            return state
        encoded = ((state - self.mean) / self.std).float()
        if self.clip_obs is not None:
            encoded = encoded.clamp(-self.clip_obs, self.clip_obs).where(self.is_continuous, encoded)
        return encoded

    def decode_state(self, state: th.Tensor) -> th.Tensor:
        """
        :param state: encoded, ``[..., D]``
        :return: in the environment's units, ``[..., D]``
        """
        return (state * self.std + self.mean).to(state.dtype) if self.has_continuous else state

    def encode_goal(self, observation: Observations) -> th.Tensor:
        """
        :param observation: ``[..., width]``
        :return: the task description, ``[..., G]``; ``G`` is 0 for an environment without goal
        """
        if not self.factors.goal:
            return self.raw_state(observation)[..., :0]
        assert not isinstance(observation, th.Tensor)
        return th.cat([observation[key] for key in self.factors.goal], dim=-1).float()

    def encode_action(self, action: th.Tensor) -> th.Tensor:
        """
        :param action: as SB3's buffers hold it: the index of a ``Discrete`` action, ``[...]``, any integer dtype; the numbers
            of a ``Box`` scaled to [-1, 1], ``[..., A]``
        :return: ``[..., A]``, float32
        """
        if isinstance(self.action_space, spaces.Discrete):
            return nn.functional.one_hot(action.long(), self.factors.action_width).float()
        return action.float()

    def decode_action(self, action: th.Tensor) -> th.Tensor:
        """
        :param action: encoded, ``[..., A]``
        :return: one-hot, or in the environment's units, ``[..., A]``
        """
        if isinstance(self.action_space, spaces.Box):
            space = self.action_space
            low, high = (th.as_tensor(bound, device=action.device) for bound in (space.low, space.high))
            return low + (action + 1) / 2 * (high - low)
        return action

    @property
    def state_key(self) -> Callable[[th.Tensor], th.Tensor] | None:
        """
        A function that numbers one-hot states, ``[R, D]`` to ``[R]`` int64: equal if and only if the states are.

        With it a planner recognises a state that it has met before. None if there are too many states to number.
        """
        return None if self._state_radix is None else self._number

    def _number(self, state: th.Tensor) -> th.Tensor:
        assert self._state_radix is not None
        # float64 holds every integer up to 2**53 exactly, and the number is a sum of such integers.
        return (state.double() @ self._state_radix.to(state.device)).long()


def _check_observation(space: spaces.Space, factors: Factors) -> None:
    names = factors.parent_names
    if len(set(names)) != len(names):
        raise ValueError(f"variable names must be unique, got {names}")
    if isinstance(factors.state, tuple):
        if factors.goal:
            raise ValueError(f"only a Dict observation has goal keys, the factorization names {factors.goal}")
        _check_box("the observation space", space, factors.state)
        return
    if not isinstance(space, spaces.Dict):
        raise ValueError(f"FCDL needs a one-dimensional Box or a flat Dict of them as observation space for now, got {space}")
    for key in (*factors.state, *factors.goal):
        if key not in space.spaces:
            raise ValueError(f"the factorization names the observation key '{key}'; the space has {list(space.spaces)}")
        _check_box(f"observation key '{key}'", space.spaces[key], factors.state.get(key))


def _check_box(what: str, space: spaces.Space, variables: Sequence[Variable] | None) -> None:
    if not (isinstance(space, spaces.Box) and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating)):
        raise ValueError(f"{what} must be a one-dimensional float Box, got {space}")
    if variables is not None:
        width = sum(variable.width for variable in variables)
        if space.shape != (width,):
            raise ValueError(f"{what} has shape {space.shape}, its variables take {width} columns")


def _check_action(space: spaces.Space, factors: Factors) -> None:
    if isinstance(space, spaces.Box):
        if len(space.shape) != 1 or not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise ValueError(f"a Box action space must be one-dimensional and bounded, got {space}")
        if any(variable.is_categorical for variable in factors.action) or factors.action_width != space.shape[0]:
            raise ValueError(f"{space} is {space.shape[0]} continuous action variables, got {factors.action}")
    elif isinstance(space, spaces.Discrete) and space.start == 0:
        if len(factors.action) != 1 or factors.action[0].n_categories != space.n:
            raise ValueError(f"a Discrete({space.n}) action is one variable of {space.n} categories, got {factors.action}")
    else:
        raise ValueError(f"FCDL needs a Discrete action space that starts at 0, or a Box, for now, got {space}")


def _mixed_radix(variables: tuple[Variable, ...]) -> th.Tensor | None:
    """Weights ``[D]`` under which every one-hot state has its own integer below 2**53; None if there are more states."""
    sizes = [variable.n_categories for variable in variables]
    if 0 in sizes or math.prod(sizes) >= 2**53:
        return None
    weights, place = [], 1
    for size in sizes:
        weights += [value * place for value in range(size)]
        place *= size
    return th.tensor(weights, dtype=th.float64)
