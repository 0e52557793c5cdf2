"""Causal graphs with names."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sb3_fcdl.extras import needs
from sb3_fcdl.graphs.evidence import EdgeEvidence
from sb3_fcdl.graphs.score import GraphScore, score_graph

if TYPE_CHECKING:
    import networkx
    import pandas
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class GraphDiff:
    """
    The difference between two graphs.

    :param added: edges that only the other graph has, pairs ``(parent, child)``
    :param removed: edges that only this graph has
    """

    added: tuple[tuple[str, str], ...]
    removed: tuple[tuple[str, str], ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)

    def __str__(self) -> str:
        lines = [f"{sign} {parent} -> {child}'" for sign, edges in zip("+-", (self.added, self.removed), strict=True)
                 for parent, child in edges]  # fmt: skip
        return "\n".join(lines) or "no difference"


@dataclass(frozen=True, eq=False)
class CausalGraph:
    """
    A directed graph from the variables now to the state variables at the next step.

    :param probabilities: ``probabilities[child, parent]``, ``[V, P]``, in [0, 1]; rows: next-state variables; columns: state
        variables, then action variables
    :param child_names: names of the rows, ``V``
    :param parent_names: names of the columns, ``P``
    :param label: the context that the graph holds in
    :param threshold: an edge is there if its probability is above it
    :param parts: the graphs that this one is the union of, if it is one
    :param evidence: how sure each entry is; None: the model did not test them, or the graph is made of several
    :raises ValueError: if a probability or the threshold is not in [0, 1], the shape and the names disagree, a name is no text
        or there twice, or a part or the evidence is of other variables
    """

    probabilities: np.ndarray
    child_names: tuple[str, ...]
    parent_names: tuple[str, ...]
    label: str = ""
    threshold: float = 0.5
    parts: tuple["CausalGraph", ...] = ()
    evidence: EdgeEvidence | None = None

    def __post_init__(self) -> None:
        for argument in ("child_names", "parent_names"):
            object.__setattr__(self, argument, _checked_names(argument, getattr(self, argument)))
        object.__setattr__(self, "probabilities", self._checked_probabilities())
        if not isinstance(self.label, str):
            raise ValueError(f"label must be text, got {self.label!r}")
        is_number = isinstance(self.threshold, Real) and not isinstance(self.threshold, bool)
        if not (is_number and 0 <= self.threshold <= 1):
            raise ValueError(f"threshold must be a number in [0, 1], got {self.threshold!r}")
        if self.evidence is not None and self.evidence.gain.shape != np.shape(self.probabilities):
            raise ValueError(f"evidence has shape {self.evidence.gain.shape}, the graph has {np.shape(self.probabilities)}")
        for part in self.parts:
            if not isinstance(part, CausalGraph):
                raise ValueError(f"parts must be CausalGraphs, got {part!r}")
            _check_same_names(self, part)

    @staticmethod
    def union(graphs: Sequence["CausalGraph"], label: str = "union") -> "CausalGraph":
        """
        The graph that has an edge wherever one of the given graphs has it: the highest probability of each edge.

        It has no evidence, as the union itself was not tested. That of the ``parts`` stays.

        :param graphs: of the same variables and threshold; they become the ``parts``
        :param label: of the union
        :raises ValueError: if there is none, or they are not of the same variables
        """
        if not graphs:
            raise ValueError("a union needs at least one graph, got none: the model has no graph, see its has_graph")
        first = graphs[0]
        for graph in graphs:
            _check_same_names(first, graph)
        probabilities = np.max([graph.probabilities for graph in graphs], axis=0)
        return replace(first, probabilities=probabilities, label=label, parts=tuple(graphs), evidence=None)

    @staticmethod
    def stability(graphs: Sequence["CausalGraph"], label: str = "") -> "CausalGraph":
        """
        How often each edge appears: the shares of the given graphs that have it, in place of probabilities.

        It has no evidence, as shares were not tested. That of the ``parts`` stays.

        :param graphs: of the same variables, such as ``causal_graph()`` of several training seeds; they become the ``parts``
        :param label: of the result; empty: ``"share of N graphs"``
        :raises ValueError: if there is none, or they are not of the same variables
        """
        union = CausalGraph.union(graphs, label or f"share of {len(graphs)} graphs")
        return replace(union, probabilities=np.mean([graph.edges for graph in graphs], axis=0))

    @property
    def edges(self) -> np.ndarray:
        """``edges[child, parent]``, ``[V, P]``, bool."""
        return self.probabilities > self.threshold

    @property
    def edge_names(self) -> tuple[tuple[str, str], ...]:
        """The edges as pairs ``(parent, child)``, child by child."""
        return tuple((self.parent_names[parent], self.child_names[child]) for child, parent in np.argwhere(self.edges))

    def significant(self, alpha: float = 0.05) -> "CausalGraph":
        """
        The graph of the edges that the evidence supports.

        :param alpha: the share of false edges that is accepted among them, in (0, 1)
        :return: entries that were tested are there if their adjusted p-value is at most ``alpha``; others stay as they are
        :raises ValueError: if there is no evidence, or ``alpha`` is out of its range
        """
        if self.evidence is None:
            raise ValueError("the graph carries no evidence: learn it with dynamics='fcdl_tree', 'cdl', 'ncd' or 'grader'")
        if not (isinstance(alpha, Real) and 0 < alpha < 1):
            raise ValueError(f"alpha must be in (0, 1), got {alpha!r}")
        probabilities = np.where(self.evidence.is_tested, self.evidence.q_values <= alpha, self.edges).astype(float)
        return replace(self, probabilities=probabilities, threshold=0.5)

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

    def diff(self, other: "CausalGraph") -> GraphDiff:
        """
        :param other: a graph of the same variables
        :return: the edges that only the other has, and those that only this one has
        :raises ValueError: if it is of other variables
        """
        _check_same_names(self, other)
        mine, theirs = self.edge_names, other.edge_names
        return GraphDiff(
            added=tuple(edge for edge in theirs if edge not in mine),
            removed=tuple(edge for edge in mine if edge not in theirs),
        )

    def score(self, truth: "CausalGraph | np.ndarray", entries: np.ndarray | None = None) -> GraphScore:
        """
        How far the graph is from the true one.

        :param truth: the true graph, or its edges ``[V, P]``, bool
        :param entries: which entries count, ``[V, P]``, bool, such as a model's ``free_entries``: those that it was not told.
            None: all
        :raises ValueError: if a shape or the names disagree
        """
        if isinstance(truth, CausalGraph):
            _check_same_names(self, truth)
            truth = truth.edges
        counted = np.ones(self.edges.shape, dtype=bool) if entries is None else np.asarray(entries, dtype=bool)
        truth = np.asarray(truth, dtype=bool)
        for name, array in (("truth", truth), ("entries", counted)):
            if array.shape != self.edges.shape:
                raise ValueError(f"{name} has shape {array.shape}, the graph has {self.edges.shape}: rows are children")
        return score_graph(self.probabilities, self.edges, truth, counted, self.child_names, self.parent_names)

    def to_frame(
        self, what: Literal["probabilities", "gain", "standard_error", "q_values"] = "probabilities"
    ) -> "pandas.DataFrame":
        """
        A row for each child, a column for each parent. Needs pandas (extra ``plot``).

        :param what: the probabilities, or a part of the evidence
        :raises ValueError: if ``what`` is unknown, or there is no evidence
        """
        allowed = ("probabilities", "gain", "standard_error", "q_values")
        if what not in allowed:
            raise ValueError(f"what must be one of {', '.join(allowed)}, got {what!r}")
        if what != "probabilities" and self.evidence is None:
            raise ValueError(f"the graph carries no evidence, so there is no {what}")
        with needs("pandas", "plot"):
            import pandas as pd

        index, columns = pd.Index(self.child_names, name="child"), pd.Index(self.parent_names, name="parent")
        values = self.probabilities if what == "probabilities" else getattr(self.evidence, what)
        return pd.DataFrame(values, index=index, columns=columns)

    def to_json(self) -> str:
        """The whole graph as text; ``from_json`` restores it exactly."""
        return json.dumps(_as_dict(self), indent=1)

    @classmethod
    def from_json(cls, text: str | Path) -> "CausalGraph":
        """
        :param text: what ``to_json`` wrote, or the path of a file of it
        :raises ValueError: if it is something else
        """
        try:
            return cls._from_dict(json.loads(text.read_text() if isinstance(text, Path) else text))
        except (KeyError, TypeError, RecursionError, json.JSONDecodeError) as error:
            raise ValueError(f"this is not the JSON of a CausalGraph ({error!r}); CausalGraph.to_json writes it") from error

    def to_networkx(self) -> "networkx.DiGraph":
        """
        A node for each variable, with ``kind`` ``"state"`` or ``"action"``; an edge from each parent to its child, with its
        ``probability``. A variable that depends on itself has a loop. Needs networkx, which torch installs.
        """
        import networkx as nx

        graph = nx.DiGraph(label=self.label)
        for name in self.parent_names:
            graph.add_node(name, kind="state" if name in self.child_names else "action")
        for child, parent in np.argwhere(self.edges):
            probability = float(self.probabilities[child, parent])
            graph.add_edge(self.parent_names[parent], self.child_names[child], probability=probability)
        return graph

    def to_dot(self) -> str:
        """The graph in Graphviz's language. Variables are called ``x`` now and ``x'`` at the next step."""
        lines = [f"digraph {json.dumps(self.label)} {{", "  rankdir=LR;"]
        lines += [f"  {json.dumps(name)};" for name in self.parent_names]
        lines += [f"  {json.dumps(parent)} -> {json.dumps(child + chr(39))};" for parent, child in self.edge_names]
        return "\n".join([*lines, "}"])

    def plot(self, kind: Literal["heatmap", "nodes"] = "heatmap") -> "Figure":
        """
        Draw the graph. Needs matplotlib (extra ``plot``).

        :param kind: ``"heatmap"``: a cell for each entry, the darker the more probable, with a dot for each edge, or with its
            gain in nats a transition where the evidence has seen one; ``"nodes"``: variables now on the left, at the next
            step on the right, with a line for each edge
        :return: a matplotlib figure; ``figure.savefig("graph.png")`` writes it
        :raises ValueError: if ``kind`` is unknown
        """
        from sb3_fcdl.plots import graphs

        if kind not in ("heatmap", "nodes"):
            raise ValueError(f"kind must be 'heatmap' or 'nodes', got {kind!r}")
        arguments = self.probabilities, self.edges, self.child_names, self.parent_names, self.label
        if kind == "nodes":
            return graphs.nodes(*arguments)
        if self.evidence is None:
            return graphs.heatmap(*arguments)
        is_seen = np.isfinite(self.evidence.standard_error)
        return graphs.heatmap(*arguments, gain=np.where(is_seen, self.evidence.gain, np.nan))

    @staticmethod
    def plot_grid(graphs: "Sequence[CausalGraph]", titles: Sequence[str]) -> "Figure":
        """
        Draw several graphs as heat maps side by side, on the same scale. Needs matplotlib (extra ``plot``).

        :param graphs: of the same variables, at least one
        :param titles: one for each graph
        :raises ValueError: if they are not of the same variables
        """
        from sb3_fcdl.plots.graphs import grid

        first = graphs[0]
        for graph in graphs:
            _check_same_names(first, graph)
        probabilities, edges = (np.stack(arrays) for arrays in zip(*((g.probabilities, g.edges) for g in graphs), strict=True))
        return grid(probabilities, edges, first.child_names, first.parent_names, titles)

    def __str__(self) -> str:
        width = max(len(name) for name in self.child_names) + 1
        lines = [self.label] if self.label else []
        if self.evidence is not None and not self.evidence.is_tested.any():
            lines.append("nothing has been tested yet in this context")
        lines += [f"{child + chr(39):<{width}} <- {self._parents_in_words(child)}" for child in self.child_names]
        return "\n".join(lines)

    def _parents_in_words(self, child: str) -> str:
        """The parents; one that was tested with what it is worth, in nats."""
        names = self.parents_of(child)
        if self.evidence is not None:
            row = self.child_names.index(child)
            names = tuple(self.evidence.named(name, row, self.parent_names.index(name)) for name in names)
        return ", ".join(names) or "-"

    def _checked_probabilities(self) -> np.ndarray:
        try:
            probabilities = np.asarray(self.probabilities)
        except ValueError as error:  # rows of different lengths
            raise ValueError(f"probabilities must be numbers [child, parent], got {self.probabilities!r}") from error
        if probabilities.dtype.kind not in "biuf":
            raise ValueError(f"probabilities must be numbers [child, parent], got {self.probabilities!r}")
        expected = (len(self.child_names), len(self.parent_names))
        if probabilities.shape != expected:
            raise ValueError(f"probabilities have shape {probabilities.shape}, the names ask for {expected}")
        # NaN is not in the range either.
        wrong = np.argwhere(~((probabilities >= 0) & (probabilities <= 1)))
        if len(wrong):
            child, parent = wrong[0]
            raise ValueError(
                f"probabilities must be in [0, 1], got {probabilities[child, parent]} for {self.child_names[child]}' <- "
                f"{self.parent_names[parent]}"
            )
        return probabilities

    @classmethod
    def _from_dict(cls, values: dict[str, Any]) -> "CausalGraph":
        return cls(
            values["probabilities"],
            values["child_names"],
            values["parent_names"],
            values["label"],
            values["threshold"],
            tuple(cls._from_dict(part) for part in values["parts"]),
            None if values.get("evidence") is None else EdgeEvidence.from_dict(values["evidence"]),
        )


def _check_same_names(one: CausalGraph, other: CausalGraph) -> None:
    mine, theirs = (one.child_names, one.parent_names), (other.child_names, other.parent_names)
    if mine != theirs:
        raise ValueError(f"the graphs are of different variables: {mine} and {theirs}")


def _checked_names(argument: str, names: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{argument} must be a list of names, at least one, got {names!r}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{argument} must be unique, got {', '.join(twice)} more than once")
    return tuple(names)


def _as_dict(graph: CausalGraph) -> dict[str, Any]:
    return {
        "label": graph.label,
        "threshold": graph.threshold,
        "child_names": list(graph.child_names),
        "parent_names": list(graph.parent_names),
        "probabilities": np.asarray(graph.probabilities, dtype=np.float64).tolist(),
        "parts": [_as_dict(part) for part in graph.parts],
        "evidence": graph.evidence and graph.evidence.as_dict(),
    }
