import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_fcdl.world.factorization import Factorization
from sb3_fcdl.world.moments import RunningMoments, rounding_of


def moments_of(*batches, **kwargs):
    moments = RunningMoments(np.shape(batches[0])[-1], **kwargs)
    for batch in batches:
        moments.update(th.as_tensor(batch))
    return moments


@pytest.mark.parametrize("unit", [1e-30, 1e-12, 1e-7, 1.0, 1e7, 1e30])
@pytest.mark.parametrize("mean", [0.0, 1.0, -50.0])
def test_the_unit_of_a_number_does_not_matter(unit, mean):
    data = np.random.default_rng(0).normal(mean, 2.0, (60, 3))
    moments = moments_of(*np.split(unit * data, [10, 11, 40]))
    np.testing.assert_allclose(moments.std, unit * data.std(0), rtol=1e-9)
    encoded = moments.normalize(th.as_tensor(unit * data)).numpy()
    np.testing.assert_allclose(encoded, (data - data.mean(0)) / data.std(0), atol=1e-5)
    np.testing.assert_allclose(moments.denormalize(th.as_tensor(encoded).double()), unit * data, rtol=1e-3, atol=1e-5 * unit)


@pytest.mark.parametrize("value", [0.0, 1e-12, 0.1, -7.3, 1e8])
def test_what_does_not_vary_is_not_scaled(value):
    moments = moments_of(np.full((5, 1), value), np.full((1, 1), value), np.full((33, 1), value))
    assert moments.std.tolist() == [1.0]
    assert moments.mean.item() == pytest.approx(value, rel=1e-12)
    assert moments.normalize(th.tensor([[value + 0.5]], dtype=th.float64)).item() == pytest.approx(0.5)


def test_a_number_that_begins_to_vary_is_scaled_from_then_on():
    moments = moments_of(np.zeros((9, 1)))
    assert moments.std.item() == 1
    moments.update(th.full((9, 1), 2e-8))
    assert moments.std.item() == pytest.approx(1e-8)


@pytest.mark.parametrize(("mean", "std"), [(1e4, 1.0), (1e6, 1.0), (3e7, 30.0)])
def test_the_last_digit_of_float32_does_not_count_as_varying(mean, std):
    """What is constant but for the rounding of float32, and its neighbour, which is not."""
    rows = np.random.default_rng(0)
    last_digit = np.spacing(np.float32(mean))
    constant = (mean + last_digit * rows.integers(-1, 2, (200, 1))).astype(np.float32)
    varying = rows.normal(mean, std, (200, 1)).astype(np.float32)
    data = np.hstack([constant, varying])
    encoded = Factorization(spaces.Box(-np.inf, np.inf, (2,)), spaces.Discrete(2))
    encoded.observe(th.as_tensor(data))
    assert encoded.moments.std[0] == max(1.0, rounding_of(np.float32) * abs(encoded.moments.mean[0]))
    assert encoded.moments.std[1].item() == pytest.approx(varying.astype(np.float64).std(), rel=1e-9)
    in_float64 = Factorization(spaces.Box(-np.inf, np.inf, (2,), np.float64), spaces.Discrete(2))
    in_float64.observe(th.as_tensor(data, dtype=th.float64))
    assert in_float64.moments.std[0].item() == pytest.approx(constant.astype(np.float64).std(), rel=1e-6)


def test_each_key_of_an_observation_has_the_rounding_of_its_dtype():
    space = spaces.Dict(
        a=spaces.Box(-np.inf, np.inf, (2,), np.float32),
        b=spaces.Box(-np.inf, np.inf, (1,), np.float64),
        c=spaces.Box(0, 10**9, (1,), np.int64),
        d=spaces.Discrete(3),
    )
    rounding = Factorization(space, spaces.Discrete(2)).moments.rounding.tolist()
    assert rounding == [2**-23, 2**-23, 1e-9, 1e-9, *[1e-9] * 3]
