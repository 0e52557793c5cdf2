import numpy as np
import pytest
import torch as th
from dense import array, assert_same_distribution, relu, scrambled
from toy import KINDS, factors, random_windows

from sb3_fcdl.dynamics.distributions import output_width
from sb3_fcdl.dynamics.modular import ModularDynamics


def make_model(sizes: list[int], action_sizes: tuple[int, ...]) -> ModularDynamics:
    th.manual_seed(0)
    return ModularDynamics(factors(sizes, *action_sizes), hidden_dim=16, n_layers=4)


def independent_outputs(model: ModularDynamics, state: th.Tensor, action: th.Tensor) -> th.Tensor:
    """Spec 1.2, variant A: an MLP for each variable, one sample at a time."""
    rows = []
    for columns in np.concatenate([array(state), array(action)], axis=1):
        outputs = []
        for child, variable in enumerate(model.factors.state_variables):
            hidden = columns
            for layer in model.layers:
                hidden = relu(hidden @ array(layer.weight)[child] + array(layer.bias)[child, 0])
            head = hidden @ array(model.head.weight)[child] + array(model.head.bias)[child, 0]
            outputs.append(head[: output_width(variable)])
        rows.append(np.concatenate(outputs))
    return th.as_tensor(np.stack(rows))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_prediction_equals_an_mlp_for_each_variable(kind):
    sizes, action_sizes = kind
    model = scrambled(make_model(sizes, action_sizes)).eval()
    windows = random_windows(sizes, *action_sizes, n_rows=9, length=1, dtype=th.float64)
    state, action = windows.state[:, 0], windows.action[:, 0]
    prediction = model.step(state, action)
    assert prediction.graph is None and prediction.code is None
    assert_same_distribution(prediction, model, independent_outputs(model, state, action), state)


def test_published_size():
    """Four layers of 128 for each of ten variables of five colours: 0.63 M parameters (spec 0.4)."""
    model = ModularDynamics(factors([5] * 10, 50))
    per_variable = 100 * 128 + 128 + 3 * (128 * 128 + 128) + 128 * 5 + 5
    assert sum(parameter.numel() for parameter in model.parameters()) == 10 * per_variable == 631_090


def test_loss_of_one_variable_trains_the_network_of_that_variable_alone():
    model = make_model([2, 3, 0], (4,))
    windows = random_windows([2, 3, 0], 4, n_rows=8, length=1)
    log_prob = model.eval().step(windows.state[:, 0], windows.action[:, 0]).next_state.log_prob(windows.next_state[:, 0])
    log_prob[:, 1].sum().backward()
    for name, parameter in model.named_parameters():
        sizes = parameter.grad.abs().flatten(1).amax(1)
        assert sizes[1] > 0 and sizes[0] == sizes[2] == 0, name
