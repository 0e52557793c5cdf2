import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch as th
from dense import array, assert_same_distribution, parent_features, relu, scrambled, sigmoid, tables_used
from tiny import tiny_fcdl
from toy import KINDS, factors, one_hot_state, random_windows

from sb3_fcdl import FCDL
from sb3_fcdl.dynamics import Windows
from sb3_fcdl.dynamics.distributions import output_width
from sb3_fcdl.dynamics.grader import GRADERDynamics
from sb3_fcdl.dynamics.lookup import gates
from sb3_fcdl.dynamics.lookup.parent_gru import HiddenStates


def make_model(sizes: list[int], action_sizes: tuple[int, ...], graph: th.Tensor | None = None, **kwargs) -> GRADERDynamics:
    th.manual_seed(0)
    model = GRADERDynamics(factors(sizes, *action_sizes), **({"hidden_dim": 16} | kwargs))
    if graph is not None:
        model.graph.copy_(graph)
    return model


def random_graph(sizes: list[int], action_sizes: tuple[int, ...]) -> th.Tensor:
    return th.as_tensor(np.random.default_rng(0).random((len(sizes), len(sizes) + len(action_sizes))) < 0.5).float()


def edges(model: GRADERDynamics) -> list[list[int]]:
    return model.graph.int().tolist()


def head_outputs(model: GRADERDynamics, state: th.Tensor, action: th.Tensor) -> th.Tensor:
    """``[R, output_width]``: of a continuous variable the change, not the state that it is added to."""
    return model.head(model.network.bind(model.graph)(state, action).relu())


def independent_outputs(model: GRADERDynamics, state: th.Tensor, action: th.Tensor) -> th.Tensor:
    """Spec 1.6: a GRU over the parents' features, one sample, one child and one parent at a time."""
    network, n_children = model.network, len(model.factors.state_variables)
    order = [*range(n_children, len(model.factors.parents)), *range(n_children)]
    embedded = SimpleNamespace(factors=model.factors, features=network.features)
    rows = []
    for columns in np.concatenate([array(state), array(action)], axis=1):
        features, outputs = parent_features(embedded, columns), []
        for child, variable in enumerate(model.factors.state_variables):
            hidden = model.graph[child, child].item() * features[child]
            for parent in order:
                if parent != child and model.graph[child, parent]:
                    fed = features[parent] @ array(network.of_input.weight)[child] + array(network.of_input.bias)[child, 0]
                    recurrent = hidden @ array(network.of_hidden.weight)[child] + array(network.of_hidden.bias)[child, 0]
                    (r_in, z_in, n_in), (r_rec, z_rec, n_rec) = np.split(fed, 3), np.split(recurrent, 3)
                    reset, update = sigmoid(r_in + r_rec), sigmoid(z_in + z_rec)
                    hidden = (1 - update) * np.tanh(n_in + reset * n_rec) + update * hidden
            head = relu(hidden) @ array(model.head.weight)[child] + array(model.head.bias)[child, 0]
            outputs.append(head[: output_width(variable)])
        rows.append(np.concatenate(outputs))
    return th.as_tensor(np.stack(rows))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_prediction_equals_a_gru_for_each_variable(kind):
    sizes, action_sizes = kind
    for graph in (None, random_graph(*kind)):
        model = scrambled(make_model(*kind, graph=graph)).eval()
        windows = random_windows(sizes, *action_sizes, n_rows=9, length=1, dtype=th.float64)
        state, action = windows.state[:, 0].clone(), windows.action[:, 0]
        for scale in (1, 100):  # once by tables, once with a first variable that is not one-hot
            state[:, :2] *= scale
            prediction = model.step(state, action)
            assert_same_distribution(prediction, model, independent_outputs(model, state, action), state)
            assert prediction.code is None and th.equal(prediction.graph, model.graph.expand(9, -1, -1))


def test_recurrent_network_is_that_of_torch():
    model = make_model([3, 3], (4,), graph_prior="none").eval()
    network, state, action = model.network, th.eye(3)[[0, 2, 1]].repeat(1, 2), th.eye(4)[[3, 1, 0]]
    reference = th.nn.GRU(16, 16)
    with th.no_grad():
        for suffix, layer in (("ih_l0", network.of_input), ("hh_l0", network.of_hidden)):
            getattr(reference, f"weight_{suffix}").copy_(layer.weight[1].T)
            getattr(reference, f"bias_{suffix}").copy_(layer.bias[1, 0])
    of_x0, of_x1, of_action = network.every_feature(th.cat([state, action], -1))
    _, expected = reference(th.stack([of_action, of_x0]), of_x1.unsqueeze(0))
    hidden = network.bind(model.graph)(state, action)
    th.testing.assert_close(hidden[1], expected[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_tables_equal_matrix_products_with_every_gradient(kind):
    sizes, action_sizes = kind
    model = scrambled(make_model(*kind, graph_prior="none")).train()
    windows = random_windows(sizes, *action_sizes, n_rows=33, length=3, dtype=th.float64)
    gradients = []
    for use_tables in (True, False):
        twin = copy.deepcopy(model)
        state = windows.state.clone().requires_grad_()
        th.manual_seed(1)
        with tables_used(use_tables):
            twin.loss(windows._replace(state=state)).total.backward()
        gradients.append({name: parameter.grad for name, parameter in twin.named_parameters()} | {"state": state.grad})
    for name, gradient in gradients[1].items():
        scale = gradient.abs().max().item()
        assert scale > 0, name
        th.testing.assert_close(gradients[0][name] / scale, gradient / scale, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_masked_parent_changes_no_bit_of_the_child(kind):
    sizes, action_sizes = kind
    graph = th.ones(len(sizes), len(sizes) + len(action_sizes))
    graph[:2, -1] = graph[:2, 0] = 0  # the first child has lost itself, too
    model = make_model(*kind, graph=graph).eval()
    windows = random_windows(sizes, *action_sizes, n_rows=50, length=1)
    state, action = windows.state[:, 0], windows.action[:, 0]
    other_state, other_action = state.clone(), action.clone()
    other_state[:, : max(sizes[0], 1)] *= 1e6
    other_action[:, -max(action_sizes[-1], 1) :] = th.randn(50, max(action_sizes[-1], 1))
    n_outputs = [output_width(variable) for variable in model.factors.state_variables]
    before = head_outputs(model, state, action).split(n_outputs, dim=-1)
    for inputs in ((other_state, action), (state, other_action)):
        after = head_outputs(model, *inputs).split(n_outputs, dim=-1)
        same = [th.equal(*pair) for pair in zip(before, after, strict=True)]
        assert same == [True, True] + [False] * (len(sizes) - 2)


@th.no_grad()
@pytest.mark.parametrize("max_states", [2**17, 0])
@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if all(kind[0])])
def test_planning_computes_every_beginning_once_and_predicts_as_without_memo(kind, max_states, monkeypatch):
    monkeypatch.setattr(HiddenStates, "MAX_STATES", max_states)
    graph = random_graph(*kind)
    model = scrambled(make_model(*kind, graph=graph)).eval()
    windows = random_windows(kind[0], *kind[1], n_rows=200, length=1, dtype=th.float64)
    state, action = windows.state[:, 0], windows.action[:, 0]
    category = model.network.bind(model.graph).features.read(state, action).rows
    n_beginnings = 0
    for child, parents in enumerate(graph.bool()):
        read = [category[:, child]] if parents[child] else []
        for parent in (*range(len(kind[0]), graph.shape[1]), *range(len(kind[0]))):
            if parents[parent] and parent != child:
                read.append(category[:, parent])
                n_beginnings += len(set(zip(*(column.tolist() for column in read), strict=True)))
    n_computed = []
    next_hidden = gates.next_hidden
    monkeypatch.setattr(
        gates,
        "next_hidden",
        lambda reading, hidden, fed: n_computed.append(hidden.shape[1]) or next_hidden(reading, hidden, fed),
    )
    step = model.stepper()
    first, again = step(state, action), step(state, action)
    # The memo that keeps nothing has computed all of them twice.
    assert sum(n_computed) == (n_beginnings if max_states else 2 * n_beginnings) > 0
    with tables_used(False):
        dense = model.stepper()(state, action).next_state.logits
    for prediction in (first, again):
        th.testing.assert_close(prediction.next_state.logits, dense, rtol=0, atol=1e-12)


def test_published_size():
    """Ten GRUs of 128, features shared, heads: about a million parameters (spec 0.4)."""
    model = GRADERDynamics(factors([5] * 10, 50))
    features, of_child = 100 * 128 + 11 * 128, 2 * (128 * 384 + 384) + 128 * 5 + 5
    assert sum(parameter.numel() for parameter in model.parameters()) == features + 10 * of_child == 1_011_378


def buffer_of(windows: Windows):
    """Draws no window twice."""

    def sample_windows(n: int) -> Windows:
        index = th.randperm(len(windows.valid))[:n]
        return Windows(*(part[index] for part in windows))

    return sample_windows


def rollouts(sizes: list[int], action_size: int, start: th.Tensor, policy, follow, length: int = 3) -> Windows:
    """
    Windows of categorical variables.

    :param start: ``[R, V]``
    :param policy: from states ``[R, V]`` to actions ``[R]``
    :param follow: from states and actions to the next states
    """
    states, actions = [start], []
    for _ in range(length):
        actions.append(policy(states[-1]))
        states.append(follow(states[-1], actions[-1]))
    encoded = one_hot_state(th.stack(states, 1), sizes)
    action = th.nn.functional.one_hot(th.stack(actions, 1), action_size).float()
    return Windows(encoded[:, :-1], action, encoded[:, 1:], th.ones(len(start), length, dtype=th.bool))


def slips(values: th.Tensor, share: float) -> th.Tensor:
    """Replaces a share of ternary values by random ones."""
    return th.randint(3, values.shape).where(th.rand(values.shape) < share, values)


def ternary_windows(n_rows: int) -> Windows:
    def follow(x: th.Tensor, action: th.Tensor) -> th.Tensor:
        successors = (x[:, 0], x[:, 0].minimum(x[:, 1]), action.where(action < 2, x[:, 2]), x[:, 1].maximum(x[:, 2]))
        return slips(th.stack(successors, -1), 0.2)

    return rollouts([3] * 4, 3, th.randint(3, (n_rows, 4)), lambda x: th.randint(3, (len(x),)), follow)


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        ("none", [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 1], [0, 1, 1, 0, 0]]),
        ("self", [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 1], [0, 1, 1, 1, 0]]),
        ("order", [[1, 0, 0, 0, 1], [1, 1, 0, 0, 1], [0, 0, 1, 0, 1], [0, 1, 1, 1, 1]]),
    ],
)
def test_known_graph_is_recovered_in_the_round_of_tests_that_is_due(prior, expected):
    model = make_model([3] * 4, (3,), graph_prior=prior, significance=0.001)
    at_first = (model.free_entries | (np.array(expected) == 1)).astype(int).tolist()
    sample_windows = buffer_of(ternary_windows(3000))
    model.after_update(24, sample_windows)
    assert edges(model) == at_first
    model.after_update(25, sample_windows)
    assert edges(model) == expected
    (graph,) = model.context_graphs()
    assert graph.edges.astype(int).tolist() == expected and graph.parents_of("x2") == ("x2", graph.parent_names[-1])


def test_only_the_stratified_test_sees_through_confounding():
    """
    x0 drives nothing but itself. It looks like x1, which persists, and like the action, which sets x1: both make x0 predict
    what x1 will be. Marginally that is an edge; at equal x1 and equal actions it is not.
    """
    th.manual_seed(1)
    cause = th.randint(3, (4000,))
    idle = 3

    def policy(x: th.Tensor) -> th.Tensor:
        return slips(x[:, 0], 0.3).where(th.rand(len(x)) < 0.5, idle)

    def follow(x: th.Tensor, action: th.Tensor) -> th.Tensor:
        return th.stack([x[:, 0], slips(x[:, 1].where(action == idle, action), 0.2)], -1)

    windows = rollouts([3, 3], 4, th.stack([slips(cause, 0.3), slips(cause, 0.3)], -1), policy, follow)
    graphs = {}
    for ci_test in ("marginal_chi2", "stratified_chi2"):
        model = make_model([3, 3], (4,), graph_prior="none", ci_test=ci_test)
        model.discover(windows)
        graphs[ci_test] = edges(model)
    assert graphs["stratified_chi2"] == [[1, 0, 0], [0, 1, 1]]
    assert graphs["marginal_chi2"] == [[1, 1, 1], [1, 1, 1]]


def test_edges_come_and_go_with_the_data():
    th.manual_seed(0)
    model = make_model([3, 3], (2,), graph_prior="self")
    systems = {True: lambda x, action: slips(x[:, [0, 0]], 0.2), False: lambda x, action: slips(x, 0.2)}
    for is_edge in (False, True, False):
        windows = rollouts([3, 3], 2, th.randint(3, (1000, 2)), lambda x: th.randint(2, (len(x),)), systems[is_edge])
        model.discover(windows)
        assert edges(model) == [[1, 0, 0], [int(is_edge), 1, 0]]


def test_little_data_is_little_evidence():
    """Twenty samples of pure noise, where thousands are asked for."""
    found = []
    for seed in range(30):
        th.manual_seed(seed)
        model = make_model([3, 3], (2,), graph_prior="self", n_discovery_windows=4000)
        model.after_update(25, buffer_of(random_windows([3, 3], 2, n_rows=20, length=3)))
        found.append(model.graph[model.edges.given == 0].sum().item())
    assert sum(found) <= 5  # of 120 tests at the level 0.01


def test_transitions_that_are_alike_are_evidence():
    """All transitions of FrozenLake are some hundred; how often each happens tells that the action matters."""
    model = FCDL(
        "MlpPolicy", "FrozenLake-v1", dynamics="grader", learning_starts=3000, train_freq=3000, gradient_steps=25, seed=0
    )
    model.learn(3000)
    assert edges(model.dynamics) == [[1, 1]]


def test_windows_that_are_not_valid_are_no_samples():
    windows = ternary_windows(3000)
    broken = Windows(
        *(th.cat([part, part.roll(1, 0)]) for part in windows[:1]), *(th.cat([part, part]) for part in windows[1:])
    )
    broken.valid[3000:] = False
    graphs = []
    for data in (windows, broken):
        model = make_model([3] * 4, (3,), graph_prior="none")
        model.discover(data)
        graphs.append(edges(model))
    assert graphs[0] == graphs[1]


def test_known_graph_of_mixed_variables_is_recovered():
    """``x' = x + 0.1 a``; ``y' = y + 0.1 x`` while the gate is open; z stays. x and y are correlated from the start."""
    th.manual_seed(0)
    gate, noise = th.randint(2, (4000, 1)), th.randn(4000, 5)
    x, action = noise[:, :1], noise[:, 1:2]
    y, z = x + noise[:, 2:3], noise[:, 3:4]
    successors = (x + 0.1 * action + 0.02 * noise[:, 4:], y + 0.1 * gate * x + 0.02 * th.randn(4000, 1), z)
    one_hot = th.nn.functional.one_hot(gate[:, 0], 2).float()
    parts = (th.cat([one_hot, x, y, z], -1), action, th.cat([one_hot, *successors], -1), th.ones(4000, dtype=th.bool))
    model = make_model([2, 0, 0, 0], (0,), graph_prior="self")
    model.discover(Windows(*(part.unsqueeze(1) for part in parts)))
    assert edges(model) == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 1], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0]]


@pytest.mark.parametrize("change", [-1.0, 1.0])
def test_quantity_that_seldom_moves_has_the_parent_that_moves_it(change):
    """One of five actions moves it, as burning fuel does: in four samples of five it stays."""
    th.manual_seed(0)
    state, action = th.randn(5000, 1, 1), th.randint(5, (5000, 1))
    encoded = th.nn.functional.one_hot(action, 5).float()
    model = make_model([0], (5,))
    model.discover(Windows(state, encoded, state + change * encoded[..., :1], th.ones(5000, 1, dtype=th.bool)))
    assert edges(model) == [[1, 1]]


def test_unknown_test_and_prior_list_the_known_ones():
    with pytest.raises(ValueError, match="stratified_chi2, marginal_chi2"):
        make_model([2, 3], (2,), ci_test="fcit")
    with pytest.raises(ValueError, match="order, self, none"):
        make_model([2, 3], (2,), graph_prior="causal")


def test_drops_edges_while_it_learns():
    small = {"hidden_dim": 16, "discovery_freq": 5, "n_discovery_windows": 500}
    dynamics = tiny_fcdl(dynamics=GRADERDynamics, dynamics_kwargs=small).learn(40).dynamics
    assert not dynamics.graph[dynamics.free_entries].all()


def test_tests_are_the_evidence_of_the_graph():
    """A child that is its parent in 60 % of 4000 rows, and one that is a coin: 0.02 nats, see ``test_independence``."""
    th.manual_seed(0)
    model = make_model([2, 2], (2,), ci_test="marginal_chi2")
    (before,) = model.context_graphs()
    assert before.evidence.n == 0 and not before.evidence.is_tested.any()
    parent, coin, action = th.arange(4000) % 2, th.randint(2, (4000,)), th.randint(2, (4000,))
    child = th.where(th.arange(4000) % 10 < 6, parent, 1 - parent)
    state, after = (one_hot_state(th.stack(each, dim=1), [2, 2]) for each in ((parent, coin), (coin, child)))
    valid = th.ones(4000, 1, dtype=th.bool)
    model.discover(Windows(state.unsqueeze(1), th.eye(2)[action].unsqueeze(1), after.unsqueeze(1), valid))
    (graph,) = model.context_graphs()
    evidence = graph.evidence
    assert evidence.n == 4000 and np.array_equal(evidence.is_tested, model.free_entries)
    assert evidence.gain[1, 0] == pytest.approx(0.02, abs=2e-4)
    assert evidence.standard_error[1, 0] == pytest.approx(2**-0.5 / 4000, rel=0.01)
    assert evidence.q_values[1, 0] < 1e-6 and evidence.q_values[1, 2] > 0.05
    assert graph.significant(0.05).edges[1].tolist() == [True, True, False]
    never = th.eye(2)[th.zeros(4000, dtype=th.int64)].unsqueeze(1)
    model.discover(Windows(state.unsqueeze(1), never, after.unsqueeze(1), valid))
    (graph,) = model.context_graphs()
    assert graph.evidence.is_tested[1].tolist() == [True, False, False], "an action that never varies"
