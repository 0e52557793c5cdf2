"""From Gymnasium spaces to named variables: how observations and actions become flat encoded tensors, and back."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch as th
from gymnasium import spaces

from fcdl_envs.variables import Factors, Variable


class Factorization:
    """
    The encoded view of an environment's spaces.

    The encoded state is one flat float tensor ``[..., D]``, with a slice a variable: one-hot for a categorical one. The
    encoded action is ``[..., A]``, likewise. Values pass through as the environment emits them: an input that is not
    exactly one-hot (a corrupted one, say) is neither clipped nor rounded.

    :param observation_space: a flat ``Dict`` of one-dimensional ``Box`` spaces
    :param action_space: a ``Discrete`` space
    :param factors: what the columns of the observation mean
    :raises ValueError: if the spaces are of another kind, or if they disagree with ``factors``
    """

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, factors: Factors) -> None:
        _check_observation(observation_space, factors)
        _check_action(action_space, factors)
        self.factors = factors
        self.state_variables = factors.state_variables
        self.action_variables = factors.action
        self.state_names = factors.state_names
        self.parent_names = factors.parent_names
        self.state_width = sum(variable.width for variable in self.state_variables)
        self.action_width = sum(variable.width for variable in self.action_variables)
        self._state_radix = _mixed_radix(self.state_variables)

    @property
    def parents(self) -> tuple[Variable, ...]:
        """The columns of every graph, ``P`` of them: state variables, then action variables."""
        return self.state_variables + self.action_variables

    def encode_state(self, observation: Mapping[str, th.Tensor]) -> th.Tensor:
        """
        :param observation: by key, ``[..., width]``
        :return: ``[..., D]``
        """
        return th.cat([observation[key] for key in self.factors.state], dim=-1)

    def encode_goal(self, observation: Mapping[str, th.Tensor]) -> th.Tensor:
        """
        :param observation: by key, ``[..., width]``
        :return: the task description, ``[..., G]``; ``G`` is 0 for an environment without goal
        """
        if not self.factors.goal:
            anything = observation[next(iter(self.factors.state))]
            return anything[..., :0]
        return th.cat([observation[key] for key in self.factors.goal], dim=-1)

    def encode_action(self, action: th.Tensor) -> th.Tensor:
        """
        :param action: index of a ``Discrete`` action, ``[...]``, any integer dtype
        :return: one-hot, ``[..., A]``, float32
        """
        return th.nn.functional.one_hot(action.long(), self.action_width).float()

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
    if not isinstance(space, spaces.Dict):
        raise ValueError(f"FCDL needs a flat Dict observation space for now, got {space}")
    for key in (*factors.state, *factors.goal):
        if key not in space.spaces:
            raise ValueError(f"the factorization names the observation key '{key}'; the space has {list(space.spaces)}")
        box = space.spaces[key]
        if not (isinstance(box, spaces.Box) and len(box.shape) == 1 and np.issubdtype(box.dtype, np.floating)):
            raise ValueError(f"observation key '{key}' must be a one-dimensional float Box, got {box}")
        if key in factors.state:
            width = sum(variable.width for variable in factors.state[key])
            if box.shape != (width,):
                raise ValueError(f"observation key '{key}' has shape {box.shape}, its variables take {width} columns")
    names = factors.parent_names
    if len(set(names)) != len(names):
        raise ValueError(f"variable names must be unique, got {names}")


def _check_action(space: spaces.Space, factors: Factors) -> None:
    if not isinstance(space, spaces.Discrete) or space.start != 0:
        raise ValueError(f"FCDL needs a Discrete action space that starts at 0 for now, got {space}")
    if len(factors.action) != 1 or factors.action[0].n_categories != space.n:
        raise ValueError(f"a Discrete({space.n}) action is one variable of {space.n} categories, got {factors.action}")


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
