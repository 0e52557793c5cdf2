"""The masked network: predicts each variable from the parents that its mask lets through."""

import torch as th
from torch import nn

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.lookup.parents import LinearTables, ParentFeatures, ParentInputs, ParentLinear
from sb3_fcdl.dynamics.stacked import StackedLinear, VariableHeads


class MaskedNetwork(nn.Module):
    """
    ``p(child | masked parents)`` for every child at once; what Oracle, NCD and FCDL share.

    Each child has an aggregation layer over the features of its parents, then ``n_layers`` layers and a head.

    :param factors: the variables
    :param features: the parents' features, shared by all children
    :param hidden_dim: width of every layer
    :param n_layers: predictor layers of a child, before its head
    """

    def __init__(self, factors: Factors, features: ParentFeatures, hidden_dim: int, n_layers: int) -> None:
        super().__init__()
        n_children = len(factors.state_variables)
        self.aggregation = ParentLinear(features, n_children, hidden_dim)
        self.layers = nn.ModuleList(StackedLinear(n_children, hidden_dim, hidden_dim) for _ in range(n_layers))
        self.head = VariableHeads(factors, hidden_dim)

    def forward(self, features: ParentFeatures, tables: LinearTables, inputs: ParentInputs, mask: th.Tensor) -> th.Tensor:
        """
        :param features: the parents' features
        :param tables: the aggregation layer's, of the present weights
        :param inputs: the batch
        :param mask: ``[R, V, P]``
        :return: what parametrises the distribution of the next state, ``[R, output_width]``
        """
        hidden = self.aggregation(features, tables, inputs, mask.transpose(0, 1)).relu_()
        for layer in self.layers:
            hidden = layer(hidden).relu_()
        return self.head(hidden)
