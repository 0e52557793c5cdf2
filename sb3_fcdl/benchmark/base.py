"""What the benchmark knows about an environment: its tasks, and policies that learn nothing, its floors and ceiling."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import PolicyPredictor
from stable_baselines3.common.vec_env import VecEnv

from sb3_fcdl.evaluation.accuracy import BayesStep
from sb3_fcdl.evaluation.returns import Task
from sb3_fcdl.fcdl.policies import state_of, warm_start_of
from sb3_fcdl.observations import Observations
from sb3_fcdl.planning import Plan, Planner


@dataclass(frozen=True)
class EnvOption:
    """
    A keyword argument of an environment that the command line has an option for.

    :param name: of the keyword argument; the option is ``--NAME``
    :param command: that has it
    :param choices: its values, the environment's default first
    :param help: what it does
    :param is_in_run_name: whether its value stands in the name of a run's folder
    """

    name: str
    command: Literal["train", "evaluate"]
    choices: tuple[str, ...]
    help: str
    is_in_run_name: bool = False


@dataclass(frozen=True)
class Benchmark:
    """
    One environment.

    :param tasks: function of the environment's keyword arguments; returns its tasks, the training task first
    :param references: function of the environment's name, its keyword arguments, a seed and a planner; returns policies that
        learn nothing, by name, in ascending order. One of them uses the planner on the true dynamics; None: the planner of the
        default preset
    :param env_kwargs: function of the seed of a run; returns keyword arguments of the environment
    :param clean_kwargs: keyword arguments under which the environment shows the same episodes without corruption; empty:
        nothing is corrupted
    :param bayes_step: function of the environment's name and its keyword arguments; returns the best possible prediction.
        None: not known
    :param tells_graphs: whether ``info["local_graph"]`` and ``info["transition_graph"]`` are the true graphs of a transition
    :param left_out: variables that a model may know from the context, so that their edges do not count beside the transition
        graph
    :param options: keyword arguments that the command line has options for
    :param description: its tasks and what is corrupted in them, for the help of the command line
    :param rows: what each of the references does, by name, likewise
    """

    tasks: Callable[[dict[str, Any]], tuple[Task, ...]]
    references: Callable[[str, dict[str, Any], int, Planner | None], dict[str, PolicyPredictor]]
    env_kwargs: Callable[[int], dict[str, Any]] = lambda seed: {}
    clean_kwargs: dict[str, Any] = field(default_factory=dict)
    bayes_step: Callable[[str, dict[str, Any]], BayesStep] | None = None
    tells_graphs: bool = True
    left_out: tuple[str, ...] = ()
    options: tuple[EnvOption, ...] = ()
    description: str = ""
    rows: dict[str, str] = field(default_factory=dict)


class ReferencePolicy(ABC):
    """A policy that learns nothing, with the signature of SB3's ``predict``."""

    def predict(
        self,
        observation: Observations,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        SB3's signature.

        :param observation: a batch of ``B`` observations
        :param state: what the last call returned
        :param episode_start: which environments start anew, ``[B]``
        :param deterministic: not used
        :return: actions, ``[B, ...]``, and the state of the next call
        """
        return self.act(observation), state

    @abstractmethod
    def act(self, observation: Any) -> np.ndarray:
        """
        :param observation: a batch of ``B`` observations
        :return: actions, ``[B, ...]``
        """


class PlanningReference(ABC):
    """
    A planner on the true dynamics, undiscounted as returns are, with the signature of SB3's ``predict``. It reads the true
    state of the environments that it is attached to; ``evaluate_tasks`` attaches it.

    :param planner: what it plans with
    :param seed: of the planner
    """

    def __init__(self, planner: Planner, seed: int = 0) -> None:
        self.planner = planner
        self.generator = th.Generator().manual_seed(seed)

    def attach(self, env: VecEnv) -> None:
        """:param env: where it is going to act"""
        self.env = env

    def predict(
        self,
        observation: Observations,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """See ``ReferencePolicy.predict``; the state is what the planner keeps of its last plan."""
        plan = self.plan(observation, warm_start_of(state, episode_start))
        return plan.actions[:, 0].numpy(), state_of(plan)

    @abstractmethod
    def plan(self, observation: Any, warm_start: th.Tensor | None) -> Plan:
        """
        :param observation: a batch of ``B`` observations
        :param warm_start: of the last plan
        """


class RandomActions(ReferencePolicy):
    """
    Uniform over the action space of any environment.

    :param env_id: registered name
    :param env_kwargs: its keyword arguments
    :param seed: of the choices
    """

    def __init__(self, env_id: str, env_kwargs: dict[str, Any], seed: int = 0) -> None:
        env = gym.make(env_id, **env_kwargs)
        self.action_space = env.action_space
        self.action_space.seed(seed)
        env.close()

    def act(self, observation: Any) -> np.ndarray:
        batch = next(iter(observation.values())) if isinstance(observation, dict) else observation
        return np.array([self.action_space.sample() for _ in range(len(batch))])


ANY = Benchmark(
    tasks=lambda env_kwargs: (Task("train"),),
    references=lambda env_id, env_kwargs, seed, planner: {"random": RandomActions(env_id, env_kwargs, seed)},
    tells_graphs=False,
)
