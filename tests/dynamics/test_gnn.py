import copy

import numpy as np
import pytest
import torch as th
from dense import tables_used
from toy import KINDS as TOY_KINDS
from toy import factors, random_windows

from sb3_fcdl.dynamics import Losses, Windows
from sb3_fcdl.dynamics.distributions import output_width
from sb3_fcdl.dynamics.gnn import GNNDynamics

# One variable alone hears nothing.
KINDS = TOY_KINDS | {"alone": ([3], (4,))}
WIDTHS = {"feature_dim": 8, "hidden_dim": 12}


def make_model(kind: str, **kwargs) -> GNNDynamics:
    th.manual_seed(0)
    sizes, action_sizes = KINDS[kind]
    return GNNDynamics(factors(sizes, *action_sizes), **(WIDTHS | kwargs)).double()


def make_windows(kind: str, n_rows: int, length: int = 1) -> Windows:
    sizes, action_sizes = KINDS[kind]
    return random_windows(sizes, *action_sizes, n_rows=n_rows, length=length, dtype=th.float64)


def independent_outputs(model: GNNDynamics, state: th.Tensor, action: th.Tensor) -> th.Tensor:
    """Spec 1.3, one sample, one variable and one edge at a time, in NumPy."""

    def array(tensor: th.Tensor) -> np.ndarray:
        return tensor.detach().numpy()

    def network(inputs: np.ndarray, first, layers, last) -> np.ndarray:
        for layer in (first, *layers):
            inputs = np.maximum(array(layer.weight) @ inputs + array(layer.bias), 0)
        return array(last.weight) @ inputs + array(last.bias)

    variables, rows = model.factors.state_variables, []
    for x, u in zip(array(state), array(action), strict=True):
        embeddings, start = [], 0
        for i, variable in enumerate(variables):
            weight = array(model.embedding.weight)[i, : variable.width]
            embeddings.append(x[start : start + variable.width] @ weight + array(model.embedding.bias)[i, 0])
            start += variable.width
        outputs = []
        for i, variable in enumerate(variables):
            heard = np.zeros_like(embeddings[i])
            for k in range(len(variables)):
                if k != i:
                    pair = np.concatenate([embeddings[i], embeddings[k]])
                    heard += network(pair, model.messages.first, model.messages.layers, model.messages.last)
            node = np.concatenate([embeddings[i], u, heard])
            node = network(node, model.node_input, model.node_layers, model.node_output)
            outputs.append((node @ array(model.head.weight)[i] + array(model.head.bias)[i, 0])[: output_width(variable)])
        rows.append(np.concatenate(outputs))
    return th.as_tensor(np.stack(rows))


def assert_equal_predictions(model: GNNDynamics, state: th.Tensor, action: th.Tensor, rtol: float = 0) -> None:
    actual = model.step(state, action).next_state
    expected = model.layout.distribution(independent_outputs(model, state, action), state)
    for name in ("logits", "mean", "log_std"):
        th.testing.assert_close(getattr(actual, name).detach(), getattr(expected, name), rtol=rtol, atol=1e-10)


# Few rows are computed edge by edge, many are looked up.
@pytest.mark.parametrize("n_rows", [3, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_prediction_equals_an_independent_evaluation_of_the_network(kind, n_rows):
    windows = make_windows(kind, n_rows)
    assert_equal_predictions(make_model(kind).eval(), windows.state[:, 0], windows.action[:, 0])


def test_corrupted_inputs_pass_as_they_are():
    windows = make_windows("equal", 20)
    state = windows.state[:, 0].clone()
    state[:, :6] *= 100 * th.randn(20, 6, dtype=th.float64)
    assert_equal_predictions(make_model("equal").eval(), state, windows.action[:, 0], rtol=1e-10)


def loss_and_gradients(model: GNNDynamics, windows: Windows, use_tables: bool) -> tuple[Losses, dict[str, th.Tensor]]:
    model = copy.deepcopy(model).train()
    if use_tables:
        # To be certain that it is the tables that are tested.
        model.messages.computed = None
    th.manual_seed(1)
    with tables_used(use_tables):
        losses = model.loss(windows)
    losses.total.backward()
    return losses, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("kind", ["equal", "unequal"])
def test_tables_equal_the_network_with_every_gradient(kind, n_layers):
    """Over three steps, so that gradients also pass the straight-through samples."""
    model, windows = make_model(kind, n_layers=n_layers), make_windows(kind, n_rows=66, length=3)
    by_table, table_gradients = loss_and_gradients(model, windows, use_tables=True)
    dense, dense_gradients = loss_and_gradients(model, windows, use_tables=False)
    assert by_table.total.item() == pytest.approx(dense.total.item(), rel=1e-13)
    for name, gradient in dense_gradients.items():
        assert gradient.abs().max() > 1e-6, name
        th.testing.assert_close(table_gradients[name], gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["equal", "unequal"])
def test_gradient_by_a_sample_is_that_of_the_network_up_to_a_constant(kind):
    """A constant a variable, which the softmax behind a sample does not feel."""
    sizes, _ = KINDS[kind]
    model, windows = make_model(kind).train(), make_windows(kind, n_rows=20)
    ends, messages, gradients = model._products().ends, model.messages, []
    table = messages.table(ends, with_state_gradient=True)
    direction = th.randn(4, 20, 8, dtype=th.float64)
    for look_up in (True, False):
        state = windows.state[:, 0].clone().requires_grad_()
        slots = model.slots.read(state)
        heard = messages.looked_up(table, slots, slots.argmax(-1)) if look_up else messages.computed(ends, slots)
        (gradient,) = th.autograd.grad((heard * direction).sum(), state, retain_graph=True)
        gradients.append(th.cat([part - part.mean(-1, keepdim=True) for part in gradient.split(sizes, dim=-1)], dim=-1))
    assert gradients[1].abs().max() > 1e-3
    th.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-13)


def test_published_widths_have_the_published_number_of_parameters():
    model = GNNDynamics(factors([5] * 10, 50), feature_dim=256, hidden_dim=512)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(1.89e6, rel=2e-3)
