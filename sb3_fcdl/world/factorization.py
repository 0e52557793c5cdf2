"""From Gymnasium spaces to named variables: how observations and actions become flat encoded tensors, and back."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, count

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn

from fcdl_envs.arguments import Instance, OrNone, check, number
from fcdl_envs.variables import Factors, Variable, consecutive_slices
from sb3_fcdl.planning import BoxActions, DiscreteActions, MultiDiscreteActions
from sb3_fcdl.world.moments import RunningMoments, rounding_of
from sb3_fcdl.world.spaces import categories_of, check_spaces, columns_of, entries_of, unscaled, variables_of, width_of

Observations = th.Tensor | Mapping[str, th.Tensor]
"""A batch of observations as SB3 hands them on: one tensor, or of a ``Dict`` a tensor by key."""

CLIP_OBS = OrNone(number(above=0))


class Factorization(nn.Module):
    """
    The encoded view of an environment's spaces.

    The encoded state is one flat float tensor ``[..., D]``, with a slice a variable: one-hot for a categorical one; a
    continuous one less its mean and over its standard deviation in the data so far. Nothing else is done to values: an input
    that is not exactly one-hot, or a hundred standard deviations away, goes through as it is.

    The encoded action is ``[..., A]``: the one-hots of all its variables, or the numbers of a ``Box`` scaled to [-1, 1], as
    SB3's buffers hold them.

    :param observation_space: ``Box``, ``Discrete``, ``MultiDiscrete``, ``MultiBinary``, or a flat ``Dict`` of such
    :param action_space: ``Discrete``, ``MultiDiscrete``, ``MultiBinary`` or a bounded ``Box``
    :param factors: what observation and action mean; None: ``default_factors``
    :param clip_obs: largest absolute value of an encoded continuous variable; None: no limit
    :raises ValueError: if the spaces are of another kind or disagree with ``factors``, or ``clip_obs`` is not positive
    """

    is_continuous: th.Tensor
    is_normalized: th.Tensor
    action_low: th.Tensor
    action_high: th.Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        factors: Factors | None = None,
        clip_obs: float | None = None,
    ) -> None:
        check(factors=(factors, OrNone(Instance(Factors))), clip_obs=(clip_obs, CLIP_OBS))
        super().__init__()
        check_spaces(observation_space, action_space)
        factors = default_factors(observation_space, action_space) if factors is None else factors
        _check_factors(observation_space, action_space, factors)
        self.factors = factors
        self.observation_space = observation_space
        self.action_space = action_space
        self.clip_obs = clip_obs
        continuous = [not variable.is_categorical for variable in factors.state_variables for _ in range(variable.width)]
        self.has_continuous = any(continuous)
        self.register_buffer("is_continuous", th.tensor(continuous), persistent=False)
        # 1 if the model learned from what VecNormalize made of observations; saved with the weights, as VecNormalize is not.
        self.register_buffer("is_normalized", th.zeros(()))
        if isinstance(action_space, spaces.Box):
            self.register_buffer("action_low", th.tensor(action_space.low.ravel()), persistent=False)
            self.register_buffer("action_high", th.tensor(action_space.high.ravel()), persistent=False)
        # Columns of categorical variables keep mean 0 and standard deviation 1.
        keys = dict(getattr(observation_space, "spaces", {}))
        parts = [observation_space] if isinstance(factors.state, tuple) else [keys[key] for key in factors.state]
        rounding = np.concatenate([np.full(width_of(part), rounding_of(part.dtype)) for part in parts])
        self.moments = RunningMoments(factors.state_width, rounding)
        self._state_radix = _mixed_radix(factors.state_variables)

    @property
    def actions(self) -> DiscreteActions | MultiDiscreteActions | BoxActions:
        """The encoded actions, for a planner."""
        sizes = categories_of(self.action_space)
        if isinstance(self.action_space, spaces.Discrete):
            return DiscreteActions(*sizes)
        width = self.factors.action_width
        return MultiDiscreteActions(sizes) if sizes else BoxActions(low=(-1.0,) * width, high=(1.0,) * width)

    @property
    def units(self) -> th.Tensor:
        """How much a 1 in each encoded column is in the environment's units, ``[D + A]``, float64."""
        of_action = self.moments.std.new_ones(self.factors.action_width)
        if isinstance(self.action_space, spaces.Box):
            of_action = (self.action_high - self.action_low).to(of_action) / 2
        return th.cat([self.moments.std, of_action])

    @property
    def goal_width(self) -> int:
        """Columns of the task description, ``G``."""
        keys = dict(getattr(self.observation_space, "spaces", {}))
        return sum(width_of(keys[key]) for key in self.factors.goal)

    def observe(self, observation: Observations) -> None:
        """
        Take observations into the running mean and standard deviation of continuous variables.

        :param observation: a batch, see ``raw_state``
        :raises ValueError: if one of these variables is not finite
        """
        if not self.has_continuous:
            return
        values = self.raw_state(observation).flatten(0, -2)
        is_finite = values.isfinite().all(0)
        if not is_finite.all():
            column = int((~is_finite).nonzero()[0])
            slices = zip(self.factors.state_names, self.factors.state_slices, strict=True)
            name = next(name for name, columns in slices if column < columns.stop)
            raise ValueError(
                f"the environment observed {name} = {values[:, column].tolist()}: FCDL learns from finite numbers"
            )
        self.moments.update(values.where(self.is_continuous, 0))

    def raw_state(self, observation: Observations) -> th.Tensor:
        """
        :param observation: a batch, as ``predict`` or SB3's buffers have it; of a ``Discrete`` ``[B]`` or ``[..., 1]``
        :return: the flat state in the environment's units, ``[..., D]``; float64 where there are continuous variables
        """
        if isinstance(self.factors.state, tuple):
            assert isinstance(observation, th.Tensor)
            state = columns_of(self.observation_space, observation, self.factors.state)
        else:
            state = self._of_keys(observation, tuple(self.factors.state))
        return state.double() if self.has_continuous else state.float()

    def encode_state(self, observation: Observations) -> th.Tensor:
        """
        :param observation: see ``raw_state``
        :return: ``[..., D]``, float32
        """
        state = self.raw_state(observation)
        if not self.has_continuous:
            return state
        encoded = self.moments.normalize(state)
        if self.clip_obs is not None:
            encoded = encoded.clamp(-self.clip_obs, self.clip_obs).where(self.is_continuous, encoded)
        return encoded

    def decode_state(self, state: th.Tensor) -> th.Tensor:
        """
        :param state: encoded, ``[..., D]``
        :return: in the environment's units, ``[..., D]``
        """
        return self.moments.denormalize(state) if self.has_continuous else state

    def encode_goal(self, observation: Observations) -> th.Tensor:
        """
        :param observation: see ``raw_state``
        :return: the task description, ``[..., G]``; ``G`` is 0 for an environment without goal
        """
        if not self.factors.goal:
            return self.raw_state(observation)[..., :0].float()
        return self._of_keys(observation, self.factors.goal).float()

    def observation(self, state: th.Tensor, goal: th.Tensor) -> np.ndarray | dict[str, np.ndarray]:
        """
        The observation that is encoded like this; a number that the space does not hold becomes the nearest that it does.

        :param state: encoded, ``[B, D]``
        :param goal: ``[B, G]``
        :return: as the environment hands it out, ``[B, *shape]``; of a ``Dict`` an array by key
        :raises ValueError: if the space has a key that is neither state nor goal
        """
        # In float64: a space of that dtype gets back what it gave.
        return self.observation_of(self.decode_state(state.double()), goal)

    def observation_of(self, columns: th.Tensor, goal: th.Tensor) -> np.ndarray | dict[str, np.ndarray]:
        """
        The inverse of ``raw_state``; likewise.

        :param columns: the state in the environment's units, ``[B, D]``
        :param goal: ``[B, G]``
        """
        if isinstance(self.factors.state, tuple):
            return entries_of(self.observation_space, columns)
        assert isinstance(self.observation_space, spaces.Dict)
        keys, parts = (*self.factors.state, *self.factors.goal), dict(self.observation_space.spaces)
        if unknown := sorted(parts.keys() - set(keys)):
            raise ValueError(f"nobody knows the next value of the observation keys {unknown}: they are neither state nor goal")
        split = th.cat([columns, goal.double()], dim=-1).split([width_of(parts[key]) for key in keys], dim=-1)
        return {key: entries_of(parts[key], part) for key, part in zip(keys, split, strict=True)}

    def encode_action(self, action: th.Tensor) -> th.Tensor:
        """
        :param action: as SB3's buffers hold it, ``[..., action_dim]``: whole numbers, of a ``Discrete`` also ``[B]``; or the
            numbers of a ``Box`` scaled to [-1, 1]
        :return: ``[..., A]``, float32
        """
        if isinstance(self.action_space, spaces.Box):
            return action.float()
        return columns_of(self.action_space, action, self.factors.action)

    def decode_action(self, action: th.Tensor) -> th.Tensor:
        """
        :param action: encoded, ``[..., A]``
        :return: one-hot, or in the environment's units, ``[..., A]``
        """
        if isinstance(self.action_space, spaces.Box):
            return self.action_low + (action + 1) / 2 * (self.action_high - self.action_low)
        return action

    def env_actions(self, planned: th.Tensor) -> np.ndarray:
        """
        :param planned: actions of a plan, ``[B, *]``, see ``Plan``
        :return: as the environment takes them, ``[B, *action_space.shape]``
        """
        space = self.action_space
        actions = planned.cpu().numpy().reshape(-1, *space.shape)  # type: ignore[misc]
        if not isinstance(space, spaces.Box):
            return (actions + getattr(space, "start", 0)).astype(space.dtype)
        return self.unscaled(actions.astype(space.dtype))

    def unscaled(self, actions: np.ndarray) -> np.ndarray:
        """
        :param actions: of a ``Box``, scaled to [-1, 1], ``[..., *action_space.shape]``
        :return: in the environment's units and within the bounds, which rounding alone would leave; likewise
        """
        assert isinstance(self.action_space, spaces.Box)
        return unscaled(self.action_space, actions)

    def buffer_actions(self, actions: np.ndarray) -> np.ndarray:
        """
        :param actions: as environments take them, ``[B, *action_space.shape]``
        :return: as SB3's buffers hold them, ``[B, action_dim]``: those of a ``Box`` scaled to [-1, 1]
        """
        if isinstance(self.action_space, spaces.Box):
            low, high = self.action_space.low, self.action_space.high
            actions = 2.0 * ((actions - low) / (high - low)) - 1.0
        return actions.reshape(len(actions), -1)

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

    def _of_keys(self, observation: Observations, keys: Sequence[str]) -> th.Tensor:
        assert not isinstance(observation, th.Tensor) and isinstance(self.observation_space, spaces.Dict)
        parts, state = self.observation_space.spaces, dict(self.factors.state)  # type: ignore[arg-type]
        columns = [columns_of(parts[key], observation[key], state.get(key) or variables_of(key, parts[key])) for key in keys]
        return th.cat(columns, dim=-1)


def values_of(variables: Sequence[Variable], columns: th.Tensor) -> np.ndarray:
    """
    :param variables: in order
    :param columns: in the environment's units, ``[R, D]``
    :return: the category or the number of each, ``[R, n]``
    """
    slices = consecutive_slices(variable.width for variable in variables)
    parts = ((variable, columns[:, part]) for variable, part in zip(variables, slices, strict=True))
    values = [part.argmax(-1) if variable.is_categorical else part[:, 0] for variable, part in parts]
    return th.stack([value.double() for value in values], dim=-1).cpu().numpy()


def in_words(variables: Sequence[Variable], values: Iterable[float]) -> str:
    """
    :param variables: in order
    :param values: of each, see ``values_of``
    """
    return ", ".join(f"{variable.name}={variable.in_words(value)}" for variable, value in zip(variables, values, strict=True))


def default_factors(observation_space: spaces.Space, action_space: spaces.Space) -> Factors:
    """
    A variable for each entry of each space: ``obs[i]``, or ``key[i]`` of a ``Dict``, and ``action[i]``; without an index for
    a ``Discrete``. Each entry of a ``Box`` is a continuous number, whatever its dtype. Where two keys would give one name, as
    ``x`` of two numbers and ``x[0]`` do, the second becomes ``x[0]_2``; where an observation holds ``action``, the action is
    called ``agent_action``.

    :param observation_space: of a supported kind
    :param action_space: of a supported kind
    :raises ValueError: if they are not
    """
    check_spaces(observation_space, action_space)
    if not isinstance(observation_space, spaces.Dict):
        return Factors(variables_of("obs", observation_space), variables_of("action", action_space))
    taken: set[str] = set()
    # All keys that can have their own names have them before others are found for the rest.
    state = {key: _unless_taken([key], space, taken) for key, space in observation_space.spaces.items()}
    for key, space in observation_space.spaces.items():
        state[key] = state[key] or _unless_taken((f"{key}_{n}" for n in count(2)), space, taken)
    # An observation may well hold the last action under this name.
    names = ["agent_action"] if "action" in state else ["action", "agent_action"]
    action = _unless_taken(chain(names, (f"agent_action_{n}" for n in count(2))), action_space, taken)
    return Factors(state, action)


def _unless_taken(names: Iterable[str], space: spaces.Space, taken: set[str]) -> tuple[Variable, ...]:
    """The variables of a space under the first of the names that leaves all that is taken alone; then they are taken."""
    for name in names:
        variables = variables_of(name, space)
        if taken.isdisjoint(variable.name for variable in variables):
            taken.update(variable.name for variable in variables)
            return variables
    return ()


def _check_factors(observation_space: spaces.Space, action_space: spaces.Space, factors: Factors) -> None:
    names = factors.parent_names
    if len(set(names)) != len(names):
        raise ValueError(f"variable names must be unique, got {names}")
    if not factors.state_variables:
        raise ValueError("the factorization names no state variable, FCDL needs at least one")
    _check_variables("the action space", action_space, factors.action)
    if isinstance(factors.state, tuple):
        if factors.goal:
            raise ValueError(f"only a Dict observation has goal keys, the factorization names {factors.goal}")
        _check_variables("the observation space", observation_space, factors.state)
        return
    if not isinstance(observation_space, spaces.Dict):
        raise ValueError(
            f"the factorization names keys {list(factors.state)}, the observation is no Dict: {observation_space}"
        )
    for key in (*factors.state, *factors.goal):
        if key not in observation_space.spaces:
            have = list(observation_space.spaces)
            raise ValueError(f"the factorization names the observation key '{key}'; the space has {have}")
    for key, variables in factors.state.items():
        _check_variables(f"observation key '{key}'", observation_space[key], variables)


def _check_variables(what: str, space: spaces.Space, variables: Sequence[Variable]) -> None:
    hint = "If a wrapper has changed the space, let it publish a 'factorization' of its own"
    if sizes := categories_of(space):
        if tuple(variable.n_categories for variable in variables) != sizes:
            raise ValueError(f"{what} {space} has variables of {sizes} categories, got {tuple(variables)}. {hint}")
    elif sum(variable.width for variable in variables) != width_of(space):
        width = sum(variable.width for variable in variables)
        raise ValueError(f"{what} has {width_of(space)} columns, its variables {width}: {tuple(variables)}. {hint}")


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
