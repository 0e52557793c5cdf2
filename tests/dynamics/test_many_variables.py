"""Where variables are many, numbers have narrow features."""

import copy

import pytest
import torch as th
from dense import assert_same_distribution, masked_outputs, scrambled, tables_used
from toy import KINDS, factors, random_windows

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics import DYNAMICS, DynamicsModel, ncd, oracle
from sb3_fcdl.dynamics.lookup.features import width_of_numbers


def numbers(n_state: int, n_action: int) -> Factors:
    return Factors((Variable("x"),) * n_state, (Variable("a"),) * n_action)


@pytest.mark.parametrize(
    ("n_state", "n_action", "hidden_dim", "width"),
    [
        (10, 2, 128, 128),
        (10, 6, 128, 128),
        (17, 6, 128, 52),
        (30, 1, 128, 22),
        (100, 1, 128, 8),
        (105, 8, 16, 8),
        (100, 1, 4, 4),
    ],
)
def test_numbers_are_as_wide_as_the_number_of_pairs_allows(n_state, n_action, hidden_dim, width):
    """160 pairs of a child and a parent have all of it: 17 x 23 have 128 * 160 / 391."""
    assert width_of_numbers(numbers(n_state, n_action), hidden_dim) == width


def test_weights_are_as_many_as_there_are_pairs_times_eight():
    model = DYNAMICS["fcdl_tree"](numbers(100, 1))
    (weight,) = model.network.aggregation.weights
    assert weight.shape == (101, 8, 100 * 128)
    assert sum(each.numel() for each in model.parameters()) < 15e6  # 170 million if they were as wide as categories


@pytest.fixture(params=["oracle", "ncd"])
def narrow(request, monkeypatch):
    """Models whose numbers have three entries of sixteen."""
    for module in (oracle, ncd):
        monkeypatch.setattr(module, "width_of_numbers", lambda factors, hidden_dim: 3)

    def make(sizes: list[int], action_sizes: tuple[int, ...]) -> DynamicsModel:
        th.manual_seed(0)
        return scrambled(DYNAMICS[request.param](factors(sizes, *action_sizes), hidden_dim=16))

    return make


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_prediction_equals_an_independent_evaluation_of_the_network(narrow, kind):
    """By lines between the knots of three features, and multiplied out."""
    model = narrow(*kind).eval()
    windows = random_windows(kind[0], *kind[1], n_rows=9, length=1, dtype=th.float64)
    state, action = windows.state[:, 0], windows.action[:, 0]
    for use_tables in (True, False):
        with tables_used(use_tables), th.no_grad():
            prediction = model.step(state, action)
        assert_same_distribution(prediction, model, masked_outputs(model, state, action, prediction.graph), state)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_tables_equal_matrix_products_with_every_gradient(narrow, kind):
    model = narrow(*kind).train()
    windows = random_windows(kind[0], *kind[1], n_rows=33, length=3, dtype=th.float64)
    gradients = []
    for use_tables in (True, False):
        twin, state = copy.deepcopy(model), windows.state.clone().requires_grad_()
        th.manual_seed(1)
        with tables_used(use_tables):
            twin.loss(windows._replace(state=state)).total.backward()
        gradients.append({name: each.grad for name, each in twin.named_parameters()} | {"state": state.grad})
    for name, gradient in gradients[1].items():
        scale = max(gradient.abs().max().item(), 1e-3)
        th.testing.assert_close(gradients[0][name] / scale, gradient / scale, rtol=0, atol=1e-10)


def test_what_is_masked_may_be_infinite():
    th.manual_seed(0)
    model = DYNAMICS["fcdl_tree"](numbers(30, 1), hidden_dim=16).eval()
    model.graphs[0] = th.eye(30, 31)
    state, action = th.randn(5, 30), th.randn(5, 1)
    corrupted = state.clone()
    corrupted[:, 29] = th.inf
    for use_tables in (True, False):
        with tables_used(use_tables), th.no_grad():
            clean, other = (model.step(each, action).next_state.mean[:, :29] for each in (state, corrupted))
        assert th.equal(clean, other)
