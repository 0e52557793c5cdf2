"""The script that turns result files into tables."""

import runpy
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tiny import signalled_after
from toy import squeezed

from sb3_fcdl import FCDL
from sb3_fcdl.benchmark import BENCHMARKS, CHEMICAL, predictions
from sb3_fcdl.evaluation import TaskResult, evaluate_accuracy, evaluate_graphs
from sb3_fcdl.runs import Run, append_csv, read_csv
from sb3_fcdl.runs.record import TrainRecord
from sb3_fcdl.runs.table import AccuracyCsvRow, ContextCsvRow, TransitionCsvRow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "tables.py"


@pytest.mark.parametrize("env", ["FCDL/Chemical-v0", "sb3_fcdl:FCDL/Chemical-v0"])
def test_an_environment_has_one_name_whatever_registers_it(env):
    record = TrainRecord("FCDL", env, {"rule": "full_fork", "dynamics_seed": 3}, seed=1, timesteps=10, wall_s=2.0)
    assert Run.of(record) == Run("FCDL/Chemical-v0", "dynamics_seed=3 rule=full_fork", "FCDL", 1, 10, 2.0)


def test_table_averages_over_seeds(tmp_path, monkeypatch, capsys):
    path = tmp_path / "results.csv"
    for seed, mean in enumerate((10.0, 13.0)):
        run = Run("FCDL/Chemical-v0", f"dynamics_seed={seed} rule=full_fork", algo="FCDL", seed=seed, timesteps=10, wall_s=1.0)
        tasks = [TaskResult(task, mean + shift, 0, 25, 0.5, 50, 1.0) for task, shift in (("train", 0), ("n=2", -5))]
        append_csv(path, run, tasks)
    monkeypatch.setattr(sys, "argv", ["tables.py", str(path)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = squeezed(capsys.readouterr().out)
    assert "**FCDL/Chemical-v0 rule=full_fork**, mean return over 2 training seeds" in printed
    assert "| policy | train | n=2 |" in printed
    assert "| FCDL | 11.5 [10.0, 13.0] | 6.5 [5.0, 8.0] |" in printed


def test_environments_are_compared_by_timesteps_and_not_run_twice(tmp_path, monkeypatch, capsys):
    path = tmp_path / "environments.csv"
    for seed, shift in enumerate((0.0, 4.0)):
        for algorithm, timesteps, mean in (
            ("random", 0, 20.0),
            ("PPO", 2500, 100.0),
            ("PPO", 5000, 200.0),
            ("PPO", 10_000, 400.0),
        ):
            run = Run("CartPole-v1", "", algorithm, seed, timesteps, wall_s=timesteps / 100)
            append_csv(path, run, [TaskResult("train", mean + shift, 0, 500, float("nan"), 20, 1.0)])
    before = path.read_text()
    script = str(SCRIPT.parent / "environments.py")
    only = ["--envs", "CartPole-v1", "--algorithms", "PPO", "SAC", "--seeds", "0", "1"]
    monkeypatch.setattr(sys, "argv", [script, str(path), *only])
    runpy.run_path(script, run_name="__main__")
    assert path.read_text() == before  # PPO is done, and SAC does not have CartPole's kind of action
    monkeypatch.setattr(sys, "argv", [script, str(path), "--table"])
    runpy.run_path(script, run_name="__main__")
    printed = squeezed(capsys.readouterr().out)
    assert "| CartPole-v1 | random | 2 | 22.0 [20.0, 24.0] | 22.0 [20.0, 24.0] | 22.0 [20.0, 24.0] | 0 |" in printed
    assert "| CartPole-v1 | PPO | 2 | 102.0 [100.0, 104.0] | 202.0 [200.0, 204.0] | 402.0 [400.0, 404.0] | 100 |" in printed


@pytest.mark.parametrize("state", [0, 328, 499])
def test_factored_taxi_shows_what_the_state_is_made_of(state):
    taxi = runpy.run_path(str(SCRIPT.parent / "environments.py"))["factored_taxi"]()
    taxi.reset(seed=0)
    taxi.unwrapped.s = state
    observation, reward, *_ = taxi.step(0)  # south, unless that is a wall
    row, column, passenger, destination = state // 100, state // 20 % 5, state // 4 % 5, state % 4
    assert observation.tolist() == [min(row + 1, 4), column, passenger, destination] and reward == -1
    assert taxi.observation_space.contains(observation)


@pytest.mark.slow
def test_models_are_trained_evaluated_and_not_run_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predictions, "evaluate_accuracy", partial(evaluate_accuracy, n_steps=5))
    monkeypatch.setattr(predictions, "evaluate_graphs", partial(evaluate_graphs, n_steps=5))
    path, script = tmp_path / "models.csv", str(SCRIPT.parent / "models.py")
    run = ["--models", "MLP", "--rules", "full_fork", "--seeds", "0", "--timesteps", "60", "--episodes", "1"]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", [script, str(path), *run, "--log-dir", str(tmp_path / "runs")])
        runpy.run_path(script, run_name="__main__")
        lines = read_csv(path)
        assert [(line.task, line.timesteps) for line in lines[:2]] == [("train", 60), ("n=2", 60)]
        names = list(dict.fromkeys(line.algo for line in lines))
        assert names[:2] == ["MLP", "no-op"] and names[-1] == "planner on the true dynamics" and len(lines) == 4 * len(names)
    assert {line.algo for line in read_csv(tmp_path / "models_accuracy.csv", AccuracyCsvRow)} == {
        "chance",
        "no change",
        "MLP",
        "Bayes",
    }
    assert not (tmp_path / "models_contexts.csv").exists()  # an MLP has no graphs
    run[run.index("MLP")] = "FCDL, last weights"
    monkeypatch.setattr(sys, "argv", [script, str(path), *run, "--log-dir", str(tmp_path / "runs")])
    runpy.run_path(script, run_name="__main__")
    assert [line.algo for line in read_csv(path)][-4:] == ["FCDL, last weights"] * 4
    (model,) = (FCDL.load(file) for file in tmp_path.glob("runs/FCDL, last weights, full_fork, seed 0/*/model.zip"))
    assert model.policy.average_decay == 0
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", [script, str(path), "--table"])
    runpy.run_path(script, run_name="__main__")
    printed = squeezed(capsys.readouterr().out)
    assert "| mean return | train | n=2 | n=4 | n=6 |" in printed and "| accuracy, % | train |" in printed
    contexts = read_csv(tmp_path / "models_contexts.csv", ContextCsvRow)
    titles = [f"{line.task}, {line.n_true_edges} edges" for line in contexts]
    assert f"| same graph, % | {' | '.join(titles)} |" in printed
    assert f"| FCDL, last weights | {' | '.join(f'{100 * line.same_graph:.1f}' for line in contexts)} |" in printed
    transitions = read_csv(tmp_path / "models_transitions.csv", TransitionCsvRow)
    assert f"| FCDL, last weights | {' | '.join(f'{100 * line.purity:.1f}' for line in transitions)} |" in printed
    by_hand = lines[0].wall_s * 1000 / 60
    assert f"| MLP | {by_hand:.1f} |" in printed


@pytest.mark.usefixtures("quick_plans")
def test_a_benchmark_stops_with_ctrl_c_and_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "evaluate_accuracy", partial(evaluate_accuracy, n_steps=5))
    # Floors and ceiling have no part in it.
    monkeypatch.setitem(BENCHMARKS, "FCDL/Chemical-v0", replace(CHEMICAL, references=lambda *_: {}))
    path, script = tmp_path / "models.csv", str(SCRIPT.parent / "models.py")
    run = ["--models", "MLP", "--rules", "full_fork", "--seeds", "0", "--timesteps", "60", "--episodes", "1"]
    monkeypatch.setattr(sys, "argv", [script, str(path), *run, "--log-dir", str(tmp_path / "runs")])
    with monkeypatch.context() as until_interrupted:
        until_interrupted.setattr(FCDL, "train", signalled_after(1, signal.SIGINT))
        with pytest.raises(SystemExit):
            runpy.run_path(script, run_name="__main__")
    assert not path.exists()
    runpy.run_path(script, run_name="__main__")
    assert {line.timesteps for line in read_csv(path) if line.algo == "MLP"} == {60}
