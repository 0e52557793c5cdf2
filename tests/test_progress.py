"""Bars show how much is done, where they are asked for."""

import sys

import numpy as np
import pytest

from sb3_fcdl import evaluate_shift, progress
from sb3_fcdl.evaluation import Task, evaluate_tasks, make_env

pytest.importorskip("tqdm")
pytest.importorskip("rich")


class AlwaysLeft:
    """The pole falls after nine or ten steps."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros(len(observation), dtype=int), state


def test_bar_counts_what_is_done(capsys):
    with progress.progress("episodes", 4, True) as has_ended:
        for _ in range(4):
            has_ended()
    shown = capsys.readouterr().err
    assert "episodes" in shown and "4/4" in shown


def test_bar_ends_with_an_error(capsys):
    with pytest.raises(KeyError), progress.progress("episodes", 4, True) as has_ended:
        has_ended()
        raise KeyError
    assert "1/4" in capsys.readouterr().err


def test_no_bar_is_drawn_unless_asked_for(capsys):
    evaluate_tasks(AlwaysLeft(), "CartPole-v1", {}, [Task("train")], n_episodes=2)
    assert capsys.readouterr().err == ""


def test_evaluations_count_their_episodes(capsys):
    evaluate_tasks(AlwaysLeft(), "CartPole-v1", {}, [Task("one"), Task("two")], n_episodes=3, n_envs=2, progress_bar=True)
    assert "6/6" in capsys.readouterr().err
    models = {"left": AlwaysLeft(), "also left": AlwaysLeft()}
    evaluate_shift(models, lambda: make_env("CartPole-v1", 2, {}), {"obs[0]": "noise"}, n_episodes=3, progress_bar=True)
    # With and without the shift.
    assert "12/12" in capsys.readouterr().err


def test_missing_libraries_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"sb3_fcdl\[extra\]"), progress.progress("episodes", 1, True):
        pass


def test_the_command_line_draws_bars_on_terminals(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert not progress.has_terminal()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert progress.has_terminal()
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    assert not progress.has_terminal()
