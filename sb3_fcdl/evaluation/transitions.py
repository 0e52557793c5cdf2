"""Graphs of a model compared with what matters in each single transition, and the purity of its codes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fcdl_envs.arguments import check, integer, one_of
from sb3_fcdl.evaluation.markdown import markdown
from sb3_fcdl.evaluation.paired import joined, one_step, paired_envs, policy_of, random_steps, true_graphs
from sb3_fcdl.evaluation.returns import Task
from sb3_fcdl.fcdl import FCDL, FCDLPolicy
from sb3_fcdl.graphs.score import f1_score, precision_and_recall


@dataclass(frozen=True)
class TransitionResult:
    """
    The graphs of a model beside ``info["transition_graph"]``, over the transitions of one regime. Counts of edges, precision,
    recall and F1 are over the entries that the model is free to learn, without the columns that are left out. A ratio of zero
    to zero is NaN.

    :param task: name of the task
    :param n_true_edges: number of edges of the true *local* graph. Regimes are told apart by it, as in ``ContextResult``
    :param share: share of the task's transitions that are in this regime, in [0, 1]
    :param needed: edges of the true transition graph, mean over transitions
    :param used: edges of the model's graph, mean over transitions
    :param precision: of the edges of all the model's graphs, the share that is true
    :param recall: of the edges of all the true graphs, the share that the model has
    :param f1: harmonic mean of both
    :param n_contexts: true contexts that were met. Transitions have the same one if they have the same local graph and the
        same transition graph
    :param n_codes: codes that were met; 0: the model has no codes
    :param purity: share of the transitions whose true context is the most frequent one of their code, counted over the whole
        task, in [0, 1]; NaN: the model has no codes
    """

    task: str
    n_true_edges: int
    share: float
    needed: float
    used: float
    precision: float
    recall: float
    f1: float
    n_contexts: int
    n_codes: int
    purity: float


def evaluate_transitions(
    model: FCDL | FCDLPolicy,
    env_id: str,
    env_kwargs: dict[str, Any],
    tasks: Sequence[Task],
    left_out: Sequence[str] = (),
    n_steps: int = 200,
    seed: int = 0,
    n_envs: int = 10,
) -> list[TransitionResult]:
    """
    Compare the model's local graphs with those in ``info["transition_graph"]``, under random actions; and its codes with the
    true contexts. With the same steps, seed and environments the transitions are those of ``evaluate_graphs``.

    :param model: see ``evaluate_graphs``
    :param env_id: registered name of the environment
    :param env_kwargs: its keyword arguments, without the task
    :param tasks: what to evaluate on
    :param left_out: names of variables whose columns do not count: those that the model may know from the context, without
        an edge
    :param n_steps: steps of each environment
    :param seed: of the environments and the actions
    :param n_envs: environments that are stepped at once
    :return: a result for each regime of each task, fewest edges first
    :raises ValueError: if the model has no graph, ``info`` does not have both true graphs, or ``left_out`` has an unknown name
    """
    check(n_steps=(n_steps, integer(1)), seed=(seed, integer(0)), n_envs=(n_envs, integer(1)))
    dynamics = policy_of(model).dynamics
    dynamics.require_graph()
    names = dynamics.factors.parent_names
    for name in left_out:
        check(left_out=(name, one_of(*names)))
    entries = dynamics.free_entries & ~np.isin(names, list(left_out))
    results = []
    for task in tasks:
        transitions = _transitions(model, env_id, env_kwargs, task, n_steps, seed, n_envs)
        regimes = np.unique(transitions.n_true_edges)
        results += [_result(task.name, transitions, transitions.n_true_edges == n_edges, entries) for n_edges in regimes]
    return results


def format_transitions(results: Iterable[TransitionResult]) -> str:
    """A Markdown table: a row for each regime."""
    rows = []
    for each in results:
        ratios = ["-" if np.isnan(ratio) else f"{ratio:.2f}" for ratio in (each.precision, each.recall, each.f1)]
        of_codes = [str(each.n_codes), f"{100 * each.purity:.1f} %"] if each.n_codes else ["-", "-"]
        counts = [f"{each.needed:.2f}", f"{each.used:.2f}"]
        share = f"{100 * each.share:.0f} %"
        rows.append([each.task, str(each.n_true_edges), share, *counts, *ratios, str(each.n_contexts), *of_codes])
    edges = ["needed", "used", "precision", "recall", "F1"]
    return markdown(["task", "true edges", "share", *edges, "contexts", "codes", "purity"], rows)


class _Transitions(NamedTuple):
    """
    :param graph: the model's, ``[R, V, P]`` bool
    :param truth: what matters in the transition, ``[R, V, P]`` bool
    :param n_true_edges: of the true local graph, ``[R]``
    :param context: number of the true context, ``[R]``
    :param code: of the model, ``[R]``; -1: it has none
    :param is_own: whether the true context is the most frequent one of the code, 1 or 0, ``[R]``; NaN: the model has no codes
    """

    graph: np.ndarray
    truth: np.ndarray
    n_true_edges: np.ndarray
    context: np.ndarray
    code: np.ndarray
    is_own: np.ndarray


def _result(task: str, transitions: _Transitions, rows: np.ndarray, entries: np.ndarray) -> TransitionResult:
    """:param rows: the transitions of the regime, ``[R]`` bool"""
    graph, truth, n_true_edges, context, code, is_own = (part[rows] for part in transitions)
    chosen, true = graph & entries, truth & entries
    precision, recall = precision_and_recall(chosen, true)
    return TransitionResult(
        task=task,
        n_true_edges=int(n_true_edges[0]),
        share=float(rows.mean()),
        needed=float(true.sum(axis=(1, 2)).mean()),
        used=float(chosen.sum(axis=(1, 2)).mean()),
        precision=precision,
        recall=recall,
        f1=f1_score(chosen, true),
        n_contexts=len(np.unique(context)),
        n_codes=len(np.unique(code[code >= 0])),
        purity=float(is_own.mean()),
    )


def _transitions(
    model: FCDL | FCDLPolicy, env_id: str, env_kwargs: dict[str, Any], task: Task, n_steps: int, seed: int, n_envs: int
) -> _Transitions:
    steps, predict = [], one_step(model)
    for step in joined(random_steps(paired_envs(env_id, env_kwargs, task, None, n_envs), n_steps, seed)):
        prediction = predict(step.observations[0], step.actions)
        assert prediction.graph is not None
        code = np.full(len(step.actions), -1) if prediction.code is None else prediction.code.cpu().numpy()
        truths = (true_graphs(step.infos[0], name) for name in ("local_graph", "transition_graph"))
        steps.append((prediction.graph.bool().cpu().numpy(), code, *truths))
    graph, code, local, truth = map(np.concatenate, zip(*steps, strict=True))
    both = np.concatenate([local, truth], axis=2).reshape(len(code), -1)
    _, context = np.unique(np.packbits(both, axis=1), axis=0, return_inverse=True)
    context = context.reshape(-1)  # NumPy 2.0 alone returns a column
    return _Transitions(graph, truth, local.sum(axis=(1, 2)), context, code, _is_own(code, context))


def _is_own(code: np.ndarray, context: np.ndarray) -> np.ndarray:
    """See ``_Transitions``. Of equally frequent contexts the first one counts."""
    if (code < 0).any():
        return np.full(len(code), np.nan)
    counts = np.zeros((code.max() + 1, context.max() + 1), dtype=np.int64)
    np.add.at(counts, (code, context), 1)
    return (counts.argmax(axis=1)[code] == context).astype(np.float64)
