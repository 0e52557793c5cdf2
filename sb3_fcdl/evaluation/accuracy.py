"""One-step accuracy of a model, in and out of distribution, beside chance and the Bayes-optimal prediction."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.utils import obs_as_tensor

from fcdl_envs.arguments import check, integer
from sb3_fcdl.evaluation.markdown import markdown
from sb3_fcdl.evaluation.paired import joined, one_step, paired_envs, policy_of, random_steps
from sb3_fcdl.evaluation.returns import Task
from sb3_fcdl.fcdl import FCDL, FCDLPolicy
from sb3_fcdl.observations import Observations
from sb3_fcdl.world.world_model import WorldModel

BayesStep = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""
``(categories [B, V], actions [B]) -> [B, V]``: the most likely next category of each variable under the true dynamics, one
variable at a time. On average no model is more accurate.
"""

CHANCE = "chance"
NO_CHANGE = "no change"
BAYES = "Bayes"


@dataclass(frozen=True)
class AccuracyResult:
    """
    Accuracy of one-step predictions on one task.

    :param task: name of the task
    :param accuracy: share of the categories that are predicted right, over transitions and those categorical variables that
        are not corrupted, in [0, 1]
    """

    task: str
    accuracy: float


def evaluate_accuracy(
    models: Mapping[str, FCDL | FCDLPolicy],
    env_id: str,
    env_kwargs: dict[str, Any],
    tasks: Sequence[Task],
    clean_kwargs: dict[str, Any] | None = None,
    bayes_step: BayesStep | None = None,
    n_steps: int = 200,
    seed: int = 0,
    n_envs: int = 10,
) -> dict[str, list[AccuracyResult]]:
    """
    Compare one-step predictions with what happens, under random actions. The models see corrupted observations. Corrupted
    variables do not count, because their true values cannot be known.

    :param models: trained models of the same variables, by name, at least one; see ``evaluate_graphs``
    :param env_id: registered name of the environment
    :param env_kwargs: its keyword arguments, without the task
    :param tasks: what to evaluate on
    :param clean_kwargs: keyword arguments under which the environment shows the same episodes without corruption; None or
        empty: nothing is corrupted
    :param bayes_step: of the true dynamics; None: not known
    :param n_steps: steps of each environment
    :param seed: of the environments and the actions
    :param n_envs: environments that are stepped at once
    :return: a result for each task, by name of the predictor: ``chance`` (all categories equally likely), ``no change``, the
        models, and, if the true dynamics are known, ``Bayes``, which sees the true state
    :raises ValueError: if there is no categorical variable
    """
    check(n_steps=(n_steps, integer(1)), seed=(seed, integer(0)), n_envs=(n_envs, integer(1)))
    first = policy_of(next(iter(models.values())))
    assert first is not None
    states = _States(first.world)
    if not states.is_categorical.any():
        raise ValueError(f"{env_id} has no categorical variable to predict right or wrong")
    chance = np.array([1 / variable.n_categories for variable in states.variables if variable.is_categorical])
    predictors = {name: one_step(model) for name, model in models.items()}
    results: dict[str, list[AccuracyResult]] = {}
    for task in tasks:
        counts: list[np.ndarray] = []
        right: dict[str, list[np.ndarray]] = defaultdict(list)
        envs = paired_envs(env_id, env_kwargs, task, clean_kwargs, n_envs)
        for step in joined(random_steps(envs, n_steps, seed)):
            state = states.raw(step.observations[-1])
            now, after = states.categories(state), states.categories(states.raw(step.next_observations[-1]))
            counts.append(states.is_shown(states.raw(step.observations[0]), state))
            predicted = {NO_CHANGE: now}
            for name, predict in predictors.items():
                predicted[name] = states.categories(predict(step.observations[0], step.actions).next_state.mode())
            if bayes_step is not None:
                predicted[BAYES] = bayes_step(now, step.actions)
            right[CHANCE].append(np.broadcast_to(chance, now.shape))
            for name, next_categories in predicted.items():
                right[name].append(next_categories == after)
        for name, hits in right.items():
            accuracy = np.concatenate(hits)[np.concatenate(counts)].mean()
            results.setdefault(name, []).append(AccuracyResult(task.name, float(accuracy)))
    return results


class _States:
    """
    States as an environment shows them, and their categories.

    :param world: knows the variables
    """

    def __init__(self, world: WorldModel) -> None:
        self.world = world
        self.variables = world.factors.state_variables
        self.is_categorical = np.array([variable.is_categorical for variable in self.variables])

    def raw(self, observations: Observations) -> th.Tensor:
        """In the environment's units, ``[B, D]``."""
        return self.world.factorization.raw_state(obs_as_tensor(observations, self.world.device))

    def categories(self, state: th.Tensor) -> np.ndarray:
        """Of the categorical variables, ``[B, n]``."""
        return self.world.dynamics.layout.categories(state).cpu().numpy()

    def is_shown(self, seen: th.Tensor, true: th.Tensor) -> np.ndarray:
        """Which of the categorical variables are shown as they are, ``[B, n]``, bool."""
        same = [(seen == true)[:, columns].all(-1) for columns in self.world.factors.state_slices]
        return th.stack(same, dim=-1).cpu().numpy()[:, self.is_categorical]


def format_accuracy(results: Mapping[str, Sequence[AccuracyResult]]) -> str:
    """
    A Markdown table: a row for each predictor, a column for each task.

    :param results: see ``evaluate_accuracy``
    """
    tasks = [result.task for result in next(iter(results.values()))]
    rows = [[name, *(f"{100 * result.accuracy:.1f} %" for result in row)] for name, row in results.items()]
    return markdown(["one-step accuracy", *tasks], rows)
