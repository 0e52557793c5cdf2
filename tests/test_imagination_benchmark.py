"""The benchmark of ``MBPOCallback``: a short run of each arm, and the table of the committed results."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
from stable_baselines3 import SAC

from sb3_fcdl.callbacks import MBPOCallback
from sb3_fcdl.cli import main
from sb3_fcdl.runs import read_csv

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "benchmarks" / "results" / "README.md"


@pytest.fixture
def imagination(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("imagination")


def test_a_short_run_of_each_arm_goes_on_where_it_stopped(imagination, monkeypatch, tmp_path):
    small = {"dynamics_kwargs": {"hidden_dim": 8}, "n_branches": 30, "learning_starts": 16, "train_freq": 8}
    case = imagination.Case(SAC, imagination.OF_SAC | {"learning_starts": 8}, small, (10, 20))
    monkeypatch.setattr(imagination, "CASES", {"Pendulum-v1": case})
    monkeypatch.setattr(MBPOCallback, "N_FIRST", 4)
    file = tmp_path / "imagination.csv"
    monkeypatch.setattr(sys, "argv", ["imagination.py", str(file), "--seeds", "0", "--episodes", "1"])
    imagination.main()
    written = file.read_text()
    rows = read_csv(file)
    assert [(row.algo, row.timesteps) for row in rows] == [(arm, at) for arm in imagination.ARMS for at in (10, 20)]
    assert all(first.wall_s < last.wall_s for first, last in zip(rows[::2], rows[1::2], strict=True))
    imagination.main()
    assert file.read_text() == written


def test_the_page_names_a_command_that_prints_the_results(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (command,) = re.findall(r"^sb3-fcdl (table benchmarks/results/imagination.csv .*)$", PAGE.read_text(), re.MULTILINE)
    assert not main(shlex.split(command))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    cells = {(line[0], line[1]): dict(zip(lines[0], line, strict=True)) for line in lines}
    # As docs/imagination.md has them.
    assert cells["InvertedPendulum-v5", "MBPOCallback"]["1,000"] == "802 / 234 / 1000"
    assert cells["CartPole-v1", "alone"]["2,500"] == "123 / 89 / 378"
    assert len(cells) == 2 + 8
