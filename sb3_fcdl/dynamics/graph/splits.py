"""Where a context is two: a test on one variable, or on a difference of two, on whose sides different edges are needed."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import torch as th
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.graph.categories import NEEDLESS_SHARE, clusters
from sb3_fcdl.dynamics.graph.evidence import Evidence
from sb3_fcdl.dynamics.graph.judgement import ALPHA, MIN_GAIN, MIN_ROWS
from sb3_fcdl.dynamics.graph.lines import Lines, numbers_of
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
# A known test is taken again if it saves this share of what the best one does: other contexts have to be learned. Likewise
# one variable is read rather than two.
NEARLY = 0.5
# Differences that are looked at more closely.
N_DIFFERENCES = 8
# Pairs of numbers whose differences lines are looked at for together.
N_PAIRS = 32
# Ways to halve the transitions. The best test is not always confirmed by the first, and a poorer one would take its place.
N_HALVES = 4


class Split(NamedTuple):
    """
    A test on one variable, or on the difference of two.

    :param variables: which, indices among the parents, ascending
    :param saved: edges that a transition needs less once the two sides have graphs of their own, mean over the transitions
    :param saved_in_all: likewise, once variable or difference is split in as many parts as there are
    :param test: see ``ContextTree.split``
    :param number: of the test among the known ones; if it is none, how many these are
    :param explained: what lines of their own on the two sides explain better than common ones, nats over all transitions;
        0 if the test was not found by lines
    """

    variables: tuple[int, ...]
    saved: float
    saved_in_all: float
    test: Condition
    number: int
    explained: float = 0.0


class _LinesOfEdges(NamedTuple):
    """
    What lines say of each of ``E`` edges: nothing where parent or child is a category.

    :param lines: of ``C`` transitions or groups
    :param entries: of the edges between numbers, as ``Lines.evidence`` has them flattened, ``[e]``, int64
    :param has_line: whether an edge is one of them, ``[E]``, bool
    """

    lines: Lines
    entries: th.Tensor
    has_line: th.Tensor

    @staticmethod
    def of(factors: Factors, columns: th.Tensor, changes: th.Tensor, edges: th.Tensor) -> "_LinesOfEdges | None":
        """
        :param columns: of the transitions, ``[R, D + A]``
        :param changes: of the numbers, ``[R, V]``
        :param edges: child and parent of each, ``[E, 2]``, int64
        :return: None if no edge is between numbers
        """
        numbers = numbers_of(factors)
        order = edges.new_full((len(factors.parents),), -1)
        order[numbers] = th.arange(len(numbers), device=edges.device)
        child, parent = order[edges].T
        has_line = (child >= 0) & (parent >= 0)
        if not has_line.any():
            return None
        return _LinesOfEdges(Lines.of(factors, columns, changes), (child * len(numbers) + parent)[has_line], has_line)

    def chosen(self, is_chosen: th.Tensor) -> "_LinesOfEdges":
        """Of some of the edges, ``[E]``, bool."""
        return self._replace(entries=self.entries[is_chosen[self.has_line]], has_line=self.has_line[is_chosen])

    def added_to(self, evidence: Evidence, groups: th.Tensor) -> Evidence:
        """Evidence of each edge in each group, ``[..., E]``, and what lines of the group, ``[..., C]``, add to it."""
        found = self.lines.summed(groups).evidence()
        gain, variance = evidence.gain.clone(), evidence.standard_error.square()
        gain[..., self.has_line] += found.gain.flatten(-2)[..., self.entries].clamp(min=0)
        variance[..., self.has_line] += found.standard_error.square().flatten(-2)[..., self.entries]
        return evidence._replace(gain=gain, standard_error=variance.sqrt())


class Cells(NamedTuple):
    """
    The gains of the transitions of each cell, a cell being a category or a bin.

    :param n: transitions, ``[C]``
    :param total: of the gains less ``center``, ``[C, E]``
    :param squares: of the same, ``[C, E]``
    :param center: mean gain over all transitions, nats, ``[E]``
    :param lines: what lines add to the gains of the cells; None: nothing
    """

    n: th.Tensor
    total: th.Tensor
    squares: th.Tensor
    center: th.Tensor
    lines: "_LinesOfEdges | None" = None

    @staticmethod
    def of(cells: th.Tensor, gains: th.Tensor, lines: "_LinesOfEdges | None" = None) -> "Cells":
        """
        :param cells: cell of each transition, one-hot, ``[R, C]``, float64
        :param gains: what each transition gains by each edge, nats, ``[R, E]``, float64
        :param lines: what lines say of these transitions and edges
        """
        center = gains.mean(0)
        lines = None if lines is None else lines._replace(lines=lines.lines.summed(cells.T))
        return Cells(cells.sum(0), cells.T @ (gains - center), cells.T @ (gains - center).square(), center, lines)

    def evidence(self, groups: th.Tensor) -> Evidence:
        """
        :param groups: the cells of each group, 0 or 1, ``[..., C]``, float64
        :return: of the gains of the transitions of each group, ``[..., E]``
        """
        n = (groups @ self.n).unsqueeze(-1)
        mean = groups @ self.total / n.clamp(min=1)
        variance = (groups @ self.squares / n.clamp(min=1) - mean.square()).clamp(min=0) * n / (n - 1).clamp(min=1)
        found = Evidence(mean + self.center, (variance / n.clamp(min=1)).sqrt().where(n > 1, th.inf), n)
        return found if self.lines is None else self.lines.added_to(found, groups)

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
    factors: Factors,
    columns: th.Tensor,
    gains: th.Tensor,
    edges: th.Tensor,
    known: Sequence[Condition] = (),
    units: th.Tensor | None = None,
    changes: th.Tensor | None = None,
) -> list[Split]:
    """
    The test on each variable, and on each difference of two numbers, that saves most edges. Tests are found on one half of the
    transitions and confirmed on the other; known ones need not be found again.

    A difference is listed if it saves so much more than each of its variables alone that these would not be preferred, see
    ``NEARLY``.

    :param factors: the variables
    :param columns: encoded state and action of the transitions of a context, ``[R, D + A]``
    :param gains: what each transition gains by the value of each edge of the context's graph, nats, ``[R, E]``, float64
    :param edges: child and parent of each, ``[E, 2]``, int64
    :param known: tests that may be taken again
    :param units: what a number of 1 in each column is in the environment's units, ``[D + A]``; None: 1
    :param changes: of the numbers, by which lines find differences before the network has learned them, ``[R, V]``; those of
        categories are not read; None: they do not
    :return: those that are confirmed
    """
    lines = None if changes is None else _LinesOfEdges.of(factors, columns, changes, edges)
    units = th.ones_like(columns[0]) if units is None else units.to(columns)
    halves = [th.randperm(len(columns), device=columns.device) < len(columns) // 2 for _ in range(N_HALVES)]
    splits: dict[tuple[int, ...], Split] = {}

    def find(features: Sequence[tuple[int, ...]]) -> None:
        for variables in features:
            found = _find_split(factors, variables, columns, gains, edges[:, 1], halves, units, number=len(known))
            if found is not None:
                splits[variables] = found

    find([(index,) for index in range(len(factors.parents))])
    find(_differences(factors, columns, gains, edges, units, splits))
    if lines is not None:
        splits |= _found_by_lines(factors, columns, gains, edges, units, lines, halves[0], splits, len(known))
    for number, test in enumerate(known):
        again = _known_split(factors, test, columns, gains, edges[:, 1], number, lines)
        best = splits.get(again.variables, again)
        best = again if again.saved >= (NEARLY if best.number == len(known) else 1) * best.saved else best
        splits[again.variables] = best._replace(saved_in_all=max(best.saved_in_all, again.saved_in_all))
    return [each for each in splits.values() if each.saved > 0 and _is_preferred(each.saved_in_all, each.variables, splits)]


def _is_preferred(saved: float, variables: tuple[int, ...], splits: Mapping[tuple[int, ...], Split]) -> bool:
    """Whether a difference saves so much more than each of its variables alone that both are read; true of a variable."""
    alone = [splits[each,].saved_in_all for each in variables if (each,) in splits and len(variables) > 1]
    return all(each < NEARLY * saved for each in alone)


def _differences(
    factors: Factors,
    columns: th.Tensor,
    gains: th.Tensor,
    edges: th.Tensor,
    units: th.Tensor,
    splits: Mapping[tuple[int, ...], Split],
) -> list[tuple[int, int]]:
    """
    The pairs of numbers whose difference might choose the context: both are parents of a common child, and by all transitions
    a cut of the difference saves enough. At most ``N_DIFFERENCES``, those that save most.

    :param splits: those on one variable
    """
    every = th.zeros(len(gains), dtype=th.int64, device=gains.device)
    is_needed = Evidence.of(gains, every, 1).above(MIN_GAIN).p_value[0] <= ALPHA
    children: dict[int, set[int]] = {}
    for child, parent in edges[is_needed].tolist():
        if not factors.parents[parent].is_categorical:
            children.setdefault(parent, set()).add(child)
    center = gains.mean(0)
    centered = gains - center
    squares, saved = centered.square(), {}
    for pair in combinations(sorted(children), 2):
        if not children[pair[0]].isdisjoint(children[pair[1]]):
            cells = _cells(factors, pair, columns, units)[0]
            is_other = _is_other(edges[:, 1], pair)
            sums = (cells.T @ centered)[:, is_other], (cells.T @ squares)[:, is_other]
            of_cells = Cells(cells.sum(0), *sums, center[is_other])
            cuts = _partitions(of_cells, is_ordered=True, are_differences=True)[1]
            most = float(of_cells.saved(cuts).amax()) if len(cuts) else 0.0
            if most > 0 and _is_preferred(most, pair, splits):
                saved[pair] = most
    return sorted(saved, key=lambda pair: -saved[pair])[:N_DIFFERENCES]


def _found_by_lines(
    factors: Factors,
    columns: th.Tensor,
    gains: th.Tensor,
    edges: th.Tensor,
    units: th.Tensor,
    lines: _LinesOfEdges,
    half: th.Tensor,
    splits: Mapping[tuple[int, ...], Split],
    number: int,
) -> dict[tuple[int, ...], Split]:
    """
    For each pair of numbers the interval of their difference inside and outside of which lines of their own predict the
    changes of one half of the transitions best, if fitted to the other half. The pairs that are listed explain at least
    ``NEARLY`` as much as the best: where numbers meet, many other differences explain a little. What an interval saves is
    counted on all transitions, as of a known test: it is one, and not the one of many that saves most.

    :param half: of the transitions, ``[R]``, bool
    :param splits: those that the network knows of
    """
    pairs = list(combinations(numbers_of(factors), 2))
    best = []
    for first in range(0, len(pairs), N_PAIRS):
        weights = th.stack([_weights(factors, pair, units) for pair in pairs[first : first + N_PAIRS]])
        best += _explained(columns @ weights.T, lines.lines, half)
    most = max((explained for explained, _ in best), default=0.0)
    found: dict[tuple[int, ...], Split] = {}
    for pair, (explained, cut) in zip(pairs, best, strict=True):
        if explained > 0 and explained >= NEARLY * most and pair not in splits:
            cells, thresholds = _cells(factors, pair, columns, units)
            assert thresholds is not None
            if len(thresholds) == N_BINS - 1:
                is_other = _is_other(edges[:, 1], pair)
                saved = float(Cells.of(cells, gains[:, is_other], lines.chosen(is_other)).saved(cut.unsqueeze(0), KNOWN_Z))
                test = _interval(factors, pair, units, cut[0], thresholds)
                found[pair] = Split(pair, saved, saved, test, number, explained)
    return found


def _explained(values: th.Tensor, lines: Lines, half: th.Tensor) -> list[tuple[float, th.Tensor]]:
    """
    :param values: of ``Q`` differences, ``[R, Q]``
    :param lines: of each transition
    :param half: of the transitions, ``[R]``, bool
    :return: of each difference, by how many nats lines on the two sides of an interval predict better than common ones, where
        they do so most, and this cut, ``[2, C]``
    """
    thresholds = values.quantile(th.linspace(0, 1, N_BINS + 1).to(values)[1:-1], dim=0)
    cell = (values.unsqueeze(0) > thresholds.unsqueeze(1)).sum(0)
    members = F.one_hot(cell, N_BINS).permute(2, 1, 0).flatten(0, 1).double()
    halves = [lines.of_rows(rows).summed(members[:, rows]) for rows in (half, ~half)]
    halves = [Lines(*(each.unflatten(0, (N_BINS, -1)) for each in of_half)) for of_half in halves]
    groups = _intervals(th.eye(N_BINS).to(members))
    cuts = th.stack([groups, 1 - groups], dim=1)

    def likelihood(groups: th.Tensor) -> th.Tensor:
        one, other = (of_half.summed(groups) for of_half in halves)
        return (one.likelihood_of(other) + other.likelihood_of(one)).sum((1, -1))

    explained = likelihood(cuts) - likelihood(th.ones_like(cuts[:1, :1]))
    has_enough = th.minimum(*((cuts @ of_half.n).amin(1) for of_half in halves)) >= MIN_ROWS
    most, best = explained.masked_fill(~has_enough, -th.inf).max(0)
    return [(each, cuts[cut]) for each, cut in zip(most.tolist(), best.tolist(), strict=True)]


def _is_other(parents: th.Tensor, variables: tuple[int, ...]) -> th.Tensor:
    """Which edges are not from these variables, ``[E]``, bool."""
    return ~th.isin(parents, th.tensor(variables, device=parents.device))


def _known_split(
    factors: Factors,
    test: Condition,
    columns: th.Tensor,
    gains: th.Tensor,
    parents: th.Tensor,
    number: int,
    lines: "_LinesOfEdges | None",
) -> Split:
    """What a test saves, by all transitions."""
    variables = test.reads(factors)
    side = F.one_hot(test.holds(columns).long(), 2).double()
    is_other = _is_other(parents, variables)
    added = lines.chosen(is_other) if lines is not None and len(variables) > 1 else None
    saved = float(Cells.of(side, gains[:, is_other], added).saved(th.eye(2).to(side).unsqueeze(0), KNOWN_Z))
    if saved > 0 and factors.parents[variables[0]].is_categorical:
        group = (test.weights[factors.parent_slices[variables[0]]] > 0).double()
        saved += _own(_cells(factors, variables, columns, test.weights)[0], group, gains[:, ~is_other])
    return Split(variables, saved, saved, test, number)


def _find_split(
    factors: Factors,
    variables: tuple[int, ...],
    columns: th.Tensor,
    gains: th.Tensor,
    parents: th.Tensor,
    halves: list[th.Tensor],
    units: th.Tensor,
    number: int,
) -> Split | None:
    is_other = _is_other(parents, variables)
    cells, thresholds = _cells(factors, variables, columns, units)
    together = Cells.of(cells, gains[:, is_other])
    group, saved, saved_in_all = None, 0.0, 0.0
    for half in halves:
        to_find, to_confirm = (Cells.of(cells[rows], gains[rows][:, is_other]) for rows in (half, ~half))
        partitions, cuts = _partitions(to_find, thresholds is not None, are_differences=len(variables) > 1)
        cuts = cuts[to_find.saved(cuts).argsort(descending=True)[:N_CUTS]]
        # Gains have long tails: in half of a small group those transitions may be missing that show what an edge is worth.
        for cut, confirmed in zip(cuts, th.minimum(to_confirm.saved(cuts), together.saved(cuts)).tolist(), strict=True):
            if confirmed > saved:
                group, saved = cut[0], confirmed
        saved_in_all = max(saved_in_all, float(th.minimum(to_confirm.saved(partitions), together.saved(partitions)).max()))
    if group is None:
        return None
    if thresholds is not None:
        test = _interval(factors, variables, units, group, thresholds)
        return Split(variables, saved, max(saved, saved_in_all), test, number)
    weights, span = columns.new_zeros(columns.shape[1]), factors.parent_slices[variables[0]]
    weights[span] = group.to(weights.dtype)
    own = _own(cells, group, gains[:, ~is_other])
    return Split(variables, saved + own, max(saved, saved_in_all) + own, Condition(weights, 0.5), number)


def _interval(
    factors: Factors, variables: tuple[int, ...], units: th.Tensor, group: th.Tensor, thresholds: th.Tensor
) -> Condition:
    """The test whether a number or a difference is in one of the cells of a group, ``[C]``, neighbours."""
    first, last = (int(each) for each in group.nonzero()[[0, -1], 0])
    bounds = [-math.inf, *thresholds.tolist(), math.inf]
    return Condition(_weights(factors, variables, units), bounds[first], bounds[last + 1])


def _partitions(cells: Cells, is_ordered: bool, are_differences: bool) -> tuple[th.Tensor, th.Tensor]:
    """
    Partitions of the cells, ``[B, M, C]``, where there are fewer groups with empty ones; and cuts in two, each of at least
    ``MIN_ROWS``, ``[B, 2, C]``. Ordered cells are cut at a threshold, and those of a difference at one or two: numbers may be
    close.
    """
    single = th.eye(len(cells.n)).to(cells.total)
    partitions = pad_sequence([single] if is_ordered else clusters(cells.evidence(single)), batch_first=True)
    # Two cuts of every number would be many more hypotheses, and no system that we know needs them.
    of_ordered = _intervals(single) if are_differences else th.ones_like(single).triu(1)[:-1]
    groups = of_ordered if is_ordered else partitions.flatten(0, 1).unique(dim=0)
    return partitions, _cuts(groups, cells.n)


def _cuts(groups: th.Tensor, n: th.Tensor) -> th.Tensor:
    """
    :param groups: cells of each group, ``[B, C]``
    :param n: transitions of each cell, ``[C]``
    :return: each group and all other cells, where both have at least ``MIN_ROWS``, ``[B, 2, C]``
    """
    cuts = th.stack([groups, 1 - groups], dim=1)
    return cuts[(cuts @ n).amin(1) >= MIN_ROWS]


def _intervals(single: th.Tensor) -> th.Tensor:
    """The intervals of ordered cells but those from the first on, which are what others leave, ``[B, C]``."""
    upper = th.ones_like(single).triu()
    groups = upper.unsqueeze(1) - upper.unsqueeze(0)
    first, end = th.ones_like(single, dtype=th.bool).triu(1).nonzero().T
    return th.cat([upper[1:], groups[first[first > 0], end[first > 0]]])


def _cells(
    factors: Factors, variables: tuple[int, ...], columns: th.Tensor, units: th.Tensor
) -> tuple[th.Tensor, th.Tensor | None]:
    """
    The cell of each transition, one-hot, ``[R, C]``; and of a number or a difference the thresholds between its cells,
    ``[C - 1]``.
    """
    if factors.parents[variables[0]].is_categorical:
        return columns[:, factors.parent_slices[variables[0]]].double(), None
    values = columns @ _weights(factors, variables, units)
    shares = th.linspace(0, 1, N_BINS + 1, dtype=values.dtype, device=values.device)[1:-1]
    thresholds = values.quantile(shares).unique()
    return F.one_hot((values.unsqueeze(1) > thresholds).sum(-1), len(thresholds) + 1).double(), thresholds


def _weights(factors: Factors, variables: tuple[int, ...], units: th.Tensor) -> th.Tensor:
    """Of a number, or of a difference in the environment's units, ``[D + A]``; the first is 1."""
    first, *others = (factors.parent_slices[variable].start for variable in variables)
    weights = th.zeros_like(units)
    weights[first] = 1.0
    for other in others:
        weights[other] = -units[other] / units[first]
    return weights


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
