"""Where a context is two: a test on one variable on whose sides different edges are needed."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch as th
from torch.nn import functional as F

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.graph.evidence import Evidence
from sb3_fcdl.dynamics.graph.judgement import ALPHA, MIN_GAIN, MIN_ROWS, NEEDLESS_SHARE, Z_ALPHA

# Standard errors by which an edge must be needed on one side and worth more there than on the other.
SPLIT_Z = 4.0
# Bins of a continuous variable, cut at its quantiles.
N_BINS = 10
# Cuts of a variable that are confirmed or rejected: those that tell most about a single edge.
N_CUTS = 4
# Ways to halve the transitions. The best test is not always confirmed by the first, and a poorer one would take its place.
N_HALVES = 4
# Both sides of a joint cut have at least this share of the transitions.
MIN_SHARE = 0.08


class Split(NamedTuple):
    """
    A test on one variable, see ``ContextTree.split``.

    :param saved: edges that a transition needs less once the two sides have graphs of their own, mean over the transitions
    :param weights: of the test, ``[D + A]``
    :param threshold: of the test
    """

    saved: float
    weights: th.Tensor
    threshold: float

    def side(self, columns: th.Tensor) -> th.Tensor:
        """``[R, D + A]`` to 0 or 1, ``[R]``, int64."""
        return (columns @ self.weights > self.threshold).long()


def best_split(factors: Factors, columns: th.Tensor, gains: th.Tensor, parents: th.Tensor) -> Split | None:
    """
    The test that saves most edges. Cuts are found on one half of the transitions and confirmed on the other.

    :param factors: the variables
    :param columns: encoded state and action of the transitions of a context, ``[R, D + A]``
    :param gains: what each transition gains by the value of each edge of the context's graph, nats, ``[R, E]``
    :param parents: of these edges, ``[E]``, int64
    :return: None if no test is confirmed
    """
    found = []
    halves = [th.randperm(len(columns), device=columns.device) < len(columns) // 2 for _ in range(N_HALVES)]
    for half, variable in product(halves, range(len(factors.parents))):
        is_other = parents != variable
        for weights, threshold in _cuts(factors, variable, columns[half], gains[half][:, is_other]):
            split = Split(0.0, weights, threshold)
            side = split.side(columns)
            saved = _saved(gains[~half][:, is_other], side[~half])
            if saved:
                own = float((~is_other).sum()) * _constant_share(columns[:, factors.parent_slices[variable]], side)
                found.append(split._replace(saved=saved + own))
    return max(found, key=lambda each: each.saved, default=None)


def _saved(gains: th.Tensor, side: th.Tensor) -> float:
    """Edges of other variables that a side can do without, mean over the transitions ``gains [R, E]``, ``side [R]``."""
    n = th.bincount(side, minlength=2)
    if n.min() < MIN_ROWS:
        return 0.0
    evidence = Evidence.of(gains, side, 2)
    gain, error, p_value = evidence.gain, evidence.standard_error, evidence.above(MIN_GAIN).p_value
    saved = 0.0
    for low, high in ((0, 1), (1, 0)):
        is_needed = gain[high] - MIN_GAIN > SPLIT_Z * error[high]
        differs = gain[high] - gain[low] > SPLIT_Z * error.square().sum(0).sqrt()
        is_needless = (p_value[low] > ALPHA) & (gain[low] + Z_ALPHA * error[low] <= NEEDLESS_SHARE * gain[high])
        saved += float(n[low] / n.sum() * (is_needed & differs & is_needless).sum())
    return saved


def _constant_share(values: th.Tensor, side: th.Tensor) -> float:
    """Share of the transitions on whose side of the test the variable is constant: it needs no edge there."""
    is_constant = [bool((values[side == each] == values[side == each][:1]).all()) for each in (0, 1)]
    return float(th.tensor(is_constant, device=side.device)[side].double().mean())


def _cuts(factors: Factors, variable: int, columns: th.Tensor, gains: th.Tensor) -> Iterator[tuple[th.Tensor, float]]:
    """Weights and threshold of each test on a variable that may tell where some edge is needed."""
    if not gains.shape[1]:
        return
    span = factors.parent_slices[variable]
    weights = columns.new_zeros(columns.shape[1])
    if factors.parents[variable].is_categorical:
        cells = columns[:, span].double()
        groups = [*_single_cuts(cells, gains, is_ordered=False), *_joint_cuts(cells, gains)]
        for group in groups:
            each = weights.clone()
            each[span] = group.to(columns.dtype)
            yield each, 0.5
        return
    values = columns[:, span.start]
    shares = th.linspace(0, 1, N_BINS + 1, dtype=values.dtype, device=values.device)[1:-1]
    thresholds = values.quantile(shares).unique()
    bins = F.one_hot((values.unsqueeze(-1) > thresholds).sum(-1), len(thresholds) + 1).double()
    weights[span.start] = 1.0
    for group in _single_cuts(bins, gains, is_ordered=True):
        yield weights, float(thresholds[int((group != group[0]).nonzero()[0, 0]) - 1])


def _single_cuts(cells: th.Tensor, gains: th.Tensor, is_ordered: bool) -> Iterator[th.Tensor]:
    """
    For each edge the best cut of the categories in order of its gain; of these the clearest.

    :param cells: category of each transition, one-hot, ``[R, C]``
    :param gains: ``[R, E]``
    :param is_ordered: whether the order of the categories is that of their numbers
    :return: categories on one side, ``[C]``, bool
    """
    n, total, squares = cells.sum(0), cells.T @ gains, cells.T @ gains.square()
    if len(n) < 2:
        return
    order = th.arange(len(n), device=n.device).unsqueeze(-1).expand_as(total)
    if not is_ordered:
        mean = total / n.clamp(min=1).unsqueeze(-1)
        order = mean.masked_fill((n == 0).unsqueeze(-1), -th.inf).argsort(dim=0)
    n_below = n[order].cumsum(0)[:-1]
    below = _mean_and_variance(n_below, total.gather(0, order).cumsum(0)[:-1], squares.gather(0, order).cumsum(0)[:-1])
    above = _mean_and_variance(
        n.sum() - n_below,
        total.sum(0) - total.gather(0, order).cumsum(0)[:-1],
        squares.sum(0) - squares.gather(0, order).cumsum(0)[:-1],
    )
    is_lower = below[0] < above[0]
    low, high = th.where(is_lower, below[0], above[0]), th.where(is_lower, above[0], below[0])
    error = th.where(is_lower, below[1], above[1]).sqrt()
    z = (high - low) / (below[1] + above[1]).sqrt()
    fits = (low + Z_ALPHA * error <= NEEDLESS_SHARE * high) & (th.minimum(n_below, n.sum() - n_below) >= MIN_ROWS // 2)
    score, cut = z.masked_fill(~fits, 0).max(0)
    for edge in score.argsort(descending=True)[:N_CUTS].tolist():
        if score[edge] > 0:
            yield _group(order[cut[edge] + 1 :, edge], len(n))


def _joint_cuts(cells: th.Tensor, gains: th.Tensor) -> Iterator[th.Tensor]:
    """Cuts of many categories along the two directions in which their gains, of all edges together, differ most."""
    n = cells.sum(0)
    if len(n) < 4:
        return
    mean = cells.T @ gains / n.clamp(min=1).unsqueeze(-1)
    scaled = (mean - gains.mean(0)) / gains.std(0).clamp(min=1e-9)
    directions = th.linalg.svd(scaled * n.sqrt().unsqueeze(-1), full_matrices=False).Vh[:2]
    for direction in directions:
        order = (scaled @ direction).argsort()
        shares = n[order].cumsum(0) / n.sum()
        for cut in range(len(n) - 1):
            if MIN_SHARE <= shares[cut] <= 1 - MIN_SHARE:
                yield _group(order[cut + 1 :], len(n))


def _group(members: th.Tensor, n_categories: int) -> th.Tensor:
    return th.zeros(n_categories, dtype=th.bool, device=members.device).index_fill(0, members, True)


def _mean_and_variance(n: th.Tensor, total: th.Tensor, squares: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """Of sums of values and of squares: the mean, and the variance of the mean."""
    mean = total / n.clamp(min=1)
    return mean, (squares / n.clamp(min=1) - mean.square()).clamp(min=1e-12) / n.clamp(min=1)
