"""The masked network: predicts each variable from the parents that its mask lets through."""

import torch as th
from torch import nn

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.distributions import output_width
from sb3_fcdl.dynamics.layers import LinearTables, ParentFeatures, ParentInputs, ParentLinear


class StackedLinear(nn.Module):
    """
    One linear layer a child, side by side.

    :param n_children: ``J``
    :param input_dim: ``I``
    :param output_dim: ``O``
    """

    def __init__(self, n_children: int, input_dim: int, output_dim: int) -> None:
        super().__init__()
        bound = (6 / input_dim) ** 0.5
        self.weight = nn.Parameter(th.empty(n_children, input_dim, output_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(th.zeros(n_children, 1, output_dim))

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        """``[J, R, I]`` to ``[J, R, O]``."""
        return th.baddbmm(self.bias, inputs, self.weight)


class MaskedNetwork(nn.Module):
    """
    ``p(child | masked parents)`` for every child at once; what Oracle, NCD and FCDL share.

    Each child has an aggregation layer over the features of its parents, then ``n_layers`` layers and a head.

    :param factors: the variables
    :param features: the parents' features, shared by all children
    :param hidden_dim: width of every layer
    :param n_layers: predictor layers of a child, before its head
    """

    head_columns: th.Tensor

    def __init__(self, factors: Factors, features: ParentFeatures, hidden_dim: int, n_layers: int) -> None:
        super().__init__()
        sizes = th.tensor([output_width(variable) for variable in factors.state_variables])
        n_children, width = len(sizes), int(sizes.max())
        self.aggregation = ParentLinear(features, n_children, hidden_dim)
        self.layers = nn.ModuleList(StackedLinear(n_children, hidden_dim, hidden_dim) for _ in range(n_layers))
        self.head = StackedLinear(n_children, hidden_dim, width)
        exists = th.arange(width) < sizes.unsqueeze(-1)
        self.register_buffer("head_columns", exists.flatten().nonzero().squeeze(-1), persistent=False)

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
        return self.head(hidden).transpose(0, 1).flatten(1)[:, self.head_columns]
