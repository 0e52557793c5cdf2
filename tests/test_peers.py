"""The benchmark beside other planners: what it does itself, and a run of it with a stand-in for a library."""

import csv
import importlib
import random
from pathlib import Path

import pytest
import torch as th
from toy import squeezed

from sb3_fcdl.planning import BoxActions, DiscreteActions


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    module = importlib.import_module("peers")
    monkeypatch.setattr(module.th, "set_num_threads", lambda n_threads: None)
    return module


def test_ours_plan_with_every_candidate_of_every_iteration(peers):
    """MPPI asks once more, for what its plan is worth; iCEM draws fewer candidates in its second iteration, 40 / 1.25."""
    shape = peers.Shape(n_envs=2, n_candidates=40, horizon=3, n_iterations=2)
    for actions, width in ((BoxActions((-2.0,), (2.0,)), 1), (DiscreteActions(3), 3)):
        rows = {}
        counted = peers.Counted(peers.Model(width, hidden_dim=4))
        for name, plan in peers.our_planners(counted, th.zeros(2, 3), shape, actions).items():
            counted.n_rows = 0
            assert len(plan()) == 2
            rows[name] = counted.n_rows
        assert rows == {"CEM": 2 * 40 * 3 * 2, "iCEM": 2 * (40 + 32) * 3, "MPPI": 2 * (40 * 2 + 1) * 3}


def test_planners_are_timed_in_turn(peers, monkeypatch):
    """Each once a round, in an order that changes, after a call that does not count."""
    called = []
    clock = iter(range(100))
    monkeypatch.setattr(peers.time, "process_time", lambda: next(clock))
    functions = {name: lambda name=name: called.append(name) for name in ("a", "b", "c")}
    seconds = peers.interleaved(functions, n_rounds=4, rng=random.Random(0))
    rounds = [called[start : start + 3] for start in range(0, 15, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds) and len(set(map(tuple, rounds))) > 1
    assert seconds == {name: [1.0] * 4 for name in "abc"}


def test_ratio_is_the_median_of_the_rounds(peers):
    assert peers.median_ratio(ours=[1.0, 2.0, 1.0], theirs=[2.0, 2.0, 9.0]) == 2.0


def test_floor_multiplies_for_every_step(peers, monkeypatch):
    model = peers.Model(hidden_dim=4)
    asked = []
    linear = th.nn.Linear.forward
    monkeypatch.setattr(th.nn.Linear, "forward", lambda layer, rows: asked.append(rows.shape) or linear(layer, rows))
    peers.matrix_products(model, peers.Shape(2, 5, 3, 2))()
    assert asked == [(10, 4), (10, 4), (10, 4)] * 6


def test_a_run_leaves_out_what_is_not_installed(peers, monkeypatch, tmp_path, capsys):
    def missing(model, state, shape):
        raise ImportError("no module of that name")

    def library(model, state, shape):
        def plan():
            for _ in range(shape.horizon * shape.n_iterations):
                action = th.zeros(shape.n_envs * shape.n_candidates, 1)
                model(state.repeat_interleave(shape.n_candidates, dim=0), action)
            return action[: shape.n_envs]

        return {"CEM": plan}

    monkeypatch.setattr(peers, "PEERS", {"absent": missing, "numpy": library})
    monkeypatch.setattr(peers, "SHAPES", (peers.Shape(1, 20, 2, 1), peers.Shape(2, 20, 2, 1)))
    path = tmp_path / "peers.csv"
    peers.main(["--rounds", "2", "--csv", str(path)])
    printed = squeezed(capsys.readouterr().out)
    assert "absent is left out: no module of that name" in printed
    assert printed.count("fastest peer CEM of numpy") == 2
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["n_envs"] == "2"]
    assert [(row["actions"], row["library"], row["planner"], row["rows"]) for row in rows] == [
        ("box", "torch", "matrix products", "80"),
        ("box", "sb3_fcdl", "CEM", "80"),
        ("box", "sb3_fcdl", "iCEM", "80"),
        ("box", "sb3_fcdl", "MPPI", "84"),
        ("box", "numpy", "CEM", "80"),
        ("discrete", "torch", "matrix products", "80"),
        ("discrete", "sb3_fcdl", "CEM", "80"),
        ("discrete", "sb3_fcdl", "iCEM", "80"),
        ("discrete", "sb3_fcdl", "MPPI", "84"),
    ]
    assert all(float(row["ms"]) > 0 and float(row["ratio"]) > 0 for row in rows)


@pytest.mark.usefixtures("quick_plans")
def test_training_is_evaluated_at_equal_steps(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    training = importlib.import_module("peers_training")
    monkeypatch.setattr(training.th, "set_num_threads", lambda n_threads: None)
    file = tmp_path / "training.csv"
    training.main([str(file), "--algorithms", training.OURS, "--seeds", "0", "--evaluated-at", "20", "30", "--episodes", "1"])
    printed = squeezed(capsys.readouterr().out)
    assert all(f"| {training.OURS} | {timesteps} | 1 | -" in printed for timesteps in (20, 30))
    rows = training.read_csv(file)
    assert [(row.env, row.timesteps) for row in rows] == [("Pendulum-v1", 20), ("Pendulum-v1", 30)]
    assert 0 < rows[0].wall_s < rows[1].wall_s
