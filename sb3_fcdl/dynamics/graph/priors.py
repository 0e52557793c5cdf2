"""Which entries of a graph a model may learn, and how it samples them."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch as th
from torch.nn import functional as F

from fcdl_envs.variables import Factors

GraphPriorName = Literal["order", "self", "none"]

# sigmoid(+-100) is exactly 1 or 0 in float32, and logistic noise stays within +-14: such entries never flip.
CERTAIN = 100.0


@dataclass(frozen=True)
class GraphPrior:
    """
    What a model is told about the graph before it sees data. A continuous variable depends on itself whatever the base, since
    it is predicted as a change of what it is.

    :param base: ``"self"``: each variable depends on itself; the default, because a wrong order is an error that nothing would
        show. ``"order"``: variables are in causal order besides, and each depends on the action (what the published Chemical
        experiments tell FCDL, NCD and the oracle). ``"none"``: nothing else
    :param required_edges: edges that are there in every context, pairs of names ``(parent, child)``
    :param forbidden_edges: edges that are there in none
    """

    base: GraphPriorName = "self"
    required_edges: tuple[tuple[str, str], ...] = ()
    forbidden_edges: tuple[tuple[str, str], ...] = ()


def prior_log_odds(prior: GraphPriorName | GraphPrior, factors: Factors) -> th.Tensor:
    """
    :param prior: what is known; the name of a base alone if there is nothing else
    :param factors: the variables
    :return: ``[V, P]``: ``+-CERTAIN`` where the entry is given, NaN where it is free to be learned
    :raises ValueError: if the base or a variable is unknown, an edge is both required and forbidden, or that of a continuous
        variable to itself is forbidden
    """
    if not isinstance(prior, GraphPrior):
        prior = GraphPrior(prior)
    if prior.base not in get_args(GraphPriorName):
        raise ValueError(
            f"unknown graph_prior {prior.base!r}, allowed: {', '.join(get_args(GraphPriorName))}, or a GraphPrior"
        )
    n_states, n_parents = len(factors.state_variables), len(factors.parents)
    log_odds = th.full((n_states, n_parents), th.nan)
    is_continuous = th.tensor([not variable.is_categorical for variable in factors.state_variables])
    log_odds.diagonal()[is_continuous | (prior.base != "none")] = CERTAIN
    if prior.base == "order":
        rows, columns = th.triu_indices(n_states, n_states, offset=1)
        log_odds[rows, columns] = -CERTAIN
        log_odds[:, n_states:] = CERTAIN
    for edges, value in ((prior.required_edges, CERTAIN), (prior.forbidden_edges, -CERTAIN)):
        for parent, child in edges:
            row, column = factors.state_index_of(child), factors.index_of(parent)
            if row == column and is_continuous[row] and value < 0:
                raise ValueError(f"{child!r} is predicted as a change of itself: that edge cannot be forbidden")
            if log_odds[row, column] == -value:
                raise ValueError(
                    f"the edge ({parent!r}, {child!r}) is both required and forbidden, by the edges given or by the base "
                    f"{prior.base!r}: take it out, or choose another base of {', '.join(get_args(GraphPriorName))}"
                )
            log_odds[row, column] = value
    return log_odds


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
