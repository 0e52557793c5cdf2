"""What the benchmark knows about an environment: its tasks, floors and ceiling, and settings that are known to work."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stable_baselines3.common.type_aliases import PolicyPredictor

from sb3_fcdl.benchmark.evaluation import Task
from sb3_fcdl.benchmark.references import RandomActions, chemical_references


@dataclass(frozen=True)
class Preset:
    """
    Settings of a training run.

    :param settings: keyword arguments of ``FCDL``
    :param dynamics_kwargs: keyword arguments of a dynamics model, by its name
    """

    settings: dict[str, Any] = field(default_factory=dict)
    dynamics_kwargs: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """
    One environment.

    :param tasks: from the environment's keyword arguments to its tasks, the training task first
    :param references: from its name, keyword arguments and a seed to policies that learn nothing, by name, from the lowest up
    :param presets: by name; the first one is the default
    :param env_kwargs: from the seed of a run to keyword arguments of the environment
    """

    tasks: Callable[[dict[str, Any]], tuple[Task, ...]]
    references: Callable[[str, dict[str, Any], int], dict[str, PolicyPredictor]]
    presets: dict[str, Preset]
    env_kwargs: Callable[[int], dict[str, Any]] = lambda seed: {}

    def preset(self, name: str | None) -> Preset:
        """
        :param name: of a preset; None: the default
        :raises ValueError: if there is no such preset
        """
        if name is None:
            return next(iter(self.presets.values()))
        if name not in self.presets:
            raise ValueError(f"unknown preset {name!r}, allowed: {', '.join(self.presets)}")
        return self.presets[name]


def chemical_tasks(n_objects: int = 10) -> tuple[Task, ...]:
    """
    The training task, and the paper's three test tasks as far as they exist for that many objects.

    :param n_objects: number of objects of the environment
    """
    tests = (Task(f"n={n}", {"task": "test", "n_noisy": n}) for n in (2, 4, 6) if n <= n_objects - 4)
    return Task("train", {"task": "train", "n_noisy": 0}), *tests


CHEMICAL = Benchmark(
    tasks=lambda env_kwargs: chemical_tasks(env_kwargs.get("n_objects", 10)),
    references=chemical_references,
    presets={
        "default": Preset(dynamics_kwargs={"fcdl": {"graph_prior": "order"}}),
        "paper": Preset(dynamics_kwargs={"fcdl": {"graph_prior": "order", "sparsity_coef": 0.001}}),
    },
    env_kwargs=lambda seed: {"rule": "full_fork", "dynamics_seed": seed},
)

ANY = Benchmark(
    tasks=lambda env_kwargs: (Task("train"),),
    references=lambda env_id, env_kwargs, seed: {"random": RandomActions(env_id, env_kwargs, seed)},
    presets={"default": Preset()},
)


def benchmark_of(env_id: str) -> Benchmark:
    """
    :param env_id: registered name, with or without the module in front
    :return: what is known about the environment; of one that we have never heard of, its training task and random actions
    """
    return {"FCDL/Chemical-v0": CHEMICAL}.get(env_id.rpartition(":")[2], ANY)
