"""The speed benchmark: its formulas, and a run of it on a small system."""

import importlib
import json
import re
import time
from pathlib import Path

import pytest
import torch as th
from toy import squeezed

from sb3_fcdl.dynamics.lookup import rule
from sb3_fcdl.runs.profile import median_ms

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("speed")


@pytest.fixture
def one_thread():
    n_threads = th.get_num_threads()
    th.set_num_threads(1)
    yield
    th.set_num_threads(n_threads)


def test_work_is_that_of_the_specification(speed):
    """``spec/dynamics.md``, sections 8.1 and 8.2, in multiply-adds."""
    work = speed.Work()
    assert work.dense_row == 12_800 + 189_440 + 256 + 1_952 + 14_080 + 1_802_240 + 327_680 + 6_400
    assert work.dense_row == pytest.approx(2.355e6, rel=1e-3)
    assert work.dense_update() == pytest.approx(5.43e9, rel=1e-3)
    assert work.dense_plan(n_rows=9600) == pytest.approx(22.6e9, rel=1e-3)
    assert work.table_row == pytest.approx(359e3, rel=1e-3)
    assert work.tables == pytest.approx(14.3e6, rel=3e-3)
    assert work.table_update() == pytest.approx(0.93e9, rel=1e-2)
    assert work.table_plan(n_rows=9600) == pytest.approx(3.46e9, rel=1e-3)
    assert work.table_plan(n_rows=3840) == pytest.approx(1.39e9, rel=3e-3)


@pytest.mark.parametrize(
    ("unit", "ours", "dense", "ratio"), [("ms", 2.0, 8.0, 4.0), ("steps/s", 8.0, 2.0, 4.0), ("ms", 2.0, None, None)]
)
def test_ratio_says_how_much_better_ours_is(speed, unit, ours, dense, ratio):
    assert speed.Row("a quantity", unit, ours, dense).ratio == ratio


def test_dense_path_sends_every_row_through_the_model_and_ends(speed):
    model = speed.trained_model((4, 3), n_updates=1)
    observation = speed.first_observations((4, 3), n_envs=2)
    counts = speed.both_paths(model, lambda: speed.planned_rows(model, observation))
    every_row = 2 * 64 * 3 * 5
    assert counts[0] < counts[1] == every_row
    with speed.dense_path():
        assert not rule.uses_tables(model.dynamics.features.weight.device)
    assert rule.uses_tables(model.dynamics.features.weight.device) and speed.planned_rows(model, observation) < every_row


def once_ms(function, seconds):
    start = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - start)


@pytest.mark.usefixtures("quick_plans")
def test_quick_run_prints_a_table_and_writes_ratios(speed, one_thread, capsys, tmp_path, monkeypatch):
    small = speed.Scale(
        threads=(1,),
        seconds=0,
        n_updates=1,
        plan_envs=(10,),
        size=(4, 3),
        growth=((5, 2),),
        models=("mlp",),
        numbers=(2,),
        environments=("FrozenLake-v1",),
    )
    monkeypatch.setattr(speed, "QUICK", small)
    monkeypatch.setattr(speed, "median_ms", once_ms)
    monkeypatch.setattr(speed, "EPISODE_STEPS", 3)
    # Ten processes that import torch would take longer than all the rest.
    monkeypatch.setattr(speed, "SubprocVecEnv", speed.DummyVecEnv)
    monkeypatch.setattr(speed, "in_fresh_process", lambda n_threads, function, *args: function(*args))
    path = tmp_path / "speed.json"
    speed.main(["--quick", "--json", str(path)])
    printed = capsys.readouterr().out
    result = json.loads(path.read_text())
    rows = {row["quantity"]: row for row in result["rows"]}
    for name, quantity in (("update", "update, 4 objects, 3 colours"), ("plan", "plan, 4 objects, 3 colours, 10 envs")):
        assert result["ratio"][name] == pytest.approx(rows[quantity]["dense"] / rows[quantity]["ours"])
    for name, row in rows.items():
        assert row["n_threads"] == 1 and row["ours"] > 0
        assert f"| {name} | {row['unit']} | 1 |" in squeezed(printed)
    units = {row["unit"] for row in rows.values()}
    assert units == {"ms", "vector steps/s", "GFLOP/s", "rows", "GFLOP", "% of product", "transitions/s", "MiB"}
    assert {"update, mlp", "plan, mlp, 10 envs", "update, 5 objects, 2 colours"} <= rows.keys()
    assert {"update, fcdl_tree, 2 numbers", "peak memory, 2 numbers"} <= rows.keys()
    assert {"update, FrozenLake-v1", "plan, FrozenLake-v1, 1 envs", "plan, FrozenLake-v1, 10 envs"} <= rows.keys()
    assert "ChemicalVectorEnv, 1000 envs" in rows
    assert {"GymVectorVecEnv, 1000 envs", "DummyVecEnv, 100 envs", "SubprocVecEnv, 10 envs"} <= rows.keys()
    speed.main(["--table", str(path)])
    assert capsys.readouterr().out == printed
    assert result["scale"]["size"] == [4, 3] and result["versions"]["torch"] and result["machine"]["cores"] >= 1


def test_rows_are_compared_with_those_of_a_file(speed, tmp_path, monkeypatch, capsys):
    """A step from 8 to 4 ms is twice as fast, 10 to 30 a second thrice; a ratio from 4 to 2 is half of what it was."""
    now = [
        speed.Row("plan", "ms", 4.0, 8.0, 1),
        speed.Row("steps", "steps/s", 30.0, None, 1),
        speed.Row("new", "ms", 1.0, None, 1),
    ]
    before = [speed.Row("plan", "ms", 8.0, 32.0, 1), speed.Row("steps", "steps/s", 10.0, None, 1)]
    monkeypatch.setattr(speed, "measure", lambda scale: now)
    monkeypatch.setattr(speed, "report", lambda scale, rows: {"rows": [{**vars(row), "ratio": row.ratio} for row in before]})
    path = tmp_path / "before.json"
    speed.main(["--json", str(path)])
    capsys.readouterr()
    speed.main(["--against", str(path)])
    printed = squeezed(capsys.readouterr().out)
    assert (
        "| plan | ms | 1 | 8.0 | 4.0 | 2.0 | 4.0 | 2.0 |" in printed
        and "| steps | steps/s | 1 | 10.0 | 30.0 | 3.0 | | |" in printed
    )
    assert printed.count("| new |") == 1 and "Smallest share of an earlier ratio: 0.50" in printed
    speed.main(["--against", str(path), "--fail-below", "0.5"])
    with pytest.raises(SystemExit) as ended:
        speed.main(["--against", str(path), "--fail-below", "0.7"])
    assert ended.value.code == 1
    with pytest.raises(SystemExit):
        speed.main(["--fail-below", "0.7"])
    assert "give --against FILE" in capsys.readouterr().err


def test_a_folder_keeps_a_file_a_day_and_commit(speed, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "measure", lambda scale: [])
    monkeypatch.setattr(speed, "report", lambda scale, rows: {"rows": []})
    speed.main(["--json", str(tmp_path)])
    (kept,) = tmp_path.iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-[0-9a-f]{7,}\+?\.json", kept.name)


def test_median_leaves_out_the_first_call(monkeypatch):
    clock = iter([0.0, 1.0, 1.0, 3.0, 3.0, 13.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    n_calls = []
    assert median_ms(lambda: n_calls.append(1), seconds=0.0) == 2000
    assert len(n_calls) == 4
