"""
Statistics of a few runs, as Agarwal et al. ("Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS
2021) ask for: the interquartile mean, stratified bootstrap intervals, the probability of improvement and performance profiles.

Scores are a list with one array a task, a number a run: tasks may have different numbers of runs. Intervals are deterministic:
the same scores give the same interval.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fcdl_envs.arguments import check, integer, number

Scores = Sequence[np.ndarray]
N_RESAMPLES = 2000


class Estimate(NamedTuple):
    """
    :param value: of the scores
    :param low: lower end of its interval
    :param high: its upper end
    """

    value: float
    low: float
    high: float


def mean(scores: np.ndarray) -> np.ndarray:
    """:return: of ``[..., n]``, ``[...]``"""
    return scores.mean(axis=-1)


def iqm(scores: np.ndarray) -> np.ndarray:
    """
    The interquartile mean: of the scores that are left without the lowest and the highest quarter, both rounded down.

    :param scores: ``[..., n]``
    :return: ``[...]``
    """
    n = scores.shape[-1]
    cut = n // 4
    return np.sort(scores, axis=-1)[..., cut : n - cut].mean(axis=-1)


def estimate(
    scores: Scores,
    statistic: Callable[[np.ndarray], np.ndarray] = iqm,
    confidence: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """
    A statistic of all scores together, with its stratified bootstrap interval: the runs of each task are drawn anew, with
    replacement, from those of the same task.

    :param scores: an array a task, see above
    :param statistic: of ``[..., n]``, over its last dimension: ``iqm``, ``mean``
    :param confidence: of the percentile interval, in (0, 1)
    :param n_resamples: number of resamples
    :param seed: of the resamples
    :raises ValueError: if a number is out of range, or there are no scores
    """
    _check(scores, confidence, n_resamples, seed)
    drawn = _pooled(scores, n_resamples, seed)
    return Estimate(float(statistic(np.concatenate(scores))), *_interval(statistic(drawn), confidence))


def probability_of_improvement(
    scores: Scores, others: Scores, confidence: float = 0.95, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Estimate:
    """
    The probability that a run is better than a run of another algorithm on the same task, mean over tasks; equal scores count
    half. 0.5: none is better.

    :param scores: an array a task, see above
    :param others: of the other algorithm, on the same tasks in the same order
    :param confidence: of the percentile interval, in (0, 1)
    :param n_resamples: of both algorithms
    :param seed: of the resamples
    :raises ValueError: if a number is out of range, or the tasks differ in number
    """
    _check(scores, confidence, n_resamples, seed)
    _check(others, confidence, n_resamples, seed)
    if len(scores) != len(others):
        raise ValueError(f"both must have the same tasks, got {len(scores)} and {len(others)}")
    rng = np.random.default_rng(seed)
    drawn = zip(_resampled(scores, n_resamples, rng), _resampled(others, n_resamples, rng), strict=True)
    value = np.mean([_share_better(ours, theirs) for ours, theirs in zip(scores, others, strict=True)])
    return Estimate(float(value), *_interval(np.mean([_share_better(*each) for each in drawn], axis=0), confidence))


class Profile(NamedTuple):
    """
    :param thresholds: scores, ``[n]``
    :param shares: of the runs whose score is above them, ``[n]``
    :param low: lower ends of their pointwise intervals, ``[n]``
    :param high: upper ends, ``[n]``
    """

    thresholds: np.ndarray
    shares: np.ndarray
    low: np.ndarray
    high: np.ndarray


def performance_profile(
    scores: Scores, thresholds: np.ndarray, confidence: float = 0.95, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Profile:
    """
    Which share of all runs has a score above each threshold.

    :param scores: an array a task, see above
    :param thresholds: ``[n]``
    :param confidence: of the pointwise intervals, in (0, 1)
    :param n_resamples: number of resamples
    :param seed: of the resamples
    :raises ValueError: if a number is out of range, or there are no scores
    """
    _check(scores, confidence, n_resamples, seed)
    drawn = _pooled(scores, n_resamples, seed)
    values = np.concatenate(scores)
    shares = np.array([(values > threshold).mean() for threshold in thresholds])
    ends = [_interval((drawn > threshold).mean(axis=1), confidence) for threshold in thresholds]
    low, high = np.array(ends).reshape(-1, 2).T
    return Profile(np.asarray(thresholds), shares, low, high)


def _share_better(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Of all pairs; ``[..., n]`` and ``[..., m]`` to ``[...]``."""
    pairs = ours[..., :, None], theirs[..., None, :]
    return ((pairs[0] > pairs[1]) + 0.5 * (pairs[0] == pairs[1])).mean(axis=(-2, -1))


def _pooled(scores: Scores, n_resamples: int, seed: int) -> np.ndarray:
    """Resamples of all tasks together, ``[n_resamples, n]``."""
    return np.concatenate(_resampled(scores, n_resamples, np.random.default_rng(seed)), axis=1)


def _resampled(scores: Scores, n_resamples: int, rng: np.random.Generator) -> list[np.ndarray]:
    """``[n_resamples, n]`` a task."""
    return [each[rng.integers(len(each), size=(n_resamples, len(each)))] for each in scores]


def _interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check(scores: Scores, confidence: float, n_resamples: int, seed: int) -> None:
    check(confidence=(confidence, number(above=0, below=1)), n_resamples=(n_resamples, integer(1)), seed=(seed, integer(0)))
    if not scores or not all(len(each) for each in scores):
        raise ValueError("there must be at least one task, and a score of at least one run on each")
