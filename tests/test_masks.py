import pytest
import torch as th

from sb3_fcdl.dynamics.masks import CERTAIN, prior_log_odds, sample_edges


def test_order_prior_gives_self_and_action_edges_and_frees_the_lower_triangle():
    prior = prior_log_odds("order", 3, 4)
    nan, yes, no = float("nan"), CERTAIN, -CERTAIN
    expected = th.tensor([[yes, no, no, yes], [nan, yes, no, yes], [nan, nan, yes, yes]])
    th.testing.assert_close(prior, expected, equal_nan=True)
    assert prior_log_odds("order", 10, 11).isnan().sum() == 45


def test_self_prior_and_none():
    assert prior_log_odds("self", 3, 5).isnan().sum() == 3 * 5 - 3
    assert (prior_log_odds("self", 3, 5).diagonal() == CERTAIN).all()
    assert prior_log_odds("none", 3, 5).isnan().all()


def test_given_entries_never_flip():
    log_odds = th.tensor([CERTAIN, -CERTAIN]).expand(100_000, 2)
    samples = sample_edges(log_odds)
    assert (samples[:, 0] == 1).all() and (samples[:, 1] == 0).all()
    assert th.tensor(CERTAIN).sigmoid() == 1


@pytest.mark.parametrize("log_odds", [-2.0, 0.0, 1.5])
def test_an_edge_is_sampled_with_its_probability(log_odds):
    th.manual_seed(0)
    samples = sample_edges(th.full((50_000,), log_odds))
    assert set(samples.unique().tolist()) <= {0.0, 1.0}
    assert samples.mean().item() == pytest.approx(th.tensor(log_odds).sigmoid().item(), abs=0.01)


def test_gradient_of_a_sample_is_that_of_its_relaxation():
    log_odds = th.zeros(1000, dtype=th.float64, requires_grad=True)
    th.manual_seed(0)
    sample_edges(log_odds).sum().backward()
    th.manual_seed(0)
    uniform = th.rand(1000, dtype=th.float64).clamp(1e-6, 1 - 1e-6)
    # sigmoid(0 + logit(u)) is u itself, and its slope u (1 - u).
    th.testing.assert_close(log_odds.grad, uniform * (1 - uniform))
