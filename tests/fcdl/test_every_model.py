"""What holds for every dynamics model, whatever it computes."""

import numpy as np
import pytest
import torch as th
from dense import accuracy, fit, scrambled
from gated import GatedEnv
from tiny import tiny_env, tiny_fcdl
from toy import KINDS, factors, persist_and_set_windows, random_windows

from sb3_fcdl.dynamics import DYNAMICS, DynamicsModel
from sb3_fcdl.dynamics.lookup.child_features import BoundChildFeatures
from sb3_fcdl.dynamics.lookup.linear import LinearTables
from sb3_fcdl.dynamics.lookup.messages import Messages

# Small, and quick to do what they do every so many updates.
SMALL = {
    "fcdl": {"hidden_dim": 16, "n_codes": 4, "code_dim": 4},
    "fcdl_tree": {"hidden_dim": 16, "n_codes": 4},
    "ncd": {"hidden_dim": 16},
    "oracle": {"hidden_dim": 16},
    "cdl": {"hidden_dim": 16, "cmi_freq": 2, "cmi_batch_size": 8},
    "grader": {"hidden_dim": 16, "discovery_freq": 5, "n_discovery_windows": 500},
    "nps": {"hidden_dim": 16, "n_rules": 4},
    "gnn": {"hidden_dim": 16, "feature_dim": 8},
    "modular": {"hidden_dim": 16},
    "mlp": {"hidden_dim": 16},
}
WITHOUT_GRAPH = ["nps", "gnn", "modular", "mlp"]

every_model = pytest.mark.parametrize("name", DYNAMICS)


def make_model(name: str, kind: str, **kwargs) -> DynamicsModel:
    """In float64."""
    th.manual_seed(0)
    sizes, action_sizes = KINDS[kind]
    return DYNAMICS[name](factors(sizes, *action_sizes), **(SMALL[name] | kwargs)).double()


def make_windows(kind: str, n_rows: int, length: int = 1):
    sizes, action_sizes = KINDS[kind]
    return random_windows(sizes, *action_sizes, n_rows=n_rows, length=length, dtype=th.float64)


@pytest.mark.parametrize(("name", "layer"), [
    ("fcdl", LinearTables), ("ncd", LinearTables), ("oracle", LinearTables), ("cdl", BoundChildFeatures), ("gnn", Messages)
])  # fmt: skip
def test_windows_of_one_step_compute_no_derivatives_of_tables(name, layer, monkeypatch):
    """Nothing needs them there; they are quadratic in the categories."""
    n_calls = []
    compute = layer._tangents
    monkeypatch.setattr(layer, "_tangents", lambda *args: n_calls.append(1) or compute(*args))
    model = make_model(name, "equal").train()
    model.loss(make_windows("equal", n_rows=64)).total.backward()
    assert not n_calls
    model.loss(make_windows("equal", n_rows=64, length=2)).total.backward()
    assert n_calls


@pytest.mark.parametrize("kind", KINDS)
@every_model
def test_planning_without_gradients_predicts_the_same(name, kind):
    """Look-ups may then take another way."""
    model = scrambled(make_model(name, kind)).eval()
    if name == "cdl":  # one variable without learned parents, and some with every other one
        model.cmi[0], model.cmi[1:, ::2] = 0, 0
    windows = make_windows(kind, n_rows=40)
    state, action = windows.state[:, 0], windows.action[:, 0]
    expected = model.step(state, action).next_state
    with th.no_grad():
        actual = model.step(state, action).next_state
    for part in ("logits", "mean", "log_std"):
        th.testing.assert_close(getattr(actual, part), getattr(expected, part).detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@every_model
def test_evaluation_is_deterministic_independent_of_batch_mates_and_changes_nothing(name, kind):
    model = scrambled(make_model(name, kind)).train()
    model.loss(make_windows(kind, n_rows=64))  # so that a normalisation by running statistics has some
    model.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    windows = make_windows(kind, n_rows=20)
    state, action = windows.state[:, 0], windows.action[:, 0]
    step = model.stepper()
    together, again = step(state, action), model.step(state, action)
    alone = [step(state[row : row + 1], action[row : row + 1]) for row in range(20)]
    for part in ("logits", "mean", "log_std"):
        values = getattr(together.next_state, part)
        assert th.equal(values, getattr(again.next_state, part))
        th.testing.assert_close(values, th.cat([getattr(one.next_state, part) for one in alone]), rtol=1e-12, atol=1e-12)
    for part in ("graph", "code"):
        if getattr(together, part) is not None:
            assert th.equal(getattr(together, part), th.cat([getattr(one, part) for one in alone]))
    assert all(th.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
@every_model
def test_every_parameter_gets_a_gradient(name, kind):
    model = make_model(name, kind).train()
    model.loss(make_windows(kind, n_rows=33, length=3)).total.backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []


@every_model
def test_small_deterministic_data_set_is_learnt_by_heart(name):
    model = make_model(name, "equal", hidden_dim=32).float()
    windows = persist_and_set_windows(4, 3, n_rows=100)
    fit(model, windows, n_updates=150, learning_rate=1e-2)
    assert accuracy(model, windows) > 0.99


@every_model
def test_graph_of_a_prediction_is_the_local_graph_or_there_is_none(name):
    model = make_model(name, "mixed").eval()
    windows = make_windows("mixed", n_rows=9)
    state, action = windows.state[:, 0], windows.action[:, 0]
    prediction = model.step(state, action)
    assert model.has_graph == (name not in WITHOUT_GRAPH)
    if name in WITHOUT_GRAPH:
        assert prediction.graph is None and prediction.code is None and model.context_graphs() == []
        with pytest.raises(ValueError, match="no graph"):
            model.local_graph(state, action)
    else:
        graph = model.local_graph(state, action)
        assert graph.shape == (9, 4, 7) and th.equal(graph, prediction.graph)
        assert {each.parent_names for each in model.context_graphs()} == {model.factors.parent_names}


@pytest.mark.parametrize("env", [tiny_env, GatedEnv], ids=["chemical", "gated"])
@every_model
def test_learns_plans_and_is_saved(name, env, tmp_path):
    model = tiny_fcdl(env(), dynamics=name, dynamics_kwargs=SMALL[name], exploration_rate=1.0).learn(40)
    assert model.policy.learner.dynamics.loss(model.experience.draw(16).windows).total.isfinite()
    observation, _ = env().reset(seed=0)
    action, _ = model.predict(observation, deterministic=True)
    assert model.action_space.contains(action)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model")
    assert np.array_equal(loaded.predict(observation, deterministic=True)[0], action)
    graphs, loaded_graphs = (each.dynamics.context_graphs() for each in (model, loaded))
    for graph, loaded_graph in zip(graphs, loaded_graphs, strict=True):
        assert np.array_equal(graph.probabilities, loaded_graph.probabilities)
