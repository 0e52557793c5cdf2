"""An environment in which chosen variables are observed wrongly."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.observations import Observations

# What "noise" multiplies: the scale of the Chemical test tasks.
NOISE_SCALE = 100.0


@dataclass(frozen=True)
class Normal:
    """
    A normally distributed number, drawn anew for each observation.

    :param mean: in the environment's units
    :param std: likewise
    """

    mean: float
    std: float

    def __str__(self) -> str:
        """As ``parse_shift`` reads it."""
        return f"Normal({self.mean:g},{self.std:g})"


Shift = Normal | float | str
"""
What is observed instead of the value of a variable. ``"noise"``: the value (a category: its one-hot vector) times
``100 * N(0, 1)``, drawn anew for each observation; of a variable of a ``Discrete``, ``MultiDiscrete`` or ``MultiBinary`` space
a random category. ``Normal``: a random number. A number, or the name of a category: always this one. The shift of a number may
be text as ``parse_shift`` reads it: ``"Normal(0,100)"``.
"""


def parse_shift(text: str) -> Shift:
    """
    :param text: ``Normal(MEAN,STD)`` or a number; all else is ``noise`` or a category
    """
    match = re.fullmatch(r"Normal\((.+),(.+)\)", text)
    try:
        return Normal(float(match[1]), float(match[2])) if match else float(text)
    except ValueError:
        return text


def shiftable(factors: Factors, space: spaces.Space) -> tuple[str, ...]:
    """
    :param factors: what the columns of the observation mean
    :param space: of the observation
    :return: names of the variables that can be shifted: all but those of a ``Box`` of several dimensions
    """
    return tuple(_places(factors, space))


class _Place(NamedTuple):
    """Key of the observation, "" if it has none, and columns of one variable."""

    key: str
    columns: slice
    variable: Variable
    # Lowest value where the category itself is observed, not its one-hot vector; None where it is.
    start: int | None = None


class ShiftedVecEnv(VecEnvWrapper):
    """
    Shifts the observed values of chosen variables. The environment itself, its rewards and its goals stay the same.

    :param venv: whose observation is a one-dimensional ``Box``, a ``Discrete``, ``MultiDiscrete`` or ``MultiBinary``, or a
        ``Dict`` with such
    :param factors: what its columns mean
    :param shifts: by name of the state variable
    :param seed: of the noise
    :raises ValueError: if there is no such variable, or a shift does not fit it
    """

    def __init__(self, venv: VecEnv, factors: Factors, shifts: Mapping[str, Shift], seed: int = 0) -> None:
        super().__init__(venv)
        self.rng = np.random.default_rng(seed)
        places = _places(factors, venv.observation_space)
        for name in shifts:
            if name not in places:
                raise ValueError(f"unknown variable '{name}', those that can be shifted are {', '.join(places) or 'none'}")
        self.shifts = [(places[name], _checked(places[name].variable, shift)) for name, shift in shifts.items()]
        self._of_space = {place.key for place in places.values() if place.start is not None}
        self.clean: Observations = np.zeros(0)

    def reset(self) -> VecEnvObs:
        return self.shown(self.venv.reset())

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        return self.shown(observations), rewards, dones, infos

    def shown(self, observations: VecEnvObs) -> VecEnvObs:
        """The shifted observations; the true ones are kept as ``clean``."""
        assert not isinstance(observations, tuple)
        self.clean = observations
        by_key = observations if isinstance(observations, dict) else {"": observations}
        # An integer type would wrap the numbers round.
        of_space = self._of_space
        shifted = {key: array.copy() if key in of_space else _as_float(array) for key, array in by_key.items()}
        for place, shift in self.shifts:
            array = shifted[place.key]
            if place.start is None:
                array[:, place.columns] = self._shifted(array[:, place.columns], place.variable, shift)
            else:
                array.reshape(len(array), -1)[:, place.columns] = self._category(len(array), place, shift)
        return shifted if isinstance(observations, dict) else shifted[""]

    def _category(self, n_envs: int, place: _Place, shift: Shift) -> np.ndarray:
        """Of a variable whose category is a number of the space, ``[n_envs, 1]``."""
        assert place.start is not None and not isinstance(shift, Normal)
        if shift == "noise":
            return place.start + self.rng.integers(place.variable.n_categories, size=(n_envs, 1))
        return np.full((n_envs, 1), place.start + place.variable.category(shift))

    def _shifted(self, values: np.ndarray, variable: Variable, shift: Shift) -> np.ndarray:
        if shift == "noise":
            return values * NOISE_SCALE * self.rng.standard_normal((len(values), 1))
        if isinstance(shift, Normal):
            return self.rng.normal(shift.mean, shift.std, values.shape)
        if variable.is_categorical:
            return np.eye(variable.n_categories)[[variable.category(shift)] * len(values)]
        return np.full_like(values, shift)


def _as_float(array: np.ndarray) -> np.ndarray:
    return array.astype(np.result_type(array, np.float32))


def _places(factors: Factors, space: spaces.Space) -> dict[str, _Place]:
    """Where each variable is observed, by name; not those of a ``Box`` of several dimensions."""
    places = {}
    groups = factors.state if isinstance(factors.state, dict) else {"": factors.state}
    for key, variables in groups.items():
        part = space[key] if isinstance(space, spaces.Dict) else space
        if isinstance(part, spaces.Box) and len(part.shape) == 1:
            for variable, columns in zip(variables, _columns(variables), strict=True):
                places[variable.name] = _Place(key, columns, variable)
        elif not isinstance(part, spaces.Box):
            starts = np.broadcast_to(np.ravel(getattr(part, "start", 0)), len(variables))
            for index, variable in enumerate(variables):
                places[variable.name] = _Place(key, slice(index, index + 1), variable, int(starts[index]))
    return places


def _columns(variables: Sequence[Variable]) -> list[slice]:
    """Where each variable stands among the columns of all of them."""
    ends = list(accumulate(variable.width for variable in variables))
    return [slice(end - variable.width, end) for variable, end in zip(variables, ends, strict=True)]


def _checked(variable: Variable, shift: Shift) -> Shift:
    if shift == "noise":
        return shift
    if not variable.is_categorical:
        number = parse_shift(shift) if isinstance(shift, str) else shift
        if isinstance(number, str):
            raise ValueError(
                f"{variable.name} cannot be shifted by {shift!r}; allowed: 'noise', Normal(mean, std) or a number"
            )
        return number
    if isinstance(shift, Normal):
        raise ValueError(f"{variable.name} is a category, not a number: {shift} does not fit it, 'noise' or a category does")
    try:
        variable.category(shift)
    except ValueError as error:
        raise ValueError(f"{error}; 'noise' is allowed, too") from None
    return shift
