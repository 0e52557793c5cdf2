"""Which variables may choose contexts."""

import pytest
import torch as th
from toy import factors

from sb3_fcdl.dynamics.graph import growth
from sb3_fcdl.dynamics.graph.splits import Split
from sb3_fcdl.dynamics.graph.tree import Condition, ContextTree

# x0, x1: 2 categories; a0: 2 categories
FACTORS = factors([2, 2], 2)
N_ROWS = 400


class Rows:
    """Transitions for ``grow``: each of its edges is worth a nat in each of them."""

    factors = FACTORS

    def __init__(self, columns: th.Tensor) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns)

    def part(self, rows: th.Tensor) -> "Rows":
        return Rows(self.columns[rows])

    def gains_by_value(self, graph: th.Tensor, code: th.Tensor) -> th.Tensor:
        return 1 + 0.1 * th.randn(len(self), 2, 3, generator=th.Generator().manual_seed(0))


def test_on(column: int) -> th.Tensor:
    return th.eye(6)[column]


test_on.__test__ = False


@pytest.mark.parametrize(
    ("saved", "was_read", "is_read"), [(0.3, False, True), (0.2, False, False), (0.2, True, True), (0.1, True, False)]
)
def test_what_a_variable_saves_counts_over_all_contexts_together(monkeypatch, saved, was_read, is_read):
    """Six edges. A variable must save 0.04 * 6 = 0.24 of them, or 0.12 if it was read before: here half of it in each half."""
    values = th.arange(N_ROWS)
    columns = th.cat([th.eye(2)[values // 2 % 2], th.eye(2)[values // 4 % 2], th.eye(2)[values % 2]], dim=1)

    def find_splits(factors, columns, gains, edges, known, units, changes):
        if (columns[:, 5] == columns[0, 5]).all():  # in a context of one action
            return [Split((0,), saved, saved, Condition(test_on(1), 0.5), 9)] if (columns[:, 1] != columns[0, 1]).any() else []
        return [Split((2,), 3.0, 3.0, Condition(test_on(5), 0.5), 9)]

    monkeypatch.setattr(growth, "find_splits", find_splits)
    before = ContextTree(FACTORS, 8)
    if was_read:
        before.split(0, test_on(1), 0.5)
    tree = growth.grow(Rows(columns), th.ones(2, 3) > 0, th.ones(2, 3), before)
    assert tree.reads.tolist() == [is_read, False, True] and len(tree.leaves) == (4 if is_read else 2)


def test_a_context_is_looked_at_again_when_others_show_that_a_variable_is_worth_reading(monkeypatch):
    """x1 saves enough only together with what it saves below: the context that was left alone at first is split by it, too."""
    values = th.arange(N_ROWS)
    columns = th.cat([th.eye(2)[values // 2 % 2], th.eye(2)[values // 4 % 2], th.eye(2)[values % 2]], dim=1)

    def find_splits(factors, columns, gains, edges, known, units, changes):
        actions, first, second = ({*columns[:, at].tolist()} for at in (5, 1, 3))
        if len(actions) == 2:
            return [Split((2,), 3.0, 3.0, Condition(test_on(5), 0.5), 9)]
        if actions == {0.0}:
            return [Split((1,), 0.3, 0.3, Condition(test_on(3), 0.5), 9)] if len(second) == 2 else []
        if len(first) == 2:
            return [Split((0,), 3.0, 3.0, Condition(test_on(1), 0.5), 9)]
        return [Split((1,), 0.3, 0.3, Condition(test_on(3), 0.5), 9)] if len(second) == 2 else []

    monkeypatch.setattr(growth, "find_splits", find_splits)
    tree = growth.grow(Rows(columns), th.ones(2, 3) > 0, th.ones(2, 3), ContextTree(FACTORS, 8))
    assert tree.reads.all() and len(tree.leaves) == 6


@pytest.mark.parametrize(("saved", "is_read"), [(0.3, True), (0.2, False)])
def test_what_a_difference_saves_counts_for_both_of_its_variables(monkeypatch, saved, is_read):
    """Six edges, of which a variable must save 0.24."""
    values = th.arange(N_ROWS)
    columns = th.cat([th.eye(2)[values // 2 % 2], th.eye(2)[values // 4 % 2], th.eye(2)[values % 2]], dim=1)
    both = test_on(1) - test_on(3)

    def find_splits(factors, columns, gains, edges, known, units, changes):
        is_split = len((columns @ both).unique()) < 3
        return [] if is_split else [Split((0, 1), saved, saved, Condition(both, 0.5, 1.5), 9)]

    monkeypatch.setattr(growth, "find_splits", find_splits)
    tree = growth.grow(Rows(columns), th.ones(2, 3) > 0, th.ones(2, 3), ContextTree(FACTORS, 8))
    assert tree.reads.tolist() == [is_read, is_read, False] and len(tree.leaves) == (2 if is_read else 1)
