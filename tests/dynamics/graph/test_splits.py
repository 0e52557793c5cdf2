"""Tests that tell where an edge is needed."""

import math

import pytest
import torch as th
from toy import factors, random_windows

from sb3_fcdl.dynamics.graph.splits import Split, find_splits
from sb3_fcdl.dynamics.graph.tree import Condition

# x0: 2 categories, x1: a number, x2: 6 categories; a0: 3 categories
SIZES, ACTION = [2, 0, 6], 3
FACTORS = factors(SIZES, ACTION)


def columns(n: int) -> th.Tensor:
    windows = random_windows(SIZES, ACTION, n_rows=n, length=1)
    return th.cat([windows.state[:, 0], windows.action[:, 0]], dim=-1)


def gains(is_needed: th.Tensor, size: float = 1.0) -> th.Tensor:
    """Of an edge that is needed in some rows, ``[R]``: there as large as it is noisy, elsewhere next to nothing."""
    noise = th.randn(len(is_needed), dtype=th.float64)
    return th.where(is_needed, size + noise, 0.01 * noise)


def splits_of(factors, rows, gains, parents, known=(), units=None) -> list[Split]:
    """All edges are those of one child."""
    return find_splits(factors, rows, gains, th.stack([th.zeros_like(parents), parents], dim=1), known, units)


def best_split(*arguments) -> Split | None:
    return max(splits_of(*arguments), key=lambda each: each.saved, default=None)


def side(split: Split, rows: th.Tensor) -> th.Tensor:
    """Which side of the test each row is on, ``[R]``, bool."""
    return split.test.holds(rows)


def test_a_category_in_which_an_edge_is_needless_is_found():
    th.manual_seed(0)
    rows = columns(400)
    is_open = rows[:, 1] > 0.5
    # Edges of x1, x1 and a0; the last is needed everywhere.
    of_edges = th.stack([gains(is_open), gains(is_open, 2.0), 1 + gains(th.ones(400) > 0)], dim=1)
    split = best_split(FACTORS, rows, of_edges, th.tensor([1, 1, 3]))
    assert th.equal(side(split, rows), is_open) or th.equal(~side(split, rows), is_open)
    assert split.test.weights.nonzero().flatten().tolist() in ([0], [1])
    assert split.saved == pytest.approx(2 * (~is_open).double().mean().item(), abs=0.3)


def test_a_variable_that_becomes_constant_needs_no_edge_of_its_own():
    th.manual_seed(0)
    rows = columns(400)
    is_open = rows[:, 1] > 0.5
    needed = 1 + gains(th.ones(400) > 0)
    without = best_split(FACTORS, rows, gains(is_open).unsqueeze(1), th.tensor([1]))
    own = best_split(FACTORS, rows, th.stack([gains(is_open), needed, needed], dim=1), th.tensor([1, 0, 0]))
    assert own.saved - without.saved == pytest.approx(2, abs=0.1)


def test_edges_of_its_own_that_a_variable_does_not_need_are_not_saved():
    th.manual_seed(0)
    rows = columns(400)
    of_edges = th.stack([gains(rows[:, 1] > 0.5), gains(th.zeros(400) > 0)], dim=1)
    without = best_split(FACTORS, rows, of_edges[:, :1], th.tensor([1]))
    assert best_split(FACTORS, rows, of_edges, th.tensor([1, 0])).saved == pytest.approx(without.saved, abs=0.05)


def test_groups_of_many_categories_are_found():
    th.manual_seed(0)
    rows = columns(1200)
    group = rows[:, 3:9].argmax(-1) % 2 == 0
    of_edges = th.stack([gains(group) for _ in range(4)], dim=1)
    split = best_split(FACTORS, rows, of_edges, th.tensor([0, 1, 1, 3]))
    assert th.equal(side(split, rows), group) or th.equal(side(split, rows), ~group)
    assert split.saved == pytest.approx(4 * (~group).double().mean().item(), abs=0.4)


def test_what_a_variable_saves_once_all_its_groups_are_known():
    """Three pairs of categories, each with an edge of its own: one cut saves less than all of them."""
    th.manual_seed(0)
    rows = columns(2400)
    pair = rows[:, 3:9].argmax(-1) // 2
    of_edges = th.stack([gains(pair == each, 2.0) for each in range(3)], dim=1)
    split = best_split(FACTORS, rows, of_edges, th.tensor([1, 1, 1]))
    # A pair against the others: it needs two edges less, the others one; all three: each needs two edges less.
    assert split.saved == pytest.approx(4 / 3, abs=0.1) and split.saved_in_all == pytest.approx(2, abs=0.05)


def test_a_known_test_is_taken_again_without_being_found():
    th.manual_seed(0)
    rows = columns(60)
    of_edges = gains(rows[:, 1] > 0.5, 3.0).unsqueeze(1)
    weights = th.eye(rows.shape[1])[1]
    assert best_split(FACTORS, rows, of_edges, th.tensor([1])) is None
    known = best_split(FACTORS, rows, of_edges, th.tensor([1]), [Condition(weights, 0.5)])
    assert known.variables == (0,) and known.saved == pytest.approx((rows[:, 1] < 0.5).double().mean().item())


@pytest.mark.parametrize(("known_at", "is_kept"), [(0.3, True), (0.2, False)])
def test_a_known_cut_stays_if_it_saves_half_of_the_best(known_at, is_kept):
    """An edge is needless in half of the rows: in those below 0.5."""
    th.manual_seed(0)
    rows = columns(4000)
    rows[:, 2] = th.rand(4000)
    weights = th.eye(rows.shape[1])[2]
    of_edges = th.stack([gains(rows[:, 2] > 0.5, 3.0), 1 + gains(th.ones(4000) > 0)], dim=1)
    known = Condition(weights, known_at)
    split = next(each for each in splits_of(FACTORS, rows, of_edges, th.tensor([3, 3]), [known]) if each.variables == (1,))
    assert (split.number, split.test.threshold == known_at) == ((0, True) if is_kept else (1, False))
    assert split.saved == pytest.approx(known_at if is_kept else 0.5, abs=0.06)


def test_a_number_is_cut_where_an_edge_begins_to_matter():
    th.manual_seed(0)
    rows = columns(1000)
    lower, threshold, upper = rows[:, 2].quantile(th.tensor([0.2, 0.3, 0.4])).tolist()
    split = best_split(FACTORS, rows, gains(rows[:, 2] > threshold).unsqueeze(1), th.tensor([3]))
    # To the nearest tenth of the transitions.
    assert split.test.weights.nonzero().flatten().tolist() == [2] and lower < split.test.threshold < upper


# x0, x1, x2: numbers, one in other units than the others; x3: 2 categories
NUMBERS = factors([0, 0, 0, 2])
UNITS = th.tensor([2.0, 3.0, 1.0, 1.0, 1.0])


def numbers(n: int) -> th.Tensor:
    windows = random_windows([0, 0, 0, 2], 2, n_rows=n, length=1)
    return windows.state[:, 0]


def test_a_difference_of_two_numbers_is_cut_where_they_are_close():
    """In the environment's units: an encoded 1 is half as much again of one as of the other."""
    th.manual_seed(0)
    rows = numbers(2000)
    difference = 2 * rows[:, 0] - 3 * rows[:, 1]
    is_close = difference.abs() < difference.abs().quantile(0.4)
    of_edges = th.stack([gains(is_close, 2.0), *(1 + gains(th.ones(2000) > 0) for _ in range(3))], dim=1)
    split = best_split(NUMBERS, rows, of_edges, th.tensor([2, 0, 1, 2]), (), UNITS)
    assert split.variables == (0, 1) and split.test.reads(NUMBERS) == (0, 1)
    assert split.test.weights.tolist() == [1, -1.5, 0, 0, 0]
    agrees = (side(split, rows) == is_close).double().mean().item()
    assert agrees > 0.9 and split.saved == pytest.approx(0.6, abs=0.1)


def test_only_numbers_that_a_child_has_in_common_are_compared():
    th.manual_seed(0)
    rows = numbers(2000)
    is_close = (rows[:, 0] - rows[:, 1]).abs() < 0.7
    of_edges = th.stack([gains(is_close, 2.0), *(1 + gains(th.ones(2000) > 0) for _ in range(2))], dim=1)
    parents = th.tensor([2, 0, 1])
    for children, found in ((th.tensor([0, 1, 1]), {(0, 1)}), (th.tensor([0, 1, 2]), set())):
        splits = find_splits(NUMBERS, rows, of_edges, th.stack([children, parents], dim=1))
        assert {split.variables for split in splits if len(split.variables) > 1} == found


def test_no_difference_is_read_where_one_of_its_variables_says_as_much():
    th.manual_seed(0)
    rows = numbers(2000)
    of_edges = th.stack([gains(rows[:, 0] > 0, 2.0), *(1 + gains(th.ones(2000) > 0) for _ in range(3))], dim=1)
    splits = splits_of(NUMBERS, rows, of_edges, th.tensor([2, 0, 1, 2]))
    assert [split.variables for split in splits] == [(0,)]


def test_a_known_test_of_a_difference_is_taken_again():
    th.manual_seed(0)
    rows = numbers(60)
    known = Condition(th.tensor([1.0, -1, 0, 0, 0]), -0.8, 0.8)
    of_edges = gains(known.holds(rows), 3.0).unsqueeze(1)
    assert best_split(NUMBERS, rows, of_edges, th.tensor([2])) is None
    again = best_split(NUMBERS, rows, of_edges, th.tensor([2]), [known])
    assert again.variables == (0, 1) and again.test is known and again.number == 0
    assert again.saved == pytest.approx((~known.holds(rows)).double().mean().item())


def test_no_test_is_made_up():
    """An edge that is needed everywhere, one that is needed nowhere, one that is worth half as much in some rows."""
    th.manual_seed(0)
    n_found = 0
    for _ in range(50):
        rows = columns(200)
        everywhere, nowhere = (th.full((200,), value) for value in (True, False))
        half = th.where(rows[:, 1] > 0.5, gains(everywhere, 1.0), gains(everywhere, 0.5))
        of_edges = th.stack([gains(everywhere), gains(nowhere), half], dim=1)
        n_found += best_split(FACTORS, rows, of_edges, th.tensor([1, 2, 3])) is not None
    assert n_found == 0


def test_too_few_transitions_or_no_edges_are_no_ground_for_a_test():
    th.manual_seed(0)
    rows = columns(30)
    assert best_split(FACTORS, rows, gains(rows[:, 1] > 0.5).unsqueeze(1), th.tensor([1])) is None
    assert best_split(FACTORS, rows, th.zeros(30, 0, dtype=th.float64), th.zeros(0, dtype=th.int64)) is None


def test_a_known_test_needs_less_evidence_than_one_of_many():
    """A gain of 3.5 standard errors on one side, none on the other: enough for a single hypothesis, not to find one."""
    rows = columns(400)
    is_open = rows[:, 1] > 0.5
    sign = th.ones(400, dtype=th.float64)
    for side in (is_open, ~is_open):
        sign[side] = th.arange(int(side.sum())).double() % 2 * 2 - 1
    spread = 1 / 3.5 * is_open.sum().double().sqrt()
    of_edges = (th.where(is_open, 1.0, 0.0) + sign * th.where(is_open, spread, 0.01)).unsqueeze(1)
    assert best_split(FACTORS, rows, of_edges, th.tensor([1])) is None
    again = best_split(FACTORS, rows, of_edges, th.tensor([1]), [Condition(th.eye(rows.shape[1])[1], 0.5)])
    assert again.variables == (0,) and again.saved == pytest.approx((~is_open).double().mean().item())


def test_no_difference_is_made_up():
    """Two edges that are needed everywhere, one that is needed nowhere, one that is worth half as much in some rows."""
    th.manual_seed(0)
    n_found = 0
    for _ in range(30):
        rows = numbers(400)
        everywhere, nowhere = (th.full((400,), value) for value in (True, False))
        half = th.where(rows[:, 0] > 0, gains(everywhere, 1.0), gains(everywhere, 0.5))
        of_edges = th.stack([1 + gains(everywhere), 1 + gains(everywhere), gains(nowhere), half], dim=1)
        n_found += len(splits_of(NUMBERS, rows, of_edges, th.tensor([0, 1, 2, 2])))
    assert n_found == 0


def pushed(is_pushed: bool) -> tuple[th.Tensor, ...]:
    """
    Four numbers, 1500 transitions. If ``is_pushed``, x0 follows x2 while x1 and x3 are closer than 0.5. What the network gains
    by the edges from x2 and x3 to x0: nothing, as it has not learned them.
    """
    rows = th.cat([th.randn(1500, 4), th.eye(2)[th.arange(1500) % 2]], dim=1)
    is_close = (rows[:, 1] - rows[:, 3]).abs() < 0.5
    changes = 0.3 * th.randn(1500, 4)
    changes[:, 0] += 0.5 * rows[:, 2] * is_close * is_pushed
    return factors([0, 0, 0, 0], 2), rows, 1e-4 * th.randn(1500, 2, dtype=th.float64), th.tensor([[0, 2], [0, 3]]), changes


def test_lines_find_a_difference_that_the_network_has_not_learned():
    th.manual_seed(0)
    *arguments, changes = pushed(is_pushed=True)
    assert find_splits(*arguments) == []
    split = max(find_splits(*arguments, changes=changes), key=lambda each: each.explained)
    assert split.variables == (1, 3)
    assert split.test.threshold == pytest.approx(-0.5, abs=0.25) and split.test.limit == pytest.approx(0.5, abs=0.25)
    # Two numbers of variance 1: the difference has variance 2, and one edge of x0 is needed inside only.
    inside = math.erf(0.5 / 2)
    assert split.saved == pytest.approx(1 - inside, abs=0.15)


def test_lines_find_no_difference_where_there_is_none():
    th.manual_seed(0)
    *arguments, changes = pushed(is_pushed=False)
    assert all(each.saved == 0 for each in find_splits(*arguments, changes=changes))
