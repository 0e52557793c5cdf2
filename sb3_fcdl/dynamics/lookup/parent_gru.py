"""
A recurrent network for each child that reads the features of its parents one after the other.

As in ``layers.py``, what a categorical parent feeds into the gates is computed once for each category and looked up, with the
gradient of the dense layers that it stands for; other parents go through the layers. Planning, which needs no gradient, looks
up hidden states as well: rows that begin with the same categories share them.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.lookup.parents import ParentFeatures, ParentInputs
from sb3_fcdl.dynamics.stacked import StackedLinear
from sb3_fcdl.memo import Memo


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


class ParentGRU(nn.Module):
    """
    A GRU of one layer for each child. It starts from the child's own feature, or from zero where the child is no parent of
    itself, and reads its other parents in order: actions first, then state variables. What is no parent is left out.

    :param factors: the variables
    :param hidden_dim: width of features and hidden states, ``H``
    """

    def __init__(self, factors: Factors, hidden_dim: int) -> None:
        super().__init__()
        self.n_children = len(factors.state_variables)
        self.widths = [variable.width for variable in factors.parents]
        self.features = ParentFeatures(factors, hidden_dim)
        self.of_input = StackedLinear(self.n_children, hidden_dim, 3 * hidden_dim)
        self.of_hidden = StackedLinear(self.n_children, hidden_dim, 3 * hidden_dim)
        for parameter in (*self.of_input.parameters(), *self.of_hidden.parameters()):
            nn.init.uniform_(parameter, -(hidden_dim**-0.5), hidden_dim**-0.5)  # as in torch.nn.GRU

    def readings(self, graph: th.Tensor) -> list[Reading]:
        """
        :param graph: ``[V, P]``, 0 or 1
        :return: the parents that have children besides themselves, in the order of reading
        """
        others = graph.clone().fill_diagonal_(0)
        # The features' gradient flows through the features themselves, see ``_TableLookup``.
        tables = self.features.table().detach().split(self.widths)
        readings = []
        for parent in (*range(self.n_children, len(self.widths)), *range(self.n_children)):
            children = others[:, parent].nonzero().squeeze(-1)
            if len(children):
                first_row = sum(self.widths[:parent])
                readings.append(Reading(parent, first_row, children, *self._gates(children, tables[parent])))
        return readings

    def _gates(self, children: th.Tensor, features: th.Tensor) -> tuple[Gates, Gates, th.Tensor]:
        """What ``Reading`` says of these children, for a parent with these features, ``[width, H]``."""
        n_switches = 2 * features.shape[-1]
        weight, bias, hidden_weight, hidden_bias = (
            parameter[children].split((n_switches, features.shape[-1]), dim=-1)
            for parameter in (self.of_input.weight, self.of_input.bias, self.of_hidden.weight, self.of_hidden.bias)
        )
        biases = (bias[0] + hidden_bias[0], bias[1])
        tables = (th.baddbmm(b, features.expand(len(children), -1, -1), w) for w, b in zip(weight, biases, strict=True))
        return *map(Gates, weight, biases, tables, hidden_weight), hidden_bias[1]

    def forward(self, readings: list[Reading], graph: th.Tensor, inputs: ParentInputs) -> th.Tensor:
        """
        :param readings: of the present weights and of this graph
        :param graph: ``[V, P]``, 0 or 1
        :param inputs: the batch
        :return: the last hidden state of each child, ``[V, R, H]``
        """
        features = self._every_feature(inputs.columns)
        hidden = features[: self.n_children] * graph.diagonal().view(-1, 1, 1)
        for reading in readings:
            category = None
            if reading.parent not in inputs.dense:
                category = inputs.rows[:, reading.parent] - reading.first_row
            fed = partial(_fed, feature=features[reading.parent], category=category)
            own = _next_hidden(reading, hidden[reading.children], fed)
            # The states of all others stay bit for bit as they are.
            hidden = hidden.index_copy(0, reading.children, own)
        return hidden

    def _every_feature(self, columns: th.Tensor) -> th.Tensor:
        """The feature of each parent from whatever numbers stand in its columns, ``[R, D + A]`` to ``[P, R, H]``."""
        runs = self.features.runs
        return th.cat([self.features.of_run(run, slice(None), run.of(columns).transpose(0, 1)) for run in runs])


class HiddenStates:
    """
    The same on one-hot parents, for one version of the weights and one graph, without gradient. The hidden state after each
    beginning of a child's parents is computed once, however many rows and calls have it.

    :param network: of which this is the value
    :param graph: ``[V, P]``, 0 or 1
    """

    # What is kept from one call to the next.
    MAX_STATES = 2**17

    def __init__(self, network: ParentGRU, graph: th.Tensor) -> None:
        self.network = network
        self.graph = graph
        self._forget()

    def _forget(self) -> None:
        self.children = [_ChildStates(self.network, self.graph, child) for child in range(self.network.n_children)]

    def __call__(self, category: th.Tensor) -> th.Tensor:
        """
        :param category: of each parent, ``[R, P]``, int64
        :return: the last hidden state of each child, ``[V, R, H]``
        """
        if sum(child.n_states for child in self.children) > self.MAX_STATES:
            self._forget()
        by_parent = category.T.contiguous()
        return th.stack([child(by_parent) for child in self.children])


class _ChildStates:
    """``HiddenStates`` of one child. The memo of each reading has a question for each state before it and each category."""

    def __init__(self, network: ParentGRU, graph: th.Tensor, child: int) -> None:
        self.child = child
        self.widths = network.widths
        self.reads_itself = int(graph[child, child])
        self.first_states = network.features.table().split(network.widths)[child] * self.reads_itself
        of_child = th.zeros_like(graph)
        of_child[child] = graph[child]
        self.readings = network.readings(of_child)
        self.memos = [Memo() for _ in self.readings]

    @property
    def n_states(self) -> int:
        return sum(memo.n_answers for memo in self.memos)

    def __call__(self, category: th.Tensor) -> th.Tensor:
        """``[P, R]`` to ``[R, H]``."""
        states, row = self.first_states, category[self.child] * self.reads_itself
        for reading, memo in zip(self.readings, self.memos, strict=True):
            width = self.widths[reading.parent]
            question = row * width + category[reading.parent]
            row = memo.rows(question, len(states) * width, partial(self._read, reading, states))
            states = memo.answers
        return states.index_select(0, row)

    def _read(self, reading: Reading, states: th.Tensor, question: th.Tensor) -> th.Tensor:
        """What follows from different ``states [N, H]`` and categories, ``[M, H]``."""
        row, category = question // self.widths[reading.parent], question % self.widths[reading.parent]
        before = states.index_select(0, row).unsqueeze(0)
        return _next_hidden(reading, before, lambda gates: gates.table.index_select(1, category)).squeeze(0)


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


def _next_hidden(reading: Reading, hidden: th.Tensor, fed: Callable[[Gates], th.Tensor]) -> th.Tensor:
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


def _fed(gates: Gates, feature: th.Tensor, category: th.Tensor | None) -> th.Tensor:
    """
    What a parent feeds into gates, ``[J, R, O]``.

    :param feature: of the parent, ``[R, H]``
    :param category: of the parent, ``[R]``, int64; None where it is not one-hot
    """
    if category is None:
        return th.baddbmm(gates.bias, feature.expand(len(gates.bias), -1, -1), gates.weight)
    return _TableLookup.apply(feature, gates.table, category, gates.weight.detach())
