"""Which entries of a graph a model may learn."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch as th

from fcdl_envs.arguments import Either, Instance, check, one_of
from fcdl_envs.variables import Factors

GraphPriorName = Literal["order", "self", "none"]

# sigmoid(+-100) is exactly 1 or 0 in float32, and logistic noise stays within +-14: such entries never flip.
CERTAIN = 100.0

BASE = one_of(*get_args(GraphPriorName))


class Edges:
    """Several edges, each a pair of names."""

    def takes_type_of(self, value: Any) -> bool:
        return isinstance(value, tuple | list)

    def takes(self, value: Any) -> bool:
        return all(isinstance(edge, tuple | list) and len(edge) == 2 and {*map(type, edge)} == {str} for edge in value)

    def __str__(self) -> str:
        return "pairs of names, as in ((parent, child), (parent, child))"


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
    :raises ValueError: if the base is unknown, or an edge is no pair of names
    :raises TypeError: if one of them is of a wrong type
    """

    base: GraphPriorName = "self"
    required_edges: tuple[tuple[str, str], ...] = ()
    forbidden_edges: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        check(
            base=(self.base, BASE),
            required_edges=(self.required_edges, Edges()),
            forbidden_edges=(self.forbidden_edges, Edges()),
        )


GRAPH_PRIOR = Either(BASE, Instance(GraphPrior))


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
