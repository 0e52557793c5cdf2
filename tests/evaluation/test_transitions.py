"""Graphs of a model beside what matters in each transition, and the purity of its codes."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from tiny import ENV_ID, tiny_fcdl
from toy import squeezed

from fcdl_envs.chemical_system import ChemicalSystem
from sb3_fcdl.benchmark.environments import BENCHMARKS
from sb3_fcdl.dynamics import Prediction
from sb3_fcdl.evaluation import Task, evaluate_graphs
from sb3_fcdl.evaluation.transitions import evaluate_transitions, format_transitions

TRAIN = (Task("train"),)
SIX = {"n_objects": 6, "n_colors": 3}


class EveryOtherPushEnv(GatedEnv):
    """Tells that the push matters in odd steps alone, five of an episode's ten."""

    def step(self, action):
        *rest, info = super().step(action)
        graph = info["local_graph"].copy()
        graph[1, 3] = self.n_steps % 2 == 1
        return *rest, {**info, "transition_graph": graph}


gym.register("EveryOtherPush-v0", EveryOtherPushEnv)
RUN = ("EveryOtherPush-v0", {}, TRAIN)


def gated_policy(monkeypatch, code_of):
    """Of a model with the edges y <- gate and y <- x in every transition, besides those that it was told."""
    policy = tiny_fcdl(EveryOtherPushEnv(), dynamics_kwargs={"graph_prior": "self"}).policy
    graph = th.eye(3, 4)
    graph[2, :2] = 1
    monkeypatch.setattr(
        policy.dynamics, "stepper", lambda: lambda state, _: Prediction(None, graph.expand(len(state), 3, 4), code_of(state))
    )
    return policy


def test_precision_recall_and_purity_by_hand(monkeypatch):
    """
    Needed are x <- push, every other time, and y <- x while the gate is open. A code is a state of the gate, and has two true
    contexts, each as frequent as the other.
    """
    policy = gated_policy(monkeypatch, lambda state: state[:, 1].long())
    shut, opened = evaluate_transitions(policy, *RUN, n_steps=20)
    assert shut.share + opened.share == 1 and (shut.n_true_edges, opened.n_true_edges) == (4, 5)
    assert (shut.needed, shut.used, shut.precision, shut.recall, shut.f1) == (0.5, 2, 0, 0, 0)
    expected = (1.5, 2, 1 / 2, 1 / 1.5, 2 * 1 / (2 + 1.5))
    assert (opened.needed, opened.used, opened.precision, opened.recall, opened.f1) == pytest.approx(expected)
    for each in (shut, opened):
        assert (each.n_contexts, each.n_codes, each.purity) == (2, 1, 0.5)
    row = format_transitions([opened]).splitlines()[-1]
    share = f"{100 * opened.share:.0f} %"
    assert squeezed(row) == f"| train | 5 | {share} | 1.50 | 2.00 | 0.50 | 0.67 | 0.57 | 2 | 1 | 50.0 % |"


def test_columns_of_variables_that_the_context_tells_can_be_left_out(monkeypatch):
    policy = gated_policy(monkeypatch, lambda state: state[:, 1].long())
    _, opened = evaluate_transitions(policy, *RUN, left_out=("gate",), n_steps=20)
    assert (opened.used, opened.precision, opened.recall) == pytest.approx((1, 1, 1 / 1.5))
    with pytest.raises(ValueError, match="left_out='door'"):
        evaluate_transitions(policy, *RUN, left_out=("door",), n_steps=20)


def test_one_code_for_all_is_pure_where_its_most_frequent_context_is(monkeypatch):
    policy = gated_policy(monkeypatch, lambda state: th.zeros(len(state), dtype=th.long))
    results = evaluate_transitions(policy, *RUN, n_steps=20)
    most = max(result.share for result in results)
    assert sum(result.share * result.purity for result in results) == pytest.approx(most / 2)


def test_a_model_without_codes_has_no_purity(monkeypatch):
    results = evaluate_transitions(gated_policy(monkeypatch, lambda state: None), *RUN, n_steps=20)
    assert all(result.n_codes == 0 and np.isnan(result.purity) for result in results)
    assert squeezed(format_transitions(results)).endswith("| 2 | - | - |")


@pytest.mark.parametrize("rule", ["full_fork", "full_chain"])
def test_a_model_that_knows_the_truth_is_right_in_every_transition(rule, monkeypatch):
    """Its codes are regime and painted object: what equal local and transition graphs stand for in Chemical."""
    env_kwargs = {**SIX, "rule": rule}
    policy = tiny_fcdl(gym.make(ENV_ID, **env_kwargs), seed=0, dynamics_kwargs={"graph_prior": "none"}).policy
    system = ChemicalSystem(rule, n_objects=6, n_colors=3)

    def step(state, action):
        colors, actions = state.unflatten(-1, (6, 3)).argmax(-1).numpy(), action.argmax(-1).numpy()
        nodes, new_colors = np.divmod(actions, 3)
        colors[np.arange(len(colors)), nodes] = new_colors
        regime = system.regime(colors)
        return Prediction(None, th.as_tensor(system.transition_graph(regime, actions)), th.as_tensor(6 * regime + nodes))

    monkeypatch.setattr(policy.dynamics, "stepper", lambda: step)
    tasks = (*TRAIN, Task("n=2", {"task": "test", "n_noisy": 2, "noise": "none"}))
    results = evaluate_transitions(policy, ENV_ID, env_kwargs, tasks, n_steps=40)
    assert {result.task for result in results} == {"train", "n=2"}
    for result in results:
        assert result.precision == result.recall == result.f1 == result.purity == 1
        assert result.needed == result.used and result.n_codes == result.n_contexts
    assert [result.n_contexts for result in results if result.task == "train"] == [6, 6]
    # The same transitions beside the local graphs: nothing is wrong, and yet many edges seem to be missing.
    coarse = evaluate_graphs(policy, ENV_ID, env_kwargs, tasks, n_steps=40)
    assert [(each.task, each.n_true_edges, each.share) for each in coarse] == [
        (each.task, each.n_true_edges, each.share) for each in results
    ]
    assert all(each.missing > 0 and each.extra == 0 for each in coarse)


def test_an_environment_without_transition_graphs_is_refused():
    gym.register("Gated-v0", GatedEnv)
    policy = tiny_fcdl(GatedEnv(), dynamics_kwargs={}).policy
    with pytest.raises(ValueError, match=r"true graph of a transition in info\['transition_graph'\]"):
        evaluate_transitions(policy, "Gated-v0", {}, TRAIN, n_steps=1)


@pytest.mark.parametrize("env_id", [name for name, benchmark in BENCHMARKS.items() if benchmark.left_out])
def test_what_the_benchmark_leaves_out_is_what_chooses_the_context(env_id):
    assert gym.make(env_id).unwrapped.context_variables == BENCHMARKS[env_id].left_out
