"""Magnetic's floors, script and ceiling."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_fcdl.benchmark import benchmark_of
from sb3_fcdl.benchmark.magnetic import ACTIONS, CEILING, TruePhysicsPlanner, _reward
from sb3_fcdl.evaluation import evaluate_tasks, make_env
from sb3_fcdl.planning import CEM

ENV_ID = "FCDL/Magnetic-v0"


def test_planner_on_the_physics_takes_the_best_of_its_candidates_for_the_true_reward():
    """Against fifty others, each tried in an environment of its own."""
    env = make_env(ENV_ID, 1, {})
    env.seed(3)
    observation = env.reset()
    planner = TruePhysicsPlanner(0, CEM(ACTIONS, horizon=1, select="best"))
    planner.attach(env)
    action, _ = planner.predict(observation)
    start = env.env_method("get_state")[0]
    twin, rewards = gym.make(ENV_ID).unwrapped, []
    twin.reset()
    for each in [action[0], *np.random.default_rng(0).uniform(-1, 1, size=(50, 3))]:
        twin.set_state(start)
        rewards.append(twin.step(each)[1])
    assert rewards[0] >= max(rewards[1:]) - 1e-4


def test_planning_leaves_the_environment_as_it_was():
    env = make_env(ENV_ID, 2, {})
    env.seed(0)
    observation = env.reset()
    before = [state["physics"] for state in env.env_method("get_state")]
    planner = TruePhysicsPlanner(planner=CEM(ACTIONS, n_candidates=4, n_elites=2, n_iterations=1))
    planner.attach(env)
    planner.predict(observation)
    after = [state["physics"] for state in env.env_method("get_state")]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_reward_of_the_planner_is_that_of_the_environment():
    env = gym.make(ENV_ID).unwrapped
    env.reset(seed=1)
    observation, reward, *_ = env.step(np.array([0.3, -1.0, -0.5]))
    row = th.as_tensor(np.concatenate([np.zeros(7), observation[2:4], observation[-3:]]))[None]
    assert _reward(row, row, row, row).item() == pytest.approx(reward, abs=1e-6)


def test_floors_and_scripts_are_near_the_specification():
    """Its table, 100 episodes with a rolling ball: random 1.7, box 5.6 / 1.2, ball 21.0 / 21.1."""
    benchmark = benchmark_of(ENV_ID)
    policies = benchmark.references(ENV_ID, {}, 0, None)
    assert list(policies) == ["random", "go to the box", CEILING, "chase the ball"]
    del policies[CEILING]
    means = {
        name: [result.mean for result in evaluate_tasks(policy, ENV_ID, {}, benchmark.tasks({}), 20)]
        for name, policy in policies.items()
    }
    assert means["random"] == pytest.approx([1.7, 1.3], abs=0.6)
    assert means["go to the box"] == pytest.approx([5.6, 1.2], abs=1.6)
    assert means["chase the ball"] == pytest.approx([21.5, 21.5], abs=1.5)
