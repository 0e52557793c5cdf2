"""Transitions that nothing was fitted to, as a masked network predicts them."""

import torch as th

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import Windows
from sb3_fcdl.dynamics.distributions import StateLayout
from sb3_fcdl.dynamics.lookup.features import BoundFeatures, ParentInputs
from sb3_fcdl.dynamics.masked import MaskedFn
from sb3_fcdl.dynamics.rows import shuffled_within


class HeldOut:
    """
    The first transition of each window, and its likelihood under any graph.

    :param factors: the variables
    :param layout: of the state
    :param features: the parents' features, bound to the present weights
    :param network: likewise
    :param windows: held out of training; those whose first transition is not valid are left out
    """

    # Rows that the network is given at a time.
    CHUNK = 2048

    def __init__(
        self, factors: Factors, layout: StateLayout, features: BoundFeatures, network: MaskedFn, windows: Windows
    ) -> None:
        self.factors = factors
        self.layout = layout
        self.features = features
        self.network = network
        is_valid = windows.valid[:, 0]
        self.state, action, self.next_state = (part[:, 0][is_valid] for part in windows[:3])
        self.columns = th.cat([self.state, action], dim=-1)
        self._recorded = self._read(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def nll(self, graph: th.Tensor, code: th.Tensor, columns: th.Tensor | None = None) -> th.Tensor:
        """
        :param graph: the parents that each child is predicted from, 0 or 1, ``[R, V, P]``
        :param code: the context of each transition, ``[R]``
        :param columns: state and action that the parents are read from, ``[R, D + A]``; None: the recorded ones
        :return: negative log-likelihood of each variable, nats, ``[R, V]``
        """
        inputs = self._recorded if columns is None else self._read(columns)
        parts = (part.split(self.CHUNK) for part in (self.state, self.next_state, graph, code))
        return th.cat([
            -self.layout.distribution(self.network(read, mask, context), state).log_prob(next_state)
            for read, state, next_state, mask, context in zip(inputs, *parts, strict=True)
        ])  # fmt: skip

    def nll_without_value(self, graph: th.Tensor, code: th.Tensor, parent: int) -> th.Tensor:
        """
        What a prediction is worth that sees a parent of another transition of the same context.

        :param graph: ``[R, V, P]``
        :param code: ``[R]``
        :param parent: index among the parents
        :return: nats, ``[R, V]``
        """
        return self.nll(graph, code, self.columns_with(parent, shuffled_within(code)))

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
