"""Models of the specification in plain NumPy, one sample and one variable at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_fcdl.dynamics import DynamicsModel, Losses, Prediction, Windows
from sb3_fcdl.dynamics.distributions import output_width
from sb3_fcdl.dynamics.lookup import rule


@contextmanager
def tables_used(use_tables: bool) -> Iterator[None]:
    """What is bound to the weights meanwhile looks categories up, or multiplies matrices."""
    with patch.object(rule, "uses_tables", lambda device: use_tables):
        yield


def array(tensor: th.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def scrambled(model: DynamicsModel) -> DynamicsModel:
    """The model in float64 with every parameter random, so that none can be forgotten unseen."""
    model = model.double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def relu(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0)


def leaky_relu(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, 0.01 * values)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def parent_features(model: DynamicsModel, columns: np.ndarray) -> list[np.ndarray]:
    """``h_i = relu(x_i W_i + b_i)`` of one sample (spec 1.9.1)."""
    features, first = [], 0
    for parent, variable in enumerate(model.factors.parents):
        entries = slice(first, first + variable.width)
        weight, bias = array(model.features.weight)[entries], array(model.features.bias)[parent]
        features.append(relu(columns[entries] @ weight + bias))
        first += variable.width
    return features


def masked_outputs(model: DynamicsModel, state: th.Tensor, action: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """
    The masked network (spec 1.9.1), with the mask as a label where the model has one (spec 1.8).

    :return: ``[R, output_width]``
    """
    network = model.network
    weights = [of_parent for of_run in network.aggregation.weights for of_parent in array(of_run)]
    hidden_dim = network.aggregation.output_dim
    rows = []
    for sample in range(len(state)):
        features = parent_features(model, np.concatenate([array(state[sample]), array(action[sample])]))
        outputs = []
        for child, variable in enumerate(model.factors.state_variables):
            hidden = array(network.aggregation.bias)[child, 0].copy()
            for parent, feature in enumerate(features):
                is_edge = mask[sample, child, parent].item()
                weight = weights[parent][:, child * hidden_dim : (child + 1) * hidden_dim]
                hidden += is_edge * feature[: len(weight)] @ weight
                if hasattr(network.aggregation, "label"):
                    hidden += is_edge * array(network.aggregation.label)[child, parent]
            for layer in network.layers:
                hidden = relu(hidden) @ array(layer.weight)[child] + array(layer.bias)[child, 0]
            head = relu(hidden) @ array(network.head.weight)[child] + array(network.head.bias)[child, 0]
            outputs.append(head[: output_width(variable)])
        rows.append(np.concatenate(outputs))
    return th.as_tensor(np.stack(rows))


def assert_same_distribution(prediction: Prediction, model: DynamicsModel, outputs: th.Tensor, state: th.Tensor) -> None:
    """To 1e-10."""
    expected = model.layout.distribution(outputs, state)
    for name in ("logits", "mean", "log_std"):
        actual = getattr(prediction.next_state, name).detach()
        th.testing.assert_close(actual, getattr(expected, name), rtol=0, atol=1e-10)


def fit(model: DynamicsModel, windows: Windows, n_updates: int, learning_rate: float = 3e-3) -> Losses:
    """Adam on the same windows again and again; leaves the model in eval mode."""
    optimizer = th.optim.Adam(model.parameters(), lr=learning_rate)
    model.train()
    for _ in range(n_updates):
        losses = model.loss(windows)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    model.eval()
    return losses


def accuracy(model: DynamicsModel, windows: Windows) -> float:
    """Share of variables whose next category the model's best guess hits, over all one-step windows."""
    guess = model.step(windows.state[:, 0], windows.action[:, 0]).next_state.mode()
    categories = model.layout.categories
    return (categories(guess) == categories(windows.next_state[:, 0])).float().mean().item()


def assert_same_loss_and_gradients(
    by_table: tuple[Losses, dict[str, th.Tensor]], dense: tuple[Losses, dict[str, th.Tensor]]
) -> None:
    """Of the same model with and without tables: the total loss, and every gradient, none of which is zero."""
    assert by_table[0].total.item() == pytest.approx(dense[0].total.item(), rel=1e-13)
    for name, gradient in dense[1].items():
        assert gradient.abs().max() > 0, name
        # Densities of untrained numbers have losses and gradients in the thousands.
        scale = max(1, gradient.abs().max().item())
        th.testing.assert_close(by_table[1][name] / scale, gradient / scale, rtol=0, atol=1e-10)
