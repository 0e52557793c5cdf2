"""What is measured of a trained model on the tasks of its environment."""

from collections.abc import Callable
from typing import Any

from stable_baselines3.common.type_aliases import PolicyPredictor

from sb3_fcdl.benchmark import benchmark_of, evaluate_predictions
from sb3_fcdl.evaluation import evaluate_tasks
from sb3_fcdl.fcdl import FCDL
from sb3_fcdl.planning import Planner
from sb3_fcdl.runs.measurements import NOT_CORRUPTED, Measurements
from sb3_fcdl.runs.record import TrainRecord

# Each policy with the keyword arguments of its environment, by name.
Policies = dict[str, tuple[PolicyPredictor, dict[str, Any]]]


def learned(model: PolicyPredictor, record: TrainRecord) -> Policies:
    """
    A model; and, if its environment corrupts observations, the same one without corruption.

    :param model: the model
    :param record: of its training
    """
    benchmark = benchmark_of(record.env)
    policies: Policies = {record.algo: (model, record.env_kwargs)}
    if benchmark.clean_kwargs:
        policies[record.algo + NOT_CORRUPTED] = (model, {**record.env_kwargs, **benchmark.clean_kwargs})
    return policies


def references(env_id: str, env_kwargs: dict[str, Any], seed: int, planner: Planner | None = None) -> Policies:
    """
    Floors and ceiling of an environment.

    :param env_id: its registered name
    :param env_kwargs: its keyword arguments
    :param seed: of the policies' own choices
    :param planner: of the ceiling; None: that of the default preset
    """
    policies = benchmark_of(env_id).references(env_id, env_kwargs, seed, planner)
    return {name: (policy, env_kwargs) for name, policy in policies.items()}


def measure(
    policies: Policies,
    record: TrainRecord,
    n_episodes: int,
    seed: int,
    model: FCDL | None = None,
    said: Callable[[str], object] = lambda name: None,
    progress_bar: bool = False,
) -> Measurements:
    """
    Returns on all tasks; of a model also its graphs and predictions, where the true ones are known.

    :param policies: whose returns are measured
    :param record: of the model's training
    :param n_episodes: episodes a task
    :param seed: of the evaluation
    :param model: whose graphs and predictions are measured; None: of none
    :param said: called with the name of a policy before it is evaluated
    :param progress_bar: see ``evaluate_tasks``
    """
    tasks, returns = benchmark_of(record.env).tasks(record.env_kwargs), {}
    for name, (policy, env_kwargs) in policies.items():
        said(name)
        returns[name] = evaluate_tasks(policy, record.env, env_kwargs, tasks, n_episodes, seed, progress_bar=progress_bar)
    predictions = () if model is None else evaluate_predictions(model, record, seed)
    return Measurements(returns, *predictions)
