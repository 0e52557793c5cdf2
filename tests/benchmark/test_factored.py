"""The policies that learn nothing of the small environments."""

import gymnasium as gym
import numpy as np
import pytest

from sb3_fcdl.benchmark import benchmark_of
from sb3_fcdl.benchmark.factored import FACTORED, NO_OP, RANDOM, SCRIPT
from sb3_fcdl.evaluation import evaluate_tasks, make_env


@pytest.mark.parametrize("env_id", FACTORED)
def test_references_act_in_a_batch_as_alone(env_id):
    benchmark = benchmark_of(f"fcdl_envs:{env_id}")
    policies = benchmark.references(env_id, {}, 0, None)
    env = make_env(env_id, 3, {})
    env.seed(0)
    batch = env.reset()
    single, _ = gym.make(env_id).reset(seed=0)
    for name in (RANDOM, NO_OP, SCRIPT):
        actions, _ = policies[name].predict(batch)
        assert all(env.action_space.contains(action) for action in actions)
    assert not policies[NO_OP].predict(batch)[0].any()
    np.testing.assert_array_equal(policies[SCRIPT].predict(batch)[0][0], policies[SCRIPT].function(single))


@pytest.mark.parametrize("env_id", FACTORED)
def test_references_come_from_the_floor_up(env_id):
    benchmark = benchmark_of(env_id)
    returns = [
        evaluate_tasks(policy, env_id, {}, benchmark.tasks({}), n_episodes=4, n_envs=4)[0].mean
        for policy in benchmark.references(env_id, {}, 0, None).values()
    ]
    assert returns == sorted(returns)
