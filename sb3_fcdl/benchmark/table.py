"""Results as a table to read and as a CSV file to keep."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import get_type_hints

from sb3_fcdl.benchmark.evaluation import TaskResult


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


@dataclass(frozen=True)
class CsvRow:
    """One line of a result file: a run on a task. The fields are the columns."""

    env: str
    env_kwargs: str
    algo: str
    seed: int
    timesteps: int
    task: str
    mean: float
    ci_low: float
    ci_high: float
    success: float
    n_episodes: int
    wall_s: float


def format_table(results: Mapping[str, Sequence[TaskResult]]) -> str:
    """
    A Markdown table with a row a policy and a column a task, aligned for reading as it is.

    :param results: for each policy its results, all on the same tasks
    """
    first = next(iter(results.values()))
    rows = [["policy", *(result.task for result in first), "ms/predict"]]
    rows += [[name, *map(_cell, row), f"{sum(r.predict_ms for r in row) / len(row):.2f}"] for name, row in results.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    caption = f"Mean return [95 % interval] and success rate; {first[0].n_episodes} episodes a task."
    return "\n".join([*lines, "", caption])


def _cell(result: TaskResult) -> str:
    return f"{result.mean:.2f} [{result.ci_low:.2f}, {result.ci_high:.2f}] {100 * result.success_rate:.0f} %"


def check_csv(path: str | Path) -> None:
    """
    :param path: a result file, which need not exist yet
    :raises ValueError: if it exists and has other columns
    """
    path = Path(path)
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open(newline="") as file:
        header = next(csv.reader(file))
    columns = [column.name for column in fields(CsvRow)]
    if header != columns:
        raise ValueError(f"{path} has the columns {', '.join(header)}; a result file has {', '.join(columns)}")


def append_csv(path: str | Path, run: Run, results: Sequence[TaskResult]) -> None:
    """
    Add a line a task to a result file; a new file gets its header first.

    :param path: the file
    :param run: what was evaluated
    :param results: its results
    :raises ValueError: if the file exists and has other columns
    """
    path = Path(path)
    columns = [column.name for column in fields(CsvRow)]
    check_csv(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(asdict(_row(run, result)) for result in results)


def read_csv(path: str | Path) -> list[CsvRow]:
    """
    :param path: a result file
    :return: its lines
    :raises ValueError: if the file has other columns
    """
    path = Path(path)
    check_csv(path)
    types = get_type_hints(CsvRow)
    with path.open(newline="") as file:
        return [CsvRow(**{key: types[key](value) for key, value in line.items()}) for line in csv.DictReader(file)]


def _row(run: Run, result: TaskResult) -> CsvRow:
    return CsvRow(
        env=run.env,
        env_kwargs=run.env_kwargs,
        algo=run.algo,
        seed=run.seed,
        timesteps=run.timesteps,
        task=result.task,
        mean=round(result.mean, 4),
        ci_low=round(result.ci_low, 4),
        ci_high=round(result.ci_high, 4),
        success=round(result.success_rate, 4),
        n_episodes=result.n_episodes,
        wall_s=round(run.wall_s, 1),
    )
