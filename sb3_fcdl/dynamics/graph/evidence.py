"""What an edge is worth on transitions that nothing was fitted to, and how sure that is."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_fcdl.graphs.evidence import EdgeEvidence


class Evidence(NamedTuple):
    """
    The gain of an edge: by how much the likelihood of its child is higher with the edge than without it.

    :param gain: mean over held-out transitions, nats, any shape
    :param standard_error: of that mean, same shape; infinite where fewer than two transitions were seen
    :param n: transitions seen, broadcastable to that shape
    """

    gain: th.Tensor
    standard_error: th.Tensor
    n: th.Tensor

    @staticmethod
    def of(gains: th.Tensor, groups: th.Tensor, n_groups: int) -> "Evidence":
        """
        :param gains: of each transition, ``[R, ...]``
        :param groups: which group each transition counts for, ``[R]``, int64
        :param n_groups: ``K``
        :return: of each group, ``[K, ...]``
        """
        member = F.one_hot(groups, n_groups).to(th.float64)
        flat = gains.reshape(len(gains), -1).to(th.float64)
        n = member.sum(0).unsqueeze(-1)
        mean = member.T @ flat / n.clamp(min=1)
        # About the mean: the difference of two large sums would lose the digits of a small spread.
        squares = member.T @ (flat - mean[groups]).square()
        error = (squares / (n - 1).clamp(min=1) / n.clamp(min=1)).sqrt().where(n > 1, th.inf)
        mean, error = (each.view(n_groups, *gains.shape[1:]).to(gains.dtype) for each in (mean, error))
        return Evidence(mean, error, n.view(n_groups, *[1] * (gains.dim() - 1)).to(gains.dtype))

    def above(self, gain: float) -> "Evidence":
        """:return: the evidence that the gain is larger than ``gain`` rather than larger than zero"""
        return self._replace(gain=self.gain - gain)

    @property
    def p_value(self) -> th.Tensor:
        """
        Probability of a gain as large as this one if the true gain is zero, one-sided, by Student's t with ``n - 1`` degrees
        of freedom; 1 where there is no spread. The tail is that of Wallace's normal approximation (1959), whose error is
        below 0.002 from four degrees of freedom on.
        """
        freedom = (self.n - 1).clamp(min=1).double()
        t = (self.gain / self.standard_error).double().where(self.standard_error > 0, -th.inf).nan_to_num(nan=-th.inf)
        size = (freedom * (t.clamp(-1e6, 1e6).square() / freedom).log1p()).sqrt()
        z = (8 * freedom + 1) / (8 * freedom + 3) * size * t.sign()
        return 0.5 * th.erfc(z / 2**0.5)


def adjusted(p_values: th.Tensor, family: th.Tensor | None = None) -> th.Tensor:
    """
    Benjamini and Hochberg's adjusted p-values (1995): those of at most ``alpha`` hold a share of at most ``alpha`` of false
    discoveries, on average.

    :param p_values: any shape
    :param family: the hypotheses that are tested together, broadcastable to it, bool; None: all
    :return: same shape; 1 outside the family
    """
    if family is not None:
        tested, values = family.expand_as(p_values), th.ones_like(p_values)
        values[tested] = adjusted(p_values[tested])
        return values
    flat = p_values.flatten()
    order = flat.argsort(descending=True)
    ranks = th.arange(len(flat), 0, -1, device=flat.device, dtype=flat.dtype)
    values = (flat[order] * len(flat) / ranks).cummin(0).values.clamp(max=1)
    return th.empty_like(flat).scatter_(0, order, values).reshape(p_values.shape)


def by_value(nll: Callable[[th.Tensor], th.Tensor], columns: th.Tensor, parents: Sequence[slice]) -> Evidence:
    """
    What each child gains by the value of each parent, rather than that of another transition.

    :param nll: negative log-likelihood of each child, given states and actions, ``[R, D + A]`` to ``[R, V]``, nats
    :param columns: of transitions that nothing was fitted to, ``[R, D + A]``
    :param parents: the columns of each
    :return: ``[1, V, P]``; of a parent that never varies there is none, its standard error is infinite
    """
    recorded, every = nll(columns), th.zeros(len(columns), dtype=th.int64, device=columns.device)
    of_parents = []
    for parent in parents:
        other = columns.clone()
        other[:, parent] = columns[th.randperm(len(columns), device=columns.device), parent]
        found = Evidence.of(nll(other) - recorded, every, 1)
        varies = (columns[:, parent] != columns[:1, parent]).any()
        of_parents.append(found._replace(standard_error=found.standard_error.where(varies, th.inf)))
    gains, errors, n = zip(*of_parents, strict=True)
    return Evidence(th.stack(gains, dim=-1), th.stack(errors, dim=-1), n[0].unsqueeze(-1))


class GraphEvidence(nn.Module):
    """
    What is known of the edges of ``K`` graphs: nothing, until it is told. Saved with the model.

    :param shape: ``K``, ``V`` and ``P``
    """

    gain: th.Tensor
    standard_error: th.Tensor
    q_values: th.Tensor
    is_tested: th.Tensor
    n: th.Tensor

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("gain", th.zeros(shape))
        self.register_buffer("standard_error", th.full(shape, th.inf))
        self.register_buffer("q_values", th.ones(shape))
        self.register_buffer("is_tested", th.zeros(shape, dtype=th.bool))
        self.register_buffer("n", th.zeros(shape[0], dtype=th.int64))

    def keep(self, evidence: Evidence, q_values: th.Tensor, is_tested: th.Tensor) -> None:
        """
        :param evidence: of every edge, ``[K, V, P]``
        :param q_values: see ``EdgeEvidence``, likewise
        :param is_tested: likewise, broadcastable to it, bool
        """
        self.gain.copy_(evidence.gain)
        self.standard_error.copy_(evidence.standard_error)
        self.q_values.copy_(q_values)
        self.is_tested.copy_(is_tested)
        self.n.copy_(evidence.n.expand(len(self.n), 1, 1).flatten())

    def forget(self, graphs: th.Tensor) -> None:
        """:param graphs: those of which nothing is known from now on, int64"""
        self.gain[graphs], self.standard_error[graphs], self.q_values[graphs] = 0, th.inf, 1
        self.is_tested[graphs], self.n[graphs] = False, 0

    def of_edges(self) -> list[EdgeEvidence]:
        """For each graph."""
        arrays = (each.cpu().numpy() for each in (self.gain, self.standard_error, self.q_values, self.is_tested))
        return [EdgeEvidence(*each) for each in zip(*arrays, self.n.tolist(), strict=True)]
