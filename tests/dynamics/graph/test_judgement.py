"""When an edge that matters elsewhere is needless in a context."""

import pytest
import torch as th

from sb3_fcdl.dynamics.graph.judgement import _weigh

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
