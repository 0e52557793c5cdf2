"""Statistics of runs, beside sums over all resamples and by hand."""

import itertools

import numpy as np
import pytest

from sb3_fcdl.evaluation.statistics import estimate, iqm, mean, performance_profile, probability_of_improvement

SCORES = [np.array([1.0, 4.0, 2.0]), np.array([0.0, 3.0])]
OTHERS = [np.array([2.0, 0.5]), np.array([3.0, 1.0, -1.0])]


def all_resamples(scores):
    """Every resample that stratified drawing can give, all equally likely."""
    tasks = [list(itertools.product(each, repeat=len(each))) for each in scores]
    return list(itertools.product(*tasks))


def quantiles(values):
    return np.quantile(values, [0.025, 0.975])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([5.0], 5.0),
        ([1.0, 2.0, 6.0], 3.0),
        ([100.0, 1.0, 2.0, -50.0], 1.5),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 70.0], 3.5),
        ([1.0, 2.0, 3.0, 4.0, 50.0], 3.0),
    ],
)
def test_iqm_is_the_mean_without_the_outer_quarters(scores, expected):
    rng = np.random.default_rng(0)
    assert iqm(rng.permutation(scores)) == pytest.approx(expected)
    assert iqm(np.array([scores, scores])).tolist() == pytest.approx([expected] * 2)


@pytest.mark.parametrize("statistic", [iqm, mean])
def test_interval_is_that_of_all_resamples(statistic):
    found = estimate(SCORES, statistic, confidence=0.9, n_resamples=20_000)
    exact = [float(statistic(np.concatenate(each))) for each in all_resamples(SCORES)]
    assert len(exact) == 3**3 * 2**2
    assert found.value == pytest.approx(statistic(np.array([1.0, 4.0, 2.0, 0.0, 3.0])))
    assert found[1:] == pytest.approx(np.quantile(exact, [0.05, 0.95]), abs=0.01)


def test_interval_is_deterministic_and_narrows_with_runs():
    rng = np.random.default_rng(0)
    few, many = [rng.normal(size=5)], [rng.normal(size=500)]
    assert estimate(few) == estimate(few)
    assert estimate(many).high - estimate(many).low < (estimate(few).high - estimate(few).low) / 3


def test_strata_are_kept():
    """Drawn from all tasks together, the mean would vary; the tasks being what they are, it does not."""
    assert estimate([np.full(3, 0.0), np.full(3, 10.0)], mean) == (5.0, 5.0, 5.0)


def share_better(ours, theirs):
    pairs = list(itertools.product(ours, theirs))
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)


def test_probability_of_improvement_counts_pairs():
    found = probability_of_improvement(SCORES, OTHERS, n_resamples=20_000)
    # Pairs of the first task: 1 > 0.5, 4 > both, 2 = 2 and 2 > 0.5. Of the second: 0 > -1; 3 = 3, 3 > 1, 3 > -1.
    assert found.value == pytest.approx(((1 + 2 + 1.5) / 6 + (1 + 2.5) / 6) / 2)
    exact = [
        np.mean([share_better(*pair) for pair in zip(ours, theirs, strict=True)])
        for ours in all_resamples(SCORES)
        for theirs in all_resamples(OTHERS)
    ]
    assert found[1:] == pytest.approx(quantiles(exact), abs=0.02)
    backwards = probability_of_improvement(OTHERS, SCORES)
    assert backwards.value == pytest.approx(1 - found.value)


def test_profile_is_the_share_of_runs_above():
    found = performance_profile(SCORES, np.array([-1.0, 0.0, 2.0, 4.0]), n_resamples=20_000)
    assert found.shares.tolist() == pytest.approx([1.0, 4 / 5, 2 / 5, 0.0])
    exact = [(np.concatenate(each) > 2.0).mean() for each in all_resamples(SCORES)]
    assert (found.low[2], found.high[2]) == pytest.approx(tuple(quantiles(exact)), abs=0.01)
    assert (found.low[0], found.high[3]) == (1.0, 0.0)


@pytest.mark.parametrize("scores", [[], [np.array([])], [np.array([1.0]), np.array([])]])
def test_without_runs_there_is_nothing_to_say(scores):
    with pytest.raises(ValueError, match="at least one run"):
        estimate(scores)


def test_algorithms_are_compared_on_the_same_tasks():
    with pytest.raises(ValueError, match="same tasks, got 2 and 1"):
        probability_of_improvement(SCORES, OTHERS[:1])
