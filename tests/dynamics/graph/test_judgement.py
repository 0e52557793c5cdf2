"""When an edge that matters elsewhere is needless in a context."""

import math

import pytest
import torch as th
from toy import factors

from sb3_fcdl.dynamics import ContextTreeDynamics, Windows
from sb3_fcdl.dynamics.graph.judgement import _weigh, judge_edges

CODE = th.arange(2).repeat_interleave(400)


def gains(mean: float, spread: float) -> th.Tensor:
    """Of 400 transitions, exactly, ``[400]``: half are below the mean, half above."""
    return mean + spread * th.tensor([-1.0, 1.0]).repeat(200)


@pytest.mark.parametrize(
    ("spread_by_mask", "spread_by_value", "here", "is_needless"),
    [
        (23.0, 580.0, 0.0, False),
        (21.0, 580.0, 0.0, True),
        (23.0, 530.0, 0.0, True),
        # A quarter of what it is worth elsewhere is as far from nothing as from half of that, however sure.
        (20.0, 500.0, 0.25, False),
        (20.0, 500.0, -0.1, True),
    ],
)
def test_an_edge_is_needless_where_one_gain_is_rather_none_than_half_of_what_it_is_elsewhere(
    spread_by_mask, spread_by_value, here, is_needless
):
    """
    Elsewhere 4 nats by its mask, 100 by its value; here a share of that. The standard error is a twentieth of the spread. With
    0 here, half² / 2 over its square is log(5) at spreads of 22.3 and 557. Each gain is compared with its own kind.
    """
    by_mask = th.cat([gains(4.0, 1.0), gains(4.0 * here, spread_by_mask)])
    by_value = th.cat([gains(100.0, 1.0), gains(100.0 * here, spread_by_value)])
    weighed = _weigh(by_mask.unsqueeze(1), by_value.unsqueeze(1), CODE, 2)
    assert weighed.is_needless.flatten().tolist() == [False, is_needless]
    assert weighed.here[0, 0] < 1e-6 and weighed.here[1, 0] > 0.05


@pytest.mark.parametrize("linear_evidence", [False, True])
def test_lines_keep_an_edge_that_the_network_has_not_learned(linear_evidence):
    """x1 pushes x0, and x2 is noise. The network is untrained: by its own predictions nothing depends on anything."""
    th.manual_seed(0)
    state, action = th.randn(600, 3), th.eye(2)[th.arange(600) % 2]
    after = state + 0.3 * th.randn(600, 3)
    after[:, 0] += 0.5 * state[:, 1]
    model = ContextTreeDynamics(factors([0, 0, 0], 2), hidden_dim=8, n_codes=2).eval()
    windows = Windows(*(part.unsqueeze(1) for part in (state, action, after)), th.ones(600, 1) > 0)
    with th.no_grad():
        held_out, free = model.held_out(windows), model.free_edges.is_free
        judgement = judge_edges(held_out, held_out.context, model.graphs, free, linear_evidence)
    edges = (judgement.graphs[0] > 0) & free
    assert edges.nonzero().tolist() == ([[0, 1]] if linear_evidence else [])
    if linear_evidence:
        # The errors that are left have 0.3 of the predicted standard deviations, and x1 explains 0.5 of them.
        assert judgement.evidence.gain[0, 0, 1].item() == pytest.approx(0.5 * math.log(1 + (0.5 / 0.3) ** 2), abs=0.1)
