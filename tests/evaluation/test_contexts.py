"""Local graphs beside the true ones, context by context."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize
from tiny import ENV_ID, tiny_fcdl
from toy import squeezed

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics import Prediction
from sb3_fcdl.evaluation import Task, evaluate_accuracy, make_env
from sb3_fcdl.evaluation.contexts import evaluate_graphs, format_graphs

TASKS = (Task("train"), Task("n=2", {"task": "test", "n_noisy": 2}))
SIX = {"n_objects": 6, "n_colors": 3}
GIVEN = 6 + 6  # self and action
N_FREE = 15  # the order is given: what is below the diagonal is free, and all of it true in the global regime


class SilentEnv(GatedEnv):
    def step(self, action):
        return (*super().step(action)[:4], {})


class GatedByKeyEnv(GatedEnv):
    observation_space = spaces.Dict({"gate": spaces.Discrete(2), "numbers": spaces.Box(-np.inf, np.inf, (2,))})
    factorization = Factors(
        state={"gate": (Variable("gate", 2),), "numbers": (Variable("x"), Variable("y"))}, action=(Variable("push"),)
    )
    reward_fn = None  # learned: VecNormalize hides the units of a given one

    def reset(self, **kwargs):
        observation, info = super().reset(**kwargs)
        return self.by_key(observation), info

    def step(self, action):
        observation, *rest = super().step(action)
        return self.by_key(observation), *rest

    @staticmethod
    def by_key(observation):
        return {"gate": int(observation[1]), "numbers": observation[2:]}


def make_policy(**kwargs):
    return tiny_fcdl(gym.make(ENV_ID, **SIX), seed=0, **kwargs).policy


@pytest.mark.parametrize("everything", [True, False])
def test_all_edges_and_none_by_hand(everything, monkeypatch):
    policy = make_policy()
    graph = th.full((6, 7), float(everything))
    monkeypatch.setattr(policy.dynamics, "stepper", lambda: lambda state, _: Prediction(None, graph.expand(len(state), 6, 7)))
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


CLEAN = {"noise": "none"}


def reads(monkeypatch, policy, variable):
    """The code is the largest of a variable's three columns; there is an edge from x1 to x2, unless the code is 0."""

    def step(state, action):
        code = state.unflatten(-1, (6, 3))[:, variable].argmax(-1)
        graph = th.zeros(len(state), 6, 7)
        graph[:, 2, 1] = (code > 0).float()
        return Prediction(None, graph, code)

    monkeypatch.setattr(policy.dynamics, "stepper", lambda: step)


def shares(results, name):
    """Mean over the contexts of the test task."""
    own = [result for result in results if result.task == "n=2"]
    return sum(result.share * getattr(result, name) for result in own)


def test_a_context_that_a_corrupted_variable_chooses_by_hand(monkeypatch):
    """
    A random colour out of three is the true one once in three times. A one-hot times a negative number, as half of them are,
    has its largest column elsewhere: 0 in place of 1 or 2, and 1 in place of 0, so that the edge changes, too.
    """
    policy = make_policy()
    reads(monkeypatch, policy, variable=1)
    color = evaluate_graphs(policy, ENV_ID, SIX | {"noise": "color"}, TASKS, CLEAN, n_steps=300)
    assert shares(color, "same_code") == pytest.approx(1 / 3, abs=0.035)  # four sigma of 3000 draws
    scale = evaluate_graphs(policy, ENV_ID, SIX, TASKS, CLEAN, n_steps=300)
    assert shares(scale, "same_code") == shares(scale, "same_graph") == pytest.approx(1 / 2, abs=0.037)
    assert all(result.same_code == result.same_graph == 1 for result in (*color, *scale) if result.task == "train")
    # Whether both colours are 0 or neither: of all three colours, once in three times 1/3, else 2/3.
    assert 1 / 3 < shares(color, "same_graph") < 2 / 3


def test_a_context_that_clean_variables_choose_is_always_the_same(monkeypatch):
    policy = make_policy()
    reads(monkeypatch, policy, variable=0)
    for noise in ("scale", "color"):
        results = evaluate_graphs(policy, ENV_ID, SIX | {"noise": noise}, TASKS, CLEAN, n_steps=20)
        assert len(results) == 4
        assert all(result.same_code == result.same_graph == 1 for result in results)
    text = format_graphs(results).splitlines()[-1]
    assert squeezed(text).endswith("| 100.0 % | 100.0 % |")


def test_nothing_is_compared_without_a_clean_twin():
    results = evaluate_graphs(make_policy(), ENV_ID, SIX, TASKS, n_steps=5)
    assert np.isnan([[result.same_code, result.same_graph] for result in results]).all()
    assert squeezed(format_graphs(results)).endswith("| - | - |")


def test_a_twin_with_other_episodes_is_refused():
    with pytest.raises(ValueError, match="clean_kwargs change the episodes"):
        evaluate_graphs(make_policy(), ENV_ID, SIX, TASKS[1:], {"task": "train", "n_noisy": 0}, n_steps=50)


def test_the_same_seed_gives_the_same_result():
    policy = make_policy()
    first, second = (evaluate_graphs(policy, ENV_ID, SIX, TASKS, CLEAN, n_steps=5) for _ in range(2))
    assert first == second


def test_models_without_graphs_and_environments_without_truth_are_refused():
    with pytest.raises(ValueError, match="it has no graph"):
        evaluate_graphs(make_policy(dynamics="mlp", dynamics_kwargs={}), ENV_ID, SIX, TASKS, n_steps=1)
    gym.register("Silent-v0", SilentEnv)
    policy = tiny_fcdl(SilentEnv(), dynamics_kwargs={}).policy
    with pytest.raises(ValueError, match="does not tell the true graph"):
        evaluate_graphs(policy, "Silent-v0", {}, (Task("train"),), n_steps=1)


def test_a_model_is_given_what_its_vec_normalize_makes_of_observations(monkeypatch):
    """
    A model that takes the gate for open whenever y is given as other than 0. It is given y - 5; y is 5 while the gate is shut,
    and in an open episode of ten steps before the first and the second one.
    """
    gym.register("GatedByKey-v0", GatedByKeyEnv)
    env = VecNormalize(make_env("GatedByKey-v0", 2, {}), norm_obs_keys=["numbers"])
    model = tiny_fcdl(env, policy="MultiInputPolicy", dynamics_kwargs={})
    env.obs_rms["numbers"].mean[1] = 5

    def step(state, action):
        looks_open = state[:, 3] != 0
        graph = th.eye(3, 4).repeat(len(state), 1, 1)
        graph[:, 1, 3], graph[:, 2, 1] = 1, looks_open
        next_state = th.cat([th.eye(2)[looks_open.long()], state[:, 2:]], dim=1)
        return Prediction(SimpleNamespace(mode=lambda: next_state), graph)

    monkeypatch.setattr(model.policy.dynamics, "stepper", lambda: step)
    run = ("GatedByKey-v0", {}, (Task("train"),))
    shut, opened = evaluate_graphs(model, *run, n_steps=50)
    assert (shut.missing, shut.extra) == (0, 0)
    assert (opened.missing, opened.extra) == (pytest.approx(0.2), 0)
    (found,) = evaluate_accuracy({"model": model}, *run, n_steps=50)["model"]
    assert found.accuracy == pytest.approx(shut.share + 0.8 * opened.share)
