"""Results as Markdown tables and CSV files."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isnan
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from filelock import FileLock

from sb3_fcdl.evaluation.accuracy import AccuracyResult
from sb3_fcdl.evaluation.contexts import ContextResult
from sb3_fcdl.evaluation.markdown import markdown
from sb3_fcdl.evaluation.returns import Returns, TaskResult
from sb3_fcdl.evaluation.transitions import TransitionResult
from sb3_fcdl.runs.record import TrainRecord


@dataclass(frozen=True)
class Run:
    """
    What was evaluated.

    :param env: registered name of the environment
    :param env_kwargs: what its system was made with, ``key=value`` words in alphabetical order
    :param algo: the dynamics model or the reference policy
    :param seed: of the training run
    :param timesteps: transitions that it was trained on
    :param wall_s: duration of the training, in seconds
    """

    env: str
    env_kwargs: str
    algo: str
    seed: int
    timesteps: int
    wall_s: float

    @classmethod
    def of(cls, record: TrainRecord) -> "Run":
        """:param record: of a training run"""
        words = " ".join(f"{key}={value}" for key, value in sorted(record.env_kwargs.items()))
        # Without the module that registers it: the same environment has one name in a table.
        return cls(record.env.rpartition(":")[2], words, record.algo, record.seed, record.timesteps, record.wall_s)


@dataclass(frozen=True)
class CsvRow(Returns, Run):
    """One line of a result file: a run on a task. The fields are the columns."""


@dataclass(frozen=True)
class ContextCsvRow(ContextResult, Run):
    """One line of a file of graphs: a run in a context of a task. The fields are the columns."""


@dataclass(frozen=True)
class AccuracyCsvRow(AccuracyResult, Run):
    """One line of a file of predictions: a run on a task. The fields are the columns."""


@dataclass(frozen=True)
class TransitionCsvRow(TransitionResult, Run):
    """One line of a file of graphs beside transition graphs: a run in a regime of a task. The fields are the columns."""


Result = Returns | ContextResult | AccuracyResult | TransitionResult
Row = TypeVar("Row", CsvRow, ContextCsvRow, AccuracyCsvRow, TransitionCsvRow)
ROWS = {
    Returns: CsvRow,
    ContextResult: ContextCsvRow,
    AccuracyResult: AccuracyCsvRow,
    TransitionResult: TransitionCsvRow,
}


def format_table(results: Mapping[str, Sequence[TaskResult]]) -> str:
    """
    A Markdown table: a row for each policy, a column for each task.

    :param results: for each policy its results, all on the same tasks
    """
    first = next(iter(results.values()))
    rows = [[name, *map(_cell, row), f"{sum(r.predict_ms for r in row) / len(row):.2f}"] for name, row in results.items()]
    table = markdown(["policy", *(result.task for result in first), "ms/predict"], rows)
    return f"{table}\n\nMean return [95 % interval] and success rate; {first[0].n_episodes} episodes a task."


def _cell(result: TaskResult) -> str:
    success = "" if isnan(result.success) else f" {100 * result.success:.0f} %"
    return f"{result.mean:.2f} [{result.ci_low:.2f}, {result.ci_high:.2f}]{success}"


def check_csv(path: str | Path, row_class: type[Row] = CsvRow) -> None:  # type: ignore[assignment]
    """
    :param path: a result file, which need not exist yet
    :param row_class: what its lines are
    :raises ValueError: if it exists and has other columns
    """
    _columns(Path(path), row_class)


def append_csv(path: str | Path, run: Run, results: Sequence[Result]) -> None:
    """
    Append a line for each result to a file; a new file gets a header.

    :param path: the file
    :param run: what was evaluated
    :param results: its results, at least one, all of one kind
    :raises ValueError: if the file exists and has other columns
    """
    path = Path(path)
    with locked(path):
        _append(path, run, results)


def locked(path: Path) -> FileLock:
    """
    :param path: a result file
    :return: a context in which no other program changes the result files of its folder, which is made
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(".lock"))


def _append(path: Path, run: Run, results: Sequence[Result]) -> None:
    columns = _columns(path, next(row for kind, row in ROWS.items() if isinstance(results[0], kind)))
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(_rounded({**asdict(run), **asdict(result)}) for result in results)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """
    Write a result file anew, aside, and put it in place of the one before, whose order of columns it keeps. Lines that another
    program has appended since the file was read are lost, unless both was ``locked``.

    :param path: the file
    :param rows: its lines, at least one
    :raises ValueError: if the file exists and has other columns
    """
    columns = _columns(path, type(rows[0]))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"partial_{path.name}")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_rounded(asdict(row)) for row in rows)
    os.replace(partial, path)


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}


def read_csv(path: str | Path, row_class: type[Row] = CsvRow) -> list[Row]:  # type: ignore[assignment]
    """
    :param path: a result file
    :param row_class: what its lines are
    :return: its lines
    :raises ValueError: if the file has other columns
    """
    path = Path(path)
    check_csv(path, row_class)
    types = get_type_hints(row_class)
    with path.open(newline="") as file:
        return [row_class(**{key: types[key](value) for key, value in line.items()}) for line in csv.DictReader(file)]


def _columns(path: Path, row_class: type[Run]) -> list[str]:
    """The columns of a result file: in its own order, or, if it is new, in the order of the fields."""
    columns = [column.name for column in fields(row_class)]
    if not path.exists() or path.stat().st_size == 0:
        return columns
    with path.open(newline="") as file:
        header = next(csv.reader(file))
    if sorted(header) != sorted(columns):
        raise ValueError(f"{path} has the columns {', '.join(header)}; a result file has {', '.join(columns)}")
    return header
