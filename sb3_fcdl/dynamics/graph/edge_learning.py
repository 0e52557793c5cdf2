"""How a model that predicts through a mask learns which edges there are."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch as th
from torch.nn import functional as F

from sb3_fcdl.dynamics.distributions import StateDistribution

MaskedPrediction = Callable[[th.Tensor], StateDistribution]
"""From the edges of each row, ``[R, V, P]``, 0 or 1, to the distribution of the next state."""


class Drawn(NamedTuple):
    """
    A prediction under sampled edges.

    :param prediction: under the first sample
    :param log_odds: that the edges were sampled from, ``[R, V, P]``
    :param edges: the samples, each ``[R, V, P]``, 0 or 1
    :param other: the prediction under the second sample, without a gradient; None where one sample is enough
    """

    prediction: StateDistribution
    log_odds: th.Tensor
    edges: tuple[th.Tensor, ...]
    other: StateDistribution | None = None


class EdgeLearning(ABC):
    """From log-odds to sampled edges, and back to the gradient of the log-odds."""

    @abstractmethod
    def draw(self, log_odds: th.Tensor, predict: MaskedPrediction) -> Drawn:
        """
        Sample the edges of a batch and predict under them.

        :param log_odds: ``[R, V, P]``
        :param predict: the masked network on this batch
        """

    @abstractmethod
    def cost(self, log_odds: th.Tensor) -> th.Tensor:
        """
        What an edge costs, in prices of an edge.

        :param log_odds: of an edge, any shape
        :return: same shape
        """

    @abstractmethod
    def surrogate(self, drawn: Drawn, nll: th.Tensor, target: th.Tensor) -> th.Tensor:
        """
        Zeros whose gradient by the log-odds is what the prediction alone does not give.

        :param drawn: samples and predictions
        :param nll: of each child under the first sample, ``[R, V]``
        :param target: the recorded next state, ``[R, D]``
        :return: ``[R, V]``, to be added to ``nll``
        """


class StraightThrough(EdgeLearning):
    """As published: the gradient of a Gumbel-sigmoid passes straight through the sample; the cost is the probability."""

    def draw(self, log_odds: th.Tensor, predict: MaskedPrediction) -> Drawn:
        """See ``EdgeLearning.draw``."""
        edges = sample_edges(log_odds)
        return Drawn(predict(edges), log_odds, (edges,))

    def cost(self, log_odds: th.Tensor) -> th.Tensor:
        """The expected number of edges, Eq. (6) of the FCDL paper."""
        return log_odds.sigmoid()

    def surrogate(self, drawn: Drawn, nll: th.Tensor, target: th.Tensor) -> th.Tensor:
        """The sample has passed the gradient already."""
        return th.zeros_like(nll)


class Antithetic(EdgeLearning):
    """An unbiased gradient, from the difference of the losses under two samples; the cost keeps edges from being certain."""

    def draw(self, log_odds: th.Tensor, predict: MaskedPrediction) -> Drawn:
        """See ``EdgeLearning.draw``."""
        first, second = antithetic_edges(log_odds)
        with th.no_grad():
            other = predict(second)
        return Drawn(predict(first), log_odds, (first, second), other)

    def cost(self, log_odds: th.Tensor) -> th.Tensor:
        """See ``edge_cost``."""
        return edge_cost(log_odds)

    def surrogate(self, drawn: Drawn, nll: th.Tensor, target: th.Tensor) -> th.Tensor:
        """See ``edge_surrogate``."""
        first, second = drawn.edges
        assert drawn.other is not None
        return edge_surrogate(drawn.log_odds, (first, second), (nll, -drawn.other.log_prob(target)))


def sample_edges(log_odds: th.Tensor) -> th.Tensor:
    """
    A hard sample of each edge that passes the gradient of the Gumbel-sigmoid (temperature 1) through.

    :param log_odds: of an edge, any shape
    :return: 0 or 1, same shape; 1 with probability ``sigmoid(log_odds)``
    """
    uniform = th.rand_like(log_odds).clamp(1e-6, 1 - 1e-6)
    soft = (log_odds + uniform.logit()).sigmoid()
    # In this order the difference is exactly zero, so that a missing edge is an exact zero.
    return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())


def antithetic_edges(log_odds: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """
    Two hard samples of each edge from one random number, each as probable as its log-odds say and as unlike as they can be.

    :param log_odds: of an edge, any shape
    :return: twice 0 or 1, same shape, without a gradient
    """
    probability = log_odds.detach().sigmoid()
    uniform = th.rand_like(probability).clamp(1e-6, 1 - 1e-6)
    return (uniform < probability).to(uniform.dtype), (1 - uniform < probability).to(uniform.dtype)


def edge_surrogate(log_odds: th.Tensor, edges: tuple[th.Tensor, th.Tensor], losses: tuple[th.Tensor, th.Tensor]) -> th.Tensor:
    """
    What has as its gradient an unbiased estimate of that of the expected loss (DisARM; Dong, Mnih and Tucker, 2020, Eq. 7).

    A loss is compared under two samples of its edges, so the estimate is right whatever the loss does between them. The
    gradient that the Gumbel-sigmoid passes straight through only knows the slope at the sample: where a model has learnt
    to predict well with an edge and cautiously without it, both slopes are flat, and edges of any use are lost.

    :param log_odds: of the edges, ``[R, V, P]``
    :param edges: two samples of them, from ``antithetic_edges``
    :param losses: of each child under either sample, ``[R, V]``, no gradient is taken of them
    :return: zeros that have this gradient, ``[R, V]``
    """
    (first, second), (loss, other_loss) = edges, losses
    gain = (loss - other_loss).detach().unsqueeze(-1)
    gradient = 0.5 * gain * (first - second) * log_odds.detach().abs().sigmoid()
    return (gradient * (log_odds - log_odds.detach())).sum(-1)


def edge_cost(log_odds: th.Tensor) -> th.Tensor:
    """
    What an edge costs that is there with probability ``p``, in prices of an edge: ``-log(1 - p) / 2``.

    An edge without which a prediction loses ``G`` prices is learned to be there with ``p = 1 - 1 / (2 G)``: likelier than not
    if it is worth its price, and never certain. The expected number of edges, ``p``, draws the same line, but has no minimum
    between 0 and 1. Once its sigmoid is saturated neither loss nor cost has a gradient left, and an edge that was learned for
    two contexts stays in the one that has no use for it.

    :param log_odds: of an edge, any shape
    :return: same shape
    """
    return 0.5 * F.softplus(log_odds)
