"""Bases of models without a graph."""

from abc import abstractmethod

import torch as th

from sb3_fcdl.dynamics.base import DynamicsModel, Losses, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.graphs.graph import CausalGraph


class GraphlessDynamics(DynamicsModel):
    """
    A model that predicts every variable from all parents.

    :param factors: the variables
    """

    has_graph = False

    def context_graphs(self) -> list[CausalGraph]:
        """See ``DynamicsModel.context_graphs``: none."""
        return []


class DenseDynamics(GraphlessDynamics):
    """
    A model that is one network: who writes ``distribution`` has a model.

    The loss is the negative log-likelihood, mean over variables and the steps of a window, nats.

    :param factors: the variables
    """

    can_be_stacked = True

    @abstractmethod
    def distribution(self, state: th.Tensor, action: th.Tensor) -> StateDistribution:
        """
        :param state: ``[R, D]``
        :param action: ``[R, A]``
        :return: of the next state
        """

    def loss(self, windows: Windows) -> Losses:
        nll = self.unrolled_nll(windows, self.distribution)
        return Losses(nll, {"dynamics": nll.detach()})

    def _stepper(self) -> StepFn:
        return lambda state, action: Prediction(self.distribution(state, action))
