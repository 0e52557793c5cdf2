"""The tree that chooses the context."""

import pytest
import torch as th
from toy import factors, random_windows

from sb3_fcdl.dynamics.graph.tree import ContextTree, succession

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


def test_a_test_may_ask_whether_a_difference_is_in_an_interval(columns):
    tree = ContextTree(factors([0, 0, 0]), 2)
    numbers = th.randn(200, 3)
    assert tree.split(0, th.tensor([1.0, -2, 0]), -0.5, 0.7) == 1
    difference = numbers[:, 0] - 2 * numbers[:, 1]
    assert th.equal(tree(numbers) == 1, (difference > -0.5) & (difference <= 0.7))
    assert tree.reads.tolist() == [True, True, False]
    (test,) = tree.tests
    assert test.reads(tree.factors) == (0, 1) and test[1:] == pytest.approx((-0.5, 0.7))
    assert th.equal(test.holds(numbers), tree(numbers) == 1)


def test_a_full_tree_takes_no_test():
    tree = grown()
    before = {name: value.clone() for name, value in tree.state_dict().items()}
    assert tree.split(1, th.ones(8), 0.0) is None
    assert all(th.equal(value, before[name]) for name, value in tree.state_dict().items())


def test_contexts_may_be_numbered_otherwise(columns):
    tree = grown()
    numbers = th.tensor([2, 0, 1])
    assert th.equal(tree.renumbered(numbers)(columns), numbers[tree(columns)])
    assert [(test.weights.nonzero().item(), test.threshold) for test in tree.tests] == [(1, 0.5), (2, 0.5)]


def test_a_context_is_followed_by_the_one_it_shares_most_with():
    before = th.tensor([0, 0, 0, 0, 1, 1, 1, 2])
    after = th.tensor([2, 2, 2, 0, 1, 1, 0, 1])
    numbers, sources = succession(before, after, 3)
    # 2 shares three with 0; 1 shares two with 1; 0 shares one with each, both taken, so that 2 is left.
    assert numbers.tolist() == [2, 1, 0] and sources.tolist()[1:] == [1, 0]


def test_one_context_is_allowed(columns):
    tree = ContextTree(factors(SIZES, ACTION), 1)
    assert not tree(columns).any() and tree.split(0, th.ones(8), 0.0) is None
