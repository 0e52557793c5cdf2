"""One run of an experiment: what it leaves, stopped and gone on with, and what it refuses."""

import json
import signal
from dataclasses import replace

import pytest
from experiment_files import figures, tiny_file
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from tiny import signalled_after

from sb3_fcdl import FCDL
from sb3_fcdl.cli import main
from sb3_fcdl.evaluation import Task, evaluate_tasks
from sb3_fcdl.experiments.experiment import REFERENCES, PlannedRun, read_experiment
from sb3_fcdl.experiments.run import carry_out, is_evaluated
from sb3_fcdl.runs import read_csv

TRAIN = [
    *(
        "train",
        "--dynamics",
        "mlp",
        "--rule",
        "full_chain",
        "--env-kwargs",
        "n_objects=4",
        "n_colors=3",
        "--timesteps",
        "200",
    ),
    *("--dynamics-kwargs", "hidden_dim=16"),
    *("--planner-kwargs", "horizon=2", "n_iterations=2", "n_candidates=8", "n_elites=4"),
]


@pytest.fixture
def run(tmp_path):
    # The MLP, which is quick.
    run = read_experiment(tiny_file(tmp_path, timesteps=200, more='\n[evaluations.color]\nnoise = "color"\n'))[1]
    return replace(run, evaluate_at=(100,))


@pytest.fixture
def no_predictions(monkeypatch):
    monkeypatch.setattr("sb3_fcdl.experiments.measuring.evaluate_predictions", lambda *_: ())


@pytest.mark.usefixtures("no_predictions")
def test_a_run_is_what_train_and_evaluate_do(tmp_path, run):
    folder, csv = tmp_path / "run", tmp_path / "by_hand.csv"
    assert carry_out(run, folder)
    assert main([*TRAIN, "--log-dir", str(tmp_path / "by_hand")]) == 0
    (model,) = (tmp_path / "by_hand").glob("*/model.zip")
    for name, noise in (("results.csv", "scale"), ("results_color.csv", "color")):
        csv.unlink(missing_ok=True)
        assert main(["evaluate", "--model", str(model), "--episodes", "2", "--noise", noise, "--csv", str(csv)]) == 0
        by_hand = [line for line in figures(csv) if line["timesteps"] != "0"]
        found = figures(folder / "results_200" / name)
        assert len(found) == 2 * len({line["task"] for line in found}) >= 2  # with corruption and without
        ignored = {"env_kwargs"}  # `scale` is the environment's default, which evaluate names and the run does not
        assert [{k: v for k, v in line.items() if k not in ignored} for line in found] == [
            {k: v for k, v in line.items() if k not in ignored} for line in by_hand
        ]
    # On the way, without the time that the evaluation took.
    (row, *_) = read_csv(folder / "results_100" / "results.csv")
    assert row.timesteps == 100 and 0 < row.wall_s < read_csv(folder / "results_200" / "results.csv")[0].wall_s


@pytest.mark.usefixtures("no_predictions")
def test_a_run_that_was_stopped_goes_on_and_is_not_repeated(tmp_path, monkeypatch, run):
    assert carry_out(run, tmp_path / "whole")
    folder = tmp_path / "stopped"
    with monkeypatch.context() as until_signal:
        until_signal.setattr(FCDL, "train", signalled_after(5, signal.SIGTERM))
        assert not carry_out(run, folder)
    assert [path.name for path in folder.glob("checkpoint*")] == ["checkpoint_110"] and not list(folder.glob("results_2*"))
    assert carry_out(run, folder)
    for name in ("results_100/results.csv", "results_200/results.csv", "results_200/results_color.csv"):
        assert figures(folder / name) == figures(tmp_path / "whole" / name)
    monkeypatch.setattr(FCDL, "learn", None)
    assert carry_out(run, folder)


def test_ppo_ends_at_the_timesteps_and_is_evaluated_as_of_its_last_update(tmp_path):
    run = PlannedRun(
        name="ppo",
        algo="PPO, small",
        env="CartPole-v1",
        env_kwargs={},
        seed=1,
        timesteps=80,
        episodes=2,
        evaluate_at=(40,),
        n_envs=1,
        algorithm="PPO",
        model={"n_steps": 32, "batch_size": 16, "learning_rate": 0.03},
    )
    assert carry_out(run, tmp_path)
    model = PPO.load(tmp_path / "model.zip")
    # Two rollouts of 32 are learned from, ten epochs each; the rest of the third is not.
    assert (model.num_timesteps, model._n_updates) == (80, 20)
    for timesteps, n_rollouts in ((40, 1), (80, 2)):
        other = PPO("MlpPolicy", "CartPole-v1", seed=1, device="cpu", n_steps=32, batch_size=16, learning_rate=0.03)
        (expected,) = evaluate_tasks(other.learn(32 * n_rollouts), "CartPole-v1", {}, (Task("train"),), 2, 1)
        (row,) = read_csv(tmp_path / f"results_{timesteps}" / "results.csv")
        assert (row.algo, row.seed, row.timesteps, row.mean) == ("PPO, small", 1, timesteps, expected.mean)


def test_dqn_ends_at_the_timesteps_within_a_rollout(tmp_path):
    run = PlannedRun(
        name="dqn",
        algo="DQN",
        env="CartPole-v1",
        env_kwargs={},
        seed=1,
        timesteps=60,
        episodes=2,
        n_envs=10,
        algorithm="DQN",
        model={"learning_starts": 0, "train_freq": 4, "gradient_steps": 3, "batch_size": 8},
    )
    saved = []
    assert carry_out(run, tmp_path / "dqn", lambda: saved.append(sorted(path.name for path in (tmp_path / "dqn").iterdir())))
    # A rollout has 40 transitions. The second ends in its middle, and is not learned from.
    model = DQN.load(tmp_path / "dqn" / "model.zip")
    assert (model.num_timesteps, model._n_updates) == (60, 3)
    assert json.loads((tmp_path / "dqn" / "train.json").read_text())["timesteps"] == 60
    # Whoever keeps the folder elsewhere hears of the model, and then of its results.
    assert saved == [["model.zip", "run.json", "train.json"], ["model.zip", "results_60", "run.json", "train.json"]]
    # What ends with its last rollout learns from that one too, as without us.
    assert carry_out(replace(run, timesteps=80), tmp_path / "whole")
    other = DQN("MlpPolicy", make_vec_env("CartPole-v1", 10, seed=1), seed=1, device="cpu", **run.model).learn(80)
    assert DQN.load(tmp_path / "whole" / "model.zip")._n_updates == other._n_updates == 6


@pytest.mark.usefixtures("no_predictions")
def test_other_evaluations_of_a_finished_run_are_made_without_training(tmp_path, monkeypatch, run):
    run = replace(run, evaluate_at=(), evaluations={})
    assert carry_out(run, tmp_path)
    before = figures(tmp_path / "results_200" / "results.csv"), (tmp_path / "run.json").read_bytes()
    monkeypatch.setattr(FCDL, "learn", None)
    for noise in ("color", "none"):
        now = replace(run, evaluations={"large": {"noise": noise}})
        assert not is_evaluated(now, tmp_path)
        assert carry_out(now, tmp_path) and is_evaluated(now, tmp_path)
        assert {f"noise={noise}"} == {
            word
            for line in figures(tmp_path / "results_200" / "results_large.csv")
            for word in line["env_kwargs"].split()
            if word.startswith("noise")
        }
        assert (figures(tmp_path / "results_200" / "results.csv"), (tmp_path / "run.json").read_bytes()) == before


def test_references_are_floors_and_ceiling(tmp_path, run):
    nothing = replace(run, algo=REFERENCES, timesteps=0, evaluate_at=(), evaluations={}, episodes=1)
    assert carry_out(nothing, tmp_path)
    rows = read_csv(tmp_path / "results_0" / "results.csv")
    names = list(dict.fromkeys(row.algo for row in rows))
    assert names[0] == "no-op" and names[-1] == "planner on the true dynamics"
    assert {(row.timesteps, row.wall_s) for row in rows} == {(0, 0.0)}


def test_a_folder_of_another_run_is_refused(tmp_path, run):
    (tmp_path / "run.json").write_text(json.dumps({**run.settings, "timesteps": 100}))
    (tmp_path / "checkpoint_60").mkdir()
    with pytest.raises(ValueError, match="begun with timesteps 100, now 200: choose another --log-dir, or delete the folder"):
        carry_out(run, tmp_path)
    assert not (tmp_path / "error.txt").exists()


def test_what_goes_wrong_is_left_in_the_folder(tmp_path, run):
    wrong = replace(run, algorithm="PPOO", model={})
    with pytest.raises(ValueError):
        carry_out(wrong, tmp_path)
    said = (tmp_path / "error.txt").read_text().splitlines()
    assert said[0].startswith("Traceback") and said[-1].startswith("ValueError: there is no algorithm 'PPOO' in")


@pytest.mark.usefixtures("no_predictions")
def test_a_run_that_failed_before_it_learned_may_be_corrected(tmp_path, run):
    wrong = replace(run, model={**run.model, "dynamics_kwargs": {"hiden_dim": 16}}, timesteps=100, evaluate_at=())
    with pytest.raises(TypeError, match="hiden_dim"):
        carry_out(wrong, tmp_path)
    right = replace(run, timesteps=60, evaluate_at=(), evaluations={})
    assert carry_out(right, tmp_path) and not (tmp_path / "error.txt").exists()
    assert json.loads((tmp_path / "run.json").read_text()) == json.loads(json.dumps(right.settings))
    with pytest.raises(ValueError, match="begun with timesteps 60, now 100"):
        carry_out(replace(right, timesteps=100), tmp_path)
