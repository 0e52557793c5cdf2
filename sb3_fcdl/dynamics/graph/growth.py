"""Contexts anew: the tree whose contexts need the fewest edges."""

import torch as th

from sb3_fcdl.dynamics.graph.evidence import Evidence
from sb3_fcdl.dynamics.graph.held_out import HeldOut
from sb3_fcdl.dynamics.graph.judgement import ALPHA, MIN_GAIN, MIN_ROWS
from sb3_fcdl.dynamics.graph.lines import edges_of_numbers
from sb3_fcdl.dynamics.graph.splits import NEARLY, Split, find_splits
from sb3_fcdl.dynamics.graph.tree import ContextTree

# Shares of the edges that one context would need: what a variable must save, mean over all transitions, to choose contexts at
# all (reading it exposes the choice to its corruption), and to go on choosing them.
WORTH_READING = 0.04
STILL_WORTH_READING = 0.02
# Share of the edges of a context that a test must save there.
WORTH_SPLITTING = 0.01


def grow(
    held_out: HeldOut,
    free: th.Tensor,
    graph: th.Tensor,
    before: ContextTree,
    units: th.Tensor | None = None,
    linear_evidence: bool = False,
) -> ContextTree:
    """
    From one context, split each by its best test as long as that saves enough edges. Of tests that save nearly as much as the
    best, the earliest of the tree before is taken: other contexts would have to be learned.

    :param held_out: the transitions
    :param free: entries that are learned, ``[V, P]``, bool
    :param graph: entries that are looked at, those of every context, 0 or 1, ``[V, P]``
    :param before: the tree that there was: its tests may be taken again
    :param units: see ``find_splits``
    :param linear_evidence: whether lines count as well, see ``find_splits``
    """
    is_edge = graph > 0
    if linear_evidence:
        # Lines see edges that no context has.
        is_edge = is_edge | edges_of_numbers(held_out.factors, len(free)).to(free.device)
    is_edge = is_edge & free
    tree = ContextTree(held_out.factors, len(before.is_leaf)).to(held_out.columns.device)
    share_to_read = th.where(before.reads, STILL_WORTH_READING, WORTH_READING).tolist()
    may_read: set[int] = set()
    # The share of the transitions of each context that there is, the edges that it needs, and its splits.
    found: dict[int, tuple[float, float, list[Split]]] = {}
    todo, n_edges = [0], 0.0
    while todo:
        code = tree(held_out.columns)
        part = held_out.part(th.isin(code, th.tensor(todo, device=code.device)))
        code = tree(part.columns)
        gains = part.gains_by_value(graph.expand(len(part), -1, -1), code)[:, is_edge].double()
        needed = (Evidence.of(gains, code, len(tree.is_leaf)).above(MIN_GAIN).p_value <= ALPHA).sum(1).tolist()
        n_edges = n_edges or float(needed[0])
        for leaf in todo:
            rows = code == leaf
            if rows.sum() >= 4 * MIN_ROWS:
                of_leaf = (part.columns[rows], gains[rows], is_edge.nonzero())
                changes = part.changes[rows] if linear_evidence else None
                splits = find_splits(held_out.factors, *of_leaf, before.tests, units, changes)
                found[leaf] = float(rows.sum()) / len(held_out), needed[leaf], splits
        saved = [0.0] * len(share_to_read)
        for share, _, splits in found.values():
            for each in splits:
                for variable in each.variables:
                    saved[variable] += each.saved_in_all * share
        may_read |= {variable for variable, share in enumerate(share_to_read) if saved[variable] >= share * n_edges > 0}
        todo = []
        for leaf, (_, n_needed, splits) in list(found.items()):
            allowed = [each for each in splits if may_read.issuperset(each.variables)]
            allowed = [each for each in allowed if each.saved >= WORTH_SPLITTING * n_needed]
            if allowed:
                del found[leaf]
                most = max(each.saved_in_all for each in allowed)
                good = [each for each in allowed if each.saved_in_all >= NEARLY * most]
                split = min(good, key=lambda each: (each.number, -each.explained, -each.saved_in_all))
                new = tree.split(leaf, *split.test)
                todo += [] if new is None else [leaf, new]
    return tree
