import itertools
from functools import lru_cache

import numpy as np
import pytest

from fcdl_envs.chemical_system import ChemicalSystem, causal_order_graph, draw_networks

NAMED_EDGES = {
    "chain": {(1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5)},
    "fork": {(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0)},
    "collider": {(6, 0), (6, 1), (6, 2), (6, 3), (6, 4), (6, 5)},
    "tree": {(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (6, 2)},
    "jungle": {(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (6, 2), (3, 0), (4, 0), (5, 0), (6, 0)},
    "bidiag": {(1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5), (2, 0), (3, 1), (4, 2), (5, 3), (6, 4)},
    "full": {(child, parent) for child in range(7) for parent in range(child)},
}
DIAMOND = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]])


class SlowSystem:
    """The same dynamics by the book: one state at a time, dense networks on masked one-hots."""

    def __init__(self, rule, graph, n_objects, n_colors, dynamics_seed):
        self.rule, self.n_objects, self.n_colors = rule, n_objects, n_colors
        self.graph = causal_order_graph(graph, n_objects)
        self.networks = draw_networks(n_objects, n_colors, np.random.default_rng(dynamics_seed))
        self.probabilities = lru_cache(maxsize=None)(self._probabilities)

    def is_local(self, state):
        return self.rule != "none" and state[0] == 0

    def parents(self, node, state):
        parents = [parent for parent in range(self.n_objects) if self.graph[node, parent]]
        if self.is_local(state):
            kept = 0 if self.rule == "full_fork" else node - 1
            parents = [parent for parent in parents if parent == kept]
        return parents

    def _probabilities(self, node, state):
        inputs, (hidden_bias, bias), outputs = self.networks[node]
        x = np.zeros((self.n_objects, self.n_colors))
        for parent in self.parents(node, state):
            x[parent, state[parent]] = 1.0
        hidden = np.maximum(x.ravel() @ inputs.reshape(x.size, -1) + hidden_bias, 0)
        logits = hidden @ outputs + bias
        return np.exp(logits) / np.exp(logits).sum()

    def redrawn(self, state, action):
        """The state after the action, before its effects, and the objects that these reach."""
        node, color = divmod(action, self.n_colors)
        state = (*state[:node], color, *state[node + 1 :])
        changed = [node]
        for child in range(node + 1, self.n_objects):
            if set(self.parents(child, state)) & set(changed):
                changed.append(child)
        return state, changed[1:]

    def next_states(self, state, action):
        """All next states with their probabilities."""
        state, redrawn = self.redrawn(state, action)
        outcomes = {state: 1.0}
        for node in redrawn:
            outcomes = {
                (*before[:node], color, *before[node + 1 :]): chance * self.probabilities(node, before)[color]
                for before, chance in outcomes.items()
                for color in range(self.n_colors)
            }
        return outcomes

    def marginals(self, state, action):
        """Distribution of every next colour, [V, C]."""
        result = np.zeros((self.n_objects, self.n_colors))
        for outcome, chance in self.next_states(state, action).items():
            result[np.arange(self.n_objects), outcome] += chance
        return result


@pytest.mark.parametrize("name", NAMED_EDGES)
def test_named_graphs(name):
    assert set(map(tuple, np.argwhere(causal_order_graph(name, 7)).tolist())) == NAMED_EDGES[name]


def test_graph_matrix_is_copied():
    system = ChemicalSystem(graph=DIAMOND, n_objects=4)
    outside = system.instantaneous_graph(np.array([[1, 0, 0, 0]]))[0]
    assert outside.dtype == bool
    assert np.array_equal(outside, DIAMOND)
    outside[:] = True
    assert np.array_equal(system.instantaneous_graph(np.array([[1, 0, 0, 0]]))[0], DIAMOND)


def test_networks_are_orthogonal_with_gain_three():
    for inputs, (hidden_bias, bias), outputs in draw_networks(10, 5, np.random.default_rng(0)):
        weights = inputs.reshape(50, 40).T
        assert np.allclose(weights @ weights.T, 9 * np.eye(40))
        assert np.allclose(outputs.T @ outputs, 9 * np.eye(5))
        assert np.abs(np.concatenate([hidden_bias, bias])).max() <= 0.2
    for inputs, _, _ in draw_networks(4, 3, np.random.default_rng(0)):
        assert np.allclose(inputs.reshape(12, 40) @ inputs.reshape(12, 40).T, 9 * np.eye(12))


@pytest.mark.parametrize("rule", ["full_fork", "full_chain", "none"])
@pytest.mark.parametrize(
    ("graph", "n_objects", "n_colors"),
    [("full", 10, 5), ("jungle", 10, 5), ("full", 40, 2), ("full", 6, 20), ("full", 4, 1500)],
)
def test_conditionals_equal_dense_networks(rule, graph, n_objects, n_colors):
    slow = SlowSystem(rule, graph, n_objects, n_colors, dynamics_seed=3)
    system = ChemicalSystem(rule, graph, n_objects, n_colors, dynamics_seed=3)
    colors = np.random.default_rng(0).integers(n_colors, size=(40, n_objects))
    colors[:20, 0] = 0
    for node in range(1, n_objects):
        expected = [slow.probabilities(node, tuple(row)) for row in colors.tolist()]
        assert np.allclose(system.conditional(node, colors), expected, atol=1e-12)


@pytest.mark.parametrize("rule", ["full_fork", "full_chain", "none"])
@pytest.mark.parametrize(("state", "action"), [((2, 1, 0, 2), 4), ((0, 1, 2, 0), 4), ((1, 1, 2, 0), 0)])
def test_step_draws_from_the_exact_distribution(rule, state, action):
    n_draws = 40_000
    system = ChemicalSystem(rule, n_objects=4, n_colors=3, dynamics_seed=1)
    uniforms = np.random.default_rng(0).random((n_draws, 4))
    drawn = system.step(np.tile(state, (n_draws, 1)), np.full(n_draws, action), uniforms)
    expected = SlowSystem(rule, "full", 4, 3, dynamics_seed=1).next_states(state, action)
    for outcome, chance in expected.items():
        frequency = (drawn == outcome).all(axis=1).mean()
        assert abs(frequency - chance) < 5 * np.sqrt(chance * (1 - chance) / n_draws) + 1e-9
    assert {tuple(row) for row in np.unique(drawn, axis=0).tolist()} <= expected.keys()


def test_large_conditionals_are_drawn_from_their_distribution():
    """Object 9 has nine parents: too many for a table."""
    n_draws = 40_000
    system = ChemicalSystem("none", dynamics_seed=1)
    state = (1, 2, 3, 4, 0, 1, 2, 3, 4, 0)
    uniforms = np.random.default_rng(0).random((n_draws, 10))
    drawn = system.step(np.tile(state, (n_draws, 1)), np.full(n_draws, 8 * 5 + 4), uniforms)
    expected = SlowSystem("none", "full", 10, 5, dynamics_seed=1).probabilities(9, state)
    assert np.array_equal(drawn[:, :9], np.tile(state[:9], (n_draws, 1)))
    assert np.allclose(np.bincount(drawn[:, 9], minlength=5) / n_draws, expected, atol=0.0125)


def test_sample_is_ancestral():
    n_draws = 60_000
    system = ChemicalSystem("full_chain", n_objects=4, n_colors=3, dynamics_seed=2)
    slow = SlowSystem("full_chain", "full", 4, 3, dynamics_seed=2)
    drawn = system.sample(np.random.default_rng(0).random((n_draws, 4)))
    for state in itertools.product(range(3), repeat=4):
        chance = np.prod([slow.probabilities(node, state)[state[node]] for node in range(1, 4)]) / 3
        frequency = (drawn == state).all(axis=1).mean()
        assert abs(frequency - chance) < 5 * np.sqrt(chance * (1 - chance) / n_draws) + 1e-9


@pytest.mark.parametrize("rule", ["full_fork", "full_chain", "none"])
@pytest.mark.parametrize("graph", ["full", "tree"])
def test_most_likely_step_is_greedy_in_causal_order(rule, graph):
    slow = SlowSystem(rule, graph, 6, 3, dynamics_seed=4)
    system = ChemicalSystem(rule, graph, 6, 3, dynamics_seed=4)
    rng = np.random.default_rng(0)
    colors, actions = rng.integers(3, size=(100, 6)), rng.integers(18, size=100)
    for row, action, greedy in zip(colors.tolist(), actions.tolist(), system.most_likely_step(colors, actions), strict=True):
        state, redrawn = slow.redrawn(tuple(row), action)
        for node in redrawn:
            state = (*state[:node], int(slow.probabilities(node, state).argmax()), *state[node + 1 :])
        assert tuple(greedy) == state


@pytest.mark.parametrize("rule", ["full_fork", "full_chain", "none"])
@pytest.mark.parametrize("graph", ["full", "chain", "fork", "collider", "bidiag", "diamond"])
def test_objects_outside_the_graph_never_change_a_distribution(rule, graph):
    """By enumeration of all states and actions of a small system, within one regime after the action."""
    graph = DIAMOND if graph == "diamond" else graph
    system, slow = ChemicalSystem(rule, graph, 4, 3), SlowSystem(rule, graph, 4, 3, dynamics_seed=0)
    depends = find_dependencies(slow)
    for regime in (0, 1):
        graph_of_regime = system.local_graph(np.array([regime]))[0]
        assert graph_of_regime[:, -1].all()
        assert not (depends[regime] & ~graph_of_regime[:, :-1]).any()
    assert not (depends[2] & ~system.global_graph[:, :-1]).any()


@pytest.mark.parametrize("rule", ["full_fork", "full_chain"])
def test_local_graph_has_no_needless_edges(rule):
    """
    Self edges are counted everywhere, also where an object never persists. The predecessor is the only other exception,
    outside the local regime, and the published ground truth counts it too: all that redraws an object has set or redrawn
    its predecessor before.
    """
    system, slow = ChemicalSystem(rule, "full", 4, 3), SlowSystem(rule, "full", 4, 3, dynamics_seed=0)
    depends = find_dependencies(slow)
    own, predecessor = np.eye(4, dtype=bool), np.eye(4, k=-1, dtype=bool)
    outside, inside = system.local_graph(np.array([0, 1]))[:, :, :-1]
    assert not (depends[0] & predecessor).any()
    assert np.array_equal(depends[0] | own | predecessor, outside)
    assert np.array_equal(depends[1] | own, inside)
    assert np.array_equal(inside, own)
    assert np.array_equal(outside, np.tri(4, dtype=bool))
    assert np.array_equal(system.global_graph, np.hstack([np.tri(4, dtype=bool), np.ones((4, 1), dtype=bool)]))


def find_dependencies(slow):
    """Which colour now changes which next colour's distribution: outside, in the local regime, and anywhere, [3, V, V]."""
    depends = np.zeros((3, slow.n_objects, slow.n_objects), dtype=bool)
    for action in range(slow.n_objects * slow.n_colors):
        marginals, regimes = {}, {}
        for state in itertools.product(range(slow.n_colors), repeat=slow.n_objects):
            marginals[state] = slow.marginals(state, action)
            regimes[state] = int(slow.is_local(slow.redrawn(state, action)[0]))
        for state, parent, color in itertools.product(marginals, range(slow.n_objects), range(slow.n_colors)):
            other = (*state[:parent], color, *state[parent + 1 :])
            differs = (np.abs(marginals[state] - marginals[other]) > 1e-9).any(axis=1)
            depends[2, differs, parent] = True
            if regimes[state] == regimes[other]:
                depends[regimes[state], differs, parent] = True
    return depends


@pytest.mark.parametrize("rule", ["full_fork", "full_chain", "none"])
def test_batch_gives_what_its_rows_give_alone(rule):
    system = ChemicalSystem(rule)
    rng = np.random.default_rng(0)
    colors, actions, uniforms = rng.integers(5, size=(200, 10)), rng.integers(50, size=200), rng.random((200, 10))
    together = system.step(colors, actions, uniforms)
    alone = [system.step(colors[[row]], actions[[row]], uniforms[[row]])[0] for row in range(200)]
    assert np.array_equal(together, alone)
    chances = system.conditional(9, colors)
    assert np.array_equal(chances, [system.conditional(9, colors[[row]])[0] for row in range(200)])


def test_step_leaves_its_arguments_alone():
    colors = np.ones((3, 10), dtype=np.int64)
    ChemicalSystem().step(colors, np.zeros(3, dtype=np.int64), np.zeros((3, 10)))
    assert (colors == 1).all()


def test_dynamics_seed_decides_the_networks():
    colors = np.ones((1, 10), dtype=np.int64)
    first, again, other = (ChemicalSystem(dynamics_seed=seed).conditional(9, colors) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("rule", "fork", "full_fork, full_chain, none"),
        ("graph", "circle", "bidiag"),
        ("graph", np.eye(10, dtype=bool), "strictly lower triangular"),
        ("graph", np.zeros((4, 4)), "10 x 10"),
        ("graph", np.tri(10, k=-1) / 2, "0 and 1"),
        ("n_objects", 3, "at least 4"),
        ("n_colors", 1, "at least 2"),
        ("dynamics_seed", -1, "at least 0"),
    ],
)
def test_bad_arguments_are_named(name, value, allowed):
    with pytest.raises(ValueError) as error:
        ChemicalSystem(**{name: value})
    assert str(error.value).startswith(f"{name}={value!r} is not allowed")
    assert allowed in str(error.value)


def test_root_is_a_cause_of_what_comes_after_those_whose_parents_it_chooses():
    """Edges 1 -> 3 -> 4. In the local regime 3 follows 2; 4 follows 3 in both, and depends on the root through 3."""
    graph = np.zeros((5, 5), dtype=bool)
    graph[3, 1] = graph[4, 3] = True
    system = ChemicalSystem("full_chain", n_objects=5, n_colors=3, graph=graph)
    assert system.global_graph.astype(int)[3:].tolist() == [[1, 1, 0, 1, 0, 1], [1, 1, 0, 1, 1, 1]]


def next_colors(system, conditional, colors, action):
    """The exact distribution of every object's next colour, by summing over all outcomes, ``[V, C]``."""
    node, color = divmod(action, system.n_colors)
    painted = list(colors)
    painted[node] = color
    is_local = system.rule != "none" and painted[0] == 0
    regime = int(is_local)
    redrawn = [each for each in range(system.n_objects) if system._reach[regime, node, each]]
    marginals = np.zeros((system.n_objects, system.n_colors))
    for outcome in itertools.product(range(system.n_colors), repeat=len(redrawn)):
        after, probability = list(painted), 1.0
        for each, drawn in zip(redrawn, outcome, strict=True):
            probability *= conditional(each, tuple(after))[drawn]
            after[each] = drawn
        marginals[np.arange(system.n_objects), after] += probability
    return marginals


@pytest.mark.parametrize("graph", ["full", "chain", DIAMOND])
@pytest.mark.parametrize("rule", ["full_fork", "full_chain", "none"])
def test_transition_graph_has_what_moves_a_distribution_and_nothing_else(rule, graph):
    system = ChemicalSystem(rule, graph, n_objects=4, n_colors=3, dynamics_seed=1)
    found = np.zeros((2, 4, 4, 5), dtype=bool)
    conditional = lru_cache(maxsize=None)(lambda node, colors: system.conditional(node, np.array([colors]))[0].tolist())
    exact = lru_cache(maxsize=None)(lambda colors, action: next_colors(system, conditional, colors, action))

    def regime_after(colors, action):
        return int(system.rule != "none" and (action if action < 3 else colors[0]) == 0)

    for colors in itertools.product(range(3), repeat=4):
        for action in range(12):
            node, regime, before = action // 3, regime_after(colors, action), exact(colors, action)
            changed = [((*colors[:p], value, *colors[p + 1 :]), action, p) for p in range(4) for value in range(3)]
            changed += [(colors, 3 * node + value, 4) for value in range(3)]
            for other, other_action, parent in changed:
                if regime_after(other, other_action) == regime:
                    moved = (np.abs(exact(other, other_action) - before) > 1e-9).any(axis=1)
                    found[regime, node, moved, parent] = True
    for regime in (0, 1) if rule != "none" else (0,):
        for node in range(4):
            expected = system.transition_graph(np.array([regime]), np.array([3 * node]))[0]
            if regime == 1:
                # The root has one colour there, given by one action: neither can be seen to matter.
                expected[0] = False
                expected[:, -1] &= node != 0
            np.testing.assert_array_equal(found[regime, node], expected, err_msg=f"regime {regime}, object {node}")


def test_every_transition_tells_its_graph():
    import gymnasium as gym

    from fcdl_envs import register

    register()
    single = gym.make("FCDL/Chemical-v0", n_objects=5, n_colors=3, dynamics_seed=2)
    single.reset(seed=0)
    single.action_space.seed(0)
    system = single.unwrapped.system
    for _ in range(20):
        action = single.action_space.sample()
        observation, _, _, _, info = single.step(action)
        regime = system.regime(observation["state"].reshape(1, 5, 3).argmax(-1))
        np.testing.assert_array_equal(info["transition_graph"], system.transition_graph(regime, np.array([action]))[0])
        assert (info["transition_graph"] <= info["local_graph"]).all()
