"""Result files: what is there stays, what is new comes in the order of the experiment."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from experiment_files import result, tiny_file

from sb3_fcdl.experiments.experiment import read_experiment
from sb3_fcdl.experiments.results import Results
from sb3_fcdl.runs import append_csv, read_csv
from sb3_fcdl.runs.table import AccuracyCsvRow, ContextCsvRow, CsvRow, TransitionCsvRow, locked, write_csv

COMMITTED = Path(__file__).parents[2] / "benchmarks" / "results"
KINDS = {"contexts": ContextCsvRow, "accuracy": AccuracyCsvRow, "transitions": TransitionCsvRow}
OTHER_COLUMNS = {"calibration", "evidence_161k_graphs", "evidence_factored", "published_chemical"}
FILES = [path for path in sorted(COMMITTED.glob("*.csv")) if path.stem not in OTHER_COLUMNS]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_that_is_read_and_written_again_is_the_same(tmp_path, path):
    row_class = KINDS.get(path.stem.rpartition("_")[2], CsvRow)
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    write_csv(copy, read_csv(copy, row_class))
    assert copy.read_bytes() == path.read_bytes()


def leave_results(run, folder, mean, timesteps=None):
    timesteps = run.timesteps if timesteps is None else timesteps
    row = replace(run.row, timesteps=timesteps, wall_s=1.0)
    for name in (run.algo, f"{run.algo}, not corrupted"):
        append_csv(folder / f"results_{timesteps}" / "results.csv", replace(row, algo=name), [result(mean)])


def test_lines_come_in_the_order_of_the_experiment_whoever_ends_first(tmp_path):
    runs = read_experiment(tiny_file(tmp_path, more="\n[evaluations]\n").parent / "tiny.toml")
    runs = [replace(run, evaluate_at=(30,)) for run in runs]
    csv = tmp_path / "results.csv"
    # Somebody else's: its lines stay, in front.
    append_csv(csv, replace(runs[0].row, algo="PPO", timesteps=7), [result(0.0)])
    results = Results(csv, runs)
    for place in (3, 1, 0):
        run, folder = runs[place], tmp_path / runs[place].name
        assert not results.has(run)
        leave_results(run, folder, mean=place)
        leave_results(run, folder, mean=place - 0.5, timesteps=30)
        results.add(run, folder)
        assert results.has(run)
    expected = [("PPO", 0, 7, 0.0)]
    for place in (0, 1, 3):
        for timesteps, mean in ((30, place - 0.5), (60, place)):
            for name in (runs[place].algo, f"{runs[place].algo}, not corrupted"):
                expected.append((name, runs[place].seed, timesteps, mean))
    assert [(row.algo, row.seed, row.timesteps, row.mean) for row in read_csv(csv)] == expected
    # Read anew, the file tells what is done; another number of timesteps is another run.
    again = Results(csv, runs)
    assert [again.has(run) for run in runs] == [True, True, False, True]
    assert not again.has(replace(runs[0], timesteps=70))
    before = csv.read_bytes()
    again.add(runs[1], tmp_path / runs[1].name)
    assert csv.read_bytes() == before


def test_lines_that_others_write_meanwhile_stay(tmp_path):
    runs = read_experiment(tiny_file(tmp_path))
    csv = tmp_path / "results.csv"
    results, other = Results(csv, runs[:1]), Results(csv, runs[1:2])
    for mine, run, timesteps in ((results, runs[0], 7), (other, runs[1], 8)):
        append_csv(csv, replace(run.row, algo="PPO", timesteps=timesteps), [result(7.0)])
        leave_results(run, tmp_path / run.name, 1.0)
        mine.add(run, tmp_path / run.name)
    # While another program has the files, none is read or written.
    late = threading.Thread(target=results.add, args=(runs[0], tmp_path / runs[0].name))
    with locked(csv):
        before = csv.read_bytes()
        late.start()
        late.join(0.3)
        assert late.is_alive() and csv.read_bytes() == before
    late.join()
    found = sorted((row.algo, row.mean) for row in read_csv(csv))
    names = [f"{run.algo}{more}" for run in runs[:2] for more in ("", ", not corrupted")]
    assert found == sorted([("PPO", 7.0)] * 2 + [(name, 1.0) for name in names])


def test_a_named_evaluation_has_files_of_its_own(tmp_path):
    (run, *_) = read_experiment(tiny_file(tmp_path, more='\n[evaluations.color]\nnoise = "color"\n'))
    folder = tmp_path / run.name
    results = Results(tmp_path / "results.csv", [run])
    leave_results(run, folder, 1.0)
    results.add(run, folder)
    assert not results.has(run)
    colored = replace(run.row, env_kwargs="dynamics_seed=0 n_colors=3 n_objects=4 noise=color rule=full_chain")
    append_csv(folder / "results_60" / "results_color.csv", colored, [result(2.0)])
    results.add(run, folder)
    assert results.has(run)
    assert [row.mean for row in read_csv(tmp_path / "results_color.csv")] == [2.0]
