"""One dense network a variable, from everything to that variable: a baseline without causal structure."""

from itertools import pairwise

import torch as th
from torch import nn

from fcdl_envs.arguments import check, integer
from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.dense import DenseDynamics
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.dynamics.stacked import StackedLinear, VariableHeads


class ModularDynamics(DenseDynamics):
    """
    A multi-layer perceptron for each variable, on the concatenated state and action. The perceptrons share nothing, and there
    is no graph.

    :param factors: the variables
    :param hidden_dim: width of a hidden layer of a variable
    :param n_layers: hidden layers of a variable
    """

    def __init__(self, factors: Factors, hidden_dim: int = 128, n_layers: int = 4) -> None:
        check(hidden_dim=(hidden_dim, integer(1)), n_layers=(n_layers, integer(1)))
        super().__init__(factors)
        self.n_variables = len(factors.state_variables)
        widths = [factors.state_width + factors.action_width] + [hidden_dim] * n_layers
        self.layers = nn.ModuleList(StackedLinear(self.n_variables, n_in, n_out) for n_in, n_out in pairwise(widths))
        self.head = VariableHeads(factors, widths[-1])

    def distribution(self, state: th.Tensor, action: th.Tensor) -> StateDistribution:
        hidden = th.cat([state, action], dim=-1).expand(self.n_variables, -1, -1)
        for layer in self.layers:
            hidden = layer(hidden).relu_()
        return self.layout.distribution(self.head(hidden), state)
