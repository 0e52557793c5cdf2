"""One step of a recurrent network whose gates are fed by a parent: of a categorical one, a look-up."""

from collections.abc import Callable
from typing import NamedTuple

import torch as th
from torch.nn import functional as F


class Gates(NamedTuple):
    """
    The layers of ``J`` children that feed gates of width ``O``.

    :param weight: of the input, ``[J, H, O]``
    :param bias: ``[J, 1, O]``
    :param table: what each category of the parent that is read feeds into the gates, with the bias, ``[J, width, O]``
    :param hidden_weight: of the hidden state, ``[J, H, O]``
    """

    weight: th.Tensor
    bias: th.Tensor
    table: th.Tensor
    hidden_weight: th.Tensor


class Reading(NamedTuple):
    """
    One parent and the ``J`` children that read it, for one version of weights and graph.

    :param parent: its index
    :param first_row: its first category in the rows of ``ParentInputs``
    :param children: indices of its children, itself left out, ``[J]``
    :param switches: reset and update gate, side by side, ``O = 2H``
    :param candidate: ``O = H``
    :param candidate_bias: of the hidden state, which the reset gate switches, ``[J, 1, H]``
    """

    parent: int
    first_row: int
    children: th.Tensor
    switches: Gates
    candidate: Gates
    candidate_bias: th.Tensor


def next_hidden(reading: Reading, hidden: th.Tensor, fed: Callable[[Gates], th.Tensor]) -> th.Tensor:
    """
    One step of a GRU (Cho et al., 2014) as torch.nn.GRU has it.

    :param reading: of a parent
    :param hidden: of its children, ``[J, R, H]``
    :param fed: what the parent feeds into gates, ``[J, R, O]``
    """
    switches, candidate = reading.switches, reading.candidate
    reset, update = th.baddbmm(fed(switches), hidden, switches.hidden_weight).sigmoid_().chunk(2, dim=-1)
    of_hidden = th.baddbmm(reading.candidate_bias, hidden, candidate.hidden_weight)
    return th.addcmul(fed(candidate), reset, of_hidden).tanh_().lerp(hidden, update)


def fed_by(gates: Gates, feature: th.Tensor, category: th.Tensor | None) -> th.Tensor:
    """
    What a parent feeds into gates, ``[J, R, O]``.

    :param gates: of its children
    :param feature: of the parent, ``[R, H]``
    :param category: of the parent, ``[R]``, int64; None where it is not one-hot
    """
    if category is None:
        return th.baddbmm(gates.bias, feature.expand(len(gates.bias), -1, -1), gates.weight)
    return _TableLookup.apply(feature, gates.table, category, gates.weight.detach())


class _TableLookup(th.autograd.Function):
    """
    ``table[:, category]``, ``[J, R, O]``, for the rows of ``feature @ weight``: the gradient by the feature, and by the
    straight-through sample behind it, is that of the product.
    """

    @staticmethod
    def forward(ctx, feature, table, category, weight):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(category, weight)
        ctx.width = table.shape[1]
        return table.index_select(1, category)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        category, weight = ctx.saved_tensors
        by_feature = by_table = None
        if ctx.needs_input_grad[0]:
            by_feature = th.bmm(gradient, weight.mT).sum(0)
        if ctx.needs_input_grad[1]:
            by_table = F.one_hot(category, ctx.width).to(gradient.dtype).T @ gradient
        return by_feature, by_table, None, None
