"""Graphs and predictions of a model compared with the true ones, where the benchmark knows these."""

from sb3_fcdl.benchmark.environments import benchmark_of
from sb3_fcdl.evaluation.accuracy import AccuracyResult, evaluate_accuracy
from sb3_fcdl.evaluation.contexts import ContextResult, evaluate_graphs
from sb3_fcdl.evaluation.transitions import TransitionResult, evaluate_transitions
from sb3_fcdl.fcdl import FCDL
from sb3_fcdl.runs.record import TrainRecord


def evaluate_predictions(
    model: FCDL, record: TrainRecord, seed: int
) -> tuple[list[ContextResult], dict[str, list[AccuracyResult]], list[TransitionResult]]:
    """
    Evaluate graphs and predictions of a model on the tasks of its environment. Graphs are left out if the true ones are not
    known, or the model was told all edges; predictions, if the best possible ones are not known.

    :param model: the model
    :param record: of its training
    :param seed: of the transitions
    :return: graphs beside the local ones, accuracies, graphs beside those of the transitions, see ``Measurements``
    """
    benchmark, made_with = benchmark_of(record.env), (record.env, record.env_kwargs)
    tasks, clean = benchmark.tasks(record.env_kwargs), benchmark.clean_kwargs
    contexts, accuracies, transitions = [], {}, []
    if model.dynamics.has_graph and model.dynamics.free_entries.any() and benchmark.tells_graphs:
        contexts = evaluate_graphs(model, *made_with, tasks, clean, seed=seed)
        transitions = evaluate_transitions(model, *made_with, tasks, benchmark.left_out, seed=seed)
    if benchmark.bayes_step is not None:
        bayes_step = benchmark.bayes_step(*made_with)
        accuracies = evaluate_accuracy({record.algo: model}, *made_with, tasks, clean, bayes_step, seed=seed)
    return contexts, accuracies, transitions
