"""Transitions that nothing was fitted to, as a masked network predicts them."""

import math

import torch as th

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.distributions import LOG_STD_MIN, StateLayout
from sb3_fcdl.dynamics.lookup.features import BoundFeatures, ParentInputs
from sb3_fcdl.dynamics.masked import MaskedFn
from sb3_fcdl.dynamics.rows import shuffled_within

# The smallest that a model may predict: that of a number that never moves.
SMALLEST_VARIANCE = math.exp(2 * LOG_STD_MIN)


class HeldOut:
    """
    Transitions, and their likelihood under any graph.

    :param factors: the variables
    :param layout: of the state
    :param features: the parents' features, bound to the present weights
    :param network: likewise
    :param transitions: state, action and next state, ``[R, D]``, ``[R, A]``, ``[R, D]``
    :param context: what the network is told, ``[R]``, int64
    """

    # Rows that the network is given at a time.
    CHUNK = 2048
    # Upper bound of the negative log-likelihood of a variable in one transition, nats, so that no single transition decides a
    # mean. Numbers are in standard deviations: once learned, they rarely reach it.
    MOST = 10.0

    def __init__(
        self,
        factors: Factors,
        layout: StateLayout,
        features: BoundFeatures,
        network: MaskedFn,
        transitions: tuple[th.Tensor, th.Tensor, th.Tensor],
        context: th.Tensor,
    ) -> None:
        self.factors = factors
        self.layout = layout
        self.features = features
        self.network = network
        self.state, self.action, self.next_state = transitions
        self.context = context
        self.columns = th.cat([self.state, self.action], dim=-1)
        self._recorded = self._read(self.columns)

    def part(self, rows: th.Tensor) -> "HeldOut":
        """
        :param rows: which transitions, ``[R]``, bool
        """
        transitions = (self.state[rows], self.action[rows], self.next_state[rows])
        return HeldOut(self.factors, self.layout, self.features, self.network, transitions, self.context[rows])

    def __len__(self) -> int:
        return len(self.columns)

    def nll(self, graph: th.Tensor, columns: th.Tensor | None = None, context: th.Tensor | None = None) -> th.Tensor:
        """
        :param graph: the parents that each child is predicted from, 0 or 1, ``[R, V, P]``
        :param columns: state and action that the parents are read from, ``[R, D + A]``; None: the recorded ones
        :param context: what the network is told, ``[R]``; None: what it is told of the recorded ones
        :return: negative log-likelihood of each variable, at most ``MOST`` nats, ``[R, V]``
        """
        inputs = self._recorded if columns is None else self._read(columns)
        context = self.context if context is None else context
        parts = (part.split(self.CHUNK) for part in (self.state, self.next_state, graph, context))
        return th.cat([
            -self.layout.distribution(self.network(read, mask, code), state).log_prob(next_state)
            for read, state, next_state, mask, code in zip(inputs, *parts, strict=True)
        ]).clamp(max=self.MOST)  # fmt: skip

    @property
    def changes(self) -> th.Tensor:
        """By how much each number changes, ``[R, V]``; 0 of categories."""
        numbers = self.layout.numbers(self.next_state) - self.layout.numbers(self.state)
        return self.layout.by_variable(th.zeros_like(self.layout.categories(self.state), dtype=numbers.dtype), numbers)

    def errors(self, graph: th.Tensor) -> th.Tensor:
        """
        :param graph: the parents that each child is predicted from, 0 or 1, ``[R, V, P]``
        :return: of each number less its predicted mean, in predicted standard deviations, as many as ``MOST`` nats at most,
            ``[R, V]``; 0 of categories
        """
        parts = (part.split(self.CHUNK) for part in (self.state, self.next_state, graph, self.context))
        errors = []
        for read, state, next_state, mask, code in zip(self._recorded, *parts, strict=True):
            errors.append(self.layout.distribution(self.network(read, mask, code), state).errors(next_state))
        return th.cat(errors).clamp(-((2 * self.MOST) ** 0.5), (2 * self.MOST) ** 0.5)

    def marginal_nll(self) -> th.Tensor:
        """
        :return: what a prediction is worth that knows no parents: entropy of the next state's categories, and of a normal
            distribution of each number; sum over the variables, nats, a scalar
        """
        total = self.next_state.new_zeros(())
        for variable, columns in zip(self.factors.state_variables, self.factors.state_slices, strict=True):
            values = self.next_state[:, columns]
            if variable.is_categorical:
                total -= th.special.xlogy(values.mean(0), values.mean(0)).sum()
            else:
                total += 0.5 * (2 * th.pi * th.e * values.var().clamp(min=SMALLEST_VARIANCE)).log()
        return total

    def nll_without_value(self, graph: th.Tensor, groups: th.Tensor, parent: int) -> th.Tensor:
        """
        What a prediction is worth that sees a parent of another transition of the same group.

        :param graph: ``[R, V, P]``
        :param groups: of the transitions, ``[R]``, int64
        :param parent: index among the parents
        :return: nats, ``[R, V]``
        """
        return self.nll(graph, self.columns_with(parent, shuffled_within(groups)))

    def gains_by_value(self, graph: th.Tensor, groups: th.Tensor) -> th.Tensor:
        """
        :param graph: ``[R, V, P]``
        :param groups: of the transitions, ``[R]``, int64
        :return: what each child gains by the value of each parent, rather than that of another transition of the group, nats,
            ``[R, V, P]``
        """
        base = self.nll(graph)
        return th.stack([self.nll_without_value(graph, groups, parent) - base for parent in range(graph.shape[2])], dim=-1)

    def columns_with(self, parent: int, rows: th.Tensor) -> th.Tensor:
        """
        :param parent: index among the parents
        :param rows: the transition that each takes this parent from, ``[R]``
        :return: states and actions, ``[R, D + A]``
        """
        span = self.factors.parent_slices[parent]
        columns = self.columns.clone()
        columns[:, span] = self.columns[rows, span]
        return columns

    def varies(self, code: th.Tensor, n_contexts: int) -> th.Tensor:
        """
        :param code: the context of each transition, ``[R]``
        :param n_contexts: ``K``
        :return: whether each parent has more than one value among the transitions of a context, ``[K, P]``, bool
        """
        index = code.unsqueeze(-1).expand_as(self.columns)
        empty = self.columns.new_empty(n_contexts, self.columns.shape[1])
        high = empty.fill_(-th.inf).scatter_reduce(0, index, self.columns, "amax")
        low = empty.fill_(th.inf).scatter_reduce(0, index, self.columns, "amin")
        return th.stack([(high > low)[:, span].any(-1) for span in self.factors.parent_slices], dim=-1)

    def _read(self, columns: th.Tensor) -> list[ParentInputs]:
        width = self.state.shape[1]
        return [self.features.read(part[:, :width], part[:, width:]) for part in columns.split(self.CHUNK)]
