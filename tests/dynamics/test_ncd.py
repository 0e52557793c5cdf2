import copy

import numpy as np
import pytest
import torch as th
from dense import (
    accuracy,
    array,
    assert_same_distribution,
    fit,
    leaky_relu,
    masked_outputs,
    parent_features,
    scrambled,
    sigmoid,
    tables_used,
)
from toy import KINDS, factors, one_hot_state, persist_and_set_windows, random_windows

from sb3_fcdl.dynamics import Windows
from sb3_fcdl.dynamics.graph import edge_learning
from sb3_fcdl.dynamics.graph.priors import GraphPriorName
from sb3_fcdl.dynamics.ncd import NCDDynamics


def make_model(sizes: list[int], action_sizes: tuple[int, ...], **kwargs) -> NCDDynamics:
    th.manual_seed(0)
    return NCDDynamics(factors(sizes, *action_sizes), hidden_dim=16, **({"graph_prior": "order"} | kwargs))


def varied(model: NCDDynamics, sizes: list[int], action_sizes: tuple[int, ...]) -> NCDDynamics:
    """In float64 with random parameters, and normalised by the statistics of a batch, so that the masks of samples differ."""
    model = scrambled(model).train()
    for module in model.modules():
        if isinstance(module, th.nn.BatchNorm1d):
            module.momentum = 1.0
    model.loss(random_windows(sizes, *action_sizes, n_rows=64, length=1, dtype=th.float64))
    return model.eval()


def independent_log_odds(model: NCDDynamics, state: th.Tensor, action: th.Tensor) -> np.ndarray:
    """The auxiliary network (spec 1.8) on the concatenated features: log-odds of the free edges, ``[R, F]``."""
    inputs = np.concatenate([array(state), array(action)], axis=1)
    features = np.stack([np.concatenate(parent_features(model, columns)) for columns in inputs])
    norm1, _, linear, norm2, _, output = model.edge_network
    hidden = features @ np.concatenate([array(part) for weight in model.edge_layer.weights for part in weight])
    hidden = leaky_relu(normalised(norm1, hidden)) @ array(linear.weight).T
    return leaky_relu(normalised(norm2, hidden)) @ array(output.weight).T + array(output.bias)


def normalised(norm: th.nn.BatchNorm1d, values: np.ndarray) -> np.ndarray:
    if norm.training:
        mean, variance = values.mean(0), values.var(0)
    else:
        mean, variance = array(norm.running_mean), array(norm.running_var)
    return (values - mean) / np.sqrt(variance + 1e-5) * array(norm.weight) + array(norm.bias)


def independent_mask(model: NCDDynamics, free: np.ndarray, prior: GraphPriorName) -> th.Tensor:
    """Spec 1.9.3: an edge where its probability is above one half; row by row, free entries in the order of the output."""
    n_states, n_parents = len(model.factors.state_variables), len(model.factors.parents)
    masks = np.zeros((len(free), n_states, n_parents))
    for sample, log_odds in enumerate(free):
        remaining = iter(log_odds)
        for child in range(n_states):
            for parent in range(n_parents):
                is_action = parent >= n_states
                is_given = prior != "none" or not model.factors.parents[parent].is_categorical
                if (is_given and parent == child) or (prior == "order" and is_action):
                    masks[sample, child, parent] = 1
                elif prior != "order" or parent < child:
                    masks[sample, child, parent] = next(remaining) > 0
        assert next(remaining, None) is None
    return th.as_tensor(masks)


@pytest.mark.parametrize("prior", ["order", "self", "none"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_prediction_equals_an_independent_evaluation_of_both_networks(kind, prior):
    sizes, action_sizes = kind
    for code_labelling in (True, False):
        model = make_model(sizes, action_sizes, graph_prior=prior, code_labelling=code_labelling)
        model = varied(model, sizes, action_sizes)
        windows = random_windows(sizes, *action_sizes, n_rows=20, length=1, dtype=th.float64)
        state, action = windows.state[:, 0], windows.action[:, 0]
        free = independent_log_odds(model, state, action)
        assert 0 < (free > 0).mean() < 1 and np.abs(free).min() > 1e-6
        mask = independent_mask(model, free, prior)
        prediction = model.step(state, action)
        assert th.equal(prediction.graph, mask) and prediction.code is None
        assert_same_distribution(prediction, model, masked_outputs(model, state, action, mask), state)


def test_loss_equals_an_independent_one(monkeypatch):
    """One step with the masks thresholded instead of sampled: normalised over the batch, plus the price of the edges."""
    sizes, action_sizes = KINDS["mixed"]
    model = scrambled(make_model(sizes, action_sizes, sparsity_coef=0.3)).train()
    windows = random_windows(sizes, *action_sizes, n_rows=9, length=1, dtype=th.float64)
    state, action = windows.state[:, 0], windows.action[:, 0]
    monkeypatch.setattr(edge_learning, "sample_edges", lambda log_odds: (log_odds > 0).to(log_odds.dtype))
    losses = model.loss(windows)
    free = independent_log_odds(model, state, action)
    outputs = masked_outputs(model, state, action, independent_mask(model, free, "order"))
    nll = -model.layout.distribution(outputs, state).log_prob(windows.next_state[:, 0]).mean().item()
    n_edges = sigmoid(free).sum(1).mean() / len(sizes)
    assert losses.terms["dynamics"].item() == pytest.approx(nll, rel=1e-10)
    assert losses.terms["reg"].item() == pytest.approx(n_edges, rel=1e-10)
    assert losses.total.item() == pytest.approx(nll + 0.3 * n_edges, rel=1e-10)


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
        gradients.append({name: parameter.grad for name, parameter in twin.named_parameters()})
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-13)
    for name, dense in gradients[1].items():
        assert dense.abs().max() > 0, name
        scale = max(1, dense.abs().max().item())
        th.testing.assert_close(gradients[0][name] / scale, dense / scale, rtol=0, atol=1e-10)


def test_masked_parent_changes_no_bit_of_the_child_under_the_same_mask():
    sizes, action_sizes = KINDS["equal"]
    model = make_model(sizes, action_sizes).eval()
    windows = random_windows(sizes, *action_sizes, n_rows=50, length=1)
    state, action = windows.state[:, 0], windows.action[:, 0]
    corrupted = state.clone()
    corrupted[:, 0:3] = 100 * th.randn(50, 3)
    mask = th.ones(50, 4, 5)
    mask[:, 2, 0] = 0
    bound = model._bind(with_state_gradient=False)
    before, after = (bound.masked(bound.features.read(x, action), mask) for x in (state, corrupted))
    assert th.equal(before[:, 6:9], after[:, 6:9])
    assert not th.equal(before[:, 3:6], after[:, 3:6])


def test_label_tells_masks_apart_and_passes_no_gradient():
    sizes, action_sizes = KINDS["equal"]
    for code_labelling in (True, False):
        model = make_model(sizes, action_sizes, code_labelling=code_labelling)
        for weight in model.network.aggregation.weights:
            th.nn.init.zeros_(weight)
        windows = random_windows(sizes, *action_sizes, n_rows=20, length=1)
        bound = model._bind(with_state_gradient=False)
        inputs = bound.features.read(windows.state[:, 0], windows.action[:, 0])
        mask = th.randint(2, (20, 4, 5)).float().requires_grad_()
        outputs = bound.masked(inputs, mask)
        outputs.square().sum().backward()
        assert (mask.grad == 0).all()
        assert (outputs.std(0) > 1e-3).all() if code_labelling else (outputs == outputs[0]).all()


def test_price_of_an_edge_and_the_running_mean_of_the_edges_by_hand():
    """Every free edge has probability 0.8: six of them on four variables; the mean starts at one half."""
    model = make_model([3, 3, 3, 3], (12,)).train()
    output = model.edge_network[-1]
    th.nn.init.zeros_(output.weight)
    th.nn.init.constant_(output.bias, np.log(4))
    windows = random_windows([3, 3, 3, 3], 12, n_rows=16, length=3)
    losses = [model.loss(windows), model.loss(windows)][-1]
    assert losses.codes is None
    assert losses.terms["reg"].item() == pytest.approx(0.8 * 6 / 4)
    assert losses.total.item() == pytest.approx((losses.terms["dynamics"] + 0.01 * losses.terms["reg"]).item(), rel=1e-6)
    expected = 0.99 * (0.99 * 0.5 + 0.01 * 0.8) + 0.01 * 0.8
    (graph,) = model.context_graphs()
    assert graph.probabilities[model.free_entries] == pytest.approx(np.full(6, expected))
    given = np.concatenate([np.eye(4), np.ones((4, 1))], axis=1)
    assert np.array_equal(graph.probabilities[~model.free_entries], given[~model.free_entries])
    model.eval().loss(windows)
    assert model.context_graphs()[0].probabilities[1, 0] == pytest.approx(expected)


def test_known_graph_is_recovered_from_data():
    """Set and persist: given the order, no variable depends on another one, so every free edge must go."""
    th.manual_seed(0)
    model = NCDDynamics(factors([3] * 4, 12), graph_prior="order", hidden_dim=32)
    fit(model, persist_and_set_windows(4, 3, 256), n_updates=150, learning_rate=1e-2)
    windows = persist_and_set_windows(4, 3, 500)
    assert accuracy(model, windows) > 0.99
    assert (model.local_graph(windows.state[:, 0], windows.action[:, 0])[:, model.free_entries] == 0).all()


def gated_windows(n_rows: int) -> Windows:
    """x2 copies x1 while the gate x0 is 1, and persists otherwise; the others persist. The action does nothing."""
    sizes = [2, 4, 4]
    values = th.stack([th.randint(size, (n_rows,)) for size in sizes], dim=1)
    successors = values.clone()
    successors[:, 2] = th.where(values[:, 0] == 1, values[:, 1], values[:, 2])
    action = one_hot_state(th.randint(2, (n_rows, 1, 1)), [2])
    valid = th.ones(n_rows, 1, dtype=th.bool)
    return Windows(one_hot_state(values, sizes).unsqueeze(1), action, one_hot_state(successors, sizes).unsqueeze(1), valid)


def test_graph_is_local_to_the_sample():
    th.manual_seed(0)
    model = NCDDynamics(factors([2, 4, 4], 2), hidden_dim=32, graph_prior="order")
    fit(model, gated_windows(256), n_updates=150, learning_rate=1e-2)
    windows = gated_windows(500)
    assert accuracy(model, windows) > 0.99
    is_open = windows.state[:, 0, 1] == 1
    graph = model.local_graph(windows.state[:, 0], windows.action[:, 0])
    assert (graph[is_open, 2, 1] == 1).all() and (graph[~is_open, 2, 1] == 0).all()
    assert (graph[:, 1, 0] == 0).all()


def test_evidence_is_what_the_values_of_the_parents_are_worth():
    th.manual_seed(0)
    model = NCDDynamics(factors([2, 4, 4], 2), hidden_dim=32, graph_prior="order")
    (before,) = model.context_graphs()
    assert before.evidence.n == 0 and not before.evidence.is_tested.any()
    fit(model, gated_windows(256), n_updates=150, learning_rate=1e-2)
    held_out = gated_windows(500)
    model.train().after_update(99, lambda n: held_out)
    assert not model.evidence.n.any(), "it is not yet time"
    model.after_update(100, lambda n: held_out)
    (graph,) = model.context_graphs()
    assert model.training and graph.evidence.n == 500
    assert np.array_equal(graph.evidence.is_tested, model.free_entries)
    # With the gate of another row, x2 is wrong where that differs and x1 and x2 do: 3/8 of the rows, each at most 10 nats.
    assert 1 < graph.evidence.gain[2, 0] < 3.75 + 3 * graph.evidence.standard_error[2, 0]
    is_significant = graph.significant(0.05).edges & model.free_entries
    assert [tuple(entry) for entry in np.argwhere(is_significant)] == [(2, 0), (2, 1)]
