"""The benchmark that counts how often evidence is wrong: its systems, a short run of it, and what it makes of the counts."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch as th

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def calibration(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("calibration")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("switch", [0, 1])
def test_its_graphs_are_those_of_least_squares(calibration, seed, switch):
    """Each number on all parents, while the switch is as it is: where the graph has no edge, the coefficient is zero."""
    system = calibration.System(seed)
    windows = system.transitions(4000, seed)
    rows = windows.state[:, 0, 3 + switch] > 0
    state, action, after = (part[rows, 0].double() for part in windows[:3])
    parents = th.cat([state[:, :3], state[:, 5:7], action[:, [0, 2, 3, 5]], th.ones(len(state), 1)], dim=1)
    columns = [[0], [1], [2], [3, 4], [5, 6], [7], [8]]  # x0, x1, x2, noise, push, set, nothing
    coefficients = th.linalg.lstsq(parents, after[:, :3]).solution.T
    found = np.array([[bool((row[of_parent].abs() > 0.1).any()) for of_parent in columns] for row in coefficients])
    assert np.array_equal(found, system.graph(switch)[:3][:, [0, 1, 2, 4, 5, 6, 7]])


def test_a_short_run_goes_on_where_it_stopped(calibration, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(calibration, "N_UPDATES", 130)
    for n_systems in (1, 2):
        monkeypatch.setattr(sys, "argv", ["calibration.py", str(tmp_path / "counts.csv"), "--systems", str(n_systems)])
        calibration.main()
    lines = (tmp_path / "counts.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["system", "0", "1"]
    assert capsys.readouterr().out.count("systems\n") == 2


def test_shares_by_hand(calibration, tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text(",".join(calibration.COLUMNS) + "\n0,4,1,5,3,10,9\n1,2,0,2,2,10,10\n2,0,0,1,0,5,5\n")
    # 1/4 and 0 of the two systems that have any.
    assert calibration.table(path).splitlines() == [
        "3 systems",
        "false among the significant: 0.125, 1 of 6 in all",
        "true edges found: 5 of 8, 0.62",
        "intervals that hold the true gain: 24 of 25, 0.960",
    ]
