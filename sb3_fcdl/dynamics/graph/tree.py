"""A tree of tests on the variables, whose leaves are the contexts."""

import math
from copy import deepcopy
from typing import NamedTuple

import torch as th
from torch import nn

from fcdl_envs.variables import Factors


class Condition(NamedTuple):
    """
    Holds where a weighted sum is above a threshold and not above a limit.

    :param weights: of the encoded state and action, ``[D + A]``
    :param threshold: of their sum
    :param limit: likewise
    """

    weights: th.Tensor
    threshold: float
    limit: float = math.inf

    def holds(self, columns: th.Tensor) -> th.Tensor:
        """
        :param columns: encoded state and action, ``[R, D + A]``
        :return: ``[R]``, bool
        """
        total = columns @ self.weights
        return (total > self.threshold) & (total <= self.limit)

    def reads(self, factors: Factors) -> tuple[int, ...]:
        """:return: the variables, indices among the parents"""
        return tuple(index for index, span in enumerate(factors.parent_slices) if self.weights[span].any())


class ContextTree(nn.Module):
    """
    At most ``K`` contexts. Each test asks whether a weighted sum of the encoded state and action is in an interval, which may
    have no upper limit; each context is a leaf: the outcomes of the tests on its path.

    :param factors: the variables
    :param n_contexts: ``K``
    """

    weights: th.Tensor
    thresholds: th.Tensor
    limits: th.Tensor
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
        self.register_buffer("limits", th.full((n_tests,), th.inf))
        self.register_buffer("paths", th.zeros(n_contexts, n_tests))
        self.register_buffer("is_leaf", th.eye(n_contexts)[0])

    def forward(self, columns: th.Tensor) -> th.Tensor:
        """
        :param columns: encoded state and action, ``[R, D + A]``
        :return: the context of each row, ``[R]``, int64
        """
        finite = columns.nan_to_num(0.0, self.LARGEST, -self.LARGEST)
        totals = finite @ self.weights.T
        outcomes = 2 * ((totals > self.thresholds) & (totals <= self.limits)).to(columns.dtype) - 1
        n_wrong = self.paths.abs().sum(-1) - outcomes @ self.paths.T
        return n_wrong.masked_fill(self.is_leaf == 0, th.inf).argmin(-1)

    @property
    def leaves(self) -> list[int]:
        """The contexts that there are."""
        return [int(leaf) for leaf in self.is_leaf.nonzero().flatten()]

    @property
    def tests(self) -> list[Condition]:
        """Those on the path of some context."""
        used = (self.paths.abs().sum(0) > 0).nonzero().flatten().tolist()
        bounds = zip(self.thresholds.tolist(), self.limits.tolist(), strict=True)
        conditions = [Condition(weights, *each) for weights, each in zip(self.weights.clone(), bounds, strict=True)]
        return [conditions[test] for test in used]

    @property
    def reads(self) -> th.Tensor:
        """Whether a test depends on each parent, ``[P]``, bool."""
        is_read = (self.weights != 0)[self.paths.abs().sum(0) > 0].any(0)
        return th.stack([is_read[columns].any() for columns in self.factors.parent_slices])

    def split(self, leaf: int, weights: th.Tensor, threshold: float, limit: float = math.inf) -> int | None:
        """
        Rows of a leaf for which a test holds, see ``Condition``, become a context of their own.

        :param leaf: which
        :param weights: ``[D + A]``
        :param threshold: of the sum
        :param limit: of the sum
        :return: the new context; None if there is no room
        """
        free, unused = (self.is_leaf == 0).nonzero(), (self.paths.abs().sum(0) == 0).nonzero()
        if not len(free) or not len(unused):
            return None
        new, test = int(free[0]), int(unused[0])
        self.weights[test], self.thresholds[test], self.limits[test] = weights, threshold, limit
        self.paths[new] = self.paths[leaf]
        self.paths[leaf, test], self.paths[new, test] = -1, 1
        self.is_leaf[new] = 1
        return new

    def renumbered(self, numbers: th.Tensor) -> "ContextTree":
        """
        :param numbers: of the contexts, a permutation, ``[K]``, int64
        :return: the same tests, whose contexts have these numbers
        """
        other = deepcopy(self)
        other.paths[numbers], other.is_leaf[numbers] = self.paths, self.is_leaf
        return other


def succession(before: th.Tensor, after: th.Tensor, n_contexts: int) -> tuple[th.Tensor, th.Tensor]:
    """
    Which context follows which, by the transitions that they share.

    :param before: contexts of some transitions, ``[R]``, int64
    :param after: contexts of the same transitions by another tree, ``[R]``, int64
    :param n_contexts: ``K``
    :return: the number that each of the other tree's contexts shall have, a permutation: that of the context with which it has
        most in common, if no other has more; and the context with which it has most in common. Both ``[K]``, int64
    """
    shared = th.bincount(after * n_contexts + before, minlength=n_contexts**2).view(n_contexts, n_contexts)
    numbers = th.full((n_contexts,), -1, device=after.device)
    for pair in shared.flatten().argsort(descending=True, stable=True).tolist():
        new, old = divmod(pair, n_contexts)
        if numbers[new] < 0 and not (numbers == old).any():
            numbers[new] = old
    return numbers, shared.argmax(1)
