"""The result files of an experiment: what each finished run left, in the order of the experiment."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sb3_fcdl.experiments.experiment import REFERENCES, PlannedRun
from sb3_fcdl.experiments.run import RESULTS, csv_of, results_folder
from sb3_fcdl.runs import read_csv
from sb3_fcdl.runs.measurements import NOT_CORRUPTED, accuracy_csv, contexts_csv, transitions_csv
from sb3_fcdl.runs.table import AccuracyCsvRow, ContextCsvRow, CsvRow, Run, TransitionCsvRow, locked, write_csv

# From the file of returns to the file of each kind, which is written before it.
KINDS: tuple[tuple[type[Any], Callable[[Path], Path]], ...] = (
    (ContextCsvRow, contexts_csv),
    (TransitionCsvRow, transitions_csv),
    (AccuracyCsvRow, accuracy_csv),
    (CsvRow, lambda csv: csv),
)


class _Key(NamedTuple):
    """What the lines of one evaluation of one run share."""

    env: str
    env_kwargs: str
    algo: str
    seed: int
    timesteps: int

    @classmethod
    def of(cls, row: Run) -> "_Key":
        # Only what was trained has timesteps.
        algo = row.algo.removesuffix(NOT_CORRUPTED) if row.timesteps else REFERENCES
        return cls(row.env, row.env_kwargs, algo, row.seed, row.timesteps)


class Results:
    """
    Lines that the files have already count: their runs are not repeated, and they stay.

    :param csv: the file of returns of the plain evaluation; the others lie beside it
    :param runs: of the experiment
    :raises ValueError: if one of the files has other columns
    """

    def __init__(self, csv: Path, runs: Sequence[PlannedRun]) -> None:
        self.csv = csv
        self.runs = runs
        names = dict.fromkeys(["", *(name for run in runs for name in run.evaluations)])
        self._order = {key: place for place, run in enumerate(runs) for name in names for key in self._keys(run, name)}
        self._files: dict[Path, dict[_Key, list[Any]]] = {}
        for name in names:
            for row_class, path_of in KINDS:
                self._read(path_of(csv_of(csv, name)), row_class)

    def has(self, run: PlannedRun) -> bool:
        """
        :param run: of the experiment
        :return: whether the files have its last evaluation, the plain one and those with names
        """
        return all(self._keys(run, name)[-1] in self._files[csv_of(self.csv, name)] for name in ("", *run.evaluations))

    def add(self, run: PlannedRun, folder: Path) -> None:
        """
        Take the results of a finished run into the files, whose lines stay, those too that others have written meanwhile.

        :param run: of the experiment
        :param folder: of the run
        """
        with locked(self.csv):
            for name in ("", *run.evaluations):
                for row_class, path_of in KINDS:
                    path = path_of(csv_of(self.csv, name))
                    groups = self._read(path, row_class)
                    for timesteps in (*run.evaluate_at, run.timesteps):
                        found = path_of(csv_of(results_folder(folder, timesteps) / RESULTS, name))
                        if found.exists():
                            groups.update(_grouped(read_csv(found, row_class)))
                    rows = [row for _, group in sorted(groups.items(), key=self._place) for row in group]
                    if rows:
                        write_csv(path, rows)

    def _read(self, path: Path, row_class: type[Any]) -> dict[_Key, list[Any]]:
        self._files[path] = _grouped(read_csv(path, row_class)) if path.exists() else {}
        return self._files[path]

    def _keys(self, run: PlannedRun, evaluation: str) -> list[_Key]:
        row = run.evaluated(evaluation).row
        first = _Key(*(getattr(row, name) for name in _Key._fields))
        return [first._replace(timesteps=timesteps) for timesteps in (*run.evaluate_at, run.timesteps)]

    def _place(self, item: tuple[_Key, list[Any]]) -> tuple[int, int]:
        """Lines of other runs stay in front, in their order."""
        return self._order.get(item[0], -1), item[0].timesteps if item[0] in self._order else 0


def _grouped(rows: Sequence[Any]) -> dict[_Key, list[Any]]:
    groups: dict[_Key, list[Any]] = {}
    for row in rows:
        groups.setdefault(_Key.of(row), []).append(row)
    return groups
