"""What is measured of a trained model, and the result files that it goes to."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from sb3_fcdl.evaluation.accuracy import AccuracyResult
from sb3_fcdl.evaluation.contexts import ContextResult
from sb3_fcdl.evaluation.returns import TaskResult
from sb3_fcdl.evaluation.transitions import TransitionResult
from sb3_fcdl.runs.record import TrainRecord
from sb3_fcdl.runs.table import AccuracyCsvRow, ContextCsvRow, Run, TransitionCsvRow, append_csv, check_csv

# Appended to the name of a model that is evaluated without corruption.
NOT_CORRUPTED = ", not corrupted"


@dataclass(frozen=True)
class Measurements:
    """
    What was measured of a model.

    :param returns: of the model and of policies that learn nothing, by name
    :param contexts: of its graphs beside the true local ones; empty if it has none, or the true ones are not known
    :param accuracies: of its predictions and of the best possible ones, by name; empty if these are not known
    :param transitions: of its graphs beside those of the transitions; empty as ``contexts`` are
    """

    returns: dict[str, list[TaskResult]]
    contexts: list[ContextResult] = field(default_factory=list)
    accuracies: dict[str, list[AccuracyResult]] = field(default_factory=dict)
    transitions: list[TransitionResult] = field(default_factory=list)

    def append_to(self, csv: Path, record: TrainRecord) -> None:
        """
        Append the results to four files, the returns last: ``results.csv``, ``results_contexts.csv``,
        ``results_transitions.csv`` and ``results_accuracy.csv``.

        :param csv: the first of them
        :param record: of the model's training
        """
        learned = Run.of(record)

        def run(name: str) -> Run:
            is_learned = name in (record.algo, record.algo + NOT_CORRUPTED)
            return replace(learned, algo=name) if is_learned else replace(learned, algo=name, timesteps=0, wall_s=0.0)

        if self.contexts:
            append_csv(contexts_csv(csv), learned, self.contexts)
        if self.transitions:
            append_csv(transitions_csv(csv), learned, self.transitions)
        for name, accuracy in self.accuracies.items():
            append_csv(accuracy_csv(csv), run(name), accuracy)
        for name, row in self.returns.items():
            append_csv(csv, run(name), row)


def contexts_csv(csv: Path) -> Path:
    """:return: the file of graphs that belongs to a file of returns"""
    return csv.with_stem(f"{csv.stem}_contexts")


def transitions_csv(csv: Path) -> Path:
    """:return: the file of graphs, beside those of the transitions, that belongs to a file of returns"""
    return csv.with_stem(f"{csv.stem}_transitions")


def accuracy_csv(csv: Path) -> Path:
    """:return: the file of accuracies that belongs to a file of returns"""
    return csv.with_stem(f"{csv.stem}_accuracy")


def check_files(csv: Path) -> None:
    """
    :param csv: that ``Measurements.append_to`` will be given
    :raises ValueError: if one of the four files exists and has other columns
    """
    check_csv(csv)
    check_csv(contexts_csv(csv), ContextCsvRow)
    check_csv(transitions_csv(csv), TransitionCsvRow)
    check_csv(accuracy_csv(csv), AccuracyCsvRow)
