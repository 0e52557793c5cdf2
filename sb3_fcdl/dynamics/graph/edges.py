"""The entries of a graph that a model learns, among those that it is given."""

import numpy as np
import torch as th
from torch import nn

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.graph.priors import GraphPrior, GraphPriorName, prior_log_odds


class FreeEdges(nn.Module):
    """
    Puts the log-odds of ``F`` free entries among the given ones.

    :param factors: the variables
    :param graph_prior: which entries are given, see ``prior_log_odds``
    :raises ValueError: if all of them are, or ``graph_prior`` cannot be
    """

    given: th.Tensor
    index: th.Tensor

    def __init__(self, factors: Factors, graph_prior: GraphPriorName | GraphPrior) -> None:
        super().__init__()
        log_odds = prior_log_odds(graph_prior, factors)
        if not log_odds.isnan().any():
            raise ValueError(
                f"{graph_prior!r} gives every edge between {', '.join(factors.parent_names)}: there is no graph to learn. "
                "Tell less, or give the graph to dynamics='oracle'"
            )
        self.register_buffer("given", log_odds.nan_to_num(), persistent=False)
        self.register_buffer("index", log_odds.isnan().flatten().nonzero().squeeze(-1), persistent=False)

    @property
    def n_free(self) -> int:
        return len(self.index)

    @property
    def is_free(self) -> th.Tensor:
        """Which entries are free, ``[V, P]``, bool: the log-odds of a given one are never zero."""
        return self.given == 0

    @property
    def entries(self) -> np.ndarray:
        """``is_free`` as an array."""
        return self.is_free.cpu().numpy()

    def fill(self, free: th.Tensor) -> th.Tensor:
        """``[R, F]`` log-odds of the free entries to ``[R, V, P]``, given ones filled in."""
        given = self.given.flatten().expand(len(free), -1)
        return given.scatter(1, self.index.expand(len(free), -1), free).unflatten(1, self.given.shape)
