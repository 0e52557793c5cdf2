"""The robustness report: models with and without a shift of what they observe."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.type_aliases import PolicyPredictor, PyTorchObs
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from fcdl_envs.arguments import check, integer
from sb3_fcdl.dynamics import Windows
from sb3_fcdl.evaluation.paired import policy_of, same_code, same_graph
from sb3_fcdl.evaluation.returns import EVALUATION_SEED_OFFSET, AsInTraining, bootstrap_interval
from sb3_fcdl.evaluation.shifted_env import Shift, ShiftedVecEnv
from sb3_fcdl.extras import needs
from sb3_fcdl.inspection.model_error import prediction_errors
from sb3_fcdl.observations import Observations
from sb3_fcdl.progress import progress
from sb3_fcdl.world.declared import factors_of

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


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
    :param shifted_error: the same with the shift, on the same transitions
    :param same_code: share of the transitions whose context is the same with and without the shift
    :param same_graph: share of the transitions whose graph is the same with and without the shift
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
    :param n_episodes: episodes with the shift, and as many without
    :param results: one for each model
    """

    shifts: dict[str, str]
    n_episodes: int
    results: tuple[ShiftResult, ...] = field(default=())

    def to_frame(self) -> "pandas.DataFrame":
        """A row for each model. Needs pandas (extra ``plot``)."""
        with needs("pandas", "plot"):
            import pandas as pd

        return pd.DataFrame([asdict(result) for result in self.results]).set_index("model")

    def to_json(self) -> str:
        """The whole report as JSON; NaN becomes null."""
        return json.dumps(_without_nan(asdict(self)), indent=1)

    def plot(self) -> "Figure":
        """Returns and errors of each model with and without the shift. Needs matplotlib (extra ``plot``)."""
        from sb3_fcdl.plots import robustness

        return robustness.draw(
            names=[result.model for result in self.results],
            means=np.array([[r.mean for r in self.results], [r.shifted_mean for r in self.results]]),
            intervals=np.array([[r.ci for r in self.results], [r.shifted_ci for r in self.results]]),
            errors=np.array([[r.error for r in self.results], [r.shifted_error for r in self.results]]),
            shift=self._in_words(),
            n_episodes=self.n_episodes,
        )

    def __str__(self) -> str:
        rows = [("model", "return", "shifted", "error", "shifted", "same code", "same graph")]
        rows += [(r.model, f"{r.mean:.2f} [{r.ci[0]:.2f}, {r.ci[1]:.2f}]",
                  f"{r.shifted_mean:.2f} [{r.shifted_ci[0]:.2f}, {r.shifted_ci[1]:.2f}]", _or_dash(r.error, ".3f"),
                  _or_dash(r.shifted_error, ".3f"), _or_dash(r.same_code, ".0%"), _or_dash(r.same_graph, ".0%"))
                 for r in self.results]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([f"{self._in_words()}; {self.n_episodes} episodes", *lines])

    def _in_words(self) -> str:
        return ", ".join(f"{name}: {shift}" for name, shift in self.shifts.items())


def evaluate_shift(
    models: Mapping[str, PolicyPredictor],
    make_env: Callable[[], VecEnv],
    shifts: Mapping[str, Shift],
    n_episodes: int = 20,
    seed: int = 0,
    progress_bar: bool = False,
) -> ShiftReport:
    """
    Evaluate models with and without a shift of what they observe, on the same initial states and with deterministic actions.
    If a model still has its ``VecNormalize``, observations are normalised after the shift.

    :param models: anything with SB3's ``predict``, by name; of an ``FCDL`` the errors, contexts and graphs are compared too
    :param make_env: makes the environments, without ``VecNormalize``; their variables are those of their ``factorization``, or
        of their spaces
    :param shifts: what is observed instead, by name of the state variable
    :param n_episodes: episodes with the shift, and as many without
    :param seed: of the environments and the noise
    :param progress_bar: show how many episodes are done, as SB3's ``learn`` does; needs tqdm and rich (extra ``extra``)
    :raises ValueError: if there is no such variable, a shift does not fit it, the environments have a ``VecNormalize``, or
        ``n_episodes`` is below 1
    """
    check(n_episodes=(n_episodes, integer(1)), seed=(seed, integer(0)))
    results = []
    with progress("episodes", 2 * n_episodes * len(models), progress_bar) as has_ended:
        for name, model in models.items():
            shifted, plain = (_Evaluation(model, make_env, chosen, n_episodes, seed, has_ended) for chosen in (shifts, {}))
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
        has_ended: Callable[[], Any],
    ) -> None:
        self.has_ended = has_ended
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
        self.policy = policy_of(model)
        self.acting = AsInTraining(model, self.env, self._note_action)
        self.before: tuple[th.Tensor, th.Tensor, th.Tensor] | None = None
        self.transitions: list[tuple[th.Tensor, ...]] = []
        returns, _ = evaluate_policy(
            self.acting, self.env, n_episodes, callback=self._note_step, return_episode_rewards=True, warn=False
        )
        self.returns = np.asarray(returns)
        self.env.close()

    def _note_action(self, observation: Observations, actions: np.ndarray) -> None:
        """Called before each step of all environments: keeps what is shown and what is true of it."""
        if self.policy is not None:
            world = self.policy.world
            stored = th.as_tensor(world.factorization.buffer_actions(np.asarray(actions)), device=world.device)
            shown, clean = world.encode(self._given(observation)), world.encode(self._given(self.env.clean))
            self.before = (shown, clean, world.encode_action(stored))

    def _note_step(self, local_variables: dict[str, Any], _: dict[str, Any]) -> None:
        """Called after each step for each environment: keeps the transition, if it has not left its episode."""
        if local_variables["done"]:
            self.has_ended()
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
        """Predictions from the shifted observations beside predictions from the true ones: fields of ``ShiftResult``."""
        if self.policy is None or not self.transitions:
            return {}
        shown, clean, action, after = (th.stack(each) for each in zip(*self.transitions, strict=True))
        rows = [name not in self.shifted_names for name in self.factors.state_names]

        def error(state: th.Tensor) -> float:
            valid = th.ones(len(state), 1, dtype=th.bool, device=state.device)
            windows = Windows(state.unsqueeze(1), action.unsqueeze(1), after.unsqueeze(1), valid)
            assert self.policy is not None
            return prediction_errors(self.policy.world, windows)[:, 0, rows].mean().item()

        with th.no_grad():
            of_clean, of_shown = self.policy.dynamics.step(clean, action), self.policy.dynamics.step(shown, action)
        return {
            "error": error(clean),
            "shifted_error": error(shown),
            "same_code": float(same_code(of_clean, of_shown).mean()),
            "same_graph": float(same_graph(of_clean, of_shown).mean()),
        }


def _or_dash(value: float, spec: str) -> str:
    return "-" if np.isnan(value) else format(value, spec)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value
