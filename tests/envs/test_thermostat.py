"""Thermostat by value: the equations of its documentation, its rewards and the returns of policies that learn nothing."""

import gymnasium as gym
import numpy as np
import pytest
from factored import mean_return, random_action

from fcdl_envs.thermostat import ThermostatEnv, thermostat_script
from fcdl_envs.thermostat_system import COOL, HEAT, OFF, OPEN, SHUT, ThermostatSystem

ENV_ID = "FCDL/Thermostat-v0"
AWAY, HOME = 0, 1


def conditional(state, action):
    """Of one state and action: mean or probabilities for each variable."""
    distributions = ThermostatSystem().conditional(np.array([state], dtype=float), np.array([action], dtype=float))
    return [each[0] for each in distributions]


def test_distributions_by_hand_with_the_window_shut():
    living, bedroom, outside, price, window, mode, presence = conditional([20, 18, 5, 40, SHUT, HEAT, HOME], [2, 0, 0])
    # 20 + 0.15 * -2 + 0.05 * -6 + 2 * 0.5 and 18 + 0.15 * 2 + 0.05 * -4
    assert living == pytest.approx([20.4, 0.2])
    assert bedroom == pytest.approx([18.1, 0.2])
    # 8 + 0.95 * -3 and 30 + 0.9 * 10
    assert outside == pytest.approx([5.15, 1.2])
    assert price == pytest.approx([39, 3])
    assert window == pytest.approx([0.9, 0.1])
    assert mode.tolist() == [0, 1, 0]
    assert presence == pytest.approx([0.1, 0.9])


def test_distributions_by_hand_with_the_window_open():
    living, bedroom, *_, window, mode, presence = conditional([20, 18, 5, 40, OPEN, COOL, AWAY], [3, 1, 1])
    # less 0.15 * 15 and 0.15 * 13 through the window, less 3 * 0.5
    assert living == pytest.approx([20 - 0.3 - 0.3 - 2.25 - 1.5, 0.2])
    assert bedroom == pytest.approx([18 + 0.3 - 0.2 - 1.95, 0.2])
    assert window == pytest.approx([0.95, 0.05])
    assert mode.tolist() == [1, 0, 0]
    assert presence == pytest.approx([0.8, 0.2])


def test_distributions_by_hand_with_the_heater_off():
    living, *_, window, mode, _ = conditional([10, 10, 10, 30, OPEN, OFF, HOME], [3, 3, 2])
    assert living == pytest.approx([10.2, 0.2])
    assert window == pytest.approx([0.05, 0.95])
    assert mode.tolist() == [0, 0, 1]


def test_graphs_by_hand():
    env = gym.make(ENV_ID).unwrapped
    names = env.factorization.parent_names

    def parents_of_living(options, action, key):
        env.reset(seed=0, options=options)
        info = env.step(np.array(action))[-1]
        return {name for name, is_parent in zip(names, info[key][0], strict=True) if is_parent}, info["context"]

    rooms = {"living", "bedroom"}
    off, heat = {"window": SHUT, "mode": OFF}, {"window": OPEN, "mode": HEAT, "outside": 3.0, "living": 20.0}
    assert parents_of_living(off, [0, 0, 0], "transition_graph") == (rooms | {"window"}, "window shut, mode off")
    assert parents_of_living(off, [1, 0, 0], "transition_graph")[0] == rooms | {"window", "mode"}
    expected = rooms | {"outside", "window", "mode", "power"}
    assert parents_of_living(heat, [1, 0, 0], "transition_graph") == (expected, "window open, mode heat")
    assert parents_of_living(heat, [0, 0, 0], "transition_graph")[0] == expected - {"mode"}
    as_outside = {**heat, "living": 3.0}
    assert parents_of_living(as_outside, [1, 0, 0], "transition_graph")[0] == expected - {"window"}
    assert parents_of_living(as_outside, [0, 0, 0], "local_graph")[0] == expected
    assert parents_of_living(off, [0, 0, 0], "local_graph")[0] == rooms | {"window", "mode"}
    assert env.context_variables == ("window", "mode")


def test_noise_variables_have_themselves_alone():
    graph, factors = ThermostatEnv().global_graph, ThermostatEnv().factorization
    for name in ("outside", "price", "presence"):
        assert np.flatnonzero(graph[factors.state_index_of(name)]).tolist() == [factors.state_index_of(name)]
    for name in ("price", "presence"):
        assert graph[:, factors.index_of(name)].sum() == 1


def test_reward_by_hand():
    env = ThermostatEnv(noise_scale=0)
    options = {"living": 20, "bedroom": 18, "outside": 5, "price": 40, "window": SHUT}
    env.reset(seed=0, options={**options, "mode": HEAT, "presence": HOME})
    # 20.4 and 18.1 °C next; two levels at 40 ct
    assert env.step(np.array([2, 0, 0]))[1] == pytest.approx(1 - 0.7 / 6 - 0.8, abs=1e-5)
    env.reset(seed=0, options={**options, "mode": OFF, "presence": HOME})
    assert env.step(np.array([2, 0, 0]))[1] == pytest.approx(1 - 1.7 / 6, abs=1e-5)
    env.reset(seed=0, options={**options, "mode": HEAT, "presence": AWAY})
    assert env.step(np.array([2, 0, 0]))[1] == pytest.approx(-0.8, abs=1e-5)


def test_episodes_start_in_the_stationary_weather_and_end_after_a_day():
    env = gym.make(ENV_ID)
    starts = np.array([(env.reset(seed=seed), env.unwrapped.get_state()["state"])[1] for seed in range(1000)])
    assert starts[:, 2].mean() == pytest.approx(8, abs=0.4)
    assert starts[:, 2].std() == pytest.approx(1.2 / np.sqrt(1 - 0.95**2), rel=0.08)
    assert starts[:, 3].std() == pytest.approx(3 / np.sqrt(1 - 0.9**2), rel=0.08)
    assert starts[:, :2].min() >= 10 and starts[:, :2].max() <= 24
    assert starts[:, 4:].mean(axis=0) == pytest.approx([0.5, 1, 0.5], abs=0.08)
    assert [env.step(np.zeros(3, dtype=int))[3] for _ in range(48)] == [False] * 47 + [True]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        # docs/thermostat.md
        (lambda env, observation, rng: random_action(env.action_space, rng), -68.9),
        (lambda env, observation, rng: np.zeros(3, dtype=int), -51.5),
        (lambda env, observation, rng: thermostat_script(observation), -3.1),
    ],
    ids=["random", "no-op", "script"],
)
def test_policies_that_learn_nothing_score_as_documented(policy, expected):
    """The standard deviation of an episode is 25, 24 and 9."""
    assert mean_return(ENV_ID, policy) == pytest.approx(expected, abs=12)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"outside_mean": "cold"}, TypeError, "outside_mean='cold' is not allowed; outside_mean must be a finite number"),
        (
            {"outside_mean": 101},
            ValueError,
            "outside_mean=101 is not allowed; outside_mean must be a finite number, at least -100",
        ),
        ({"price_mean": -1.0}, ValueError, "price_mean=-1.0 is not allowed; price_mean must be a finite number, at least 0"),
        ({"noise_scale": float("nan")}, ValueError, "noise_scale=nan is not allowed; noise_scale must be a finite number"),
        ({"noise_scale": True}, TypeError, "noise_scale=True is not allowed"),
    ],
)
def test_bad_arguments_are_named(kwargs, error, message):
    with pytest.raises(error) as raised:
        ThermostatEnv(**kwargs)
    assert str(raised.value).startswith(message)
