"""Local graphs of a model compared with the true ones, and with those without corruption, context by context."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fcdl_envs.arguments import check, integer
from sb3_fcdl.evaluation.markdown import markdown
from sb3_fcdl.evaluation.paired import (
    PairedStep,
    joined,
    one_step,
    paired_envs,
    policy_of,
    random_steps,
    same_code,
    same_graph,
    true_graphs,
)
from sb3_fcdl.evaluation.returns import Task
from sb3_fcdl.fcdl import FCDL, FCDLPolicy
from sb3_fcdl.graphs.score import wrong_edges


@dataclass(frozen=True)
class ContextResult:
    """
    The graphs of a model in one true context. Entries that the model was told do not count.

    :param task: name of the task
    :param n_true_edges: number of edges of the true graph, including those that the model was told. Contexts are told apart by
        this number
    :param share: share of the task's transitions that are in this context, in [0, 1]
    :param missing: true edges that the model's graph lacks, mean over transitions
    :param extra: edges of the model's graph that are not true, mean over transitions
    :param same_code: share of the transitions whose code is the same without corruption, in [0, 1]; NaN: the model has no
        codes, or nothing was compared
    :param same_graph: share of the transitions whose graph is the same without corruption, likewise
    """

    task: str
    n_true_edges: int
    share: float
    missing: float
    extra: float
    same_code: float
    same_graph: float

    @property
    def shd(self) -> float:
        """Structural Hamming distance, mean over transitions."""
        return self.missing + self.extra


def evaluate_graphs(
    model: FCDL | FCDLPolicy,
    env_id: str,
    env_kwargs: dict[str, Any],
    tasks: Sequence[Task],
    clean_kwargs: dict[str, Any] | None = None,
    n_steps: int = 200,
    seed: int = 0,
    n_envs: int = 10,
) -> list[ContextResult]:
    """
    Compare the model's local graphs with those in ``info["local_graph"]``, under random actions; and its codes and graphs with
    those that it has in the same states without corruption.

    :param model: a trained model that has graphs. If an ``FCDL`` still has its ``VecNormalize``, it sees normalised
        observations; a policy sees them as they are
    :param env_id: registered name of the environment
    :param env_kwargs: its keyword arguments, without the task
    :param tasks: what to evaluate on
    :param clean_kwargs: keyword arguments under which the environment shows the same episodes without corruption; None or
        empty: codes and graphs are not compared
    :param n_steps: steps of each environment
    :param seed: of the environments and the actions
    :param n_envs: environments that are stepped at once
    :return: a result for each context of each task, fewest edges first
    :raises ValueError: if the model has no graph, ``info`` has no true graph, or ``clean_kwargs`` change the episodes
    """
    check(n_steps=(n_steps, integer(1)), seed=(seed, integer(0)), n_envs=(n_envs, integer(1)))
    dynamics = policy_of(model).dynamics
    dynamics.require_graph()
    results = []
    for task in tasks:
        envs = paired_envs(env_id, env_kwargs, task, clean_kwargs, n_envs)
        transitions = _transitions(model, joined(random_steps(envs, n_steps, seed)))
        counts, free = transitions.truth.sum(axis=(1, 2)), dynamics.free_entries
        results += [_context(task.name, transitions, counts == n_edges, free) for n_edges in np.unique(counts)]
    return results


def format_graphs(results: Iterable[ContextResult]) -> str:
    """A Markdown table: a row for each context."""
    rows = []
    for each in results:
        edges = [f"{number:.2f}" for number in (each.shd, each.missing, each.extra)]
        same = ["-" if np.isnan(share) else f"{100 * share:.1f} %" for share in (each.same_code, each.same_graph)]
        rows.append([each.task, str(each.n_true_edges), f"{100 * each.share:.0f} %", *edges, *same])
    return markdown(["task", "true edges", "share", "SHD", "missing", "extra", "same code", "same graph"], rows)


class _Transitions(NamedTuple):
    """
    :param graph: the model's, ``[R, V, P]`` bool
    :param truth: the environment's, ``[R, V, P]`` bool
    :param same_code: 1 if the code is the same without corruption, else 0; NaN if not known, ``[R]``
    :param same_graph: 1 if the graph is the same, likewise, ``[R]``
    """

    graph: np.ndarray
    truth: np.ndarray
    same_code: np.ndarray
    same_graph: np.ndarray


def _context(task: str, transitions: _Transitions, rows: np.ndarray, free: np.ndarray) -> ContextResult:
    """:param rows: the transitions of the context, ``[R]`` bool"""
    graph, truth, same_code, same_graph = (part[rows] for part in transitions)
    missing, extra = wrong_edges(graph, truth, free)
    numbers = (rows.mean(), missing.mean(), extra.mean(), same_code.mean(), same_graph.mean())
    return ContextResult(task, int(truth[0].sum()), *map(float, numbers))


def _transitions(model: FCDL | FCDLPolicy, paired_steps: Iterable[PairedStep]) -> _Transitions:
    """:param paired_steps: of the environments, and of their clean twins if there are any"""
    steps, predict = [], one_step(model)
    for step in paired_steps:
        prediction, *clean = [predict(shown, step.actions) for shown in step.observations]
        truth, *clean_truth = (true_graphs(infos, "local_graph") for infos in step.infos)
        assert prediction.graph is not None
        of_code = of_graph = np.array(np.nan)
        if clean:
            if not np.array_equal(truth, clean_truth[0]):
                raise ValueError("clean_kwargs change the episodes; they must change nothing but what is observed")
            of_code, of_graph = same_code(prediction, clean[0]), same_graph(prediction, clean[0])
        same = (np.broadcast_to(each, len(truth)) for each in (of_code, of_graph))
        steps.append((prediction.graph.bool().cpu().numpy(), truth, *same))
    return _Transitions(*map(np.concatenate, zip(*steps, strict=True)))
