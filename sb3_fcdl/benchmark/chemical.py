"""
Chemical's tasks, and policies that learn nothing: the floors and the ceiling beside every result.

Noise does not change their returns. Some read the last object or the objects that count for the reward, none of which is ever
noisy; the ceiling plans from the true state.
"""

from abc import abstractmethod
from typing import Any, get_args

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import PolicyPredictor

from fcdl_envs.chemical import goal_match_reward
from fcdl_envs.chemical_system import ChemicalSystem, Rule
from sb3_fcdl.benchmark.base import Benchmark, EnvOption, PlanningReference, ReferencePolicy
from sb3_fcdl.evaluation.returns import Task
from sb3_fcdl.planning import DiscreteActions, Plan, Planner
from sb3_fcdl.presets import preset_planner

ENV_ID = "FCDL/Chemical-v0"
CEILING = "planner on the true dynamics"


class ColorPolicy(ReferencePolicy):
    """
    A policy that sees colours and goals.

    :param n_objects: number of objects, ``V``
    :param n_colors: number of colours
    :param seed: of the policy's own random choices
    """

    def __init__(self, n_objects: int, n_colors: int, seed: int = 0) -> None:
        self.n_objects = n_objects
        self.n_colors = n_colors
        self.rng = np.random.default_rng(seed)

    def act(self, observation: Any) -> np.ndarray:
        current, goal = (observation[key].reshape(-1, self.n_objects, self.n_colors) for key in ("state", "goal"))
        return self.paint(current.argmax(axis=-1), goal)

    @abstractmethod
    def paint(self, colors: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """
        :param colors: as observed, ``[B, V]``, int; the colours of noisy objects are meaningless
        :param goal: one-hot goals, zero outside the match set, ``[B, V, n_colors]``
        :return: actions, ``[B]``, int64
        """


class NoOp(ColorPolicy):
    """Sets the last object, which has no children, to the colour that it already has."""

    def paint(self, colors: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return (self.n_objects - 1) * self.n_colors + colors[:, -1]


class Random(ColorPolicy):
    """Uniform over all actions."""

    def paint(self, colors: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return self.rng.integers(self.n_objects * self.n_colors, size=len(colors))


class RandomWithoutRoot(ColorPolicy):
    """Uniform over the actions that do not act on object 0, which decides the regime."""

    def paint(self, colors: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return self.rng.integers(self.n_colors, self.n_objects * self.n_colors, size=len(colors))


class FixedOrder(NoOp):
    """Sets the first object of the match set that differs from its goal to that goal; if none differs, does nothing."""

    def paint(self, colors: np.ndarray, goal: np.ndarray) -> np.ndarray:
        wanted = goal.argmax(axis=-1)
        differs = goal.any(axis=-1) & (wanted != colors)
        first = differs.argmax(axis=-1)
        repair = first * self.n_colors + wanted[np.arange(len(first)), first]
        return np.where(differs.any(axis=-1), repair, super().paint(colors, goal))


class TrueDynamicsPlanner(PlanningReference):
    """
    The ceiling: a model's planner on the most likely step of the true system.

    :param system: the true system
    :param seed: of the planner
    :param planner: the planner; None: that of the default preset
    """

    def __init__(self, system: ChemicalSystem, seed: int = 0, planner: Planner | None = None) -> None:
        self.system = system
        self.n_objects, self.n_colors = system.n_objects, system.n_colors
        super().__init__(planner or preset_planner(ENV_ID, DiscreteActions(self.n_objects * self.n_colors)), seed)
        # A state as a number in base n_colors. In a large system int64 is too small for that: then there is no key.
        self.place_values = th.as_tensor(self.n_colors ** np.arange(self.n_objects))
        self.key = self._number if self.n_colors**self.n_objects <= 2**63 else None

    def plan(self, observation: Any, warm_start: th.Tensor | None) -> Plan:
        """:param observation: only its goal is used"""
        colors = np.stack([env_state["colors"] for env_state in self.env.env_method("get_state")])
        return self.plan_from(colors, observation["goal"], warm_start)

    def plan_from(self, colors: np.ndarray, goal: np.ndarray, warm_start: th.Tensor | None = None) -> Plan:
        """
        :param colors: the true ones, ``[B, V]``
        :param goal: one-hot goal colours, zero outside the match set, ``[B, V, C]`` or flat
        :param warm_start: of the last plan
        """
        state, wanted = self._one_hot(colors), th.as_tensor(goal).flatten(1)
        generators = [self.generator] * len(state)
        return self.planner.plan(
            self._step, goal_match_reward, state, wanted, generators=generators, key=self.key, warm_start=warm_start
        )

    def _step(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        return self._one_hot(self.system.most_likely_step(self._colors(state).numpy(), action.argmax(dim=-1).numpy()))

    def _number(self, state: th.Tensor) -> th.Tensor:
        return self._colors(state) @ self.place_values

    def _colors(self, state: th.Tensor) -> th.Tensor:
        return state.unflatten(-1, (self.n_objects, self.n_colors)).argmax(dim=-1)

    def _one_hot(self, colors: np.ndarray) -> th.Tensor:
        return th.nn.functional.one_hot(th.as_tensor(colors, dtype=th.int64), self.n_colors).flatten(-2).float()


class MostFrequentStep:
    """
    The most likely next colour of each object, estimated by counting draws of the true dynamics. It differs from the most
    likely joint next state, which the planner uses.

    :param system: the true dynamics
    :param n_draws: draws for each state and action
    :param seed: of the draws
    """

    def __init__(self, system: ChemicalSystem, n_draws: int = 400, seed: int = 0) -> None:
        self.system = system
        self.n_draws = n_draws
        self.rng = np.random.default_rng(seed)

    def __call__(self, colors: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """
        :param colors: ``[B, V]``
        :param actions: ``[B]``
        :return: ``[B, V]``
        """
        uniforms = self.rng.random((len(colors) * self.n_draws, self.system.n_objects))
        drawn = self.system.step(np.repeat(colors, self.n_draws, axis=0), np.repeat(actions, self.n_draws), uniforms)
        drawn = drawn.reshape(len(colors), self.n_draws, -1)
        counts = np.stack([(drawn == color).sum(axis=1) for color in range(self.system.n_colors)], axis=-1)
        return counts.argmax(axis=-1)


def chemical_references(
    env_id: str, env_kwargs: dict[str, Any], seed: int = 0, planner: Planner | None = None
) -> dict[str, PolicyPredictor]:
    """
    The floors and the ceiling for one Chemical system, from the lowest up.

    :param env_id: registered name of the environment
    :param env_kwargs: its keyword arguments, without the task
    :param seed: of the policies' own random choices
    :param planner: of the ceiling; None: that of the default preset
    :return: the policies by name
    """
    system = chemical_system(env_id, env_kwargs)
    sizes = (system.n_objects, system.n_colors, seed)
    return {
        "no-op": NoOp(*sizes),
        "random": Random(*sizes),
        "random, root excluded": RandomWithoutRoot(*sizes),
        "fix in index order": FixedOrder(*sizes),
        CEILING: TrueDynamicsPlanner(system, seed, planner),
    }


def chemical_system(env_id: str, env_kwargs: dict[str, Any]) -> ChemicalSystem:
    """
    :param env_id: registered name of the environment
    :param env_kwargs: its keyword arguments
    :return: the true dynamics
    """
    env = gym.make(env_id, **env_kwargs)
    system: ChemicalSystem = env.get_wrapper_attr("system")
    env.close()
    return system


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
    env_kwargs=lambda seed: {"rule": "full_fork", "dynamics_seed": seed},
    clean_kwargs={"noise": "none"},
    options=(
        EnvOption("rule", "train", get_args(Rule), "graph of the local regime", is_in_run_name=True),
        EnvOption("noise", "evaluate", ("scale", "color"), "what a corrupted object shows"),
    ),
    description=(
        "An episode has 25 steps. The test tasks corrupt n objects (`n=2`, `n=4`, `n=6`; in a small system only those with "
        "n <= n_objects - 4) and ask for colours that training never asks for. What a corrupted object shows: with "
        "`--noise scale` its one-hot colour times 100 * N(0, 1), with `--noise color` any colour."
    ),
    rows={
        "no-op": "sets the last object to the colour that it has",
        "random": "uniform over all actions",
        "random, root excluded": "uniform over the actions that do not change the regime",
        "fix in index order": "sets the first wrong object right",
        CEILING: (
            "the model's planner with the true system as its model and the true colours of corrupted objects: what a perfect "
            "model would reach"
        ),
    },
    bayes_step=lambda env_id, env_kwargs: MostFrequentStep(chemical_system(env_id, env_kwargs)),
)
