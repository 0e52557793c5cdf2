"""Which entries of a graph a model may learn, and how it samples them."""

from typing import Literal, get_args

import torch as th

GraphPriorName = Literal["order", "self", "none"]

# sigmoid(+-100) is exactly 1 or 0 in float32, and logistic noise stays within +-14: such entries never flip.
CERTAIN = 100.0


def prior_log_odds(prior: GraphPriorName, n_states: int, n_parents: int) -> th.Tensor:
    """
    What a model is told about the graph before it sees data.

    ``"self"``: each variable depends on itself; the default, because a wrong order is an error that nothing would show.
    ``"order"``: variables are in causal order besides, and each depends on the action (what the published Chemical
    experiments tell FCDL, NCD and the oracle). ``"none"``: nothing.

    :param prior: name of the prior
    :param n_states: number of state variables, ``V``
    :param n_parents: number of state and action variables, ``P``
    :return: ``[V, P]``: ``+-CERTAIN`` where the entry is given, NaN where it is free to be learned
    :raises ValueError: if the name is unknown
    """
    if prior not in get_args(GraphPriorName):
        raise ValueError(f"unknown graph_prior {prior!r}, allowed: {', '.join(get_args(GraphPriorName))}")
    log_odds = th.full((n_states, n_parents), th.nan)
    if prior != "none":
        log_odds.fill_diagonal_(CERTAIN)
    if prior == "order":
        rows, columns = th.triu_indices(n_states, n_states, offset=1)
        log_odds[rows, columns] = -CERTAIN
        log_odds[:, n_states:] = CERTAIN
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
