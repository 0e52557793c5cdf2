"""Distributions of the next state against torch's own, by hand, and by counting."""

import math

import pytest
import torch as th
from toy import factors, one_hot_state

from sb3_fcdl.dynamics.distributions import LOG_STD_MAX, LOG_STD_MIN, StateLayout, best_one_hot

KINDS = {"equal": [3, 3], "unequal": [2, 4], "mixed": [0, 2, 0, 3], "continuous": [0, 0]}


def layout(sizes: list[int]) -> StateLayout:
    return StateLayout(factors(sizes, 2).state_variables)


def state_of(values: list[list[float]], sizes: list[int]) -> th.Tensor:
    """``[R, V]``: a category or a number for each variable, to ``[R, D]``."""
    columns = th.tensor(values).T
    parts = [
        column.unsqueeze(-1) if size == 0 else th.nn.functional.one_hot(column.long(), size).float()
        for column, size in zip(columns, sizes, strict=True)
    ]
    return th.cat(parts, dim=-1)


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_best_one_hot_is_the_first_of_the_highest(dtype):
    scores = th.tensor([[[0.0, 2.0, 1.0], [3.0, 3.0, -th.inf]], [[-2.0, -1.0, -1.0], [-th.inf, -th.inf, -9.0]]], dtype=dtype)
    expected = th.nn.functional.one_hot(th.tensor([[1, 0], [1, 2]]), 3).to(dtype)
    assert th.equal(best_one_hot(scores), expected) and best_one_hot(scores).dtype == dtype
    assert best_one_hot(scores[:, :0]).shape == (2, 0, 3)


def test_log_prob_by_hand():
    """x0 continuous, x1 of two categories, x2 continuous: outputs are (change, log std), logits, (change, log std)."""
    outputs = th.tensor([[0.5, 0.0, 1.0, 3.0, -1.0, 1.0]])
    state = state_of([[2.0, 0, 10.0]], [0, 2, 0])
    target = state_of([[2.5, 1, 11.0]], [0, 2, 0])
    distribution = layout([0, 2, 0]).distribution(outputs, state)
    stds = distribution.log_std[0].exp().tolist()
    expected = [
        -math.log(stds[0]) - math.log(2 * math.pi) / 2,
        3 - math.log(math.exp(1) + math.exp(3)),
        -math.log(stds[1]) - math.log(2 * math.pi) / 2 - (11 - 9) ** 2 / (2 * stds[1] ** 2),
    ]
    assert distribution.log_prob(target)[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_standard_deviations_stay_within_their_bounds():
    outputs = th.tensor([[0.0, -100.0], [0.0, 0.0], [0.0, 100.0]])
    log_std = layout([0]).distribution(outputs, th.zeros(3, 1)).log_std[:, 0]
    assert log_std[0] == pytest.approx(LOG_STD_MIN, abs=1e-2) and log_std[2] == pytest.approx(LOG_STD_MAX, abs=1e-2)
    assert log_std[1] == pytest.approx(0, abs=0.15)


def test_uncertainty_is_the_probability_of_all_other_categories_or_the_deviation():
    probabilities = th.tensor([0.2, 0.7, 0.1])
    outputs = th.cat([th.tensor([3.0, -0.5]), probabilities.log(), th.tensor([0.0, 1.0])]).unsqueeze(0)
    distribution = layout([0, 3, 0]).distribution(outputs, state_of([[2.0, 0, 10.0]], [0, 3, 0]))
    stds = distribution.log_std[0].exp().tolist()
    assert distribution.uncertainty()[0].tolist() == pytest.approx([stds[0], 0.3, stds[1]], abs=1e-6)


@pytest.mark.parametrize("sizes", KINDS.values(), ids=KINDS)
def test_mode_is_the_likeliest_category_and_the_mean(sizes):
    th.manual_seed(0)
    outputs, state = th.randn(6, layout(sizes).output_width), th.randn(6, sum(max(size, 1) for size in sizes))
    mode = layout(sizes).distribution(outputs, state).mode()
    expected, first, column = [], 0, 0
    for size in sizes:
        if size == 0:
            expected.append(state[:, column] + outputs[:, first])
        else:
            expected.append(outputs[:, first : first + size].argmax(-1).float())
        first, column = first + (size or 2), column + max(size, 1)
    assert th.equal(mode, state_of(th.stack(expected, dim=-1).tolist(), sizes))


@pytest.mark.parametrize("sizes", KINDS.values(), ids=KINDS)
def test_samples_have_the_moments_of_their_distribution(sizes):
    th.manual_seed(3)
    outputs, state = th.randn(1, layout(sizes).output_width), th.zeros(1, sum(max(size, 1) for size in sizes))
    outputs = outputs.requires_grad_()
    distribution = layout(sizes).distribution(outputs.expand(20_000, -1), state.expand(20_000, -1))
    samples = distribution.sample()
    samples.sum().backward()
    assert outputs.grad.isfinite().all()
    samples, first, column = samples.detach(), 0, 0
    stds = iter(distribution.log_std[0].exp().tolist())
    for size in sizes:
        if size == 0:
            number = samples[:, column]
            assert number.mean().item() == pytest.approx(outputs[0, first].item(), abs=0.1)
            assert number.std().item() == pytest.approx(next(stds), rel=0.03)
        else:
            one_hot = samples[:, column : column + size]
            assert th.equal(one_hot, one_hot_state(one_hot.argmax(-1, keepdim=True), [size]))
            expected = outputs[0, first : first + size].softmax(-1).detach()
            th.testing.assert_close(one_hot.mean(0), expected, rtol=0, atol=0.015)
        first, column = first + (size or 2), column + max(size, 1)


def test_gradient_of_a_sampled_category_is_that_of_the_gumbel_softmax():
    th.manual_seed(0)
    logits = th.randn(5, 6, dtype=th.float64, requires_grad=True)
    th.manual_seed(1)
    layout([3, 3]).distribution(logits, th.zeros(5, 6)).sample().square().sum().backward()
    straight_through = logits.grad.clone()
    th.manual_seed(1)
    gumbel = -th.empty(5, 2, 3, dtype=th.float64).exponential_().log()
    logits.grad = None
    soft = (logits.unflatten(-1, (2, 3)) + gumbel).softmax(-1)
    hard = th.nn.functional.one_hot(soft.argmax(-1), 3)
    (2 * hard * soft).sum().backward()
    th.testing.assert_close(straight_through, logits.grad)
