"""
A recurrent network for each child that reads the features of its parents one after the other.

Planning, which needs no gradient, looks up hidden states: rows that begin with the same categories share them.
"""

from functools import cached_property, partial

import torch as th
from torch import nn

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.lookup import gates
from sb3_fcdl.dynamics.lookup.features import BoundFeatures, ParentFeatures, ParentInputs
from sb3_fcdl.dynamics.lookup.gates import Gates, Reading, fed_by
from sb3_fcdl.dynamics.stacked import StackedLinear
from sb3_fcdl.memo import Memo


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
        self.first_rows = [columns.start for columns in factors.parent_slices]
        self.features = ParentFeatures(factors, hidden_dim)
        self.of_input = StackedLinear(self.n_children, hidden_dim, 3 * hidden_dim)
        self.of_hidden = StackedLinear(self.n_children, hidden_dim, 3 * hidden_dim)
        for parameter in (*self.of_input.parameters(), *self.of_hidden.parameters()):
            nn.init.uniform_(parameter, -(hidden_dim**-0.5), hidden_dim**-0.5)  # as in torch.nn.GRU

    def bind(self, graph: th.Tensor) -> "BoundGRU":
        """
        For as long as weights and graph stay as they are.

        :param graph: ``[V, P]``, 0 or 1
        """
        return BoundGRU(self, graph)

    def readings(self, graph: th.Tensor) -> list[Reading]:
        """
        :param graph: ``[V, P]``, 0 or 1
        :return: the parents that have children besides themselves, in the order of reading
        """
        others = graph.clone().fill_diagonal_(0)
        # The features' gradient flows through the features themselves, see ``gates.fed_by``.
        tables = self.features.table().detach().split(self.widths)
        readings = []
        for parent in (*range(self.n_children, len(self.widths)), *range(self.n_children)):
            children = others[:, parent].nonzero().squeeze(-1)
            if len(children):
                layers = self._gates(children, tables[parent])
                readings.append(Reading(parent, self.first_rows[parent], children, *layers))
        return readings

    def _gates(self, children: th.Tensor, features: th.Tensor) -> tuple[Gates, Gates, th.Tensor]:
        """What ``Reading`` says of these children, for a parent with these features, ``[width, H]``."""
        widths = (2 * features.shape[-1], features.shape[-1])

        def split(parameter: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
            of_switches, of_candidate = parameter[children].split(widths, dim=-1)
            return of_switches, of_candidate

        weights = split(self.of_input.weight)
        switch_bias, candidate_bias = split(self.of_input.bias)
        hidden_weights = split(self.of_hidden.weight)
        hidden_switch_bias, hidden_candidate_bias = split(self.of_hidden.bias)
        biases = (switch_bias + hidden_switch_bias, candidate_bias)
        inputs = features.expand(len(children), -1, -1)
        switches, candidate = (
            Gates(weight, bias, th.baddbmm(bias, inputs, weight), hidden_weight)
            for weight, bias, hidden_weight in zip(weights, biases, hidden_weights, strict=True)
        )
        return switches, candidate, hidden_candidate_bias

    def every_feature(self, columns: th.Tensor) -> th.Tensor:
        """The feature of each parent from whatever numbers stand in its columns, ``[R, D + A]`` to ``[P, R, H]``."""
        runs = self.features.runs
        return th.cat([self.features.of_run(run, slice(None), run.of(columns).transpose(0, 1)) for run in runs])


class BoundGRU:
    """
    A ``ParentGRU`` for one version of the weights and one graph.

    :param network: the layers
    :param graph: ``[V, P]``, 0 or 1
    """

    def __init__(self, network: ParentGRU, graph: th.Tensor) -> None:
        self.network = network
        self.graph = graph
        self.features = BoundFeatures(network.features, with_state_gradient=False, with_lines=False)

    @cached_property
    def readings(self) -> list[Reading]:
        return self.network.readings(self.graph)

    @cached_property
    def hidden_states(self) -> "HiddenStates":
        return HiddenStates(self.network, self.graph)

    def __call__(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """
        :param state: ``[R, D]``
        :param action: ``[R, A]``
        :return: the last hidden state of each child, ``[V, R, H]``
        """
        inputs = self.features.read(state, action)
        if inputs.dense or th.is_grad_enabled():
            return self._computed(inputs)
        return self.hidden_states(inputs.rows - self.network.features.first_row)

    def _computed(self, inputs: ParentInputs) -> th.Tensor:
        features = self.network.every_feature(inputs.columns)
        hidden = features[: self.network.n_children] * self.graph.diagonal().view(-1, 1, 1)
        for reading in self.readings:
            category = None
            if reading.parent not in inputs.dense:
                category = inputs.rows[:, reading.parent] - reading.first_row
            fed = partial(fed_by, feature=features[reading.parent], category=category)
            own = gates.next_hidden(reading, hidden[reading.children], fed)
            # The states of all others stay bit for bit as they are.
            hidden = hidden.index_copy(0, reading.children, own)
        return hidden


class HiddenStates:
    """
    The same on one-hot parents without gradient. The hidden state after each beginning of a child's parents is computed once,
    however many rows and calls have it.

    :param network: of which this is the value
    :param graph: ``[V, P]``, 0 or 1
    """

    # States that are kept from one call to the next: 64 MiB of 128 floats each, the default width.
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
        """What follows from different states and categories, which ``question`` numbers; ``[R, hidden_dim]``."""
        row, category = question // self.widths[reading.parent], question % self.widths[reading.parent]
        before = states.index_select(0, row).unsqueeze(0)
        return gates.next_hidden(reading, before, lambda layers: layers.table.index_select(1, category)).squeeze(0)
