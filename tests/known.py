"""A world model whose dynamics are given as a function, so that what is made of it is known in closed form."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics import DynamicsModel, Losses, Prediction, Windows
from sb3_fcdl.dynamics.distributions import StateDistribution, StateLayout
from sb3_fcdl.graphs import CausalGraph
from sb3_fcdl.world.factorization import Factorization
from sb3_fcdl.world.world_model import WorldModel

NextStateFn = Callable[[StateLayout, th.Tensor, th.Tensor], StateDistribution]
"""``(layout, state [R, D], action [R, A]) -> next state``, all encoded."""


class Known(DynamicsModel):
    """Dynamics that are given as a function of encoded states and actions."""

    has_graph = False

    def __init__(self, factors: Factors, next_state: NextStateFn) -> None:
        super().__init__(factors)
        self.next_state = next_state

    def loss(self, windows: Windows) -> Losses:
        raise AssertionError("there is nothing to learn")

    def _stepper(self) -> Callable[[th.Tensor, th.Tensor], Prediction]:
        return lambda state, action: Prediction(self.next_state(self.layout, state, action))

    def context_graphs(self) -> list[CausalGraph]:
        return []


def known_world(env: gym.Env, next_state: NextStateFn, **outcomes: Any) -> WorldModel:
    """
    :param env: has the spaces, and perhaps the ``factorization``
    :param next_state: the dynamics
    :param outcomes: ``reward_fn`` and ``termination_fn``, which are learned otherwise
    """
    factorization = Factorization(env.observation_space, env.action_space, getattr(env, "factorization", None))
    return WorldModel(factorization, Known(factorization.factors, next_state), **outcomes).eval()


GraphFn = Callable[[th.Tensor, th.Tensor], tuple[th.Tensor, th.Tensor | None]]
"""``(state [R, D], action [R, A]) -> graph [R, V, P], code [R] or None``."""


class KnownGraphs(DynamicsModel):
    """Local graphs that are given as a function; nothing is predicted."""

    def __init__(self, factors: Factors, graph_fn: GraphFn) -> None:
        super().__init__(factors)
        self.graph_fn = graph_fn

    def loss(self, windows: Windows) -> Losses:
        raise AssertionError("there is nothing to learn")

    def _stepper(self) -> Callable[[th.Tensor, th.Tensor], Prediction]:
        def step(state: th.Tensor, action: th.Tensor) -> Prediction:
            zeros = state.new_zeros
            nothing = StateDistribution(self.layout, zeros(len(state), 0, 1), zeros(len(state), 0), zeros(len(state), 0))
            return Prediction(nothing, *self.graph_fn(state, action))

        return step

    def context_graphs(self) -> list[CausalGraph]:
        shape = len(self.factors.state_variables), len(self.factors.parents)
        return [CausalGraph(np.zeros(shape), self.factors.state_names, self.factors.parent_names)] * 2
