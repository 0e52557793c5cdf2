"""What an edge is worth on transitions that nothing was fitted to, and how sure that is."""

from typing import NamedTuple

import torch as th
from torch.nn import functional as F


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


def adjusted(p_values: th.Tensor) -> th.Tensor:
    """
    Benjamini and Hochberg's adjusted p-values (1995): those of at most ``alpha`` hold a share of at most ``alpha`` of false
    discoveries, on average.

    :param p_values: of all hypotheses that are tested together, any shape
    :return: same shape
    """
    flat = p_values.flatten()
    order = flat.argsort(descending=True)
    ranks = th.arange(len(flat), 0, -1, device=flat.device, dtype=flat.dtype)
    values = (flat[order] * len(flat) / ranks).cummin(0).values.clamp(max=1)
    return th.empty_like(flat).scatter_(0, order, values).reshape(p_values.shape)
