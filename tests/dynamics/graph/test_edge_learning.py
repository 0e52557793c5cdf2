"""How the masks learn what an edge is worth."""

from itertools import product

import numpy as np
import pytest
import torch as th
from toy import factors

from sb3_fcdl.dynamics.distributions import StateDistribution, StateLayout
from sb3_fcdl.dynamics.graph.edge_learning import (
    Antithetic,
    StraightThrough,
    antithetic_edges,
    edge_cost,
    edge_surrogate,
    sample_edges,
)
from sb3_fcdl.dynamics.graph.priors import CERTAIN


def losses_of(edges):
    """Two children, three parents; neither additive nor monotonous."""
    first = 3 * edges[..., 0, 0] * edges[..., 0, 2] - 2 * edges[..., 0, 1] + edges[..., 0, 1] * edges[..., 0, 2]
    second = (edges[..., 1, :].sum(-1) - 1.5) ** 2
    return th.stack([first, second], dim=-1)


def flat_at_both_ends(edges):
    """1 without the edge, 0 with it, and no slope at either: what a model makes of an edge that it has learnt to use."""
    return (1 + (th.pi * edges).cos()).sum(-1) / 2


def test_both_samples_have_the_probability_and_never_agree_at_even_odds():
    th.manual_seed(0)
    for log_odds in (-2.0, 0.0, 1.5):
        first, second = antithetic_edges(th.full((50_000,), log_odds))
        assert set(first.unique().tolist()) == set(second.unique().tolist()) == {0.0, 1.0}
        for edges in (first, second):
            assert edges.mean().item() == pytest.approx(th.tensor(log_odds).sigmoid().item(), abs=0.01)
        if log_odds == 0:
            assert (first != second).all()


def test_given_entries_never_flip_and_have_no_gradient():
    log_odds = th.tensor([CERTAIN, -CERTAIN]).repeat(1000, 1, 1).requires_grad_()
    first, second = antithetic_edges(log_odds)
    assert (first == th.tensor([1.0, 0.0])).all() and (second == first).all()
    edge_surrogate(log_odds, (first, second), (th.rand(1000, 1), th.rand(1000, 1))).sum().backward()
    assert not log_odds.grad.any()


def test_the_gradient_is_that_of_the_expected_loss():
    log_odds = th.tensor([[0.3, -1.2, 0.8], [2.0, 0.0, -0.5]], dtype=th.float64, requires_grad=True)
    probability = log_odds.sigmoid()
    expected = th.zeros((), dtype=th.float64)
    for values in product((0.0, 1.0), repeat=6):
        edges = th.tensor(values, dtype=th.float64).view(2, 3)
        expected = expected + (probability * edges + (1 - probability) * (1 - edges)).prod() * losses_of(edges).sum()
    (exact,) = th.autograd.grad(expected, log_odds)

    th.manual_seed(0)
    n_rows = 400_000
    rows = log_odds.detach().expand(n_rows, 2, 3).clone().requires_grad_()
    edges = antithetic_edges(rows)
    surrogate = edge_surrogate(rows, edges, (losses_of(edges[0]), losses_of(edges[1])))
    assert not surrogate.any()
    surrogate.sum().backward()
    error_of_the_mean = rows.grad.std(0) / n_rows**0.5
    assert ((rows.grad.mean(0) - exact).abs() < 4 * error_of_the_mean).all()
    assert (exact.abs() > 10 * error_of_the_mean).all()


def test_an_edge_is_kept_where_the_loss_is_flat_with_it_and_without_it():
    th.manual_seed(0)
    straight = th.zeros(1000, 1, 1, dtype=th.float64, requires_grad=True)
    flat_at_both_ends(sample_edges(straight)).sum().backward()
    assert straight.grad.abs().max() < 1e-9

    unbiased = th.zeros(1000, 1, 1, dtype=th.float64, requires_grad=True)
    edges = antithetic_edges(unbiased)
    edge_surrogate(unbiased, edges, (flat_at_both_ends(edges[0]), flat_at_both_ends(edges[1]))).sum().backward()
    # d/d(log-odds) of (1 - p) at p = 1/2; with one edge at even odds the estimate has no variance at all.
    th.testing.assert_close(unbiased.grad, th.full_like(unbiased, -0.25))


@pytest.mark.parametrize(("gain", "probability"), [(0.6, 1 / 6), (1.0, 0.5), (2.0, 0.75), (50.0, 0.99)])
def test_an_edge_worth_its_price_has_even_odds_and_no_edge_is_certain(gain, probability):
    """The minimum of (1 - p) gain - log(1 - p) / 2 over p is at 1 - 1 / (2 gain): its derivative is 1 / (2 (1 - p)) - gain."""
    log_odds = th.linspace(-6, 12, 18_001, dtype=th.float64)
    loss = (1 - log_odds.sigmoid()) * gain + edge_cost(log_odds)
    assert log_odds[loss.argmin()].sigmoid().item() == pytest.approx(probability, abs=1e-3)


@pytest.mark.parametrize(("cost", "is_dropped"), [(edge_cost, True), (th.sigmoid, False)])
def test_an_edge_of_two_contexts_is_dropped_where_only_the_other_needs_it(cost, is_dropped):
    """Both were certain of it; the loss without it is 1 nat in the first, nothing in the second."""
    th.manual_seed(0)
    log_odds = th.tensor([12.0, 12.0], requires_grad=True)
    optimizer = th.optim.SGD([log_odds], lr=2.0)
    for _ in range(1500):
        rows = log_odds.view(2, 1, 1).repeat_interleave(32, dim=0)
        edges = antithetic_edges(rows)
        needed = th.tensor([1.0, 0.0]).repeat_interleave(32).view(-1, 1)
        first, second = (needed * (1 - each.squeeze(-1)) for each in edges)
        optimizer.zero_grad()
        (edge_surrogate(rows, edges, (first, second)).sum(-1) + 0.05 * cost(rows).flatten()).mean().backward()
        optimizer.step()
    kept, other = log_odds.sigmoid().tolist()
    assert kept > 0.9
    assert (other < 0.1) == is_dropped


@pytest.mark.parametrize(("learning", "n_samples"), [(StraightThrough(), 1), (Antithetic(), 2)])
def test_either_way_the_loss_moves_the_log_odds_and_keeps_its_value(learning, n_samples):
    """One variable with three categories, which one edge makes likelier."""
    th.manual_seed(0)
    layout = StateLayout(factors([3]).state_variables)
    log_odds = th.zeros(500, 1, 1, requires_grad=True)
    state, target = th.zeros(500, 3), th.tensor([[1.0, 0.0, 0.0]]).expand(500, -1)

    def predict(mask: th.Tensor) -> StateDistribution:
        return layout.distribution(mask.view(500, 1) * target, state)

    drawn = learning.draw(log_odds, predict)
    assert len(drawn.edges) == n_samples and (drawn.other is None) == (n_samples == 1)
    assert drawn.other is None or not drawn.other.logits.requires_grad
    nll = -drawn.prediction.log_prob(target)
    surrogate = learning.surrogate(drawn, nll, target)
    assert surrogate.shape == nll.shape and (surrogate == 0).all()
    (nll + surrogate).mean().backward()
    assert log_odds.grad.mean() < 0
    assert learning.cost(th.tensor(0.0)) == pytest.approx(0.5 if n_samples == 1 else 0.5 * np.log(2))
