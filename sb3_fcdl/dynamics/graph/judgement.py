"""Which edges held-out transitions support, context by context."""

from math import floor, log
from typing import NamedTuple

import torch as th
from torch.nn import functional as F

from sb3_fcdl.dynamics.graph.evidence import Evidence, adjusted
from sb3_fcdl.dynamics.graph.held_out import HeldOut
from sb3_fcdl.dynamics.graph.lines import Lines, numbers_of

# Updates before the first judgement. From then on each comes when there were a fifth more updates than at the last.
FIRST_JUDGEMENT = 100
JUDGEMENTS_GROW = 1.2
# Nats a transition up to which a gain is none, however sure it is: a child that hardly changes is predicted a little better
# with any parent.
MIN_GAIN = 0.005
# The share of false edges among those that are kept, see ``adjusted``.
ALPHA = 0.05
# Likelihood ratio above which an edge that is worth something elsewhere counts as needless in a context, see ``_is_needless``.
NEEDLESS_ODDS = 5.0
# Transitions of a context without which its edges are not judged.
MIN_ROWS = 20


def is_due(n_updates: int) -> bool:
    """:return: whether transitions that nothing was fitted to are looked at after so many updates"""
    last, now = (floor(log(max(each, 1) / FIRST_JUDGEMENT) / log(JUDGEMENTS_GROW)) for each in (n_updates - 1, n_updates))
    return n_updates >= FIRST_JUDGEMENT and now > last


class Judgement(NamedTuple):
    """
    :param graphs: the edges that stay, 0 or 1, ``[K, V, P]``
    :param evidence: of each edge in each context, given the other edges; shapes as above
    :param q_values: adjusted p-values, 1 for what was not tested, ``[K, V, P]``
    :param is_tested: entries that are learned, of a parent that varies in a context with enough transitions, ``[K, V, P]``,
        bool
    """

    graphs: th.Tensor
    evidence: Evidence
    q_values: th.Tensor
    is_tested: th.Tensor


def judge_edges(
    held_out: HeldOut, code: th.Tensor, graphs: th.Tensor, free: th.Tensor, linear_evidence: bool = False
) -> Judgement:
    """
    Begin with the parents that pay (see ``_first_graphs``). Then ask of one parent after the other, the one that is worth
    least first, which children need it.

    An edge has two gains, both of which must be there. *By its mask*: with the edge the child is predicted better than
    without. A parent that only repeats what others say has none. *By its value*: the child is predicted better than with the
    value that the parent has in another transition of the context. A parent that is constant there, or whose weights merely
    correct a bias of the network, has none. (For a parent that is independent of everything else the second test is exact.)

    An edge is there in a context where both are above ``MIN_GAIN`` at level ``ALPHA``; or where they are over all contexts
    together and nothing shows that the edge is needless here. Small contexts lose no edge for want of data.

    :param held_out: the transitions
    :param code: their contexts, ``[R]``
    :param graphs: the graphs as they were, ``[K, V, P]``: they stay where a context has too few transitions
    :param free: entries that are learned, ``[V, P]``, bool
    :param linear_evidence: whether an edge also stays where a linear regression finds it in the errors of the network
    """
    n_contexts = len(graphs)
    is_judged = th.bincount(code, minlength=n_contexts) >= MIN_ROWS
    is_tested = is_judged.view(-1, 1, 1) & free & held_out.varies(code, n_contexts).unsqueeze(1)
    is_open = is_judged.view(-1, 1, 1) & free
    worth, graphs = _first_graphs(held_out, code, th.where(is_open, is_tested.to(graphs.dtype), graphs), is_tested)
    gain, error = th.zeros_like(graphs), th.full_like(graphs, th.inf)
    here, everywhere = th.ones_like(graphs, dtype=th.float64), th.ones_like(free, dtype=th.float64)
    is_needless = th.ones_like(is_tested)
    for parent in worth.clamp(min=0).sum((0, 1)).argsort().tolist():
        tested = is_tested[:, :, parent]
        with_edge, without = graphs.clone(), graphs.clone()
        with_edge[:, :, parent] = th.where(tested, 1.0, graphs[:, :, parent])
        without[:, :, parent] = 0
        base = held_out.nll(with_edge[code])
        mask = held_out.nll(without[code]) - base
        value = held_out.nll_without_value(with_edge[code], code, parent) - base
        weighed = _weigh(mask, value, code, n_contexts)
        gain[:, :, parent], error[:, :, parent] = weighed.by_mask.gain, weighed.by_mask.standard_error
        here[:, :, parent], everywhere[:, parent] = weighed.here, weighed.everywhere
        is_needless[:, :, parent] = weighed.is_needless
        stays = (weighed.here <= ALPHA) | ((weighed.everywhere <= ALPHA) & ~weighed.is_needless)
        graphs[:, :, parent] = th.where(tested, stays.to(graphs.dtype), graphs[:, :, parent])
    q_values = adjusted(here, is_tested)
    q_values = th.where(is_tested & ~is_needless, th.minimum(q_values, adjusted(everywhere, free)), q_values)
    graphs = th.where(is_tested, graphs * (q_values <= ALPHA), graphs)
    if linear_evidence:
        by_lines = _by_lines(held_out, code, graphs)
        p_values = by_lines.above(MIN_GAIN).p_value.where(is_tested & (graphs == 0), 1.0)
        q_of_lines = adjusted(p_values, is_tested)
        is_seen = q_of_lines <= ALPHA
        graphs, q_values = th.where(is_seen, 1.0, graphs), th.where(is_seen, q_of_lines, q_values)
        gain, error = th.where(is_seen, by_lines.gain, gain), th.where(is_seen, by_lines.standard_error, error)
    n = th.bincount(code, minlength=n_contexts)
    return Judgement(graphs, Evidence(gain, error, n.view(-1, 1, 1)), q_values, is_tested)


def _by_lines(held_out: HeldOut, code: th.Tensor, graphs: th.Tensor) -> Evidence:
    """
    What a line would add to the prediction of each number in each context, see ``Lines.evidence``. What the network has not
    learned is in its errors, and a parent that is masked cannot be in them otherwise.

    :return: ``[K, V, P]``; no gain, infinitely uncertain, where parent or child is a category
    """
    found = th.zeros_like(graphs), th.full_like(graphs, th.inf)
    numbers, n_children = numbers_of(held_out.factors), graphs.shape[1]
    children = [index for index in numbers if index < n_children]
    n = th.bincount(code, minlength=len(graphs)).view(-1, 1, 1)
    if children:
        lines = Lines.of(held_out.factors, held_out.columns, held_out.errors(graphs[code]))
        evidence = lines.summed(F.one_hot(code, len(graphs)).T.double()).evidence()
        place = (slice(None), th.tensor(children).unsqueeze(-1), th.tensor(numbers))
        for part, values in zip(found, evidence, strict=False):
            part[place] = values.to(part.dtype)
    return Evidence(*found, n)


def _first_graphs(held_out: HeldOut, code: th.Tensor, graphs: th.Tensor, is_tested: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """
    The tested parents of each child that pay, taken in the order of what their values are worth while all are there: so many
    that the child is predicted best, at ``MIN_GAIN`` for each.

    To take parents away one at a time is not enough: a child that only keeps its value may need none of ten others that the
    network still mixes in, and be predicted worse without any single one of them.

    :param graphs: with all tested edges, ``[K, V, P]``
    :return: what their values are worth, nats, ``[K, V, P]``; the graphs
    """
    n_contexts, _, n_parents = graphs.shape
    worth = Evidence.of(held_out.gains_by_value(graphs[code], code), code, n_contexts).gain
    rank = worth.masked_fill(~is_tested, -th.inf).argsort(-1, descending=True).argsort(-1)
    best, costs = graphs, th.full_like(graphs[..., 0], th.inf)
    for n_edges in range(n_parents + 1):
        fewer = th.where(is_tested, (rank < n_edges).to(graphs.dtype), graphs)
        cost = Evidence.of(held_out.nll(fewer[code]), code, n_contexts).gain + MIN_GAIN * n_edges
        best = th.where((cost < costs).unsqueeze(-1), fewer, best)
        costs = th.minimum(costs, cost)
    return worth, best


class _Weighed(NamedTuple):
    """
    One parent.

    :param by_mask: what the edge is worth by its mask, ``[K, V]``
    :param here: p-value in each context, of the gain by mask and the one by value the larger, ``[K, V]``
    :param everywhere: likewise over all contexts together, ``[V]``
    :param is_needless: see ``_is_needless``, ``[K, V]``
    """

    by_mask: Evidence
    here: th.Tensor
    everywhere: th.Tensor
    is_needless: th.Tensor


def _weigh(by_mask: th.Tensor, by_value: th.Tensor, code: th.Tensor, n_contexts: int) -> _Weighed:
    """
    :param by_mask: what each child gains by the edge, ``[R, V]``
    :param by_value: what it gains by the value of the parent, ``[R, V]``
    """
    every = th.zeros_like(code)
    mask, value = (Evidence.of(gains, code, n_contexts) for gains in (by_mask, by_value))
    here = th.maximum(mask.above(MIN_GAIN).p_value, value.above(MIN_GAIN).p_value)
    everywhere = th.maximum(*(Evidence.of(gains, every, 1).above(MIN_GAIN).p_value[0] for gains in (by_mask, by_value)))
    is_needless = _is_needless(mask, here) | _is_needless(value, here)
    return _Weighed(mask, here, everywhere, is_needless)


def _is_needless(evidence: Evidence, p_values: th.Tensor) -> th.Tensor:
    """
    Where what was seen is more than ``NEEDLESS_ODDS`` times as likely if the edge is worth nothing as if it is worth half of
    what it is worth in the contexts that need it. The mean gain is taken for normal about the true one.

    :param evidence: of one of its gains, ``[K, V]``
    :param p_values: see ``_Weighed.here``
    :return: ``[K, V]``, bool
    """
    weight = evidence.n * (p_values <= ALPHA)
    half = ((evidence.gain * weight).sum(0) / weight.sum(0).clamp(min=1) / 2).clamp(min=MIN_GAIN)
    log_odds = half * (half / 2 - evidence.gain) / evidence.standard_error.square()
    return log_odds > log(NEEDLESS_ODDS)
