"""What becomes of models when chosen variables are observed wrongly."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.type_aliases import PolicyPredictor, PyTorchObs
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics import Windows
from sb3_fcdl.evaluation.returns import EVALUATION_SEED_OFFSET, AsInTraining, bootstrap_interval
from sb3_fcdl.fcdl import FCDLPolicy
from sb3_fcdl.inspection.model_error import prediction_errors
from sb3_fcdl.observations import Observations
from sb3_fcdl.world.declared import factors_of

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

# What "noise" multiplies: the scale of the Chemical test tasks.
NOISE_SCALE = 100.0


@dataclass(frozen=True)
class Normal:
    """
    A number that is drawn anew for each observation, from a normal distribution.

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
What is observed of a variable instead of its value: ``"noise"``: the value, one-hot if it is a category, times
``100 * N(0, 1)``, drawn anew for each observation; ``Normal``: another number; a number: always this one; what a category is
called: always this one.
"""


@dataclass(frozen=True)
class ShiftResult:
    """
    One model, with and without the shift. NaN where a policy has no model, no codes, no graphs.

    :param model: its name
    :param mean: mean return of an episode, without the shift
    :param shifted_mean: with it
    :param ci: 95 % bootstrap interval of ``mean`` over episodes
    :param shifted_ci: of ``shifted_mean``
    :param error: of one-step predictions of the variables that are not shifted, see ``prediction_errors``, without the shift
    :param shifted_error: with it, on the same transitions
    :param same_code: share of transitions whose context is the same with and without the shift
    :param same_graph: share of transitions whose graph is
    """

    model: str
    mean: float
    shifted_mean: float
    ci: tuple[float, float]
    shifted_ci: tuple[float, float]
    error: float = float("nan")
    shifted_error: float = float("nan")
    same_code: float = float("nan")
    same_graph: float = float("nan")


@dataclass(frozen=True)
class ShiftReport:
    """
    Several models under one shift.

    :param shifts: in words, by variable
    :param n_episodes: with and without the shift each
    :param results: a row a model
    """

    shifts: dict[str, str]
    n_episodes: int
    results: tuple[ShiftResult, ...] = field(default=())

    def to_frame(self) -> "pandas.DataFrame":
        """A row a model. Needs pandas (extra ``plot``)."""
        import pandas as pd

        return pd.DataFrame([asdict(result) for result in self.results]).set_index("model")

    def to_json(self) -> str:
        """All of it; what is not known is null."""
        return json.dumps(_without_nan(asdict(self)), indent=1)

    def plot(self) -> "Figure":
        """Returns and errors of each model with and without the shift. Needs matplotlib (extra ``plot``)."""
        from sb3_fcdl.plots import robustness

        return robustness.draw(self)

    def __str__(self) -> str:
        rows = [("model", "return", "shifted", "error", "shifted", "same code", "same graph")]
        rows += [(r.model, f"{r.mean:.2f} [{r.ci[0]:.2f}, {r.ci[1]:.2f}]",
                  f"{r.shifted_mean:.2f} [{r.shifted_ci[0]:.2f}, {r.shifted_ci[1]:.2f}]", _or_dash(r.error, ".3f"),
                  _or_dash(r.shifted_error, ".3f"), _or_dash(r.same_code, ".0%"), _or_dash(r.same_graph, ".0%"))
                 for r in self.results]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        said = ", ".join(f"{name}: {shift}" for name, shift in self.shifts.items())
        return "\n".join([f"{said}; {self.n_episodes} episodes", *lines])


def parse_shift(text: str) -> Shift:
    """
    :param text: ``Normal(MEAN,STD)`` or a number; all else is ``noise`` or a category
    """
    match = re.fullmatch(r"Normal\((.+),(.+)\)", text)
    try:
        return Normal(float(match[1]), float(match[2])) if match else float(text)
    except ValueError:
        return text


class _Place(NamedTuple):
    """Key of the observation, "" if it has none, and columns of one variable."""

    key: str
    columns: slice
    variable: Variable


class ShiftedVecEnv(VecEnvWrapper):
    """
    Shows chosen variables wrongly; the environment itself, its rewards and goals are as they are.

    :param venv: whose observation is a one-dimensional ``Box``, or a ``Dict`` with such
    :param factors: what its columns mean
    :param shifts: by name of the state variable
    :param seed: of the noise
    :raises ValueError: if there is no such variable, or a shift does not fit it
    """

    def __init__(self, venv: VecEnv, factors: Factors, shifts: Mapping[str, Shift], seed: int = 0) -> None:
        super().__init__(venv)
        self.rng = np.random.default_rng(seed)
        places = _places(factors, venv.observation_space)
        for name, shift in shifts.items():
            if name not in places:
                raise ValueError(f"unknown variable '{name}', those that can be shifted are {', '.join(places) or 'none'}")
            _check(places[name].variable, shift)
        self.shifts = [(places[name], shift) for name, shift in shifts.items()]
        self.clean: Observations = np.zeros(0)

    def reset(self) -> VecEnvObs:
        return self.shown(self.venv.reset())

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        return self.shown(observations), rewards, dones, infos

    def shown(self, observations: VecEnvObs) -> VecEnvObs:
        """What the agent sees of observations; they themselves are kept as ``clean``."""
        assert not isinstance(observations, tuple)
        self.clean = observations
        by_key = observations if isinstance(observations, dict) else {"": observations}
        # An integer type would wrap the numbers round.
        shifted = {key: array.astype(np.result_type(array, np.float32)) for key, array in by_key.items()}
        for place, shift in self.shifts:
            array = shifted[place.key]
            array[:, place.columns] = self._shifted(array[:, place.columns], place.variable, shift)
        return shifted if isinstance(observations, dict) else shifted[""]

    def _shifted(self, values: np.ndarray, variable: Variable, shift: Shift) -> np.ndarray:
        if shift == "noise":
            return values * NOISE_SCALE * self.rng.standard_normal((len(values), 1))
        if isinstance(shift, Normal):
            return self.rng.normal(shift.mean, shift.std, values.shape)
        if variable.is_categorical:
            return np.eye(variable.n_categories)[[variable.category(shift)] * len(values)]
        return np.full_like(values, shift)


def evaluate_shift(
    models: Mapping[str, PolicyPredictor],
    make_env: Callable[[], VecEnv],
    shifts: Mapping[str, Shift],
    n_episodes: int = 20,
    seed: int = 0,
) -> ShiftReport:
    """
    Evaluate models with and without a shift of what they observe, on the same initial states and with deterministic actions.
    They act as in training: a ``VecNormalize`` that a model still has comes after the shift.

    :param models: anything with SB3's ``predict``, by name; of an ``FCDL`` the errors, contexts and graphs are compared too
    :param make_env: makes the environments, without ``VecNormalize``; their variables are those of their ``factorization``, or
        of their spaces
    :param shifts: what is observed instead, by name of the state variable
    :param n_episodes: with and without the shift each
    :param seed: of the environments and the noise
    :raises ValueError: if there is no such variable, a shift does not fit it, the environments have a ``VecNormalize``, or
        ``n_episodes`` is below 1
    """
    if n_episodes < 1:
        raise ValueError(f"n_episodes must be at least 1, got {n_episodes}")
    results = []
    for name, model in models.items():
        shifted, plain = (_Evaluation(model, make_env, chosen, n_episodes, seed) for chosen in (shifts, {}))
        mean, low, high = bootstrap_interval(plain.returns)
        shifted_mean, shifted_low, shifted_high = bootstrap_interval(shifted.returns)
        measured = shifted.compare()
        results.append(ShiftResult(name, mean, shifted_mean, (low, high), (shifted_low, shifted_high), **measured))
    words = {name: str(shift) for name, shift in shifts.items()}
    return ShiftReport(words, n_episodes, tuple(results))


class _Evaluation:
    """The episodes of one model under one shift, and its transitions as they were shown and as they were."""

    def __init__(
        self,
        model: PolicyPredictor,
        make_env: Callable[[], VecEnv],
        shifts: Mapping[str, Shift],
        n_episodes: int,
        seed: int,
    ) -> None:
        venv = make_env()
        if unwrap_vec_normalize(venv) is not None:
            raise ValueError(
                "shifts are in the environment's units, which VecNormalize hides: make the environments without it. A model "
                "that learned with it brings its own: load(path, env=VecNormalize.load(...))"
            )
        venv.seed(EVALUATION_SEED_OFFSET + seed)
        self.factors = factors_of(venv)
        self.env = ShiftedVecEnv(venv, self.factors, shifts, seed)
        self.shifted_names = tuple(shifts)
        policy = getattr(model, "policy", model)
        self.policy = policy if isinstance(policy, FCDLPolicy) else None
        self.acting = AsInTraining(model, self.env)
        self.before: tuple[th.Tensor, th.Tensor, th.Tensor] | None = None
        self.transitions: list[tuple[th.Tensor, ...]] = []
        returns, _ = evaluate_policy(self, self.env, n_episodes, callback=self._note, return_episode_rewards=True, warn=False)
        self.returns = np.asarray(returns)
        self.env.close()

    def predict(
        self,
        observation: Any,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """SB3's signature; what is shown and what is true of it are noted."""
        actions, state = self.acting.predict(observation, state, episode_start, deterministic)
        if self.policy is not None:
            world = self.policy.world
            stored = th.as_tensor(world.factorization.buffer_actions(np.asarray(actions)), device=world.device)
            shown, clean = world.encode(self._given(observation)), world.encode(self._given(self.env.clean))
            self.before = (shown, clean, world.encode_action(stored))
        return actions, state

    def _note(self, local_variables: dict[str, Any], _: dict[str, Any]) -> None:
        """Called after each step for each environment: keeps the transition, if it has not left its episode."""
        if self.policy is None or local_variables["done"]:
            return
        assert self.before is not None
        row = local_variables["i"]
        after = self.policy.world.encode(self._given(self.env.clean))
        self.transitions.append((*(each[row] for each in self.before), after[row]))

    def _given(self, observation: Observations) -> PyTorchObs:
        assert self.policy is not None
        return obs_as_tensor(self.acting.given(observation), self.policy.device)

    def compare(self) -> dict[str, float]:
        """What the model makes of the transitions as they were shown, beside what it makes of them as they were."""
        if self.policy is None or not self.transitions:
            return {}
        shown, clean, action, after = (th.stack(each) for each in zip(*self.transitions, strict=True))
        rows = [name not in self.shifted_names for name in self.factors.state_names]

        def error(state: th.Tensor) -> float:
            valid = th.ones(len(state), 1, dtype=th.bool, device=state.device)
            windows = Windows(state.unsqueeze(1), action.unsqueeze(1), after.unsqueeze(1), valid)
            assert self.policy is not None
            return prediction_errors(self.policy.world, windows)[:, 0, rows].mean().item()

        values = {"error": error(clean), "shifted_error": error(shown)}
        with th.no_grad():
            of_clean, of_shown = self.policy.dynamics.step(clean, action), self.policy.dynamics.step(shown, action)
        if of_clean.code is not None and of_shown.code is not None:
            values["same_code"] = (of_clean.code == of_shown.code).double().mean().item()
        if of_clean.graph is not None and of_shown.graph is not None:
            values["same_graph"] = (of_clean.graph == of_shown.graph).flatten(1).all(1).double().mean().item()
        return values


def _places(factors: Factors, space: spaces.Space) -> dict[str, _Place]:
    """Where each variable of a one-dimensional ``Box``, or of a ``Dict`` of them, is observed, by name."""
    places = {}
    groups = factors.state if isinstance(factors.state, dict) else {"": factors.state}
    for key, variables in groups.items():
        part = space[key] if isinstance(space, spaces.Dict) else space
        column = 0
        for variable in variables:
            if isinstance(part, spaces.Box) and len(part.shape) == 1:
                places[variable.name] = _Place(key, slice(column, column + variable.width), variable)
            column += variable.width
    return places


def _check(variable: Variable, shift: Shift) -> None:
    if shift == "noise":
        return
    if not variable.is_categorical:
        if isinstance(shift, str):
            raise ValueError(
                f"{variable.name} cannot be shifted by {shift!r}; allowed: 'noise', Normal(mean, std) or a number"
            )
        return
    if isinstance(shift, Normal):
        raise ValueError(f"{variable.name} is a category, not a number: {shift} does not fit it, 'noise' or a category does")
    try:
        variable.category(shift)
    except ValueError as error:
        raise ValueError(f"{error}; 'noise' is allowed, too") from None


def _or_dash(value: float, spec: str) -> str:
    return "-" if np.isnan(value) else format(value, spec)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value
