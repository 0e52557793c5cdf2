"""When an edge that matters elsewhere is needless in a context."""

import pytest
import torch as th

from sb3_fcdl.dynamics.graph.judgement import _weigh

CODE = th.arange(2).repeat_interleave(400)


def gains(mean: float, spread: float) -> th.Tensor:
    """Of 400 transitions, exactly, ``[400]``: half are below the mean, half above."""
    return mean + spread * th.tensor([-1.0, 1.0]).repeat(200)


@pytest.mark.parametrize(
    ("spread_by_mask", "spread_by_value", "is_needless"), [(20.0, 300.0, False), (5.0, 300.0, True), (20.0, 200.0, True)]
)
def test_an_edge_is_needless_where_one_gain_is_at_most_a_fifth_of_what_it_is_elsewhere(
    spread_by_mask, spread_by_value, is_needless
):
    """
    Elsewhere 4 nats by its mask, 100 by its value; here 0, at most 1.645 standard errors, which are a twentieth of the spread:
    1.6 and 0.4 by the mask beside 0.8, 25 and 16 by the value beside 20. Each gain is compared with its own kind.
    """
    by_mask = th.cat([gains(4.0, 1.0), gains(0.0, spread_by_mask)])
    by_value = th.cat([gains(100.0, 1.0), gains(0.0, spread_by_value)])
    weighed = _weigh(by_mask.unsqueeze(1), by_value.unsqueeze(1), CODE, 2)
    assert weighed.is_needless.flatten().tolist() == [False, is_needless]
    assert weighed.here[0, 0] < 1e-6 and weighed.here[1, 0] > 0.4
