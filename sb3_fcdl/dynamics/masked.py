"""The masked network: predicts each variable from the parents that its mask lets through."""

from typing import Protocol

import torch as th
from torch import nn

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.lookup.distinct import Keys
from sb3_fcdl.dynamics.lookup.features import BoundFeatures, ParentFeatures, ParentInputs
from sb3_fcdl.dynamics.lookup.linear import ParentLinear
from sb3_fcdl.dynamics.stacked import StackedLinear, VariableHeads


class MaskedFn(Protocol):
    """A masked network for one version of the weights."""

    def __call__(self, inputs: ParentInputs, mask: th.Tensor, code: th.Tensor | None = None) -> th.Tensor:
        """
        :param inputs: a batch
        :param mask: the parents of each child, 0 or 1, ``[R, V, P]``
        :param code: the context of each row, ``[R]``; None: the network knows no contexts
        :return: what parametrises the next state, ``[R, output_width]``
        """


class MaskedNetwork(nn.Module):
    """
    ``p(child | masked parents)`` for every child at once; what Oracle, NCD and FCDL share.

    Each child ``j`` has an aggregation layer over the features ``h_i`` of its parents, then ``n_layers`` layers and a head:

        ``z_j = relu(c_j + sum_i mask[j, i] * (h_i A_ji))``, then ``z_j <- relu(z_j G_j + g_j)`` for each layer

    One that is told the context ``k`` adds ``of_context[k, j] + told[k, j]`` inside the first ``relu``.

    :param factors: the variables
    :param features: the parents' features, shared by all children
    :param hidden_dim: width of every layer
    :param n_layers: predictor layers of a child, before its head
    :param n_contexts: ``K`` that the network is told of; 0: of none
    """

    told: th.Tensor

    def __init__(
        self, factors: Factors, features: ParentFeatures, hidden_dim: int, n_layers: int, n_contexts: int = 0
    ) -> None:
        super().__init__()
        n_children = len(factors.state_variables)
        self.aggregation = ParentLinear(features, n_children, hidden_dim)
        self.layers = nn.ModuleList(StackedLinear(n_children, hidden_dim, hidden_dim) for _ in range(n_layers))
        self.head = VariableHeads(factors, hidden_dim)
        self.keys = Keys(factors, n_contexts)
        shape = (n_contexts, n_children, hidden_dim)
        self.of_context = nn.Parameter(th.zeros(shape)) if n_contexts else None
        # Added to it. No parameter: a running average of the weights takes it over at once.
        self.register_buffer("told", th.zeros(shape) if n_contexts else None)

    def bind(self, features: BoundFeatures) -> MaskedFn:
        """
        :param features: the parents' features, bound to the present weights
        :return: the network, for as long as the weights stay as they are
        """
        aggregate = self.aggregation.bind(features)

        def outputs(inputs: ParentInputs, mask: th.Tensor, code: th.Tensor | None = None) -> th.Tensor:
            mask = mask.transpose(0, 1)
            distinct = self.keys.distinct(inputs, mask, code)
            hidden = aggregate(inputs, mask, distinct)
            if self.of_context is not None:
                assert code is not None
                of_context = self.of_context + self.told
                if distinct is None:
                    hidden = hidden + of_context[code].transpose(0, 1)
                else:
                    hidden = hidden + of_context[code[distinct.row], distinct.child]
            hidden = hidden.relu_()
            for layer in self.layers:
                hidden = layer(hidden, distinct).relu_()
            return self.head(hidden, distinct)

        return outputs

    def contribution(self, features: BoundFeatures, inputs: ParentInputs, mask: th.Tensor) -> th.Tensor:
        """
        :param features: the parents' features, bound to the present weights
        :param inputs: a batch
        :param mask: parents of each child, ``[R, V, P]``
        :return: what they add to the first layer, as an entry of ``told`` does, ``[R, V, hidden_dim]``
        """
        aggregate, mask = self.aggregation.bind(features), mask.transpose(0, 1)
        return (aggregate(inputs, mask) - aggregate(inputs, th.zeros_like(mask))).transpose(0, 1)
