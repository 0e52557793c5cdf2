"""CDL against an independent evaluation from its equations, by hand, and on systems whose graph is known."""

import copy
from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from dense import assert_same_loss_and_gradients, tables_used
from tiny import tiny_fcdl, tiny_vec_env
from toy import KINDS, factors, one_hot_state, persist_and_set_windows, random_windows

from sb3_fcdl import FCDL
from sb3_fcdl.dynamics import Losses, Windows
from sb3_fcdl.dynamics.cdl import CDLDynamics
from sb3_fcdl.dynamics.distributions import StateDistribution, output_width

PRIORS = ["order", "self", "none"]
EQUAL = ([3, 3, 3, 3], (12,))


def make_model(kind: tuple[list[int], tuple[int, ...]] = EQUAL, **kwargs) -> CDLDynamics:
    """With a random graph, and one child that has no learned parents."""
    th.manual_seed(0)
    model = CDLDynamics(factors(kind[0], *kind[1]), hidden_dim=16, cmi_threshold=0.5, **kwargs)
    model.cmi.uniform_()
    model.cmi[0] = 0
    # Biases begin at zero; random ones show whether they are in the right place.
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            th.nn.init.normal_(parameter)
    return model


def child_outputs(model: CDLDynamics, child: int, columns: np.ndarray, parents: Sequence[int]) -> np.ndarray:
    """One child of one sample, from the equations (spec 1.5): features of each parent, their maximum, the predictor."""

    def array(parameter: th.Tensor) -> np.ndarray:
        return parameter.detach().numpy()

    features, n_children = model.features, len(model.factors.state_variables)
    hidden_dim = model.head.weight.shape[1]
    of_child = slice(child * hidden_dim, (child + 1) * hidden_dim)
    starts = np.cumsum([0, *(variable.width for variable in model.factors.parents)])
    hidden = np.full(hidden_dim, -np.inf) if len(parents) else np.zeros(hidden_dim)
    for parent in parents:
        entries = slice(starts[parent], starts[parent + 1])
        first = (
            columns[entries] @ array(features.first.weight)[entries, of_child] + array(features.first.bias)[parent, of_child]
        )
        index, run = next((i, run) for i, run in enumerate(features.first.runs) if run.has(parent))
        layer = (parent - run.first_parent) * n_children + child
        second = features.second[index]
        hidden = np.maximum(hidden, np.maximum(first, 0) @ array(second.weight)[layer] + array(second.bias)[layer, 0])
    for layer in model.layers:
        hidden = np.maximum(hidden @ array(layer.weight)[child] + array(layer.bias)[child, 0], 0)
    width = output_width(model.factors.state_variables[child])
    return (hidden @ array(model.head.weight)[child] + array(model.head.bias)[child, 0])[:width]


def independent(
    model: CDLDynamics, state: th.Tensor, action: th.Tensor, mask: np.ndarray, own: th.Tensor | None = None
) -> StateDistribution:
    """
    :param mask: ``[R, V, P]``
    :param own: the state in which each child sees its own variable, where it differs from ``state``
    """
    own = state if own is None else own
    starts = np.cumsum([0, *(variable.width for variable in model.factors.state_variables)])
    outputs = []
    for row in range(len(state)):
        of_row = []
        for child in range(mask.shape[1]):
            seen = state[row].clone()
            entries = slice(starts[child], starts[child + 1])
            seen[entries] = own[row, entries]
            columns = th.cat([seen, action[row]]).numpy()
            of_row.append(child_outputs(model, child, columns, np.flatnonzero(mask[row, child])))
        outputs.append(np.concatenate(of_row))
    return model.layout.distribution(th.as_tensor(np.stack(outputs)), own)


def assert_distributions_equal(actual: StateDistribution, expected: StateDistribution) -> None:
    for name in ("logits", "mean", "log_std"):
        th.testing.assert_close(getattr(actual, name).detach(), getattr(expected, name), rtol=0, atol=1e-10)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_prediction_equals_an_independent_evaluation(kind, prior):
    model = make_model(kind, graph_prior=prior).double().eval()
    windows = random_windows(kind[0], *kind[1], n_rows=9, length=1, dtype=th.float64)
    state, action = windows.state[:, 0], windows.action[:, 0]
    prediction = model.step(state, action)
    graph = np.broadcast_to(model.context_graphs()[0].edges, prediction.graph.shape)
    assert np.array_equal(prediction.graph.numpy(), graph)
    assert_distributions_equal(prediction.next_state, independent(model, state, action, graph))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_loss_equals_three_independent_rollouts(kind, monkeypatch):
    """With modes in place of samples nothing is random but the dropped parents."""
    monkeypatch.setattr(StateDistribution, "sample", StateDistribution.mode)
    model = make_model(kind, graph_prior="none").double().train()
    windows = random_windows(kind[0], *kind[1], n_rows=5, length=3, dtype=th.float64)
    windows.valid[3:, 2:] = False
    th.manual_seed(1)
    losses = model.loss(windows)
    th.manual_seed(1)
    every = np.ones((5, *model.cmi.shape), dtype=bool)
    kept = ~model._dropped(5).transpose(0, 1).numpy()
    causal = np.broadcast_to(model.graph.numpy(), every.shape)
    states, nlls = [windows.state[:, 0]] * 3, []
    for step in range(3):
        action = windows.action[:, step]
        distributions = [
            independent(model, states[0], action, every),
            independent(model, states[0], action, kept, own=states[1]),
            independent(model, states[2], action, causal),
        ]
        log_probs = th.stack([distribution.log_prob(windows.next_state[:, step]) for distribution in distributions])
        nlls.append(-log_probs.mean(-1)[:, windows.valid[:, step]])
        states = [distribution.mode() for distribution in distributions]
    full, dropped, of_graph = th.cat(nlls, dim=1).mean(1).tolist()
    assert losses.terms["full"].item() == pytest.approx(full, rel=1e-10)
    assert losses.terms["dropped"].item() == pytest.approx(dropped, rel=1e-10)
    assert losses.terms["dynamics"].item() == pytest.approx(of_graph, rel=1e-10)
    assert losses.total.item() == pytest.approx(full + dropped + of_graph, rel=1e-10)


def loss_and_gradients(model: CDLDynamics, windows: Windows, use_tables: bool) -> tuple[Losses, dict[str, th.Tensor]]:
    model = copy.deepcopy(model).train()
    state = windows.state.clone().requires_grad_()
    th.manual_seed(1)
    with tables_used(use_tables):
        losses = model.loss(windows._replace(state=state))
    losses.total.backward()
    return losses, {"state": state.grad} | {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_tables_equal_matrix_products_with_every_gradient(kind, prior):
    """The gradient by the first state too: the straight-through path alone."""
    model = make_model(kind, graph_prior=prior).double()
    windows = random_windows(kind[0], *kind[1], n_rows=33, length=3, dtype=th.float64)
    assert_same_loss_and_gradients(*(loss_and_gradients(model, windows, use_tables) for use_tables in (True, False)))


@pytest.mark.parametrize("noisy", [(2,), (1, 3), (0, 1, 2, 3)])
def test_noisy_parents_take_the_dense_path_in_the_same_call(noisy):
    model = make_model(graph_prior="none").double().eval()
    windows = random_windows(EQUAL[0], *EQUAL[1], n_rows=20, length=1, dtype=th.float64)
    state, action = windows.state[:, 0].clone(), windows.action[:, 0]
    for parent in noisy:
        state[:, 3 * parent : 3 * parent + 3] *= 100 * th.randn(20, 3, dtype=th.float64)
    assert model.features.bind(with_state_gradient=False).read(state, action).dense == noisy
    mixed = model.step(state, action)
    with tables_used(False):
        dense = model.step(state, action)
    th.testing.assert_close(mixed.next_state.logits, dense.next_state.logits, rtol=1e-10, atol=1e-10)


def test_masked_parent_changes_no_bit_of_the_child():
    model = make_model(graph_prior="self").eval()
    model.cmi.fill_(1)
    model.cmi[2, 0] = 0
    windows = random_windows(EQUAL[0], *EQUAL[1], n_rows=50, length=1)
    state, action = windows.state[:, 0], windows.action[:, 0]
    corrupted = state.clone()
    corrupted[:, 0:3] = 100 * th.randn(50, 3)
    before, after = (model.step(x, action).next_state.logits for x in (state, corrupted))
    assert th.equal(before[:, 2], after[:, 2])
    assert not any(th.equal(before[:, child], after[:, child]) for child in (0, 1, 3))


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_cmi_equals_the_difference_of_independent_likelihoods(kind, prior):
    model = make_model(kind, graph_prior=prior).double()
    windows = random_windows(kind[0], *kind[1], n_rows=4, length=2, dtype=th.float64)
    windows.valid[2:, 1] = False
    state, action, next_state = (part[windows.valid] for part in windows[:3])
    every = np.broadcast_to(model.is_allowed.numpy(), (6, *model.cmi.shape))
    full = independent(model, state, action, every).log_prob(next_state)
    for parent, gains in enumerate(model.gains(windows).unbind(-1)):
        kept = every.copy()
        kept[:, :, parent] = False
        expected = full - independent(model, state, action, kept).log_prob(next_state)
        scale = max(1, expected.abs().max().item())
        th.testing.assert_close(gains / scale, expected / scale, rtol=0, atol=1e-10)


def test_moving_average_and_threshold_by_hand(monkeypatch):
    """Threshold 1/8, decay 3/4: free entries are those off the diagonal."""
    model = CDLDynamics(factors([2, 2], 3), "self", hidden_dim=4, cmi_threshold=0.125, cmi_decay=0.75, cmi_freq=2)
    estimates = iter([[[0, 0.375, 0], [0.125, 0, -0.125]], [[0, -0.0625, 0.5], [0, 0, 0.3125]]])
    noise = th.tensor([-0.5, 0.5]).view(2, 1, 1)
    monkeypatch.setattr(model, "gains", lambda windows: th.tensor(next(estimates)) + noise)
    n_sampled = []
    graphs = [model.graph.int().tolist()]

    def sample_windows(n):
        n_sampled.append(n)
        return random_windows([2, 2], 3, n_rows=4, length=1)

    for n_updates in range(1, 5):
        model.after_update(n_updates, sample_windows)
        graphs.append(model.graph.int().tolist())
    full = [[1, 1, 1], [1, 1, 1]]
    # 3/4 of 0.125 and 1/4 of the estimate: 0.1875 and 0.09375; 0.125 (at the threshold: an edge) and 0.0625.
    first = [[1, 1, 0], [1, 1, 0]]
    # 0.125 and 0.1953125; 0.09375 and 0.125: edges come back.
    second = [[1, 1, 1], [0, 1, 1]]
    assert graphs == [full, full, first, first, second]
    assert n_sampled == [256, 256]
    before = model.cmi.clone()
    model.after_update(6, lambda n: random_windows([2, 2], 3, n_rows=0, length=1))
    assert th.equal(model.cmi, before)  # nothing is held out yet
    assert model.cmi.flatten().tolist() == [0.0703125, 0.125, 0.1953125, 0.09375, 0.0703125, 0.125]
    twin = CDLDynamics(factors([2, 2], 3), "self", hidden_dim=4, cmi_threshold=0.125)
    twin.load_state_dict(model.state_dict())
    assert th.equal(twin.graph, model.graph)


@pytest.mark.parametrize("threshold", [0.001, 0.01, 0.3])
@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_the_first_graph_has_every_edge_that_the_prior_allows(threshold, dtype):
    graphs = [CDLDynamics(factors([3, 3, 3], 4), prior, 4, cmi_threshold=threshold).to(dtype).graph for prior in PRIORS]
    assert graphs[0].int().tolist() == [[1, 0, 0, 1], [1, 1, 0, 1], [1, 1, 1, 1]]
    assert graphs[1].all() and graphs[2].all()


@pytest.mark.parametrize(("prior", "n_free"), [("order", [0, 1, 2, 3]), ("self", [4, 4, 4, 4]), ("none", [5, 5, 5, 5])])
def test_each_free_parent_is_dropped_equally_often_and_no_other(prior, n_free):
    model = make_model(graph_prior=prior)
    dropped = model._dropped(4000)
    assert th.equal(dropped.sum(-1), (th.tensor(n_free) > 0).long().unsqueeze(-1).expand(-1, 4000))
    expected = model.is_free / th.tensor(n_free).clamp(min=1).unsqueeze(-1)
    th.testing.assert_close(dropped.float().mean(1), expected, rtol=0, atol=0.04)


def linked_windows(n_rows: int) -> Windows:
    """
    Action ``(k, c)`` sets variable ``k`` of four to ``c``.

    Those that are not set: x0 and x1 persist, ``x2' = x1 + x2 mod 3``, ``x3' = x0``.
    """
    values, action = th.randint(3, (n_rows, 4)), th.randint(12, (n_rows,))
    successors = values.clone()
    successors[:, 2] = (values[:, 1] + values[:, 2]) % 3
    successors[:, 3] = values[:, 0]
    successors[th.arange(n_rows), action // 3] = action % 3
    state, next_state = (one_hot_state(x, [3] * 4).unsqueeze(1) for x in (values, successors))
    return Windows(
        state, th.nn.functional.one_hot(action, 12).float().unsqueeze(1), next_state, th.ones(n_rows, 1, dtype=th.bool)
    )


LINKED_GRAPH = [[1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 1, 1, 0, 1], [1, 0, 0, 0, 1]]


def trained(prior: str, sample_windows) -> CDLDynamics:
    th.manual_seed(0)
    model = CDLDynamics(factors([3] * 4, 12), prior, hidden_dim=32)
    optimizer = th.optim.Adam(model.parameters(), lr=1e-2)
    for n_updates in range(1, 301):
        losses = model.train().loss(sample_windows(64))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        model.after_update(n_updates, sample_windows)
    return model.eval()


def accuracy(model: CDLDynamics, windows: Windows) -> float:
    mode = model.step(windows.state[:, 0], windows.action[:, 0]).next_state.mode()
    return (mode == windows.next_state[:, 0]).float().mean().item()


@pytest.mark.parametrize("prior", ["self", "none"])
def test_links_between_variables_are_recovered_and_no_others(prior):
    model = trained(prior, linked_windows)
    expected = np.array(LINKED_GRAPH, dtype=bool)
    if prior == "self":
        np.fill_diagonal(expected, True)
    assert np.array_equal(model.context_graphs()[0].edges, expected)
    assert accuracy(model, linked_windows(500)) > 0.99


def test_persisting_variables_depend_on_no_other():
    model = trained("order", lambda n_rows: persist_and_set_windows(4, 3, n_rows))
    assert not model.context_graphs()[0].edges[model.free_entries].any()
    assert accuracy(model, persist_and_set_windows(4, 3, 500)) > 0.99


class Drift(gym.Env):
    """Three variables, each of which stays what it is in every second step, whatever the others and the action are."""

    observation_space = gym.spaces.MultiDiscrete([4, 4, 4])
    action_space = gym.spaces.Discrete(4)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.integers(4, size=3)
        return self.state, {}

    def step(self, action):
        stays = self.np_random.random(3) < 0.5
        self.state = np.where(stays, self.state, self.np_random.integers(4, size=3))
        return self.state, 0.0, False, False, {}


def test_evidence_is_that_of_the_latest_estimate(monkeypatch):
    """Gains of 0.1 and 0.3 have mean 0.2 and standard error 0.1; one-sided p-values from a table, adjusted by hand."""
    model = CDLDynamics(factors([2, 2], 3), "self", hidden_dim=4, cmi_freq=1)
    (before,) = model.context_graphs()
    assert not before.evidence.is_tested.any() and before.evidence.n == 0
    gains = th.zeros(8, 2, 3)
    gains[:, 0, 1] = th.tensor([0.1, 0.3] * 4)
    gains[:, 0, 2] = th.tensor([-0.1, 0.3] * 4)
    gains[:, 1, 0] = th.tensor([-0.3, 0.1] * 4)
    gains[:, 1, 2] = th.tensor([0.5, 0.7] * 4)
    monkeypatch.setattr(model, "gains", lambda windows: gains)
    model.after_update(1, lambda n: random_windows([2, 2], 3, n_rows=8, length=1))
    (graph,) = model.context_graphs()
    evidence = graph.evidence
    assert np.array_equal(evidence.is_tested, model.free_entries) and evidence.n == 8
    assert evidence.gain[0, 1] == pytest.approx(0.2)
    assert evidence.standard_error[0, 1] == pytest.approx(np.std([0.1, 0.3] * 4, ddof=1) / 8**0.5)
    # t = 5.29, 1.32, -1.32 and 15.9 with seven degrees of freedom: p = 0.0006, 0.114, 0.886 and 5e-7, of four in order.
    q_values = [evidence.q_values[entry] for entry in ((0, 1), (0, 2), (1, 0), (1, 2))]
    assert q_values == pytest.approx([0.0006 * 4 / 2, 0.114 * 4 / 3, 0.886, 0.0], abs=2e-3)
    assert graph.significant(0.05).edges.tolist() == [[True, True, False], [False, True, True]]


@pytest.mark.slow
def test_what_the_network_knows_by_heart_is_no_information():
    settings = {"learning_starts": 999, "train_freq": 1000, "gradient_steps": 400, "learning_rate": 1e-3, "seed": 0}
    model = FCDL("MlpPolicy", Drift(), dynamics="cdl", dynamics_kwargs={"hidden_dim": 64}, **settings).learn(1000)
    dynamics = model.dynamics
    assert dynamics.graph[dynamics.is_free].sum() <= 3 and dynamics.cmi[dynamics.is_free].mean() < 0
    # By the transitions that it was trained on every parent would matter to every variable.
    assert dynamics.gains(model.experience.recorded(1000).windows).mean(0)[dynamics.is_free].min() > 10 * dynamics.threshold


def test_estimates_while_it_learns():
    quick = {"hidden_dim": 16, "cmi_freq": 2, "cmi_batch_size": 8}
    dynamics = tiny_fcdl(tiny_vec_env(10), dynamics=CDLDynamics, dynamics_kwargs=quick).learn(100).dynamics
    assert not th.equal(dynamics.cmi, th.full_like(dynamics.cmi, 0.001))
