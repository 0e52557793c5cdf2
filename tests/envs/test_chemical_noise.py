"""What noise does to the observations of Chemical, and what it leaves alone."""

import numpy as np
import pytest
from chemicals import COLOR_TEST, NOISY_TEST, decode

from fcdl_envs.chemical import ChemicalVectorEnv


def test_noise_scales_the_one_hots_of_noisy_objects_alone():
    env = ChemicalVectorEnv(3000, noise_scale=50.0, **NOISY_TEST)
    observations = [env.reset(seed=0)[0], env.step(np.full(3000, 45))[0]]
    for observation in observations:
        state = observation["state"].reshape(3000, 10, 5)
        assert np.isin(np.delete(state, [1, 2, 3, 4], axis=1), (0, 1)).all()
        assert np.isin(observation["goal"], (0, 1)).all()
        noisy = state[:, 1:5]
        assert (np.count_nonzero(noisy, axis=2) == 1).all()
        factors = noisy.sum(axis=2)
        assert factors.mean() == pytest.approx(0, abs=2)
        assert factors.std() == pytest.approx(50, rel=0.03)
        assert np.abs(np.corrcoef(factors.T) - np.eye(4)).max() < 0.08
    first, second = (observation["state"].reshape(3000, 10, 5)[:, 1:5].sum(axis=2) for observation in observations)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.04


def test_noise_does_not_touch_the_dynamics_and_stays_in_the_space():
    loud, silent = (ChemicalVectorEnv(500, noise_scale=scale, **NOISY_TEST) for scale in (200.0, 0.0))
    loud_first, silent_first = loud.reset(seed=0)[0], silent.reset(seed=0)[0]
    assert np.array_equal(loud_first["goal"], silent_first["goal"])
    for actions in np.random.default_rng(0).integers(50, size=(60, 500)):
        loud_observation, loud_rewards, *_ = loud.step(actions)
        silent_observation, silent_rewards, *_ = silent.step(actions)
        assert np.array_equal(loud_rewards, silent_rewards)
        assert np.array_equal(decode(loud_observation)[:, 5:], decode(silent_observation)[:, 5:])
        assert (decode(silent_observation)[:, 1:5] == -1).all()
        assert loud_observation in loud.observation_space


def shown_and_true(env, n_steps=10):
    """Colours that the noisy objects show and have, over random steps of a batch, twice [n_steps + 1, B, n_noisy]."""
    observation, _ = env.reset(seed=0)
    shown, true = [observation], [env.get_state()]
    for actions in np.random.default_rng(0).integers(50, size=(n_steps, env.num_envs)):
        shown.append(env.step(actions)[0])
        true.append(env.get_state())
    shown = np.array([decode(observation)[:, 1:5] for observation in shown])
    return shown, np.array([[state["colors"][1:5] for state in states] for states in true])


def test_a_random_color_is_uniform_and_depends_on_nothing():
    """Against the truth, another object and the next step: each of 25 pairs has a chance of 1/25, within four sigma."""
    shown, true = shown_and_true(ChemicalVectorEnv(1000, **COLOR_TEST))
    for one, other in ((shown, true), (shown[..., :3], shown[..., 1:]), (shown[:-1], shown[1:])):
        of_other = np.bincount(other.ravel(), minlength=5) / other.size
        pairs = np.bincount(5 * one.ravel() + other.ravel(), minlength=25).reshape(5, 5) / one.size
        expected = of_other / 5
        assert np.abs(pairs - expected).max() < 4 * np.sqrt(expected.max() / one.size)


def test_without_noise_objects_show_their_color():
    shown, true = shown_and_true(ChemicalVectorEnv(50, **NOISY_TEST, noise="none"))
    assert np.array_equal(shown, true)


def test_episodes_are_the_same_under_every_noise():
    """More than two episodes: the second and third begin after all the random numbers of the noise before them."""
    clean, *noisy = (ChemicalVectorEnv(50, **NOISY_TEST, noise=noise) for noise in ("none", "scale", "color"))
    for env in (clean, *noisy):
        env.reset(seed=0)
    for actions in np.random.default_rng(0).integers(50, size=(60, 50)):
        expected, rewards, *_, infos = clean.step(actions)
        for env in noisy:
            observation, noisy_rewards, *_, noisy_infos = env.step(actions)
            assert np.array_equal(noisy_rewards, rewards)
            assert np.array_equal(noisy_infos.get("local_graph"), infos.get("local_graph"))
            assert np.array_equal(observation["goal"], expected["goal"])
            shown, true = (each["state"].reshape(50, 10, 5) for each in (observation, expected))
            untouched = [0, 5, 6, 7, 8, 9]
            assert np.array_equal(shown[:, untouched], true[:, untouched])
            assert (shown[:, 1:5] != true[:, 1:5]).any()
    assert all(str(env.get_state()) == str(clean.get_state()) for env in noisy)
