"""Profiles of models of every kind of observation."""

import time
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from tiny import tiny_env, tiny_fcdl

from sb3_fcdl.runs.profile import measure_model, median_ms, random_observation
from sb3_fcdl.world.factorization import default_factors

ENDLESS = np.finfo(np.float64).max
SPACES = {
    "unbounded": spaces.Box(-np.inf, np.inf, (2,)),
    "absurd": spaces.Box(-ENDLESS, ENDLESS, (2,), np.float64),
    "matrix": spaces.Box(-1, 1, (2, 2)),
    "integers": spaces.Box(3, 9, (2,), np.uint8),
    "discrete": spaces.Discrete(4, start=-1),
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(3),
    "dict": spaces.Dict(a=spaces.Discrete(3), b=spaces.Box(-1, 1, (2,)), c=spaces.MultiBinary(2)),
}


@pytest.mark.parametrize("name", SPACES)
def test_every_observation_is_measured(name):
    env = gym.Env()
    env.observation_space, env.action_space = SPACES[name], spaces.Discrete(2)
    kwargs = {"dynamics": "mlp", "dynamics_kwargs": {"hidden_dim": 8}, "train_horizon": 1}
    model = tiny_fcdl(env, policy="MultiInputPolicy" if name == "dict" else "MlpPolicy", **kwargs)
    speed = measure_model(model, [1, 3], seconds=0)
    assert min(*speed.predict_ms.values(), speed.update_ms) > 0


def test_a_time_is_the_median_of_calls_after_one_that_does_not_count(monkeypatch):
    durations = iter([9.0, 1.0, 5.0, 2.0])  # seconds; the first one is not timed
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(th.cuda, "is_available", lambda: False)

    def work():
        clock[0] += next(durations)

    assert median_ms(work, seconds=0, min_repeats=3) == 2000


@pytest.mark.parametrize("name", SPACES)
def test_made_up_observations_are_finite_points_of_the_space_and_repeatable(name):
    space = SPACES[name]
    factors = default_factors(space, spaces.Discrete(2))
    model = SimpleNamespace(observation_space=space, policy=SimpleNamespace(world=SimpleNamespace(factors=factors)))
    first, again = (random_observation(model, 20, np.random.default_rng(0)) for _ in range(2))
    rows = [{key: part[row] for key, part in first.items()} if name == "dict" else first[row] for row in range(20)]
    assert all(space.contains(row) for row in rows)
    for part, same in zip(*((each.values() if name == "dict" else [each]) for each in (first, again)), strict=True):
        assert np.abs(part).max() < 10 and np.array_equal(part, same)


def test_categories_in_a_box_stay_one_hot():
    model = tiny_fcdl(tiny_env())
    objects = random_observation(model, 50, np.random.default_rng(0))["state"].reshape(-1, 3)
    assert np.array_equal(np.unique(objects, axis=0), np.eye(3)[::-1])
