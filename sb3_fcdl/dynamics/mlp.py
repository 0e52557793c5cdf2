"""One dense network from everything to everything: the baseline without causal structure."""

from itertools import pairwise
from typing import Literal, get_args

import torch as th
from torch import nn

from fcdl_envs.arguments import check, integer, one_of
from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.dense import DenseDynamics
from sb3_fcdl.dynamics.distributions import StateDistribution

ActivationName = Literal["relu", "silu"]


class MLPDynamics(DenseDynamics):
    """
    A multi-layer perceptron on the concatenated state and action. It has no graph.

    :param factors: the variables
    :param hidden_dim: width of a hidden layer (published: 1024 in Chemical, 512 in Magnetic)
    :param n_layers: hidden layers (published: 3 in Chemical, 4 in Magnetic)
    :param activation: ``"relu"`` (published), or ``"silu"``, which fits smooth dynamics with fewer updates
    """

    def __init__(
        self, factors: Factors, hidden_dim: int = 256, n_layers: int = 3, activation: ActivationName = "relu"
    ) -> None:
        check(
            hidden_dim=(hidden_dim, integer(1)),
            n_layers=(n_layers, integer(1)),
            activation=(activation, one_of(*get_args(ActivationName))),
        )
        super().__init__(factors)
        is_smooth = activation == "silu"
        widths = [factors.state_width + factors.action_width] + [hidden_dim] * n_layers
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.SiLU() if is_smooth else nn.ReLU(inplace=True)]
        self.network = nn.Sequential(*layers, nn.Linear(widths[-1], self.layout.output_width))

    def distribution(self, state: th.Tensor, action: th.Tensor) -> StateDistribution:
        return self.layout.distribution(self.network(th.cat([state, action], dim=-1)), state)
