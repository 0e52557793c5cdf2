"""Causal graphs with names."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CausalGraph:
    """
    A directed graph from the variables now to the state variables at the next step.

    :param probabilities: ``probabilities[child, parent]``, ``[V, P]``, in [0, 1]; rows: next-state variables; columns: state
        variables, then action variables
    :param child_names: names of the rows, ``V``
    :param parent_names: names of the columns, ``P``
    :param label: the context that the graph holds in
    :param threshold: an edge is there if its probability is above it
    :raises ValueError: if the shape and the names disagree
    """

    probabilities: np.ndarray
    child_names: tuple[str, ...]
    parent_names: tuple[str, ...]
    label: str = ""
    threshold: float = 0.5

    def __post_init__(self) -> None:
        expected = (len(self.child_names), len(self.parent_names))
        if self.probabilities.shape != expected:
            raise ValueError(f"probabilities have shape {self.probabilities.shape}, the names ask for {expected}")

    @property
    def edges(self) -> np.ndarray:
        """``edges[child, parent]``, ``[V, P]``, bool."""
        return self.probabilities > self.threshold

    def parents_of(self, child: str) -> tuple[str, ...]:
        """
        :param child: name of a state variable
        :return: the names of what its next value depends on
        :raises ValueError: if there is no such variable
        """
        if child not in self.child_names:
            raise ValueError(f"unknown variable '{child}', the graph has {self.child_names}")
        row = self.edges[self.child_names.index(child)]
        return tuple(name for name, is_parent in zip(self.parent_names, row, strict=True) if is_parent)

    def __str__(self) -> str:
        width = max(len(name) for name in self.child_names) + 1
        lines = [self.label] if self.label else []
        lines += [f"{child + chr(39):<{width}} <- {', '.join(self.parents_of(child)) or '-'}" for child in self.child_names]
        return "\n".join(lines)


def hamming_distance(graphs: np.ndarray, truth: np.ndarray, entries: np.ndarray) -> float:
    """
    Structural Hamming distance, averaged over graphs.

    :param graphs: ``[R, V, P]``, bool
    :param truth: ``[R, V, P]``, bool
    :param entries: the entries that count, ``[V, P]``, bool: those that a model is free to learn
    :return: mean number of wrong entries a graph
    """
    return float(((graphs != truth) & entries).sum(axis=(1, 2)).mean())
