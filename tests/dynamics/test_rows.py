"""Rows that have left their episode count nowhere."""

import copy

import pytest
import torch as th
from dense import scrambled
from toy import KINDS, factors, random_windows

from sb3_fcdl.dynamics import DynamicsModel, FCDLDynamics, NCDDynamics, Windows
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.dynamics.graph import edge_learning
from sb3_fcdl.dynamics.rows import drawn_rows, shuffled_rows

SIZES, ACTION_SIZES = KINDS["mixed"]


@pytest.fixture
def nothing_random(monkeypatch):
    """Modes in place of samples, and the likelier of edge and no edge."""
    monkeypatch.setattr(StateDistribution, "sample", StateDistribution.mode)
    monkeypatch.setattr(edge_learning, "sample_edges", lambda log_odds: (log_odds > 0).to(log_odds.dtype) + 0 * log_odds)
    monkeypatch.setattr(
        edge_learning, "antithetic_edges", lambda log_odds: ((log_odds > 0).to(log_odds.dtype), th.ones_like(log_odds))
    )


def batches() -> tuple[Windows, Windows]:
    """Twenty windows, ten of which end early, and the same with twenty more that are not valid."""
    windows = random_windows(SIZES, *ACTION_SIZES, n_rows=40, length=3, dtype=th.float64)
    windows.valid[10:, 2:] = False
    windows.valid[20:] = False
    return Windows(*(part[:20] for part in windows)), windows


def outcome(model: DynamicsModel, windows: Windows) -> list[th.Tensor]:
    """Total, terms, gradients and moving averages of an update."""
    model = copy.deepcopy(model)
    th.manual_seed(3)
    losses = model.loss(windows)
    losses.total.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [losses.total, *losses.terms.values(), *gradients, *model.buffers()]


@pytest.mark.usefixtures("nothing_random")
@pytest.mark.parametrize("quantize", ["graphs", "latents"])
def test_loss_and_codebook_of_fcdl_are_those_of_the_valid_rows(quantize):
    th.manual_seed(0)
    model = (
        FCDLDynamics(factors(SIZES, *ACTION_SIZES), hidden_dim=8, n_codes=4, code_dim=4, quantize=quantize).double().train()
    )
    # Without the statistics of the batch: batch norms see every row.
    model.quantizer.encoder.eval()
    model.quantizer.codebook.counts[:2] = 0  # dead, so that they are moved to rows of the batch
    for one, other in zip(*(outcome(model, windows) for windows in batches()), strict=True):
        th.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("nothing_random")
def test_loss_and_edge_rates_of_ncd_are_those_of_the_valid_rows():
    th.manual_seed(0)
    model = NCDDynamics(factors(SIZES, *ACTION_SIZES), hidden_dim=8).double().train()
    model.edge_network.eval()
    for one, other in zip(*(outcome(model, windows) for windows in batches()), strict=True):
        th.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_importance_is_that_of_the_valid_rows(monkeypatch):
    monkeypatch.setattr(th, "randperm", lambda n, device=None: th.arange(n).flip(0))
    th.manual_seed(0)
    model = scrambled(FCDLDynamics(factors(SIZES, *ACTION_SIZES), hidden_dim=8, n_codes=4)).eval()
    alone, padded = batches()
    bound = model._bind(with_state_gradient=False)
    inputs = bound.encoder_inputs(bound.features.read(alone.state[:4, 0], alone.action[:4, 0]), model.context_inputs)
    with th.no_grad():
        # So that the rows have different codes.
        model.quantizer.codebook.embedding.copy_(model.quantizer.encoder(inputs).sigmoid())
    one, other = (model._measure_importance(windows) for windows in (alone, padded))
    assert one.abs().max() > 1e-6
    th.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_rows_that_count_are_drawn_equally_often_and_mixed_with_each_other_only():
    valid = th.tensor([True, False, True, True, False])
    th.manual_seed(0)
    assert (drawn_rows(valid, 30_000).bincount(minlength=5) / 10_000).tolist() == pytest.approx([1, 0, 1, 1, 0], abs=0.05)
    sources = th.stack([shuffled_rows(valid) for _ in range(200)])
    assert (sources.sort(dim=1).values == th.arange(5)).all()
    assert set(sources[:, 0].tolist()) == {0, 2, 3} and set(sources[:, 1].tolist()) == {1, 4}


def test_draws_are_those_of_torch_where_all_rows_count():
    valid = th.ones(256, dtype=th.bool)
    th.manual_seed(0)
    drawn, shuffled = drawn_rows(valid, 16), shuffled_rows(valid)
    th.manual_seed(0)
    assert th.equal(drawn, th.randint(256, (16,))) and th.equal(shuffled, th.randperm(256))
