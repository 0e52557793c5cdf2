"""The benchmark of ``MBPOCallback``: a short run of each arm, and the table of the committed results."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
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
    assert [(row.algo, row.timesteps) for row in rows] == [(arm, at) for arm in case.arms for at in (10, 20)]
    assert all(first.wall_s < last.wall_s for first, last in zip(rows[::2], rows[1::2], strict=True))
    imagination.main()
    assert file.read_text() == written
    # One that was killed before its end starts again: what the file has of it stays.
    kept = written.splitlines()[:-1]
    file.write_text("\n".join(kept) + "\n")
    imagination.main()
    again = file.read_text().splitlines()
    assert again[:-1] == kept and [(row.algo, row.timesteps) for row in read_csv(file)] == [
        (row.algo, row.timesteps) for row in rows
    ]


def test_the_callback_takes_every_arm(imagination):
    for n_updates, options in imagination.ARMS.values():
        if options is not None:
            assert MBPOCallback(gradient_steps=n_updates, **options).updates_a_transition == n_updates


def test_points_move_by_their_own_actions_and_are_paid_together(imagination):
    env = gym.make("Points-v0").unwrapped
    check_env(env, skip_render_check=True)
    first, _ = env.reset(seed=0)
    steps = np.array([env.step(np.array([1.0, -1.0, 0.0]))[0] for _ in range(4)])
    assert np.abs(np.diff(steps, axis=0, prepend=first[None]) - [0.1, -0.1, 0]).max() < 0.05 and np.abs(steps).max() <= 1
    # One at its goal, one a tenth away, one as far as the reward falls to exp(-1/2).
    paid = env.reward_fn(None, None, np.array([[0.5, 0.4, 0.5 + env.sharpness]]), None)
    assert paid[0] == pytest.approx(np.exp(-(0.01 / env.sharpness**2 + 1) / 2))


def printed(file, capsys):
    """The table that the command on the page prints, by its first two columns."""
    (command,) = re.findall(rf"^sb3-fcdl (table benchmarks/results/{file} .*)$", PAGE.read_text(), re.MULTILINE)
    assert not main(shlex.split(command))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    return {(line[0], line[1]): dict(zip(lines[0], line, strict=True)) for line in lines}


def test_the_page_names_a_command_that_prints_the_results(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    # As docs/imagination.md has them.
    cells = printed("imagination.csv", capsys)
    assert cells["InvertedPendulum-v5", "MBPOCallback"]["1,000"] == "802 / 234 / 1000"
    assert cells["CartPole-v1", "alone"]["2,500"] == "123 / 89 / 378"
    assert cells["Hopper-v5", "MBPOCallback"]["5,000"] == "280"
    assert cells["CartPole-v1", "one update"]["2,500"] == "142"
    assert len(cells) == 2 + 12
    cells = printed("counterfactual.csv", capsys)
    assert cells["Points-v0", "alone"]["1,250"] == "1 / 40 / 36"
    assert cells["Points-v0", "counterfactual, five updates"]["750"] == "43 / 43 / 42"
    assert cells["RarePoints-v0", "counterfactual, five updates"]["1,000"] == "41 / 39 / 41"
    assert len(cells) == 2 + 8
