"""The Chemical simulator, apart from its Gym classes: coloured objects that cause each other's colours. NumPy only."""

from collections.abc import Callable, Iterator
from typing import Literal, get_args

import numpy as np

from fcdl_envs.arguments import check, integer, one_of, refuse

Rule = Literal["full_fork", "full_chain", "none"]
Colors = np.ndarray

GLOBAL, LOCAL = 0, 1
HIDDEN_UNITS = 40
WEIGHT_GAIN = 3.0
BIAS_BOUND = 0.2
# A conditional with at most this many parent configurations is tabulated when the system is built.
TABLE_LIMIT = 4096
# The first layer is tabulated for as many parents at a time as have at most this many configurations.
CHUNK_LIMIT = 1024

# In each graph, whether ``parent`` is a parent of ``child``; both are index matrices.
_GRAPHS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "full": lambda child, parent: parent < child,
    "chain": lambda child, parent: parent == child - 1,
    "fork": lambda child, parent: (parent == 0) & (child > 0),
    "collider": lambda child, parent: (parent < child) & (child == child.max()),
    "tree": lambda child, parent: parent == (child - 1) // 2,
    "jungle": lambda child, parent: (parent == (child - 1) // 2) | (parent == ((child - 1) // 2 - 1) // 2),
    "bidiag": lambda child, parent: (parent == child - 1) | (parent == child - 2),
}


def causal_order_graph(graph: str | np.ndarray, n_objects: int) -> np.ndarray:
    """
    The directed acyclic graph with this name, or a checked copy of the one that is given.

    ``full``: every object drives all later ones; ``chain``: each its successor; ``fork``: the first all others;
    ``collider``: all others the last; ``tree``: a binary tree from the first object; ``jungle``: the tree and its
    grandparent edges; ``bidiag``: each the next two.

    :param graph: a name, or ``[V, V]`` with ``graph[child, parent]``, strictly lower triangular
    :param n_objects: ``V``
    :return: ``[V, V]`` bool
    :raises ValueError: if the name is unknown, or if the matrix is not of this form
    """
    if isinstance(graph, str):
        if graph not in _GRAPHS:
            refuse("graph", graph, f"one of {', '.join(_GRAPHS)}, or a matrix")
        child, parent = np.indices((n_objects, n_objects))
        return _GRAPHS[graph](child, parent)
    matrix = np.array(graph)
    is_binary = bool(np.isin(matrix, (0, 1)).all())
    is_ordered = matrix.shape == (n_objects, n_objects) and is_binary and not np.triu(matrix).any()
    if not is_ordered:
        refuse("graph", graph, f"a strictly lower triangular matrix of 0 and 1, {n_objects} x {n_objects}")
    return matrix.astype(bool)


class _Conditional:
    """
    Distribution of one object's colour given its parents' colours, in one regime.

    What does not depend on the batch is tabulated: sums of the first layer over a few parents, and the whole distribution
    where the parents have few configurations. Sums run in an order that does not depend on the number of rows (no matrix
    product over the batch), so that a batch gives bit for bit what its rows give alone.

    :param parents: indices of the parents
    :param inputs: first layer, a row for every colour of every object, ``[V, C, hidden]``
    :param biases: of the two layers, ``[hidden]`` and ``[C]``
    :param outputs: second layer, ``[hidden, C]``
    """

    def __init__(self, parents: np.ndarray, inputs: np.ndarray, biases: tuple[np.ndarray, np.ndarray], outputs: np.ndarray):
        self._n_colors = outputs.shape[1]
        self._hidden_bias, self._bias = biases
        self._outputs = outputs
        self._ones = np.ones(self._n_colors - 1, dtype=np.int64)
        chunk = 1
        while self._n_colors ** (chunk + 1) <= CHUNK_LIMIT:
            chunk += 1
        parts = [parents[start : start + chunk] for start in range(0, len(parents), chunk)]
        self._chunks = [(part, self._place_values(part), self._partial_sums(inputs[part])) for part in parts]
        self._parents = parents
        self._table: np.ndarray | None = None
        if self._n_colors ** len(parents) <= TABLE_LIMIT:
            self._places = self._place_values(parents)
            colors = np.zeros((self._n_colors ** len(parents), len(inputs)), dtype=np.int64)
            colors[:, parents] = np.arange(len(colors))[:, None] // self._places % self._n_colors
            self._table = self._evaluate(colors)

    def cumulative(self, colors: Colors) -> np.ndarray:
        """:return: cumulative probabilities for colours ``[B, V]``, ``[B, C]``"""
        return self._evaluate(colors) if self._table is None else self._table[colors[:, self._parents] @ self._places]

    def sample(self, colors: Colors, uniforms: np.ndarray) -> np.ndarray:
        """:return: by inverse transform of ``uniforms [B]``, ``[B]``"""
        return (uniforms[:, None] >= self.cumulative(colors)[:, :-1]) @ self._ones

    def probabilities(self, colors: Colors) -> np.ndarray:
        """:return: for colours ``[B, V]``, ``[B, C]``"""
        return np.diff(self.cumulative(colors), axis=1, prepend=0.0)

    def _evaluate(self, colors: Colors) -> np.ndarray:
        hidden = np.tile(self._hidden_bias, (len(colors), 1))
        for parents, places, sums in self._chunks:
            hidden += sums[colors[:, parents] @ places]
        np.maximum(hidden, 0.0, out=hidden)
        # a stack of products of one row each; logits are below 9 sqrt(V) + 5, so that nothing overflows
        weights = np.exp((hidden[:, None] @ self._outputs)[:, 0] + self._bias)
        cumulative = np.cumsum(weights, axis=1)
        return cumulative / cumulative[:, -1:]

    def _place_values(self, parents: np.ndarray) -> np.ndarray:
        return self._n_colors ** np.arange(len(parents))

    def _partial_sums(self, inputs: np.ndarray) -> np.ndarray:
        """:return: for every configuration of these parents, ``[C ** len(inputs), hidden]``"""
        sums = np.zeros((1, inputs.shape[-1]))
        for rows in inputs:
            sums = (rows[:, None] + sums).reshape(-1, sums.shape[-1])
        return sums


class ChemicalSystem:
    """
    Objects ``0 .. V-1`` with one of ``C`` colours each. An action sets one colour; the objects that it reaches along the
    causal graph are then redrawn in causal order, given the new colours of their parents. All others persist.

    While the root (object 0) has colour 0 after the action, the *local* rule holds: with ``full_fork`` only the root,
    with ``full_chain`` only the predecessor remains a parent.

    Object ``v`` draws its colour from a network of its own (``V*C -> 40 -> C``, ReLU, softmax; orthogonal weights with gain
    3, biases uniform within 0.2) on the one-hot colours of its parents; those of all other objects are zeroed.

    Every method is pure and works on a batch. ``B`` systems, ``V`` objects, ``C`` colours.

    :param rule: what remains of the graph while the root has colour 0
    :param graph: the causal graph otherwise, see :func:`causal_order_graph`
    :param n_objects: ``V``, at least 4
    :param n_colors: ``C``, at least 2
    :param dynamics_seed: of the networks, a non-negative integer
    :raises ValueError: if an argument is out of range
    :raises TypeError: if an argument is of a wrong type
    """

    def __init__(
        self,
        rule: Rule = "full_fork",
        graph: str | np.ndarray = "full",
        n_objects: int = 10,
        n_colors: int = 5,
        dynamics_seed: int = 0,
    ) -> None:
        check(
            rule=(rule, one_of(*get_args(Rule))),
            n_objects=(n_objects, integer(4)),
            n_colors=(n_colors, integer(2)),
            dynamics_seed=(dynamics_seed, integer(0)),
        )
        self.rule = rule
        self.n_objects, self.n_colors = n_objects, n_colors
        self.n_actions = n_objects * n_colors
        everywhere = causal_order_graph(graph, n_objects)
        # [regime, child, parent]
        self._graphs = np.stack([everywhere, everywhere & _local_graph(rule, n_objects)])
        # [regime, object acted on, reached object]
        self._reach = np.stack([_ancestors(graph).T for graph in self._graphs])
        self._regime_graphs = self._find_regime_graphs()
        # [regime, object acted on, child, parent]
        self._transition_graphs = np.stack(
            [[self._find_transition_graph(regime, node) for node in range(n_objects)] for regime in (GLOBAL, LOCAL)]
        )
        networks = draw_networks(n_objects, n_colors, np.random.default_rng(dynamics_seed))
        self._conditionals = [
            [_Conditional(np.flatnonzero(parents), *network) for parents, network in zip(graph, networks, strict=True)]
            for graph in self._graphs
        ]

    @property
    def global_graph(self) -> np.ndarray:
        """What the next colours can depend on anywhere: ``[V, V+1]`` bool, ``graph[child, parent]``, the action last."""
        return self._regime_graphs[GLOBAL].copy()

    def local_graph(self, regime: np.ndarray) -> np.ndarray:
        """
        What the next colours depend on while the regime after the action is known.

        :param regime: 0 outside, 1 in the local regime, ``[B]``
        :return: ``[B, V, V+1]`` bool, ``graph[child, parent]``, the action last
        """
        return self._regime_graphs[regime]

    def transition_graph(self, regime: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """
        The parents that matter at one state and action: those that move the distribution of the child when they change and
        regime and object acted on stay as they are. No truth is finer.

        An object that is not redrawn depends on itself alone, the object acted on upon the action alone. A redrawn object
        depends on the action and on those objects that are parents of it, or of redrawn ancestors of it, and not redrawn
        themselves: what is overwritten no longer matters, its own colour neither.

        :param regime: after the action, 0 outside, 1 in the local regime, ``[B]``
        :param actions: ``object * C + color``, ``[B]``
        :return: ``[B, V, V+1]`` bool, ``graph[child, parent]``, the action last
        """
        return self._transition_graphs[regime, np.asarray(actions) // self.n_colors]

    def instantaneous_graph(self, colors: Colors) -> np.ndarray:
        """
        Which objects drive which within one step, at these colours.

        :param colors: ``[B, V]``
        :return: ``[B, V, V]`` bool, ``graph[child, parent]``
        """
        return self._graphs[self.regime(colors)]

    def regime(self, colors: Colors) -> np.ndarray:
        """:return: for colours ``[B, V]``, 1 where the local rule holds, else 0, ``[B]``"""
        return ((colors[:, 0] == 0) & (self.rule != "none")).astype(np.int64)

    def conditional(self, node: int, colors: Colors) -> np.ndarray:
        """
        :param node: the object
        :param colors: ``[B, V]``, of which only those of the object's parents matter, and the root's for the rule
        :return: distribution of the object's colour when it is redrawn, ``[B, C]``
        """
        return np.where(
            self.regime(colors)[:, None] == LOCAL,
            self._conditionals[LOCAL][node].probabilities(colors),
            self._conditionals[GLOBAL][node].probabilities(colors),
        )

    def step(self, colors: Colors, actions: np.ndarray, uniforms: np.ndarray) -> Colors:
        """
        :param colors: ``[B, V]`` integers
        :param actions: ``object * C + color``, ``[B]``
        :param uniforms: numbers in [0, 1) that decide the draws, one an object, ``[B, V]``
        :return: next colours, ``[B, V]``
        """
        result, reached = self._intervene(colors, actions)
        for conditional, node, rows in self._redraws(result, reached):
            result[rows, node] = conditional.sample(result[rows], uniforms[rows, node])
        return result

    def most_likely_step(self, colors: Colors, actions: np.ndarray) -> Colors:
        """
        As :meth:`step`, but every redrawn object takes its most likely colour given the colours that its parents took.

        :param colors: ``[B, V]`` integers
        :param actions: ``object * C + color``, ``[B]``
        :return: next colours, ``[B, V]``
        """
        result, reached = self._intervene(colors, actions)
        for conditional, node, rows in self._redraws(result, reached):
            result[rows, node] = conditional.probabilities(result[rows]).argmax(axis=1)
        return result

    def sample(self, uniforms: np.ndarray) -> Colors:
        """
        Draws a state: the root's colour uniformly, the others in causal order given their parents.

        :param uniforms: numbers in [0, 1), ``[B, V]``
        :return: colours, ``[B, V]``
        """
        result = np.zeros(uniforms.shape, dtype=np.int64)
        result[:, 0] = uniforms[:, 0] * self.n_colors
        for conditional, node, rows in self._redraws(result, np.ones(uniforms.shape, dtype=bool)):
            result[rows, node] = conditional.sample(result[rows], uniforms[rows, node])
        return result

    def _intervene(self, colors: Colors, actions: np.ndarray) -> tuple[Colors, np.ndarray]:
        nodes, new_colors = np.divmod(actions, self.n_colors)
        result = np.array(colors, dtype=np.int64)
        result[np.arange(len(result)), nodes] = new_colors
        return result, self._reach[self.regime(result), nodes]

    def _redraws(self, colors: Colors, reached: np.ndarray) -> Iterator[tuple[_Conditional, int, np.ndarray]]:
        """In causal order, the rows to redraw of every object after the root; ``colors`` is filled in meanwhile."""
        regime = self.regime(colors)
        todo = [reached & (regime == each)[:, None] for each in (GLOBAL, LOCAL)]
        for node in range(1, self.n_objects):
            for each in (GLOBAL, LOCAL):
                rows = np.flatnonzero(todo[each][:, node])
                if rows.size:
                    yield self._conditionals[each][node], node, rows

    def _find_transition_graph(self, regime: int, node: int) -> np.ndarray:
        """See :meth:`transition_graph`, ``[V, V+1]``."""
        is_redrawn = self._reach[regime, node]
        graph = np.eye(self.n_objects, self.n_objects + 1, dtype=bool)
        graph[node] = False
        graph[node, -1] = True
        for child in np.flatnonzero(is_redrawn):  # in causal order
            parents = self._graphs[regime][child]
            graph[child] = False
            graph[child, :-1] = parents & ~is_redrawn
            graph[child, node] = False
            graph[child] |= graph[parents & is_redrawn].any(axis=0)
            graph[child, -1] = True
        return graph

    def _find_regime_graphs(self) -> np.ndarray:
        """
        Edges from one step to the next, ``[regime, V, V+1]``.

        Effects within a step pass through the objects between, so that ancestors count, not just parents. In the local
        regime what is redrawn goes back to the action alone: the only path from a persisting object ends at the object
        that was acted on.
        """
        own_and_action = np.eye(self.n_objects, self.n_objects + 1, dtype=bool)
        own_and_action[:, -1] = True
        outside = own_and_action.copy()
        ancestors = _ancestors(self._graphs[GLOBAL])
        outside[:, :-1] |= ancestors
        # the root's colour chooses the rule: a cause of all whose parents the rule changes, and of what comes after them
        changed = (self._graphs[GLOBAL] != self._graphs[LOCAL]).any(axis=1)
        outside[:, 0] |= changed | ancestors[:, changed].any(axis=1)
        return np.stack([outside, outside if self.rule == "none" else own_and_action])


def _local_graph(rule: Rule, n_objects: int) -> np.ndarray:
    return _GRAPHS[{"full_fork": "fork", "full_chain": "chain", "none": "full"}[rule]](*np.indices((n_objects, n_objects)))


def _ancestors(graph: np.ndarray) -> np.ndarray:
    """:return: the transitive closure of ``graph[child, parent]`` in causal order, ``closure[child, ancestor]``"""
    closure = graph.copy()
    for child in range(len(graph)):
        closure[child] |= closure[graph[child]].any(axis=0)
    return closure


def draw_networks(
    n_objects: int, n_colors: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """:return: for every object, weights and biases as :class:`_Conditional` takes them"""
    networks = []
    for _ in range(n_objects):
        inputs = _orthogonal(HIDDEN_UNITS, n_objects * n_colors, rng).T.reshape(n_objects, n_colors, HIDDEN_UNITS)
        hidden_bias = rng.uniform(-BIAS_BOUND, BIAS_BOUND, HIDDEN_UNITS)
        outputs = np.ascontiguousarray(_orthogonal(n_colors, HIDDEN_UNITS, rng).T)
        networks.append((inputs, (hidden_bias, rng.uniform(-BIAS_BOUND, BIAS_BOUND, n_colors)), outputs))
    return networks


def _orthogonal(n_rows: int, n_columns: int, rng: np.random.Generator) -> np.ndarray:
    """:return: ``[n_rows, n_columns]``, its shorter side orthogonal with norm ``WEIGHT_GAIN``, uniformly distributed"""
    basis, triangular = np.linalg.qr(rng.standard_normal((max(n_rows, n_columns), min(n_rows, n_columns))))
    # without the signs, QR prefers some rotations to others
    basis *= np.sign(np.diag(triangular))
    return WEIGHT_GAIN * (basis if n_rows >= n_columns else basis.T)
