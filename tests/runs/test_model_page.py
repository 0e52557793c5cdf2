"""The page about a model."""

import re
from dataclasses import replace

import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy

pytest.importorskip("matplotlib")

from sb3_fcdl import FCDL
from sb3_fcdl.evaluation import make_env
from sb3_fcdl.evaluation.returns import EVALUATION_SEED_OFFSET
from sb3_fcdl.runs import model_page
from sb3_fcdl.runs.model_page import run_episode, write_model_page
from sb3_fcdl.runs.record import TrainRecord

RECORD = TrainRecord("FCDL", "FCDL/Thermostat-v0", {}, seed=0, timesteps=60, wall_s=1.0)
QUICK = {"gamma": 1.0, "planner_kwargs": {"horizon": 2, "n_candidates": 4}, "exploration_rate": 1.0, "learning_starts": 20}


def learned(dynamics: str) -> FCDL:
    return FCDL("MultiInputPolicy", RECORD.env, dynamics=dynamics, **QUICK, seed=0).learn(60)


@pytest.fixture(scope="module")
def model() -> FCDL:
    return learned("fcdl_tree")


@pytest.fixture(autouse=True)
def few_transitions(monkeypatch):
    monkeypatch.setattr(model_page, "N_STEPS", 10)


def test_episode_is_that_of_evaluate_policy(model):
    done = run_episode(model, RECORD, seed=3)
    env = make_env(RECORD.env, 1, {})
    env.seed(EVALUATION_SEED_OFFSET + 3)
    # An episode without termination has 48 steps.
    ((return_,), (length,)) = evaluate_policy(model, env, 1, return_episode_rewards=True, warn=False)
    assert done.rewards.sum() == pytest.approx(return_, abs=1e-4) and len(done.actions) == length == 48
    assert done.values.shape == (49, 7) and set(np.unique(done.values[:, 4])) <= {0, 1}
    assert done.values[0, :2] == pytest.approx(done.first["rooms"][0], abs=1e-4)
    assert re.fullmatch(r"power=\w+, switch=\w+, sash=\w+", done.actions[0]) and done.codes.tolist() == [0] * 48


def test_page_has_every_section(model, tmp_path):
    (tmp_path / "progress.csv").write_text(
        "time/total_timesteps,rollout/ep_rew_mean,eval/mean_reward\n10,-60.5,\n20,-40,-30.25\n30,,\n"
    )
    told: list[str] = []
    path = tmp_path / "page.html"
    write_model_page(path, model, RECORD, tmp_path, {"price": "noise"}, n_episodes=1, tell=told.append)
    text = path.read_text()
    titles = ["Contexts and graphs", "What chooses the context", "Learning curve", "Corrupted observations", "An episode"]
    assert re.findall(r"<h2>(.*?)</h2>", text) == titles
    assert "100 transitions under random actions fall into 1 contexts" in text
    assert "At the end: rollout/ep_rew_mean: -40; eval/mean_reward: -30.2." in text
    assert "Nothing has been tested yet in this context" in text and "expected return" in text
    # With one context and one graph, noise changes neither; but every variable is still a parent.
    assert re.search(r"<td>price: noise</td>(<td>[^<]*</td>){3}<td>100%</td><td>100%</td>", text)
    assert told == ["contexts and graphs", "price observed as noise (1 of 1)", "an episode"]


def test_model_without_graph_has_a_page_too(tmp_path):
    path = tmp_path / "page.html"
    write_model_page(path, learned("mlp"), replace(RECORD, algo="MLP"), tmp_path, {}, n_episodes=1)
    text = path.read_text()
    assert "MLPDynamics predicts every variable from all variables: it has no graph." in text
    assert "There is no progress.csv beside the model" in text and "No variable of this observation space" in text
