"""Graphs and predictions are measured as far as the true ones are known."""

from functools import partial
from types import SimpleNamespace

import gymnasium as gym
import pytest
from tiny import ENV_ID, tiny_fcdl

from sb3_fcdl.benchmark import evaluate_predictions, predictions
from sb3_fcdl.evaluation import evaluate_accuracy, evaluate_graphs, evaluate_transitions

SIX = {"n_objects": 6, "n_colors": 3}


@pytest.mark.parametrize(("dynamics", "has_learned_edges"), [("cdl", True), ("oracle", False)])
def test_a_graph_that_was_given_is_not_measured(dynamics, has_learned_edges, monkeypatch):
    monkeypatch.setattr(predictions, "evaluate_accuracy", partial(evaluate_accuracy, n_steps=5))
    monkeypatch.setattr(predictions, "evaluate_graphs", partial(evaluate_graphs, n_steps=5))
    monkeypatch.setattr(predictions, "evaluate_transitions", partial(evaluate_transitions, n_steps=5))
    model = tiny_fcdl(gym.make(ENV_ID, **SIX), dynamics=dynamics, dynamics_kwargs={"hidden_dim": 8})
    record = SimpleNamespace(env=ENV_ID, env_kwargs=SIX, algo=dynamics)
    contexts, accuracies, transitions = evaluate_predictions(model, record, seed=0)
    assert bool(contexts) == bool(transitions) == has_learned_edges and accuracies
