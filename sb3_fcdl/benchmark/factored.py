"""The small environments whose graphs are known at every step: random actions, no-op and a script, floors for a model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.type_aliases import PolicyPredictor

from fcdl_envs.contact import contact_script
from fcdl_envs.thermostat import thermostat_script
from fcdl_envs.workshop import workshop_script
from sb3_fcdl.benchmark.base import Benchmark, RandomActions, ReferencePolicy
from sb3_fcdl.evaluation.returns import Task
from sb3_fcdl.planning import Planner

NO_OP, RANDOM, SCRIPT = "no-op", "random", "script"


class Script(ReferencePolicy):
    """
    A function of one observation.

    :param function: returns an action
    """

    def __init__(self, function: Callable[[Any], np.ndarray]) -> None:
        self.function = function

    def act(self, observation: Any) -> np.ndarray:
        """:param observation: ``[B, ...]``, of a ``Dict`` by key"""
        if isinstance(observation, dict):
            n_envs = len(next(iter(observation.values())))
            singles: list[Any] = [{key: values[row] for key, values in observation.items()} for row in range(n_envs)]
        else:
            singles = list(observation)
        return np.stack([self.function(each) for each in singles])


@dataclass(frozen=True)
class Zeros:
    """
    Of every observation the action of zeros.

    :param size: entries of an action
    :param dtype: of them
    """

    size: int
    dtype: type = np.int64

    def __call__(self, observation: Any) -> np.ndarray:
        return np.zeros(self.size, dtype=self.dtype)


@dataclass(frozen=True)
class _References:
    """
    :param no_op: does nothing
    :param script: a sensible policy
    """

    no_op: Zeros
    script: Callable[[Any], np.ndarray]

    def __call__(
        self, env_id: str, env_kwargs: dict[str, Any], seed: int = 0, planner: Planner | None = None
    ) -> dict[str, PolicyPredictor]:
        return {
            RANDOM: RandomActions(env_id, env_kwargs, seed),
            NO_OP: Script(self.no_op),
            SCRIPT: Script(self.script),
        }


def _benchmark(references: _References, description: str, script: str, left_out: tuple[str, ...] = ()) -> Benchmark:
    rows = {RANDOM: "uniform over all actions", NO_OP: "the action of zeros", SCRIPT: script}
    return Benchmark(
        tasks=lambda env_kwargs: (Task("train"),),
        references=references,
        left_out=left_out,
        description=description,
        rows=rows,
    )


FACTORED = {
    "FCDL/Thermostat-v0": _benchmark(
        _References(Zeros(3), thermostat_script),
        "An episode has 48 steps. The window and the mode of the heater choose which parents matter.",
        "keeps the window shut and the living room at 21 °C",
        left_out=("window", "mode"),
    ),
    "FCDL/Contact-v0": _benchmark(
        _References(Zeros(2, np.float32), contact_script),
        "An episode has 100 steps. Which bodies touch, or could, chooses which parents matter.",
        "goes behind the second body and pushes it to its goal",
    ),
    "FCDL/Workshop-v0": _benchmark(
        _References(Zeros(2), workshop_script),
        "An episode has 50 steps. The conditions of the machines choose which parents matter.",
        "sends the crew to what is broken or worn, and orders while little is on its way",
        left_out=("machine1", "machine2", "machine3"),
    ),
}
