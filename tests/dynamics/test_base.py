import copy

import numpy as np
import pytest
import torch as th
from dense import assert_same_loss_and_gradients, tables_used
from toy import KINDS, factors, persist_and_set_windows, random_windows

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics import FCDLDynamics, Losses, Windows
from sb3_fcdl.dynamics.distributions import output_width
from sb3_fcdl.dynamics.lookup.features import ParentFeatures

SIZES = {"equal": [3, 3, 3, 3], "unequal": [2, 2, 4, 3]}
N_ACTIONS = 12


def make_model(sizes: list[int], action_sizes: tuple[int, ...] = (N_ACTIONS,), **kwargs) -> FCDLDynamics:
    th.manual_seed(0)
    return FCDLDynamics(factors(sizes, *action_sizes), hidden_dim=16, n_codes=4, code_dim=4, **kwargs)


def loss_and_gradients(model: FCDLDynamics, windows: Windows, use_tables: bool) -> tuple[Losses, dict[str, th.Tensor]]:
    model = copy.deepcopy(model).train()
    th.manual_seed(1)
    with tables_used(use_tables):
        losses = model.loss(windows)
    losses.total.backward()
    return losses, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("prior", ["order", "self", "none"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_tables_equal_matrix_products_with_every_gradient(kind, prior):
    sizes, action_sizes = kind
    model = make_model(sizes, action_sizes, graph_prior=prior).double()
    windows = random_windows(sizes, *action_sizes, n_rows=33, length=3, dtype=th.float64)
    assert_same_loss_and_gradients(*(loss_and_gradients(model, windows, use_tables) for use_tables in (True, False)))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_corrupted_windows_have_the_gradients_of_matrix_products_too(kind):
    """Some parents are one-hot in no row, one in all rows but one."""
    sizes, action_sizes = kind
    model = make_model(sizes, action_sizes, graph_prior="self").double()
    windows = random_windows(sizes, *action_sizes, n_rows=33, length=2, dtype=th.float64)
    windows.state[..., : max(sizes[0], 1)] *= 100 * th.randn(33, 2, 1, dtype=th.float64)
    windows.state[7, :, -1] = 0.5
    by_table, table_gradients = loss_and_gradients(model, windows, use_tables=True)
    dense, dense_gradients = loss_and_gradients(model, windows, use_tables=False)
    assert by_table.total.item() == pytest.approx(dense.total.item(), rel=1e-13)
    for name, gradient in dense_gradients.items():
        scale = max(1, gradient.abs().max().item())
        th.testing.assert_close(table_gradients[name] / scale, gradient / scale, rtol=0, atol=1e-10)


def test_tables_have_derivatives_only_where_they_are_asked_for_and_few():
    """They are quadratic in the categories: Taxi's 500 took two seconds an update."""
    model = make_model([3, 20, 3]).train()
    runs = [run for run in model.features.runs if model.features.has_tangents(run)]
    assert [run.first_parent for run in runs] == [0, 2]
    tables = model.network.aggregation.bind(model.features.bind(with_state_gradient=True))
    assert [tangent.numel() for tangent in tables.tangents] == [3 * 16 * 3 * 3] * 2
    windows = random_windows([3, 20, 3], N_ACTIONS, n_rows=8, length=2)
    assert windows.needs_state_gradient and not windows._replace(valid=windows.valid[:, :1]).needs_state_gradient
    state, action = windows.state[:, 0], windows.action[:, 0]
    features = model.features.bind(with_state_gradient=True)
    assert features.read(state, action).dense == ()
    assert features.read(state.requires_grad_(), action).dense == (1,)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_planning_equals_matrix_products(kind):
    """Without gradients continuous parents are looked up too: here far away, repeated, and where a feature starts."""
    sizes, action_sizes = kind
    model = make_model(sizes, action_sizes, graph_prior="self").double().eval()
    windows = random_windows(sizes, *action_sizes, n_rows=40, length=1, dtype=th.float64)
    state, action = windows.state[:3, 0].repeat_interleave(10, dim=0), windows.action[:30, 0]
    state[:10, : max(sizes[0], 1)] *= 37
    with th.no_grad():
        state[20:25, model.features.line_columns[: sizes.count(0)]] = model.features.lines().knots[: sizes.count(0), 7]
        by_table = model.step(state, action)
        with tables_used(False):
            dense = model.step(state, action)
    for name in ("logits", "mean", "log_std"):
        actual, wanted = getattr(by_table.next_state, name), getattr(dense.next_state, name)
        th.testing.assert_close(actual, wanted, rtol=0, atol=1e-11)


def test_lines_are_looked_up_in_either_grad_mode():
    sizes, action_sizes = KINDS["mixed"]
    model = make_model(sizes, action_sizes, graph_prior="self").eval()
    windows = random_windows(sizes, *action_sizes, n_rows=10, length=1)
    state, action = windows.state[:, 0], windows.action[:, 0]
    with th.no_grad():
        step = model.stepper()
        without = step(state, action).next_state
    moved = step(state.clone().requires_grad_(), action).next_state
    assert th.equal(moved.logits, without.logits) and th.equal(moved.mean, without.mean)
    moved.logits.sum().backward()  # reaches the predictor's weights


def test_lines_are_the_rectified_features():
    """By hand: features that rise, fall, are constant or never active, at their knots, between and beyond them."""
    features = ParentFeatures(Factors((Variable("x"),), ()), 5)
    with th.no_grad():
        features.weight[:] = th.tensor([[2.0, -1.0, 0.0, 0.0, 0.5]])
        features.bias[:] = th.tensor([[1.0, 3.0, 2.0, -2.0, 0.0]])
        lines = features.lines()
    assert lines.knots.tolist() == [[-0.5, 0.0, 3.0, th.inf, th.inf]]
    wanted = {
        -4.0: [0.0, 7.0, 2.0, 0.0, 0.0],
        -0.5: [0.0, 3.5, 2.0, 0.0, 0.0],
        0.0: [1.0, 3.0, 2.0, 0.0, 0.0],
        1.0: [3.0, 2.0, 2.0, 0.0, 0.5],
        3.0: [7.0, 0.0, 2.0, 0.0, 1.5],
        1000.0: [2001.0, 0.0, 2.0, 0.0, 500.0],
    }
    for value, expected in wanted.items():
        piece = int(th.searchsorted(lines.knots[0], value))
        assert (lines.offsets[0, piece] + value * lines.slopes[0, piece]).tolist() == expected


def test_gradient_reaches_the_logits_of_earlier_steps_as_in_the_dense_network():
    """The straight-through path alone: the gradient by the input state, at a sampled one-hot."""
    model = make_model(SIZES["unequal"]).double().train()
    windows = random_windows(SIZES["unequal"], N_ACTIONS, n_rows=33, length=1, dtype=th.float64)
    gradients = []
    for use_tables in (True, False):
        twin = copy.deepcopy(model)
        state = windows.state[:, 0].clone().requires_grad_()
        th.manual_seed(1)
        with tables_used(use_tables):
            twin.loss(windows._replace(state=state.unsqueeze(1))).total.backward()
        gradients.append(state.grad)
    assert gradients[1].abs().max() > 1e-6
    th.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_noisy", [1, 4])
def test_noisy_parents_take_the_dense_path_in_the_same_call(n_noisy):
    sizes = SIZES["equal"]
    model = make_model(sizes).double().eval()
    windows = random_windows(sizes, N_ACTIONS, n_rows=20, length=1, dtype=th.float64)
    state, action = windows.state[:, 0].clone(), windows.action[:, 0]
    state[:, : 3 * n_noisy] *= 100 * th.randn(20, 3 * n_noisy, dtype=th.float64)
    assert model.features.bind(with_state_gradient=False).read(state, action).dense == tuple(range(n_noisy))
    mixed = model.step(state, action)
    with tables_used(False):
        dense = model.step(state, action)
    assert (mixed.code == dense.code).all()
    th.testing.assert_close(mixed.next_state.logits, dense.next_state.logits, rtol=1e-10, atol=1e-10)


def independent_outputs(model: FCDLDynamics, state: th.Tensor, action: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """The outputs of the masked network of the paper (spec 1.9.1), one sample and one child at a time, in NumPy."""

    def array(parameter: th.Tensor) -> np.ndarray:
        return parameter.detach().numpy()

    features, network = model.features, model.network
    aggregation = array(th.cat(list(network.aggregation.weights)))
    widths = [variable.width for variable in model.factors.parents]
    starts = np.cumsum([0, *widths])
    hidden_dim = features.bias.shape[1]
    rows = []
    for sample in range(len(state)):
        columns = np.concatenate([array(state[sample]), array(action[sample])])
        logits = []
        for child, variable in enumerate(model.factors.state_variables):
            concatenated, weights = [], []
            for parent, start in enumerate(starts[:-1]):
                entries = slice(start, start + widths[parent])
                feature = columns[entries] @ array(features.weight)[entries] + array(features.bias)[parent]
                concatenated.append(mask[sample, child, parent].item() * np.maximum(feature, 0))
                columns_of_child = slice(child * hidden_dim, (child + 1) * hidden_dim)
                weights.append(aggregation[parent][:, columns_of_child])
            hidden = np.concatenate(concatenated) @ np.concatenate(weights) + array(network.aggregation.bias)[child, 0]
            for layer in network.layers:
                hidden = np.maximum(hidden, 0) @ array(layer.weight)[child] + array(layer.bias)[child, 0]
            outputs = np.maximum(hidden, 0) @ array(network.head.weight)[child] + array(network.head.bias)[child, 0]
            logits.append(outputs[: output_width(variable)])
        rows.append(np.concatenate(logits))
    return th.as_tensor(np.stack(rows))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_prediction_equals_an_independent_evaluation_of_the_network(kind):
    sizes, action_sizes = kind
    model = make_model(sizes, action_sizes).double().eval()
    windows = random_windows(sizes, *action_sizes, n_rows=9, length=1, dtype=th.float64)
    state, action = windows.state[:, 0], windows.action[:, 0]
    prediction = model.step(state, action)
    expected = model.layout.distribution(independent_outputs(model, state, action, prediction.graph), state)
    for name in ("logits", "mean", "log_std"):
        actual, wanted = getattr(prediction.next_state, name), getattr(expected, name)
        th.testing.assert_close(actual.detach(), wanted, rtol=0, atol=1e-12)


@th.no_grad()
@pytest.mark.parametrize("number", [100.0, th.nan, th.inf, -th.inf])
@pytest.mark.parametrize("use_tables", [True, False])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_masked_parent_changes_no_bit_of_the_child(kind, use_tables, number):
    sizes, action_sizes = kind
    model = make_model(*kind).eval()
    with tables_used(use_tables):
        bound = model._bind(with_state_gradient=False)
    windows = random_windows(sizes, *action_sizes, n_rows=50, length=1)
    n_outputs = [output_width(variable) for variable in model.factors.state_variables]
    for corrupted in range(len(sizes)):
        state, other, action = windows.state[:, 0], windows.state[:, 0].clone(), windows.action[:, 0]
        first = sum(max(size, 1) for size in sizes[:corrupted])
        other[:, first : first + max(sizes[corrupted], 1)] = number
        mask = th.ones(50, len(sizes), len(model.factors.parents))
        mask[:, -1, corrupted] = 0
        inputs = [bound.features.read(x, action) for x in (state, other)]
        before, after = (bound.masked(each, mask).split(n_outputs, -1) for each in inputs)
        same = [th.equal(*pair) for pair in zip(before, after, strict=True)]
        assert same == [False] * (len(sizes) - 1) + [True]
        selected = th.ones(len(model.factors.parents))
        selected[corrupted] = 0
        assert th.equal(*(bound.encoder_inputs(each, selected) for each in inputs))


def test_graph_of_a_sample_is_the_graph_of_its_code():
    model = make_model(SIZES["equal"]).eval()
    windows = random_windows(SIZES["equal"], N_ACTIONS, n_rows=50, length=1)
    prediction = model.step(windows.state[:, 0], windows.action[:, 0])
    graphs = th.as_tensor(np.stack([graph.edges for graph in model.context_graphs()]))
    assert th.equal(graphs[prediction.code], prediction.graph.bool())
    assert th.equal(model.local_graph(windows.state[:, 0], windows.action[:, 0]), prediction.graph)


def test_loss_of_an_invalid_step_does_not_count():
    sizes = SIZES["equal"]
    model = make_model(sizes).train()
    windows = random_windows(sizes, N_ACTIONS, n_rows=40, length=3)
    windows.valid[10:, 1:] = False
    windows.valid[20:, 2:] = False
    other = windows._replace(next_state=windows.next_state.clone())
    other.next_state[~windows.valid] = other.next_state[~windows.valid].roll(1, dims=-1)
    losses = []
    for batch in (windows, other):
        th.manual_seed(2)
        losses.append(copy.deepcopy(model).loss(batch).total.item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("quantize", "cost"), [("latents", 0.5), ("graphs", 0.5 * np.log(2))])
def test_price_of_an_edge_is_the_sparsity_coefficient(quantize, cost):
    """R at even odds: half an edge for each of the free ones is expected, and -log(1 - 1/2) / 2 is the cost of one."""
    model = make_model(SIZES["equal"], graph_prior="order", quantize=quantize).train()
    last = model.quantizer.encoder[-1] if quantize == "graphs" else model.quantizer.decoder.output
    th.nn.init.zeros_(last.weight)
    th.nn.init.zeros_(last.bias)
    losses = model.loss(random_windows(SIZES["equal"], N_ACTIONS, n_rows=16, length=3))
    assert losses.terms["reg"].item() == pytest.approx(cost * 6 / 4)
    parts = losses.terms["dynamics"] + 0.01 * losses.terms["reg"] + 0.25 * losses.terms["commit"]
    assert losses.total.item() == pytest.approx(parts.item(), rel=1e-6)


def test_known_graph_is_recovered_from_data():
    """Set and persist: given the order, no variable depends on another one, so every free edge must go."""
    th.manual_seed(0)
    model = FCDLDynamics(factors([3] * 4, 12), graph_prior="order", hidden_dim=32, n_codes=4, code_dim=4)
    optimizer = th.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(250):
        losses = model.loss(persist_and_set_windows(4, 3, 128))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    model.eval()
    windows = persist_and_set_windows(4, 3, 500)
    prediction = model.step(windows.state[:, 0], windows.action[:, 0])
    assert th.equal(prediction.next_state.mode(), windows.next_state[:, 0])
    assert (prediction.graph[:, model.free_entries] == 0).all()


def test_stepper_refuses_to_run_in_train_mode():
    with pytest.raises(RuntimeError, match="eval"):
        make_model([2, 3]).train().stepper()


def test_unknown_prior_lists_the_known_ones():
    with pytest.raises(ValueError, match="order, self, none"):
        make_model([2, 3], graph_prior="causal")


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_plan_never_waits_for_a_device(kind):
    """Tensors on the meta device hold no numbers, so that any look at one fails."""
    sizes, action_sizes = kind
    model = make_model(sizes, action_sizes).eval().to("meta")
    windows = random_windows(sizes, *action_sizes, n_rows=10, length=1)
    state, action = windows.state[:, 0].to("meta"), windows.action[:, 0].to("meta")
    step = model.stepper()
    with th.no_grad():
        for _ in range(3):
            state = step(state, action).next_state.mode()
    assert state.device.type == "meta" and state.shape == windows.state[:, 0].shape


def test_an_update_never_waits_for_a_device():
    model = make_model(SIZES["equal"]).to("meta").train()
    windows = random_windows(SIZES["equal"], N_ACTIONS, n_rows=10, length=3)
    losses = model.loss(Windows(*(part.to("meta") for part in windows)))
    losses.total.backward()
    model.after_update(model.MEASURE_EVERY, lambda n: Windows(*(part.to("meta") for part in windows)))
    assert model.features.weight.grad.device.type == "meta"
