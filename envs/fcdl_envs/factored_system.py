"""Systems of named variables whose distributions and graphs are known exactly, apart from Gymnasium. NumPy only."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from fcdl_envs.variables import Factors, Variable, consecutive_slices


class FactoredSystem(ABC):
    """
    Dynamics of ``V`` state variables: given state and action, the next values are drawn independently of each other, a number
    from a normal distribution, a category with its probability.

    States are ``[B, V]`` float64, actions ``[B, n]`` float64: numbers, and of a categorical variable the index of its
    category. Every method is pure and works on a batch; a row's result does not depend on the others.

    Graphs are ``[V, P]`` bool, ``graph[child, parent]``. The *transition graph* of a state and action has the edge from a
    parent to a child if some other value of this parent, all else as it is, gives the child another distribution. The *local
    graph* is the union of the transition graphs of a context. The *global graph* is the union of all.

    :param factors: the variables
    :param context_variables: names of the state variables that choose the context
    :param ranges: lowest and highest value that pictures show, by name of each number
    """

    def __init__(
        self, factors: Factors, context_variables: Sequence[str], ranges: Mapping[str, tuple[float, float]] | None = None
    ) -> None:
        self.factors = factors
        self.ranges = dict(ranges or {})
        self.context_variables = tuple(context_variables)
        self._variables = factors.state_variables
        self._is_categorical = np.array([variable.is_categorical for variable in self._variables])
        self._rows = {name: row for row, name in enumerate(factors.state_names)}
        self._columns = {name: column for column, name in enumerate(factors.parent_names)}

    @property
    @abstractmethod
    def global_graph(self) -> np.ndarray:
        """The union of all transition graphs, ``[V, P]`` bool."""

    @abstractmethod
    def conditional(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        """
        The exact distributions of the next values.

        :param states: ``[B, V]``
        :param actions: ``[B, n]``
        :return: for each state variable: of a number mean and standard deviation, ``[B, 2]``; of a categorical variable the
            probabilities, ``[B, C]``
        """

    @abstractmethod
    def transition_graph(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """:return: what matters at these states and actions, ``[B, V, P]`` bool"""

    @abstractmethod
    def local_graph(self, states: np.ndarray) -> np.ndarray:
        """:return: what matters somewhere in the contexts of these states, ``[B, V, P]`` bool"""

    @abstractmethod
    def context(self, states: np.ndarray) -> tuple[str, ...]:
        """:return: the contexts of these states in words, ``B`` of them"""

    @abstractmethod
    def draw_start(self, rng: np.random.Generator) -> np.ndarray:
        """:return: a state to start an episode in, ``[V]``"""

    def draw_noise(self, rng: np.random.Generator) -> np.ndarray:
        """:return: what decides the draws of one step: standard normal for numbers, uniform for categories, ``[V]``"""
        uniforms, normals = rng.random(len(self._variables)), rng.standard_normal(len(self._variables))
        return np.where(self._is_categorical, uniforms, normals)

    def step(self, states: np.ndarray, actions: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """
        :param states: ``[B, V]``
        :param actions: ``[B, n]``
        :param noise: see :meth:`draw_noise`, ``[B, V]``
        :return: next states, ``[B, V]``
        """
        result = np.empty_like(noise)
        distributions = self.conditional(states, actions)
        for column, (is_categorical, distribution) in enumerate(zip(self._is_categorical, distributions, strict=True)):
            if is_categorical:
                cumulative = distribution.cumsum(axis=1)[:, :-1]
                result[:, column] = (noise[:, column, None] >= cumulative).sum(axis=1)
            else:
                result[:, column] = distribution[:, 0] + distribution[:, 1] * noise[:, column]
        return result

    def graph(self, n_rows: int, edges: Mapping[tuple[str, str], np.ndarray | bool]) -> np.ndarray:
        """
        :param n_rows: ``B``
        :param edges: by (child, parent), where the edge is, ``[B]`` or for all rows
        :return: ``[B, V, P]`` bool
        """
        result = np.zeros((n_rows, len(self._rows), len(self._columns)), dtype=bool)
        for (child, parent), is_there in edges.items():
            result[:, self._rows[child], self._columns[parent]] = is_there
        return result


def one_hot(variables: Sequence[Variable], values: np.ndarray) -> np.ndarray:
    """
    :param variables: ``n`` of them
    :param values: a number or the index of a category for each, ``[B, n]``
    :return: their columns, one for a number, one-hot for a categorical variable, ``[B, D]`` float32
    """
    slices = consecutive_slices(variable.width for variable in variables)
    columns = np.zeros((len(values), slices[-1].stop if slices else 0), dtype=np.float32)
    for variable, part, value in zip(variables, slices, values.T, strict=True):
        if variable.is_categorical:
            columns[np.arange(len(values)), part.start + value.astype(np.int64)] = 1.0
        else:
            columns[:, part.start] = value
    return columns


def normal(means: np.ndarray, deviation: float) -> np.ndarray:
    """
    :param means: ``[B]``
    :param deviation: standard deviation
    :return: as :meth:`FactoredSystem.conditional` has it, ``[B, 2]``
    """
    return np.stack([means, np.full_like(means, deviation)], axis=1)


def two_valued(probability: np.ndarray) -> np.ndarray:
    """
    :param probability: of the second of two categories, ``[B]``
    :return: ``[B, 2]``
    """
    return np.stack([1.0 - probability, probability], axis=1)
