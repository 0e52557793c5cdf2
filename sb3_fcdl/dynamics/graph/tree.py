"""A tree of tests on the variables, whose leaves are the contexts."""

import torch as th
from torch import nn

from fcdl_envs.variables import Factors


class ContextTree(nn.Module):
    """
    At most ``K`` contexts. Each test compares a weighted sum of the encoded state and action with a threshold; each context is
    a leaf: the outcomes of the tests on its path.

    :param factors: the variables
    :param n_contexts: ``K``
    """

    weights: th.Tensor
    thresholds: th.Tensor
    paths: th.Tensor
    is_leaf: th.Tensor

    # What stands for a number that is none: no test may depend on a variable that it does not read.
    LARGEST = 1e6

    def __init__(self, factors: Factors, n_contexts: int) -> None:
        super().__init__()
        self.factors = factors
        n_tests, n_columns = max(n_contexts - 1, 1), factors.state_width + factors.action_width
        self.register_buffer("weights", th.zeros(n_tests, n_columns))
        self.register_buffer("thresholds", th.zeros(n_tests))
        self.register_buffer("paths", th.zeros(n_contexts, n_tests))
        self.register_buffer("is_leaf", th.eye(n_contexts)[0])

    def forward(self, columns: th.Tensor) -> th.Tensor:
        """
        :param columns: encoded state and action, ``[R, D + A]``
        :return: the context of each row, ``[R]``, int64
        """
        finite = columns.nan_to_num(0.0, self.LARGEST, -self.LARGEST)
        outcomes = 2 * (finite @ self.weights.T > self.thresholds).to(columns.dtype) - 1
        n_wrong = self.paths.abs().sum(-1) - outcomes @ self.paths.T
        return n_wrong.masked_fill(self.is_leaf == 0, th.inf).argmin(-1)

    @property
    def leaves(self) -> list[int]:
        """The contexts that there are."""
        return [int(leaf) for leaf in self.is_leaf.nonzero().flatten()]

    def parents_of(self, test: int) -> th.Tensor:
        """Whether a test depends on each parent, ``[P]``, bool."""
        return self._parents_of(self.weights[test] != 0)

    @property
    def reads(self) -> th.Tensor:
        """Whether a test depends on each parent, ``[P]``, bool."""
        return self._parents_of((self.weights != 0)[self.paths.abs().sum(0) > 0].any(0))

    def split(self, leaf: int, weights: th.Tensor, threshold: float) -> int | None:
        """
        Rows of a leaf whose weighted sum is above the threshold become a context of their own.

        :param leaf: which
        :param weights: ``[D + A]``
        :param threshold: of the sum
        :return: the new context; None if there is no room
        """
        free, unused = (self.is_leaf == 0).nonzero(), (self.paths.abs().sum(0) == 0).nonzero()
        if not len(free) or not len(unused):
            return None
        new, test = int(free[0]), int(unused[0])
        self.weights[test], self.thresholds[test] = weights, threshold
        self.paths[new] = self.paths[leaf]
        self.paths[leaf, test], self.paths[new, test] = -1, 1
        self.is_leaf[new] = 1
        return new

    def siblings(self) -> list[tuple[int, int, int]]:
        """Pairs of leaves that one last test tells apart: ``(leaf, other, test)``."""
        found = []
        for test in (self.paths.abs().sum(0) == 2).nonzero().flatten().tolist():
            leaf, other = self.paths[:, test].nonzero().flatten().tolist()
            found.append((leaf, other, test))
        return found

    def merge(self, leaf: int, other: int, test: int) -> None:
        """Undo a test: its two leaves become one, which keeps the first one's number."""
        self.paths[leaf, test] = 0
        self.paths[other] = 0
        self.is_leaf[other] = 0

    def _parents_of(self, is_read: th.Tensor) -> th.Tensor:
        """``[D + A]`` columns to ``[P]`` parents, bool."""
        return th.stack([is_read[columns].any() for columns in self.factors.parent_slices])
