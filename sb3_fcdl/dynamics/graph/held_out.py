"""Transitions that nothing was fitted to, as a masked network predicts them."""

from collections.abc import Iterator

import torch as th

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import Windows
from sb3_fcdl.dynamics.distributions import StateLayout
from sb3_fcdl.dynamics.lookup.features import BoundFeatures
from sb3_fcdl.dynamics.masked import MaskedFn


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

    def __len__(self) -> int:
        return len(self.columns)

    def nll(self, graph: th.Tensor, code: th.Tensor, columns: th.Tensor | None = None) -> th.Tensor:
        """
        :param graph: the parents that each child is predicted from, 0 or 1, ``[R, V, P]``
        :param code: the context of each transition, ``[R]``
        :param columns: state and action that the parents are read from, ``[R, D + A]``; None: the recorded ones
        :return: negative log-likelihood of each variable, nats, ``[R, V]``
        """
        parts = self._chunks(self.columns if columns is None else columns, self.state, self.next_state, graph, code)
        width = self.state.shape[1]
        losses = []
        for read, state, next_state, mask, context in parts:
            inputs = self.features.read(read[:, :width], read[:, width:])
            losses.append(-self.layout.distribution(self.network(inputs, mask, context), state).log_prob(next_state))
        return th.cat(losses)

    def nll_without_value(self, graph: th.Tensor, code: th.Tensor, parent: int) -> th.Tensor:
        """
        What a prediction is worth that sees a parent of another transition of the same context.

        :param graph: ``[R, V, P]``
        :param code: ``[R]``
        :param parent: index among the parents
        :return: nats, ``[R, V]``
        """
        order = th.rand(len(code), device=code.device).argsort()
        shuffled = order[code[order].argsort(stable=True)]
        source = th.empty_like(shuffled).scatter_(0, code.argsort(stable=True), shuffled)
        span = self.factors.parent_slices[parent]
        columns = self.columns.clone()
        columns[:, span] = self.columns[source][:, span]
        return self.nll(graph, code, columns)

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

    def _chunks(self, *parts: th.Tensor) -> Iterator[tuple[th.Tensor, ...]]:
        return zip(*(part.split(self.CHUNK) for part in parts), strict=True)
