"""Where a context is two: a test on one variable on whose sides different edges are needed."""

from collections.abc import Sequence
from typing import NamedTuple

import torch as th
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.graph.categories import NEEDLESS_SHARE, clusters
from sb3_fcdl.dynamics.graph.evidence import Evidence
from sb3_fcdl.dynamics.graph.judgement import ALPHA, MIN_GAIN, MIN_ROWS
from sb3_fcdl.dynamics.graph.tree import Condition

# One-sided quantile of the normal distribution at ``ALPHA``.
Z_ALPHA = 1.645
# Standard errors by which an edge must be needed on one side and worth more there than on the other.
SPLIT_Z = 4.0
# Likewise for a known test, which passed the stricter bound at an earlier judgement.
KNOWN_Z = 2.5
# Share of what an edge is worth on the other side up to which it is worth nothing, however sure that is: an edge without
# which a context is trained is not without effect.
NEXT_TO_NOTHING = 0.05
# Bins of a continuous variable, cut at its quantiles.
N_BINS = 10
# Cuts of a variable that are confirmed or rejected: those that save most.
N_CUTS = 4
# A known test is taken again if it saves this share of what the best one does: other contexts have to be learned.
NEARLY = 0.5
# Ways to halve the transitions. The best test is not always confirmed by the first, and a poorer one would take its place.
N_HALVES = 4


class Split(NamedTuple):
    """
    A test on one variable, see ``ContextTree.split``.

    :param variable: which, index among the parents
    :param saved: edges that a transition needs less once the two sides have graphs of their own, mean over the transitions
    :param saved_in_all: likewise, once the variable is split in as many parts as there are
    :param weights: of the test, ``[D + A]``
    :param threshold: of the test
    :param number: of the test among the known ones; if it is none, how many these are
    """

    variable: int
    saved: float
    saved_in_all: float
    weights: th.Tensor
    threshold: float
    number: int


class Cells(NamedTuple):
    """
    The gains of the transitions of each cell, a cell being a category or a bin.

    :param n: transitions, ``[C]``
    :param total: of the gains less ``center``, ``[C, E]``
    :param squares: of the same, ``[C, E]``
    :param center: mean gain over all transitions, nats, ``[E]``
    """

    n: th.Tensor
    total: th.Tensor
    squares: th.Tensor
    center: th.Tensor

    @staticmethod
    def of(cells: th.Tensor, gains: th.Tensor) -> "Cells":
        """
        :param cells: cell of each transition, one-hot, ``[R, C]``, float64
        :param gains: what each transition gains by each edge, nats, ``[R, E]``, float64
        """
        center = gains.mean(0)
        return Cells(cells.sum(0), cells.T @ (gains - center), cells.T @ (gains - center).square(), center)

    def evidence(self, groups: th.Tensor) -> Evidence:
        """
        :param groups: the cells of each group, 0 or 1, ``[..., C]``, float64
        :return: of the gains of the transitions of each group, ``[..., E]``
        """
        n = (groups @ self.n).unsqueeze(-1)
        mean = groups @ self.total / n.clamp(min=1)
        variance = (groups @ self.squares / n.clamp(min=1) - mean.square()).clamp(min=0) * n / (n - 1).clamp(min=1)
        return Evidence(mean + self.center, (variance / n.clamp(min=1)).sqrt().where(n > 1, th.inf), n)

    def saved(self, groups: th.Tensor, z: float = SPLIT_Z) -> th.Tensor:
        """
        :param groups: the cells of the groups of each of ``B`` partitions, ``[B, M, C]``
        :param z: standard errors that make a difference
        :return: edges that a group can do without and another one cannot, mean over the transitions, ``[B]``
        """
        evidence = self.evidence(groups)
        gain, error, n = evidence
        error = error.where(n >= MIN_ROWS, th.inf)
        of_most = (gain - z * error).argmax(1, keepdim=True)
        most, error_of_most = gain.gather(1, of_most), error.gather(1, of_most)
        is_needed = most - MIN_GAIN > z * error_of_most
        differs = most - gain > z * (error_of_most.square() + error.square()).sqrt()
        is_none = (evidence.above(MIN_GAIN).p_value > ALPHA) | (gain <= NEXT_TO_NOTHING * most)
        is_needless = is_none & (gain + Z_ALPHA * error <= NEEDLESS_SHARE * most)
        return ((n / self.n.sum()) * (is_needed & differs & is_needless)).sum((1, 2))


def find_splits(
    factors: Factors, columns: th.Tensor, gains: th.Tensor, parents: th.Tensor, known: Sequence[Condition] = ()
) -> list[Split]:
    """
    The test on each variable that saves most edges. Cuts are found on one half of the transitions and confirmed on the other;
    known ones need not be found again.

    :param factors: the variables
    :param columns: encoded state and action of the transitions of a context, ``[R, D + A]``
    :param gains: what each transition gains by the value of each edge of the context's graph, nats, ``[R, E]``, float64
    :param parents: of these edges, ``[E]``, int64
    :param known: tests that may be taken again
    :return: those that are confirmed
    """
    halves = [th.randperm(len(columns), device=columns.device) < len(columns) // 2 for _ in range(N_HALVES)]
    splits = {}
    for variable in range(len(factors.parents)):
        found = _find_split(factors, variable, columns, gains, parents, halves, number=len(known))
        if found is not None:
            splits[variable] = found
    for number, test in enumerate(known):
        again = _known_split(factors, test, columns, gains, parents, number)
        best = splits.get(again.variable, again)
        best = again if again.saved >= (NEARLY if best.number == len(known) else 1) * best.saved else best
        splits[again.variable] = best._replace(saved_in_all=max(best.saved_in_all, again.saved_in_all))
    return [split for split in splits.values() if split.saved > 0]


def _known_split(
    factors: Factors, test: Condition, columns: th.Tensor, gains: th.Tensor, parents: th.Tensor, number: int
) -> Split:
    """What a test saves, by all transitions."""
    variable = next(i for i, span in enumerate(factors.parent_slices) if test.weights[span].any())
    side = F.one_hot((columns @ test.weights > test.threshold).long(), 2).double()
    is_other = parents != variable
    saved = float(Cells.of(side, gains[:, is_other]).saved(th.eye(2).to(side).unsqueeze(0), KNOWN_Z))
    if saved > 0 and factors.parents[variable].is_categorical:
        group = (test.weights[factors.parent_slices[variable]] > 0).double()
        saved += _own(_cells(factors, variable, columns)[0], group, gains[:, ~is_other])
    return Split(variable, saved, saved, test.weights, test.threshold, number)


def _find_split(
    factors: Factors,
    variable: int,
    columns: th.Tensor,
    gains: th.Tensor,
    parents: th.Tensor,
    halves: list[th.Tensor],
    number: int,
) -> Split | None:
    is_other = parents != variable
    cells, thresholds = _cells(factors, variable, columns)
    together = Cells.of(cells, gains[:, is_other])
    group, saved, saved_in_all = None, 0.0, 0.0
    for half in halves:
        to_find, to_confirm = (Cells.of(cells[rows], gains[rows][:, is_other]) for rows in (half, ~half))
        partitions, cuts = _partitions(to_find, is_ordered=thresholds is not None)
        cuts = cuts[to_find.saved(cuts).argsort(descending=True)[:N_CUTS]]
        # Gains have long tails: in half of a small group those transitions may be missing that show what an edge is worth.
        for cut, confirmed in zip(cuts, th.minimum(to_confirm.saved(cuts), together.saved(cuts)).tolist(), strict=True):
            if confirmed > saved:
                group, saved = cut[0], confirmed
        saved_in_all = max(saved_in_all, float(th.minimum(to_confirm.saved(partitions), together.saved(partitions)).max()))
    if group is None:
        return None
    weights, span = columns.new_zeros(columns.shape[1]), factors.parent_slices[variable]
    if thresholds is not None:
        weights[span.start] = 1.0
        return Split(variable, saved, max(saved, saved_in_all), weights, float(thresholds[int(group.argmax()) - 1]), number)
    weights[span] = group.to(weights.dtype)
    own = _own(cells, group, gains[:, ~is_other])
    return Split(variable, saved + own, max(saved, saved_in_all) + own, weights, 0.5, number)


def _partitions(cells: Cells, is_ordered: bool) -> tuple[th.Tensor, th.Tensor]:
    """
    Partitions of the cells, ``[B, M, C]``, where there are fewer groups with empty ones; and cuts in two, each of at least
    ``MIN_ROWS``, ``[B, 2, C]``.
    """
    single = th.eye(len(cells.n)).to(cells.total)
    partitions = pad_sequence([single] if is_ordered else clusters(cells.evidence(single)), batch_first=True)
    groups = th.ones_like(single).triu(1)[:-1] if is_ordered else partitions.flatten(0, 1).unique(dim=0)
    cuts = th.stack([groups, 1 - groups], dim=1)
    return partitions, cuts[(cuts @ cells.n).amin(1) >= MIN_ROWS]


def _cells(factors: Factors, variable: int, columns: th.Tensor) -> tuple[th.Tensor, th.Tensor | None]:
    """The cell of each transition, one-hot, ``[R, C]``; and of a number the thresholds between its cells, ``[C - 1]``."""
    values = columns[:, factors.parent_slices[variable]]
    if factors.parents[variable].is_categorical:
        return values.double(), None
    shares = th.linspace(0, 1, N_BINS + 1, dtype=values.dtype, device=values.device)[1:-1]
    thresholds = values[:, 0].quantile(shares).unique()
    return F.one_hot((values > thresholds).sum(-1), len(thresholds) + 1).double(), thresholds


def _own(cells: th.Tensor, group: th.Tensor, gains: th.Tensor) -> float:
    """
    Edges of its own that a variable saves, mean over the transitions: on a side where it has one category it needs none.

    :param gains: of these edges, ``[R, E]``
    """
    n = cells.sum(0)
    constant = [side.sum() for side in (n[group == 0], n[group == 1]) if (side > 0).sum() == 1]
    every = th.zeros(len(gains), dtype=th.int64, device=gains.device)
    n_needed = (Evidence.of(gains, every, 1).above(MIN_GAIN).p_value <= ALPHA).sum()
    return float(n_needed * sum(constant) / n.sum())
