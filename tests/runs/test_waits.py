"""What the host would wait for on a GPU, counted on the CPU."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from tiny import tiny_fcdl

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics import DYNAMICS
from sb3_fcdl.dynamics.lookup import rule
from sb3_fcdl.planning import PLANNERS
from sb3_fcdl.planning import planner as planner_module
from sb3_fcdl.planning.rollout import PlainRollout
from sb3_fcdl.runs.profile import random_observation
from sb3_fcdl.runs.waits import host_waits

pytestmark = pytest.mark.filterwarnings("ignore:.*[Pp]rofiler")

MODELS = sorted(set(DYNAMICS) - {"oracle", "grader"})


def test_reads_are_counted_once_each():
    numbers = th.arange(5.0)

    def read():
        assert numbers[0].item() == 0 and bool(numbers[1] > 0) and not th.equal(numbers, -numbers)
        return numbers[numbers > 2], numbers.nonzero(), numbers.unique(), numbers.sum()

    counted = host_waits(read)
    assert counted["aten::_local_scalar_dense"] >= 2
    assert (counted["aten::equal"], counted["aten::nonzero"], counted["aten::_unique2"]) == (1, 2, 1)
    assert host_waits(lambda: numbers.sort().values.cumsum(0) @ numbers) == {}


def plan_as_on_cuda(monkeypatch, env, **kwargs):
    """A plan that takes the way of other devices: no tables, no memo."""
    monkeypatch.setattr(rule, "uses_tables", lambda device: False)
    monkeypatch.setattr(planner_module, "make_rollout", PlainRollout)
    kwargs = {"dynamics_kwargs": {"hidden_dim": 8}, "train_horizon": 1, **kwargs}
    model = tiny_fcdl(env, policy="MlpPolicy", planner_kwargs={"horizon": 2, "n_iterations": 1, "n_candidates": 8}, **kwargs)
    observation, _ = model.policy.obs_to_tensor(random_observation(model, 2, np.random.default_rng(0)))
    model.policy.set_training_mode(False)
    return th.no_grad()(partial(model.policy.plan, observation))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("planner", PLANNERS)
def test_no_planner_waits(monkeypatch, env_id, planner):
    assert host_waits(plan_as_on_cuda(monkeypatch, gym.make(env_id), dynamics="mlp", planner=planner)) == {}


@pytest.mark.parametrize("dynamics", MODELS)
def test_no_model_waits(monkeypatch, dynamics):
    """
    With categories and a number, and no value. Only grader asks which children a parent has, once a plan for each parent.
    """
    env = gym.Env()
    env.observation_space, env.action_space = gym.spaces.Box(-1, 1, (4,)), gym.spaces.MultiDiscrete([2, 3])
    env.factorization = Factors((Variable("c", 3), Variable("x")), (Variable("a", 2), Variable("b", 3)))
    assert host_waits(plan_as_on_cuda(monkeypatch, env, dynamics=dynamics, gamma=1.0)) == {}
    # Which steps chance decides is asked once, and which of their outcomes are likely.
    waits = host_waits(plan_as_on_cuda(monkeypatch, env, dynamics=dynamics))
    assert 0 < sum(waits.values()) <= 4 and set(waits) <= {"aten::nonzero", "aten::_local_scalar_dense"}
