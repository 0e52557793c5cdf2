"""The tree that chooses the context."""

import pytest
import torch as th
from toy import factors, random_windows

from sb3_fcdl.dynamics.graph.tree import ContextTree

SIZES, ACTION = [2, 0, 3], 2


@pytest.fixture
def columns():
    th.manual_seed(0)
    windows = random_windows(SIZES, ACTION, n_rows=200, length=1)
    return th.cat([windows.state[:, 0], windows.action[:, 0]], dim=-1)


def grown() -> ContextTree:
    """x0 = 1 goes to context 1; of the rest, x1 above 0.5 to context 2."""
    tree = ContextTree(factors(SIZES, ACTION), 3)
    weights = th.zeros(2, 8)
    weights[0, 1] = weights[1, 2] = 1
    assert tree.split(0, weights[0], 0.5) == 1
    assert tree.split(0, weights[1], 0.5) == 2
    return tree


def test_rows_go_where_the_tests_send_them(columns):
    expected = [1 if row[1] > 0.5 else 2 if row[2] > 0.5 else 0 for row in columns.tolist()]
    assert grown()(columns).tolist() == expected and len(set(expected)) == 3


def test_what_no_test_reads_does_not_matter(columns):
    tree = grown()
    assert tree.reads.tolist() == [True, True, False, False]
    other = columns.clone()
    other[:, 3] = th.tensor([th.nan, th.inf, -th.inf, 1e30]).repeat(50)
    assert th.equal(tree(other), tree(columns))


def test_a_full_tree_takes_no_test():
    tree = grown()
    before = {name: value.clone() for name, value in tree.state_dict().items()}
    assert tree.split(1, th.ones(8), 0.0) is None
    assert all(th.equal(value, before[name]) for name, value in tree.state_dict().items())


def test_tests_are_undone_from_the_leaves(columns):
    tree = grown()
    assert tree.siblings() == [(0, 2, 1)]
    tree.merge(*tree.siblings()[0])
    assert tree.leaves == [0, 1] and tree.siblings() == [(0, 1, 0)]
    assert tree(columns).tolist() == columns[:, 1].int().tolist()
    tree.merge(*tree.siblings()[0])
    assert tree.leaves == [0] and not tree.reads.any() and not tree(columns).any()
    assert tree.split(0, th.eye(8)[3], 0.5) == 1, "the numbers are used again"


def test_one_context_is_allowed(columns):
    tree = ContextTree(factors(SIZES, ACTION), 1)
    assert not tree(columns).any() and tree.split(0, th.ones(8), 0.0) is None
