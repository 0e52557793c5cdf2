import copy

import numpy as np
import pytest
import torch as th
from dense import accuracy, assert_same_distribution, fit, masked_outputs, scrambled, tables_used
from tiny import tiny_fcdl
from toy import KINDS, factors, persist_and_set_windows, random_windows

from sb3_fcdl.dynamics.oracle import OracleDynamics


def make_model(sizes: list[int], action_sizes: tuple[int, ...], **kwargs) -> OracleDynamics:
    th.manual_seed(0)
    return OracleDynamics(factors(sizes, *action_sizes), hidden_dim=16, **kwargs)


def random_graph(sizes: list[int], action_sizes: tuple[int, ...]) -> np.ndarray:
    graph = np.random.default_rng(0).random((len(sizes), len(sizes) + len(action_sizes))) < 0.5
    return graph | (np.eye(*graph.shape) > 0) & (np.array(sizes)[:, np.newaxis] == 0)


def test_without_a_graph_every_variable_hangs_on_itself_those_before_it_and_the_action():
    model = make_model([2, 0, 3], (2, 0)).eval()
    expected = np.array([[1, 0, 0, 1, 1], [1, 1, 0, 1, 1], [1, 1, 1, 1, 1]])
    (graph,) = model.context_graphs()
    assert np.array_equal(graph.edges, expected)
    assert graph.parents_of("x1") == ("x0", "x1", "a0", "a1")
    state = th.randn(3, 6)
    assert th.equal(model.local_graph(state, th.randn(3, 3)), th.as_tensor(expected).float().expand(3, -1, -1))
    assert not model.free_entries.any() and model.free_entries.shape == (3, 5)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_prediction_equals_an_independent_evaluation_of_the_network(kind):
    sizes, action_sizes = kind
    for graph in (None, random_graph(sizes, action_sizes)):
        model = scrambled(make_model(sizes, action_sizes, graph=graph)).eval()
        windows = random_windows(sizes, *action_sizes, n_rows=9, length=1, dtype=th.float64)
        state, action = windows.state[:, 0], windows.action[:, 0]
        prediction = model.step(state, action)
        if graph is not None:
            assert np.array_equal(prediction.graph[4].numpy(), graph)
        assert_same_distribution(prediction, model, masked_outputs(model, state, action, prediction.graph), state)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_tables_equal_matrix_products_with_every_gradient(kind):
    sizes, action_sizes = kind
    model = make_model(sizes, action_sizes).double().train()
    windows = random_windows(sizes, *action_sizes, n_rows=33, length=3, dtype=th.float64)
    losses, gradients = [], []
    for use_tables in (True, False):
        twin = copy.deepcopy(model)
        th.manual_seed(1)
        with tables_used(use_tables):
            losses.append(twin.loss(windows).total)
        losses[-1].backward()
        gradients.append(th.cat([parameter.grad.flatten() for parameter in twin.parameters()]))
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-13)
    scale = max(1, gradients[1].abs().max().item())
    th.testing.assert_close(gradients[0] / scale, gradients[1] / scale, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_masked_parent_changes_no_bit_of_the_child(kind):
    """Given the order, the last variable drives itself alone, whatever stands in its place."""
    sizes, action_sizes = kind
    model = make_model(sizes, action_sizes).eval()
    windows = random_windows(sizes, *action_sizes, n_rows=50, length=1)
    state, action = windows.state[:, 0], windows.action[:, 0]
    corrupted, width = state.clone(), max(sizes[-1], 1)
    corrupted[:, -width:] = 100 * th.randn(50, width)
    clean, noisy = (model.step(x, action).next_state.log_prob(windows.next_state[:, 0]) for x in (state, corrupted))
    assert th.equal(clean[:, :-1], noisy[:, :-1])
    assert not th.equal(clean[:, -1], noisy[:, -1])


def test_small_deterministic_data_set_is_learned_by_heart_from_its_true_parents():
    """Set and persist: a variable hangs on itself and on the action. Without the action the set variables are a guess."""
    windows, scores = persist_and_set_windows(4, 3, 100), []
    for action_edge in (1, 0):
        th.manual_seed(0)
        graph = np.concatenate([np.eye(4), np.full((4, 1), action_edge)], axis=1)
        model = OracleDynamics(factors([3] * 4, 12), graph=graph, hidden_dim=32)
        fit(model, windows, n_updates=60, learning_rate=1e-2)
        scores.append(accuracy(model, windows))
    assert scores[0] > 0.99 and scores[1] < 0.95


def test_graph_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\).*\(4, 5\)"):
        make_model([3] * 4, (12,), graph=np.eye(4))


def test_a_given_graph_is_saved(tmp_path):
    graph = random_graph([3] * 4, (12,))
    model = tiny_fcdl(dynamics=OracleDynamics, dynamics_kwargs={"hidden_dim": 16, "graph": graph})
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", env=model.env)
    assert np.array_equal(loaded.dynamics.context_graphs()[0].edges, graph)
