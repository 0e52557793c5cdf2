"""How far an experiment is, as the terminal shows it."""

import sys

import pytest

from sb3_fcdl.experiments.display import Display
from sb3_fcdl.experiments.driver import Progress
from sb3_fcdl.experiments.experiment import PlannedRun
from sb3_fcdl.experiments.workers import Ended, Ending

RUN = PlannedRun("b", "MLP", "CartPole-v1", {}, 0, 100, 5)
PROGRESS = Progress(4, 400, 100, 250, 1, [Ended(RUN, Ending.FAILED, "no memory")], ["c", "d"])


def test_a_terminal_has_a_bar_of_the_timesteps_of_this_session(monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Display() as display:
        display.show(PROGRESS)
        display.say("finished [b]")
        (task,) = display._bar.tasks
    assert task.description == "1 of 4 done, 2 running, 1 failed" and task.fields["running"] == "c, d"
    assert (task.total, task.completed) == (300, 150)


def test_a_file_has_the_lines_alone(capsys):
    with Display() as display:
        display.say("finished [b]")
        display.show(PROGRESS)
    assert capsys.readouterr().err == "finished [b]\n"
