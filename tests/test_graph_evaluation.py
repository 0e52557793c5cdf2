"""Local graphs beside the true ones, context by context."""

from typing import ClassVar

import gymnasium as gym
import pytest
import torch as th
from gated import GatedEnv
from tiny import ENV_ID, tiny_fcdl

from sb3_fcdl.benchmark import Task
from sb3_fcdl.benchmark.graphs import evaluate_graphs, format_graphs

TASKS = (Task("train"), Task("n=2", {"task": "test", "n_noisy": 2}))
SIX = {"n_objects": 6, "n_colors": 3}
GIVEN = 6 + 6  # self and action
N_FREE = 15  # the order is given: what is below the diagonal is free, and all of it true in the global regime


class SilentEnv(GatedEnv):
    metadata: ClassVar = {"render_modes": ["rgb_array"]}  # make_vec_env asks for them

    def step(self, action):
        return (*super().step(action)[:4], {})


def make_policy(**kwargs):
    return tiny_fcdl(gym.make(ENV_ID, **SIX), seed=0, **kwargs).policy


@pytest.mark.parametrize("everything", [True, False])
def test_all_edges_and_none_by_hand(everything, monkeypatch):
    policy = make_policy()
    graph = th.full((6, 7), float(everything))
    monkeypatch.setattr(policy.dynamics, "local_graph", lambda state, action: graph.expand(len(state), 6, 7))
    results = evaluate_graphs(policy, ENV_ID, SIX, TASKS, n_steps=40)
    assert {result.task for result in results} == {"train", "n=2"}
    for task in TASKS:
        own = [result for result in results if result.task == task.name]
        assert sum(result.share for result in own) == pytest.approx(1)
        assert max(result.n_true_edges for result in own) <= GIVEN + N_FREE
        for result in own:
            n_true = result.n_true_edges - GIVEN
            expected = (0, N_FREE - n_true) if everything else (n_true, 0)
            assert (result.missing, result.extra) == expected
            assert result.shd == sum(expected)
    assert len(format_graphs(results).splitlines()) == 2 + len(results)


def test_the_same_seed_gives_the_same_result():
    policy = make_policy()
    first, second = (evaluate_graphs(policy, ENV_ID, SIX, TASKS, n_steps=5) for _ in range(2))
    assert first == second


def test_models_without_graphs_and_environments_without_truth_are_refused():
    with pytest.raises(ValueError, match="it has no graph"):
        evaluate_graphs(make_policy(dynamics="mlp", dynamics_kwargs={}), ENV_ID, SIX, TASKS, n_steps=1)
    gym.register("Silent-v0", SilentEnv)
    policy = tiny_fcdl(SilentEnv(), dynamics_kwargs={}).policy
    with pytest.raises(ValueError, match="does not tell the true graph"):
        evaluate_graphs(policy, "Silent-v0", {}, (Task("train"),), n_steps=1)
