"""Regressions of numbers on numbers, by their sums."""

import math

import numpy as np
import pytest
import torch as th

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics.graph.lines import Lines, edges_of_numbers, numbers_of

FACTORS = Factors(state=(Variable("x"), Variable("mode", 2), Variable("y")), action=(Variable("force"),))


def drawn(n: int, seed: int) -> tuple[th.Tensor, th.Tensor]:
    """Encoded states and actions, and errors of the three variables: y's depend on x and on the force."""
    rng = np.random.default_rng(seed)
    x, y, force = rng.normal(size=(3, n))
    mode = np.eye(2)[rng.integers(2, size=n)]
    errors = np.stack([rng.normal(size=n), np.full(n, 7.0), 0.4 * x - 0.2 * force + rng.normal(size=n)], axis=1)
    return th.as_tensor(np.column_stack([x, mode, y, force])), th.as_tensor(errors)


def inputs(columns: th.Tensor) -> np.ndarray:
    return np.column_stack([columns[:, [0, 3, 4]].numpy(), np.ones(len(columns))])


def squares_left(inputs: np.ndarray, errors: np.ndarray) -> float:
    slopes = np.linalg.lstsq(inputs, errors, rcond=None)[0]
    return float(((errors - inputs @ slopes) ** 2).sum())


def test_which_entries_are_between_numbers():
    assert numbers_of(FACTORS) == [0, 2, 3]
    assert edges_of_numbers(FACTORS, 3).int().tolist() == [[1, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 1]]


def test_evidence_is_that_of_regressions_with_and_without_an_input():
    columns, errors = drawn(60, seed=0)
    groups = th.zeros(2, 60, dtype=th.float64)
    groups[0, :40], groups[1, 40:] = 1, 1
    evidence = Lines.of(FACTORS, columns, errors).summed(groups).evidence()
    assert evidence.gain.shape == (2, 2, 3) and evidence.n.flatten().tolist() == [40, 20]
    for group, rows in enumerate((slice(40), slice(40, 60))):
        n = len(range(60)[rows])
        for child, column in enumerate((0, 2)):
            of_child, every = errors[rows, column].numpy(), inputs(columns[rows])
            for parent in range(3):
                ratio = squares_left(np.delete(every, parent, axis=1), of_child) / squares_left(every, of_child)
                gain = 0.5 * math.log(ratio) - 0.5 / (n - 4)
                assert evidence.gain[group, child, parent].item() == pytest.approx(gain, abs=1e-4)


def test_a_line_through_as_many_points_as_it_has_inputs_shows_nothing():
    columns, errors = drawn(4, seed=1)
    evidence = Lines.of(FACTORS, columns, errors).summed(th.ones(1, 4, dtype=th.float64)).evidence()
    assert evidence.standard_error.isinf().all()


def test_standard_errors_are_those_of_repeated_draws():
    columns, errors = drawn(100_000, seed=2)
    repeated = Lines(*(each.unflatten(0, (500, 200)).sum(1) for each in Lines.of(FACTORS, columns, errors)))
    evidence = repeated.evidence()
    spread = evidence.gain[:, 1].std(0)
    # Of y by itself, which is worth nothing: half of chi squared with one degree of freedom, of standard deviation 2 ** 0.5.
    assert spread[1].item() == pytest.approx(0.5 * 2**0.5 / 196, rel=0.15)
    assert evidence.standard_error[:, 1, 1].mean().item() == pytest.approx(spread[1].item(), rel=0.2)
    # Of x, worth log(1 + 0.4²) / 2: in standard errors a little less than Student's t, 0.4 * 196 ** 0.5.
    z = (evidence.gain / evidence.standard_error)[:, 1, 0].mean().item()
    assert 0.85 * 5.6 < z < 5.6


def test_likelihood_of_other_transitions():
    (columns, errors), (others, others_errors) = drawn(50, seed=2), drawn(30, seed=3)
    fitted, other = (
        Lines.of(FACTORS, *each).summed(th.ones(1, len(each[0])).double())
        for each in ((columns, errors), (others, others_errors))
    )
    found = fitted.likelihood_of(other)[0, 1].item()
    slopes = np.linalg.lstsq(inputs(columns), errors[:, 2].numpy(), rcond=None)[0]
    variance = squares_left(inputs(columns), errors[:, 2].numpy()) / (50 - 4)
    left = others_errors[:, 2].numpy() - inputs(others) @ slopes
    assert found == pytest.approx((-0.5 * left**2 / variance - 0.5 * math.log(variance)).sum(), rel=1e-4)
