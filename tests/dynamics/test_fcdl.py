"""Which variables select the context: measured, and taken from the encoder when they do not."""

from itertools import pairwise

import pytest
import torch as th
from toy import factors, one_hot_state, random_windows

from sb3_fcdl.dynamics import FCDLDynamics, Windows

SIZES = [2, 3, 3, 3, 3]
WIDTH = sum(SIZES)


def switched_windows(n_rows: int) -> Windows:
    """While the switch ``x0`` is 0 every variable persists; else ``x1 .. x4`` take each other's values in a ring."""
    values = th.stack([th.randint(size, (n_rows,)) for size in SIZES], dim=-1)
    successors = values.where(values[:, :1] == 0, values[:, [0, 2, 3, 4, 1]])
    action = one_hot_state(th.randint(2, (n_rows, 1)), [2])
    valid = th.ones(n_rows, 1, dtype=th.bool)
    state, next_state = (one_hot_state(each, SIZES).unsqueeze(1) for each in (values, successors))
    return Windows(state, action.unsqueeze(1), next_state, valid)


@pytest.mark.slow
def test_the_switch_alone_selects_the_context_and_noise_elsewhere_does_not_reach_it():
    th.manual_seed(0)
    model = FCDLDynamics(
        factors(SIZES, 2),
        graph_prior="none",
        hidden_dim=32,
        n_codes=8,
        code_dim=4,
        sparsity_coef=0.05,
        context_drop_after=1000,
    ).train()
    optimizer = th.optim.Adam(model.parameters(), lr=3e-3)
    for update in range(1, 1151):
        optimizer.zero_grad()
        model.loss(switched_windows(128)).total.backward()
        optimizer.step()
        model.after_update(update, switched_windows)
    assert model.context_variables == ("x0",)
    model.eval()
    windows = switched_windows(300)
    state, action = windows.state[:, 0], windows.action[:, 0]
    noisy = state.clone()
    noisy[:, 2:] *= 100 * th.randn(300, WIDTH - 2)
    assert th.equal(model.step(state, action).code, model.step(noisy, action).code)
    graphs = model.local_graph(state, action).bool()
    is_on = state[:, 1] == 1
    # x1 depends on x2 in the ring, on itself otherwise.
    assert th.equal(graphs[:, 1, 2], is_on) and th.equal(graphs[:, 1, 1], ~is_on)


def test_importance_is_the_loss_of_shuffling_what_the_encoder_sees():
    """Against the slow way: the encoder is given a shuffled batch, the network the true one."""
    th.manual_seed(0)
    model = FCDLDynamics(factors(SIZES, 2), graph_prior="none", hidden_dim=16, n_codes=4, code_dim=4).double().eval()
    windows = random_windows(SIZES, 2, n_rows=40, length=1, dtype=th.float64)
    state, action, target = windows.state[:, 0], windows.action[:, 0], windows.next_state[:, 0]
    th.manual_seed(5)
    importance = model._measure_importance(windows)
    bound = model._bind(with_state_gradient=False)

    def nll(codes: th.Tensor) -> th.Tensor:
        outputs = bound.masked(bound.features.read(state, action), model._graphs()[codes])
        return -model.layout.distribution(outputs, state).log_prob(target).mean()

    th.manual_seed(5)
    columns = th.cat([state, action], dim=-1)
    starts = [0, 2, 5, 8, 11, 14, 16]
    expected = []
    for start, end in pairwise(starts):
        shuffled = columns.clone()
        shuffled[:, start:end] = columns[th.randperm(40), start:end]
        codes = model.step(shuffled[:, :WIDTH], shuffled[:, WIDTH:]).code
        expected.append(nll(codes) - nll(model.step(state, action).code))
    th.testing.assert_close(importance, th.stack(expected).detach(), rtol=0, atol=1e-12)


def scripted(model: FCDLDynamics, importance: list[float], n_measurements: int) -> tuple[str, ...]:
    model._measure_importance = lambda windows: th.tensor(importance)
    for measurement in range(1, n_measurements + 1):
        model.after_update(model.MEASURE_EVERY * measurement, lambda n: None)
    return model.context_variables


@pytest.mark.parametrize(
    ("importance", "n_measurements", "kept"),
    [
        # A measurement every 25 updates, and 1000 updates to wait.
        ([0.1, 0.0, 0.02, 0.0, 0.0, -0.1], 39, ("x0", "x1", "x2", "x3", "x4", "a0")),  # too early
        ([0.1, 0.0, 0.02, 0.0, 0.0, -0.1], 40, ("x0", "x1", "x2", "x3", "x4")),  # one at a time, the least important first
        ([0.1, 0.0, 0.02, 0.0, 0.0, -0.1], 50, ("x0", "x2")),  # 0.02 is more than a twentieth of 0.1
        ([1.0, 0.009, 0.011, 0.0, 0.0, 0.0], 50, ("x0", "x2")),  # 0.01 nats matter, however much others do
        ([0.009, 0.0, 0.0, 0.0, 0.0, 0.0], 50, ("x0", "x1", "x2", "x3", "x4", "a0")),  # no context has formed
    ],
)
def test_rule_by_which_variables_are_dropped(importance, n_measurements, kept):
    model = FCDLDynamics(factors(SIZES, 2), hidden_dim=8, context_drop_after=1000)
    assert scripted(model, importance, n_measurements) == kept


def test_importance_is_zero_for_what_was_dropped():
    model = FCDLDynamics(factors(SIZES, 2), hidden_dim=8, context_drop_after=1000)
    assert model.variable_importance() == {}
    scripted(model, [0.25, 0.0, 0.125, 0.0, 0.0, -0.125], 39)
    assert model.variable_importance() == {"x0": 0.25, "x1": 0, "x2": 0.125, "x3": 0, "x4": 0, "a0": -0.125}
    scripted(model, [0.5, 0.0, 0.125, 0.0, 0.0, -0.125], 5)  # the fortieth measurement and on: a tenth of what is new
    x0 = 0.5 - 0.25 * 0.9**5
    assert model.variable_importance() == pytest.approx({"x0": x0, "x1": 0, "x2": 0.125, "x3": 0, "x4": 0, "a0": 0})


def test_threshold_of_zero_keeps_all_variables_and_measures_nothing():
    model = FCDLDynamics(factors(SIZES, 2), hidden_dim=8, context_threshold=0)
    assert len(scripted(model, [1.0, 0, 0, 0, 0, 0], 50)) == 6 and model.n_measured == 0


def test_dropped_variables_are_saved():
    model, other = (FCDLDynamics(factors(SIZES, 2), hidden_dim=8, context_drop_after=0) for _ in range(2))
    scripted(model, [1.0, 0, 0, 0, 0, 0], 50)
    other.load_state_dict(model.state_dict())
    assert other.context_variables == ("x0",)


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_threshold_out_of_range_is_named(threshold):
    with pytest.raises(ValueError, match="context_threshold must be a finite number, at least 0 and below 1"):
        FCDLDynamics(factors(SIZES, 2), context_threshold=threshold)


def test_negative_wait_is_named():
    with pytest.raises(ValueError, match=r"context_drop_after=-1 is not allowed; .* must be an integer, at least 0"):
        FCDLDynamics(factors(SIZES, 2), context_drop_after=-1)
