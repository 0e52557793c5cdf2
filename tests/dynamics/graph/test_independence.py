from itertools import permutations

import pytest
import torch as th

from sb3_fcdl.dynamics.graph.independence import Association, association, quantile_bins


def samples(table: list[list[int]]) -> tuple[th.Tensor, th.Tensor]:
    """A contingency table as one category of ``x`` (row) and of ``y`` (column) for each sample."""
    counts = th.tensor(table)
    x, y = counts.nonzero().repeat_interleave(counts[counts > 0], dim=0).T
    return x, y


def one_stratum(x: th.Tensor) -> th.Tensor:
    return th.zeros_like(x)


def test_statistic_and_freedom_of_a_table_by_hand():
    """Margins 30, 70 and 40, 60: X^2 = 100 (10 * 40 - 20 * 30)^2 / (30 * 70 * 40 * 60); one degree of freedom."""
    x, y = samples([[10, 20], [30, 40]])
    statistic, mean, variance = association(x, y, one_stratum(x))
    assert statistic.item() == pytest.approx(100 * 200**2 / (30 * 70 * 40 * 60), rel=1e-12)
    assert mean.item() == pytest.approx(100 / 99, rel=1e-12)
    u, v_x, v_y = 98 / 99, (100 / 30 + 100 / 70 - 4) / 98, (100 / 40 + 100 / 60 - 4) / 98
    by_hand = 200 * (u - v_x) * (u - v_y) / 97 + 100**2 * v_x * v_y / 99
    assert variance.item() == pytest.approx(by_hand, rel=1e-12) == pytest.approx(2, rel=0.02)
    # A table of the chi-square distribution with one degree of freedom: 0.373 above 0.7937.
    assert association(x, y, one_stratum(x)).p_value.item() == pytest.approx(0.373, abs=0.01)


def test_strata_add_up_and_large_ones_have_the_usual_degrees_of_freedom():
    """3 x 4 and 2 x 4 categories: (3-1)(4-1) + (2-1)(4-1) = 9; statistics of different strata do not mix."""
    tables = [[[500, 400, 300, 300], [250, 500, 250, 300], [400, 400, 300, 250]], [[900, 700, 800, 600], [500, 700, 600, 500]]]
    parts = [samples(table) for table in tables]
    x, y = (th.cat(part) for part in zip(*parts, strict=True))
    strata = th.arange(2).repeat_interleave(th.tensor([len(part[0]) for part in parts]))
    whole = association(x, y, strata)
    assert whole.mean.item() == pytest.approx(9, rel=1e-2) and whole.variance.item() == pytest.approx(18, rel=1e-2)
    separate = th.tensor([association(*part, one_stratum(part[0])) for part in parts])
    th.testing.assert_close(th.stack(whole), separate.double().sum(0), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "table", [[[2, 1, 0], [1, 1, 1]], [[3, 0], [1, 2]], [[1, 0, 1], [0, 2, 0], [1, 1, 0]], [[1, 1], [1, 1]]]
)
def test_moments_are_those_of_all_shuffled_tables(table):
    x, y = samples(table)
    every = th.stack([association(x, y[list(order)], one_stratum(x)).statistic for order in permutations(range(len(x)))])
    found = association(x, y, one_stratum(x))
    assert found.mean.item() == pytest.approx(every.mean().item(), rel=1e-12)
    assert found.variance.item() == pytest.approx(every.var(unbiased=False).item(), rel=1e-12)


@pytest.mark.parametrize(
    ("x", "y"), [([0] * 6, [0, 1, 2, 0, 1, 2]), ([0, 1, 2, 3, 4, 5], [0, 1, 0, 1, 1, 1]), ([0, 1, 1], [0, 1, 1])]
)
def test_where_margins_leave_no_choice_nothing_is_learned(x, y):
    """One category only; one sample a category; a stratum of three samples."""
    alone = association(th.tensor(x), th.tensor(y), th.zeros(len(x), dtype=th.int64))
    assert alone.p_value == 1
    # and it changes nothing beside a stratum that has something to say
    more_x, more_y = samples([[10, 20], [30, 10]])
    strata = th.cat([th.zeros(len(x), dtype=th.int64), th.full_like(more_x, 1)])
    both = association(th.cat([th.tensor(x), more_x]), th.cat([th.tensor(y), more_y]), strata)
    assert both.p_value.item() == pytest.approx(association(more_x, more_y, one_stratum(more_x)).p_value.item(), rel=1e-9)


def test_many_categories_take_no_more_memory_than_their_samples():
    """A table of all cells would have 10^15. The same with few categories, numbered otherwise."""
    th.manual_seed(0)
    x, y, strata = th.randint(20, (3, 500))
    found = association(5000 * x, 5000 * y, strata)
    th.testing.assert_close(th.stack(found), th.stack(association(x, y, strata)), rtol=1e-12, atol=0)


def test_p_value_is_that_of_the_chi_square_table():
    for freedom, critical in ((1, 3.841459), (4, 9.487729), (9, 16.918978), (100, 124.342113)):
        exact = Association(*th.tensor([critical, freedom, 2 * freedom], dtype=th.float64))
        assert exact.p_value.item() == pytest.approx(0.05, abs=1e-7)


@pytest.mark.parametrize("n_strata", [1, 40, 400])
def test_independence_is_rejected_as_often_as_promised_however_sparse_the_strata(n_strata):
    """2000 samples, both variables uneven; 400 strata have 5 samples for tables of 25 cells."""
    th.manual_seed(0)
    shares = th.tensor([0.5, 0.2, 0.1, 0.1, 0.1])
    p_values = []
    for _ in range(400):
        x, y = shares.multinomial(4000, replacement=True).view(2, -1)
        p_values.append(association(x, y, th.randint(n_strata, (2000,))).p_value)
    is_below = th.stack(p_values).unsqueeze(-1) < th.tensor([0.01, 0.1, 0.5])
    rates = is_below.double().mean(0)
    assert rates[0] < 0.035 and 0.06 < rates[1] < 0.14 and 0.42 < rates[2] < 0.58


def test_weak_dependence_is_found_in_sparse_strata():
    th.manual_seed(0)
    x, y = th.randint(5, (2, 3000))
    y = x.where(th.rand(3000) < 0.25, y)
    assert association(x, y, th.randint(300, (3000,))).p_value < 1e-6


def test_dependence_that_only_strata_show():
    """An exclusive or: x and y are independent, given the third they determine each other."""
    th.manual_seed(0)
    x, y = th.randint(2, (2, 500))
    assert association(x, y, one_stratum(x)).p_value > 0.01 > association(x, y, x ^ y).p_value


def test_dependence_that_strata_explain():
    th.manual_seed(0)
    cause = th.randint(3, (2000,))
    x, y = ((cause + (th.rand(2000) < 0.3)) % 3 for _ in range(2))
    assert association(x, y, one_stratum(x)).p_value < 1e-10 and association(x, y, cause).p_value > 0.01


def test_bins_hold_equal_numbers_and_ties_stay_together():
    values = th.tensor([[3.0, 0.0, 7.0], [1.0, 0.0, 7.0], [4.0, 0.0, 7.0], [2.0, 9.0, 7.0]])
    # Quantiles: 1.75, 2.5, 3.25; 0, 0, 2.25; 7, 7, 7.
    assert quantile_bins(values, 4).tolist() == [[4, 2, 3], [0, 2, 3], [6, 2, 3], [2, 6, 3]]
    assert quantile_bins(values[:, :0], 4).shape == (4, 0)
    assert th.bincount(quantile_bins(th.randn(1000, 1), 5)[:, 0]).tolist() == [200, 0, 200, 0, 200, 0, 200, 0, 200]


def test_rare_changes_in_either_direction_are_told_from_none():
    for change in (-1.0, 1.0):
        values = th.zeros(100, 1)
        values[:20] = change
        bins = quantile_bins(values, 4)[:, 0]
        assert len(bins[:20].unique()) == len(bins[20:].unique()) == 1 and bins[0] != bins[-1]


def test_information_is_that_of_the_table():
    """
    Of 4000 pairs x = y in 60 %: mutual information log(2) + 0.6 log(0.6) + 0.4 log(0.4) = 0.0201 nats, and Pearson's first
    term of it (0.6 - 0.4)^2 / 2 = 0.02. By chance the statistic has one degree of freedom, so a deviation of sqrt(2).
    """
    x = th.arange(4000) % 2
    y = th.where(th.arange(4000) % 10 < 6, x, 1 - x)
    found = association(x, y, one_stratum(x))
    assert found.information / 4000 == pytest.approx(0.02, abs=2e-4)
    assert found.spread == pytest.approx(2**0.5 / 2, rel=0.01)
