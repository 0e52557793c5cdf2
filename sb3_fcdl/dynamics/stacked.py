"""Layers of one network a child, side by side."""

from typing import NamedTuple

import torch as th
from torch import nn

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.distributions import output_width


class Distinct(NamedTuple):
    """
    The different ones among the predictions of ``J`` children in ``R`` rows.

    :param child: of one of each, in order, ``[n]``, int64
    :param row: of the same ones, likewise
    :param chosen: ``child * R + row``
    :param sizes: how many each child has
    :param number: which of them each prediction is, ``[J, R]``, int64
    """

    child: th.Tensor
    row: th.Tensor
    chosen: th.Tensor
    sizes: list[int]
    number: th.Tensor


class Affine(NamedTuple):
    """One linear layer a variable, without parameters of its own: ``weight [V, I, O]``, ``bias [V, 1, O]``."""

    weight: th.Tensor
    bias: th.Tensor

    def __call__(self, inputs: th.Tensor) -> th.Tensor:
        return th.baddbmm(self.bias, inputs, self.weight)


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

    def forward(self, inputs: th.Tensor, distinct: Distinct | None = None) -> th.Tensor:
        """``[J, R, I]`` to ``[J, R, O]``; of the different ones ``[n, I]`` to ``[n, O]``."""
        if distinct is None:
            return th.baddbmm(self.bias, inputs, self.weight)
        parts = zip(self.bias, inputs.split(distinct.sizes), self.weight, strict=True)
        return th.cat([th.addmm(bias, part, weight) for bias, part, weight in parts])


class VariableHeads(StackedLinear):
    """
    The last layer of each child, as wide as the distribution of its variable.

    The heads of continuous variables start small, so that the first predictions hardly depend on the inputs. A confident and
    wrong prediction of a number has a very large loss, from which Adam recovers slowly.

    :param factors: the variables
    :param input_dim: ``I``
    """

    columns: th.Tensor

    def __init__(self, factors: Factors, input_dim: int) -> None:
        sizes = th.tensor([output_width(variable) for variable in factors.state_variables])
        super().__init__(len(sizes), input_dim, int(sizes.max()))
        is_number = [not variable.is_categorical for variable in factors.state_variables]
        with th.no_grad():
            self.weight[is_number] *= 0.1
        exists = th.arange(int(sizes.max())) < sizes.unsqueeze(-1)
        self.register_buffer("columns", exists.flatten().nonzero().squeeze(-1), persistent=False)

    def forward(self, inputs: th.Tensor, distinct: Distinct | None = None) -> th.Tensor:
        """``[V, R, I]``, or ``[n, I]``, to what parametrises the distribution of the next state, ``[R, output_width]``."""
        outputs = super().forward(inputs, distinct)
        by_variable = outputs if distinct is None else outputs[distinct.number]
        return by_variable.transpose(0, 1).flatten(1)[:, self.columns]
