"""The randomness of a planner."""

import numpy as np
import pytest
import torch as th

from sb3_fcdl.planning.noise import Noise


@pytest.fixture
def default_dtype():
    yield th.set_default_dtype
    th.set_default_dtype(th.float32)


def drawn(exponent: float) -> th.Tensor:
    generators = [th.Generator().manual_seed(seed) for seed in range(2)]
    return Noise(2, th.device("cpu"), generators, exponent).normal(2000, 6, 1)


def test_correlated_noise_is_a_combination_of_waves():
    """From the same white noise, with the basis in NumPy: the mean, two sines and cosines, and a last cosine."""
    step = np.arange(6)
    waves = [np.ones(6)]
    for n_waves in (1, 2):
        waves += [np.sqrt(2) / n_waves * wave(2 * np.pi * n_waves * step / 6) for wave in (np.cos, np.sin)]
    waves = np.stack([*waves, (-1.0) ** step / 3], axis=1)
    expected = (waves / np.linalg.norm(waves, axis=1, keepdims=True)) @ drawn(0.0).numpy()
    for _ in range(2):
        np.testing.assert_allclose(drawn(2.0).numpy(), expected, atol=1e-5)


def test_correlated_noise_follows_the_default_dtype(default_dtype):
    single = drawn(2.0)
    default_dtype(th.float64)
    double = drawn(2.0)
    default_dtype(th.float32)
    assert (single.dtype, double.dtype) == (th.float32, th.float64) and th.equal(drawn(2.0), single)
