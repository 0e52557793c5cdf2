"""Result files, and the environments of an experiment."""

import runpy
from pathlib import Path

import pytest

from sb3_fcdl.runs import Run
from sb3_fcdl.runs.record import TrainRecord

VARIANTS = Path(__file__).parents[2] / "benchmarks" / "experiments" / "variants.py"


@pytest.mark.parametrize("env", ["FCDL/Chemical-v0", "sb3_fcdl:FCDL/Chemical-v0"])
def test_an_environment_has_one_name_whatever_registers_it(env):
    record = TrainRecord("FCDL", env, {"rule": "full_fork", "dynamics_seed": 3}, seed=1, timesteps=10, wall_s=2.0)
    assert Run.of(record) == Run("FCDL/Chemical-v0", "dynamics_seed=3 rule=full_fork", "FCDL", 1, 10, 2.0)


@pytest.mark.parametrize("state", [0, 328, 499])
def test_factored_taxi_shows_what_the_state_is_made_of(state):
    taxi = runpy.run_path(str(VARIANTS))["factored_taxi"]()
    taxi.reset(seed=0)
    taxi.unwrapped.s = state
    observation, reward, *_ = taxi.step(0)  # south, unless that is a wall
    row, column, passenger, destination = state // 100, state // 20 % 5, state // 4 % 5, state % 4
    assert observation.tolist() == [min(row + 1, 4), column, passenger, destination] and reward == -1
    assert taxi.observation_space.contains(observation)
