"""How far a graph is from the true one."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sb3_fcdl.extras import needs

if TYPE_CHECKING:
    import pandas


class EdgeScore(NamedTuple):
    """
    One entry of a graph.

    :param parent: name of the variable now
    :param child: name of the variable at the next step
    :param probability: that the graph gives the edge
    :param is_edge: whether the graph has it
    :param is_true: whether the truth has it
    """

    parent: str
    child: str
    probability: float
    is_edge: bool
    is_true: bool


@dataclass(frozen=True)
class GraphScore:
    """
    A graph compared with the truth. A ratio of zero to zero is NaN.

    :param shd: structural Hamming distance, the number of entries that are wrong
    :param precision: share of the graph's edges that are true
    :param recall: share of the true edges that the graph has
    :param f1: harmonic mean of both
    :param auroc: probability that a true edge has a higher probability than one that is not, ties count half
    :param edges: the entries that were counted
    """

    shd: int
    precision: float
    recall: float
    f1: float
    auroc: float
    edges: tuple[EdgeScore, ...]

    def to_frame(self) -> "pandas.DataFrame":
        """A row for each entry. Needs pandas (extra ``plot``)."""
        with needs("pandas", "plot"):
            import pandas as pd

        return pd.DataFrame(self.edges, columns=EdgeScore._fields)

    def __str__(self) -> str:
        values = {name: value for name, value in asdict(self).items() if name != "edges"}
        lines = [f"{name:<9} {value:.3g}" for name, value in values.items()]
        lines += [f"  {'extra' if edge.is_edge else 'missing'}: {edge.parent} -> {edge.child}' ({edge.probability:.2f})"
                  for edge in self.edges if edge.is_edge != edge.is_true]  # fmt: skip
        return "\n".join(lines)


def score_graph(
    probabilities: np.ndarray,
    edges: np.ndarray,
    truth: np.ndarray,
    entries: np.ndarray,
    child_names: tuple[str, ...],
    parent_names: tuple[str, ...],
) -> GraphScore:
    """
    See ``CausalGraph.score``.

    :param probabilities: ``[V, P]``
    :param edges: ``[V, P]``, bool
    :param truth: ``[V, P]``, bool
    :param entries: which entries count, ``[V, P]``, bool
    :param child_names: of the rows
    :param parent_names: of the columns
    """
    is_edge, is_true, value = edges[entries], truth[entries], probabilities[entries]
    precision, recall = precision_and_recall(is_edge, is_true)
    children, parents = np.nonzero(entries)
    columns = zip(parents, children, value, is_edge, is_true, strict=True)
    return GraphScore(
        shd=int(sum(wrong_edges(edges, truth, entries))),
        precision=precision,
        recall=recall,
        f1=f1_score(is_edge, is_true),
        auroc=_auroc(value[is_true], value[~is_true]),
        edges=tuple(EdgeScore(parent_names[p], child_names[c], float(v), bool(e), bool(t)) for p, c, v, e, t in columns),
    )


def wrong_edges(graphs: np.ndarray, truth: np.ndarray, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Missing and extra edges of graphs. Their sum is the structural Hamming distance from the truth.

    :param graphs: ``[V, P]`` or ``[R, V, P]``, bool
    :param truth: likewise
    :param entries: the entries that count, ``[V, P]``, bool: those that a model is free to learn
    :return: the number of missing and of extra edges, ``[]`` or ``[R]`` each
    """
    missing, extra = truth & ~graphs & entries, graphs & ~truth & entries
    return missing.sum(axis=(-2, -1)), extra.sum(axis=(-2, -1))


def hamming_distance(graphs: np.ndarray, truth: np.ndarray, entries: np.ndarray) -> float:
    """
    Structural Hamming distance, mean over graphs. For the parameters see ``wrong_edges``.

    :return: mean number of wrong entries a graph
    """
    missing, extra = wrong_edges(graphs, truth, entries)
    return float((missing + extra).mean())


def precision_and_recall(chosen: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """
    :param chosen: bool, of any shape
    :param truth: bool, likewise
    :return: the share of what is chosen that is true, and of what is true that is chosen, in [0, 1]; NaN if nothing is chosen,
        or nothing true
    """
    n_hits = int((chosen & truth).sum())
    return _ratio(n_hits, int(chosen.sum())), _ratio(n_hits, int(truth.sum()))


def f1_score(chosen: np.ndarray, truth: np.ndarray) -> float:
    """
    Harmonic mean of precision and recall.

    :param chosen: bool, of any shape
    :param truth: bool, likewise
    :return: in [0, 1]; NaN if nothing is chosen and nothing true
    """
    return _ratio(2 * int((chosen & truth).sum()), int(chosen.sum()) + int(truth.sum()))


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")


def _auroc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """The share of pairs (positive, negative) in which the positive is larger; ties count half."""
    difference = positives[:, None] - negatives[None, :]
    return float((difference > 0).mean() + (difference == 0).mean() / 2) if difference.size else float("nan")
