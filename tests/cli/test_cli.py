"""The command line: its help, its errors, and a short run from training to a table."""

import csv
import errno
import json
import runpy
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import EvalCallback
from tiny import ends_after, signalled_after
from toy import squeezed

from sb3_fcdl import FCDL
from sb3_fcdl.cli import main
from sb3_fcdl.dynamics import FCDLDynamics
from sb3_fcdl.runs import profile, read_csv
from sb3_fcdl.runs.checkpoint import is_finished
from sb3_fcdl.runs.table import AccuracyCsvRow, ContextCsvRow

SMALL = ["n_objects=4", "n_colors=3"]


def error_of(capsys, *arguments):
    """The last line on stderr of a command that must end with code 2."""
    with pytest.raises(SystemExit) as exit_info:
        main(list(arguments))
    assert exit_info.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    log_dir = tmp_path_factory.mktemp("runs")
    keywords = [
        "--env-kwargs",
        *SMALL,
        "--dynamics-kwargs",
        "n_codes=4",
        "hidden_dim=16",
        "--planner-kwargs",
        "n_iterations=2",
    ]
    assert (
        main(["train", "--timesteps", "300", "--seed", "5", "--log-dir", str(log_dir), "--eval-freq", "150", *keywords]) == 0
    )
    return log_dir / "Chemical-v0_full_fork_seed5_1" / "model.zip"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["train", "evaluate", "profile", "examples:", "tensorboard --logdir"]),
        (
            ["train"],
            ["default: 30000", "default: 10", "max(1, 10 // N_ENVS) steps", "--rule full_chain", "train.json", "examples:"],
        ),
        (
            ["evaluate"],
            ["--episodes", "default: 50", "--noise", "--csv", "planner on the true dynamics", "examples:"],
        ),
        (["robustness"], ["--shift", "--episodes", "--json", "--plot", "Normal(MEAN,STD)", "examples:"]),
        (["profile"], ["--model", "--n-envs", "default: 10", "--json", "examples:"]),
    ],
)
def test_help_names_options_defaults_and_examples(capsys, command, words):
    with pytest.raises(SystemExit) as exit_info:
        main([*command, "--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--env", "FCDL/Alchemical-v0"], "Alchemical"),
        (["train", "--env", "nowhere:Env-v0"], "No module named 'nowhere'"),
        (
            ["train", "--rule", "half_fork"],
            "--rule of FCDL/Chemical-v0 must be one of full_fork, full_chain, none",
        ),
        (["train", "--env", "CartPole-v1", "--rule", "none"], "CartPole-v1 has no option --rule; keyword arguments of any"),
        (["train", "--env-kwargs", "n_objects=2"], "n_objects=2"),
        (["train", "--dynamics", "mlpp"], "dynamics='mlpp' is not allowed; dynamics must be one of fcdl, ncd"),
        (["train", "--resume", "nowhere"], "there is no checkpoint in nowhere"),
        (["train", "--preset", "mine"], "unknown preset 'mine' of FCDL/Chemical-v0, allowed: default, paper"),
        (["train", "--env-kwargs", "n_objects"], "expected KEY=VALUE, got 'n_objects'"),
        (["train", "--dynamics-kwargs", "codes=3"], "unknown key 'codes', allowed: graph_prior"),
        (["train", "--planner-kwargs", "horizon=0"], "horizon=0 is not allowed; horizon must be an integer, at least 1"),
        (
            ["train", "--policy-kwargs", "average_decay=1"],
            "average_decay=1 is not allowed; average_decay must be a finite number",
        ),
        (["train", "--timesteps", "many"], "--timesteps: must be a whole number of at least 1, got 'many'"),
        (["evaluate", "--model", "nowhere/model.zip"], "there is no model file nowhere/model.zip"),
        (["evaluate"], "--model"),
        (["profile", "--model", "nowhere/model.zip"], "there is no model file nowhere/model.zip"),
        (["profile", "--model", "model.zip", "--n-envs", "0"], "--n-envs: must be a whole number of at least 1, got '0'"),
        ([], "COMMAND"),
    ],
)
def test_mistakes_end_with_a_message_and_leave_nothing(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in error_of(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_train_leaves_a_model_a_record_and_curves(model_path):
    folder = model_path.parent
    record = json.loads((folder / "train.json").read_text())
    assert record["env_kwargs"] == {"rule": "full_fork", "dynamics_seed": 5, "n_objects": 4, "n_colors": 3}
    assert (record["seed"], record["timesteps"], record["arguments"]["n_envs"]) == (5, 300, 10)
    assert record["versions"]["torch"] and record["machine"]["cores"] >= 1 and record["wall_s"] > 0
    assert (folder / "best_model.zip").exists() and list(folder.glob("events.out.tfevents.*"))
    header = (folder / "progress.csv").read_text().splitlines()[0]
    assert "train/dynamics_loss" in header and "eval/mean_reward" in header
    model = FCDL.load(model_path)
    assert model.num_timesteps == 300 and model.policy.planner.n_iterations == 2 and model.learning_starts == 100


class Crash(Exception):
    """The machine goes down."""


SIZES = ["--env-kwargs", *SMALL, "--dynamics-kwargs", "hidden_dim=16", "n_codes=4", "--planner-kwargs", "n_iterations=2"]
WHOLE = ["train", "--timesteps", "300", "--seed", "1", "--eval-freq", "70", *SIZES]
FOLDER = "Chemical-v0_full_fork_seed1_1"


def rows_of(*paths):
    """The curve in these files, but for times; numbers as they are written."""
    rows = [row for path in paths for row in csv.DictReader(path.read_text().splitlines())]
    return [
        {key: value for key, value in row.items() if value and (not key.startswith("time/") or key == "time/total_timesteps")}
        for row in rows
    ]


def assert_same_run(folder, other):
    """Weights, optimizer, buffer and evaluations bit for bit."""
    models = [FCDL.load(path / "model.zip") for path in (folder, other)]
    ours, theirs = (model.policy.state_dict() for model in models)
    assert ours.keys() == theirs.keys() and all(th.equal(ours[key], theirs[key]) for key in ours)
    ours, theirs = (model.policy.optimizer.state_dict()["state"] for model in models)
    assert all(th.equal(ours[key]["exp_avg_sq"], theirs[key]["exp_avg_sq"]) for key in ours)
    best = [FCDL.load(path / "best_model.zip").policy.state_dict() for path in (folder, other)]
    assert all(th.equal(best[0][key], best[1][key]) for key in best[0])
    evaluations = [dict(np.load(path / "evaluations.npz")) for path in (folder, other)]
    assert all(np.array_equal(evaluations[0][key], evaluations[1][key]) for key in evaluations[1])


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    log_dir = tmp_path_factory.mktemp("whole")
    assert main([*WHOLE, "--log-dir", str(log_dir)]) == 0
    return log_dir / FOLDER


def test_a_run_that_crashed_goes_on_bit_for_bit(tmp_path, monkeypatch, whole_run):
    monkeypatch.setattr("sb3_fcdl.cli.commands.CHECKPOINT_FREQUENCY", 100)
    with monkeypatch.context() as until_crash:
        until_crash.setattr(FCDL, "train", ends_after(13, Crash))
        with pytest.raises(Crash):
            main([*WHOLE, "--log-dir", str(tmp_path)])
    folder = tmp_path / FOLDER
    before = json.loads((folder / "train.json").read_text())
    assert before["timesteps"] == 200 and not (folder / "model.zip").exists()
    # What the run wrote after its checkpoint is repeated: an evaluation, rows of the curve.
    assert dict(np.load(folder / "evaluations.npz"))["timesteps"].tolist() == [70, 140, 210]
    assert rows_of(folder / "progress.csv")[-1]["time/total_timesteps"] == "210"

    assert main(["train", "--resume", str(folder)]) == 0
    assert_same_run(folder, whole_run)
    curve = rows_of(folder / "progress.csv", folder / "progress_from_200.csv")
    assert len(curve) >= 4 and curve == rows_of(whole_run / "progress.csv")
    after = json.loads((folder / "train.json").read_text())
    assert after["timesteps"] == 300 and after["wall_s"] > before["wall_s"]
    assert {key: after[key] for key in ("env_kwargs", "arguments")} == {
        key: before[key] for key in ("env_kwargs", "arguments")
    }
    assert list(folder.glob("checkpoint*")) == [] and is_finished(folder)


def test_a_run_that_has_ended_is_trained_on(capsys, tmp_path, whole_run):
    folder = tmp_path / whole_run.name
    shutil.copytree(whole_run, folder)
    for more in ([], ["--timesteps", "300"]):
        assert "has 300 timesteps: give --timesteps above that" in error_of(capsys, "train", "--resume", str(folder), *more)
    assert main(["train", "--resume", str(folder), "--timesteps", "380"]) == 0
    assert is_finished(folder) and sorted(path.name for path in folder.glob("*_[0-9]*")) == [
        "end_380",
        "progress_from_300.csv",
    ]
    record = json.loads((folder / "train.json").read_text())
    assert record["timesteps"] == record["arguments"]["timesteps"] == 380
    model = FCDL.load(folder / "model.zip")
    # One update for ten transitions after the first 100.
    assert model.num_timesteps == 380 and model._n_updates == 28
    assert dict(np.load(folder / "evaluations.npz"))["timesteps"].tolist() == [70, 140, 210, 280, 350]


OPAQUE = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Simulated(CartPoleEnv):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.simulator = memoryview(b"in C")

gymnasium.register("Simulated-v0", Simulated, max_episode_steps=20)
"""


def test_a_resumed_run_says_if_it_is_no_repetition(capsys, tmp_path, monkeypatch):
    (tmp_path / "opaque.py").write_text(OPAQUE)
    monkeypatch.syspath_prepend(tmp_path)
    quick = ["--dynamics-kwargs", "hidden_dim=16", "--planner-kwargs", "horizon=2", "--log-dir", str(tmp_path / "runs")]
    try:
        assert main(["train", "--env", "opaque:Simulated-v0", "--timesteps", "60", "--eval-freq", "30", *quick]) == 0
        folder = tmp_path / "runs" / "Simulated-v0_seed0_1"
        found = dict(np.load(folder / "evaluations.npz"))
        np.savez(folder / "evaluations.npz", **{**found, "results": np.full_like(found["results"], 1e6)})
        best = (folder / "best_model.zip").read_bytes()
        capsys.readouterr()
        assert main(["train", "--resume", str(folder), "--timesteps", "90"]) == 0
    finally:
        gym.registry.pop("Simulated-v0", None)
        sys.modules.pop("opaque", None)
    (said,) = capsys.readouterr().err.splitlines()
    assert "goes on in new episodes and is no repetition" in said
    # It will not meet the best model again.
    assert (folder / "best_model.zip").read_bytes() == best


def status_of(*arguments):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as exit_info:
        main(list(arguments))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    return exit_info.value.code


@pytest.mark.parametrize(
    ("frequency", "number", "status"),
    [(1000, signal.SIGINT, 130), (70, signal.SIGTERM, 143), (10, signal.SIGINT, 130)],
    ids=["none before, ctrl-c", "one before, sigterm", "one of the same step, ctrl-c"],
)
def test_a_signal_leaves_a_checkpoint_of_that_step(tmp_path, monkeypatch, capsys, whole_run, frequency, number, status):
    monkeypatch.setattr("sb3_fcdl.cli.commands.CHECKPOINT_FREQUENCY", frequency)
    with monkeypatch.context() as until_signal:
        until_signal.setattr(FCDL, "train", signalled_after(12, number))
        assert status_of(*WHOLE, "--log-dir", str(tmp_path)) == status
    folder = tmp_path / FOLDER
    # Updates begin after 100 timesteps.
    said = f"interrupted after 220 timesteps; go on with: sb3-fcdl train --resume {folder}\n"
    assert capsys.readouterr().err == said
    assert json.loads((folder / "train.json").read_text())["timesteps"] == 220
    model = FCDL.load(folder / "model.zip")
    assert (model.num_timesteps, model._n_updates) == (220, 12)
    assert [path.name for path in folder.glob("checkpoint*")] == ["checkpoint_220"] and not is_finished(folder)
    assert main(["train", "--resume", str(folder)]) == 0
    assert is_finished(folder)
    assert_same_run(folder, whole_run)
    curve = rows_of(folder / "progress.csv", folder / "progress_from_220.csv")
    assert curve == rows_of(whole_run / "progress.csv")


def test_a_signal_before_the_first_rollout_leaves_a_checkpoint(tmp_path, monkeypatch, whole_run):
    with monkeypatch.context() as at_once:
        at_once.setattr("sb3_fcdl.cli.commands._eval_callback_class", lambda env: signal.raise_signal(15) or EvalCallback)
        assert status_of(*WHOLE, "--log-dir", str(tmp_path)) == 143
    folder = tmp_path / FOLDER
    assert [path.name for path in folder.glob("checkpoint*")] == ["checkpoint_0"]
    assert main(["train", "--resume", str(folder)]) == 0
    assert_same_run(folder, whole_run)
    assert rows_of(folder / "progress.csv") == rows_of(whole_run / "progress.csv")


def test_a_second_signal_ends_at_once_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("sb3_fcdl.cli.commands.CHECKPOINT_FREQUENCY", 70)
    monkeypatch.setattr(FCDL, "train", signalled_after(12, signal.SIGTERM, signal.SIGINT))
    assert status_of(*WHOLE, "--log-dir", str(tmp_path)) == 130
    assert [path.name for path in (tmp_path / FOLDER).glob("checkpoint*")] == ["checkpoint_210"]


def test_train_sets_no_handlers_outside_the_main_thread(tmp_path):
    quick = ["train", "--timesteps", "30", "--log-dir", str(tmp_path), *SIZES]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(main, quick).result() == 0


@pytest.mark.parametrize(
    ("saver", "then"),
    [
        ("sb3_fcdl.runs.checkpoint.sync", "make room there, then train anew"),
        ("sb3_fcdl.runs.checkpoint.save_model", "make room there, then go on with: sb3-fcdl train --resume"),
    ],
)
def test_a_full_disk_ends_with_one_line(capsys, tmp_path, monkeypatch, saver, then):
    def disk_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sb3_fcdl.cli.commands.CHECKPOINT_FREQUENCY", 20)
    monkeypatch.setattr(saver, disk_full)
    said = error_of(capsys, "train", "--timesteps", "40", "--log-dir", str(tmp_path), *SIZES)
    assert f"cannot write to {tmp_path / 'Chemical-v0_full_fork_seed0_1'} (No space left on device)" in said and then in said


def test_a_file_that_may_not_grow_ends_with_one_line(tmp_path):
    """The operating system itself refuses, also in the midst of what torch writes."""
    program = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)); "
    program += "from sb3_fcdl.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "train", "--timesteps", "40", "--log-dir", str(tmp_path), *SIZES]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert "cannot write to" in ended.stderr and "train anew" in ended.stderr


def test_a_log_dir_that_cannot_be_written_is_named(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for log_dir in (tmp_path / "file", tmp_path / "file" / "runs"):
        said = error_of(capsys, "train", "--log-dir", str(log_dir), *SIZES)
        assert f"cannot make the folder {log_dir}" in said and "choose another --log-dir" in said

    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert "(Read-only file system): choose another --log-dir" in error_of(capsys, "train", "--log-dir", "runs", *SIZES)


def test_evaluate_prints_the_model_beside_floors_and_ceiling(capsys, model_path, tmp_path):
    csv_path = tmp_path / "results.csv"
    assert main(["evaluate", "--model", str(model_path), "--episodes", "3", "--noise", "color", "--csv", str(csv_path)]) == 0
    out = capsys.readouterr().out
    references = ["no-op", "random", "random, root excluded", "fix in index order", "planner on the true dynamics"]
    names = ["FCDL", "FCDL, not corrupted", *references]
    assert [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("| ")][2:9] == names
    rows = read_csv(csv_path)
    assert [row.algo for row in rows] == names
    assert [row.timesteps for row in rows] == [300, 300, 0, 0, 0, 0, 0]
    system = "dynamics_seed=5 n_colors=3 n_objects=4 noise=color rule=full_fork"
    assert {(row.env_kwargs, row.task, row.seed, row.n_episodes) for row in rows} == {(system, "train", 5, 3)}
    accuracies = read_csv(tmp_path / "results_accuracy.csv", AccuracyCsvRow)
    assert [(row.algo, row.timesteps) for row in accuracies] == [
        ("chance", 0), ("no change", 0), ("FCDL", 300), ("Bayes", 0)
    ]  # fmt: skip
    assert accuracies[0].accuracy == pytest.approx(1 / 3, abs=1e-4) and "| chance | 33.3 % |" in squeezed(out)
    contexts = read_csv(tmp_path / "results_contexts.csv", ContextCsvRow)
    # Both regimes of four objects, self and action edges counted; on the training task nothing is corrupted.
    assert [row.n_true_edges for row in contexts] == [8, 14] and sum(row.share for row in contexts) == pytest.approx(1)
    assert {(row.env_kwargs, row.algo, row.same_code, row.same_graph) for row in contexts} == {(system, "FCDL", 1, 1)}


def test_evaluate_says_what_chooses_the_context(capsys, model_path, monkeypatch):
    monkeypatch.setattr(FCDLDynamics, "variable_importance", lambda model: {"obj0": 0.01872, "obj1": 0.0, "action": 0.0036})
    assert main(["evaluate", "--model", str(model_path), "--episodes", "1"]) == 0
    expected = "What chooses the context, and what it is worth in nats: obj0 0.0187, action 0.0036\n"
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("env", "sizes", "folder", "row"),
    [
        ("sb3_fcdl:FCDL/Chemical-v0", ["rule=full_chain", *SMALL], "Chemical-v0_full_chain_seed0_1", "fix in index order"),
        ("third_party:Pole-v0", ["sutton_barto_reward=False"], "Pole-v0_seed0_1", "random"),
    ],
)
def test_a_name_may_have_the_module_in_front_that_registers_it(capsys, tmp_path, monkeypatch, env, sizes, folder, row):
    register = 'gymnasium.register("Pole-v0", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=20)'
    (tmp_path / "third_party.py").write_text(f"import gymnasium\n{register}\n")
    monkeypatch.syspath_prepend(tmp_path)
    quick = ["--dynamics-kwargs", "hidden_dim=16", "--planner-kwargs", "horizon=2", "--env-kwargs", *sizes]
    training = ["train", "--env", env, "--timesteps", "60", "--eval-freq", "60", "--log-dir", str(tmp_path / "runs"), *quick]
    try:
        assert main(training) == 0
        model = tmp_path / "runs" / folder / "model.zip"
        assert main(["evaluate", "--model", str(model), "--episodes", "1"]) == 0
    finally:
        gym.registry.pop("Pole-v0", None)
    assert f"| {row} |" in squeezed(capsys.readouterr().out)


MASKED = """
import gymnasium, numpy

class InTurn(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gymnasium.spaces.MultiDiscrete([4])
    action_space = gymnasium.spaces.Discrete(4)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, **kwargs):
        self.time = 0
        return numpy.array([0]), {}

    def step(self, action):
        assert action == self.time % 4, "forbidden"
        self.time += 1
        return numpy.array([self.time % 4]), 1.0, False, False, {}

    def action_masks(self):
        return numpy.arange(4) == self.time % 4

gymnasium.register("InTurn-v0", InTurn, max_episode_steps=10)
"""


@pytest.mark.parametrize("is_installed", [True, False])
def test_evaluation_while_training_takes_no_forbidden_action(capsys, tmp_path, monkeypatch, is_installed):
    (tmp_path / "masked.py").write_text(MASKED)
    monkeypatch.syspath_prepend(tmp_path)
    command = ["train", "--env", "masked:InTurn-v0", "--timesteps", "60", "--eval-freq", "60", "--log-dir", str(tmp_path)]
    command += ["--dynamics-kwargs", "hidden_dim=16", "--planner-kwargs", "horizon=2"]
    try:
        if is_installed:
            pytest.importorskip("sb3_contrib")
            assert main(command) == 0
            (results,) = (np.load(path)["results"] for path in tmp_path.glob("*/evaluations.npz"))
            assert results.tolist() == [[10.0] * 10]
        else:
            monkeypatch.setitem(sys.modules, "sb3_contrib.common.maskable.callbacks", None)
            assert "pip install 'sb3_fcdl[contrib]'" in error_of(capsys, *command)
    finally:
        gym.registry.pop("InTurn-v0", None)
        sys.modules.pop("masked", None)


def test_evaluate_tells_what_is_wrong_with_the_files(capsys, model_path, tmp_path):
    assert "observation" not in error_of(capsys, "evaluate", "--model", str(model_path.parent / "train.json"))
    assert "was trained on" in error_of(capsys, "evaluate", "--model", str(model_path), "--env-kwargs", "n_objects=5")
    alone = tmp_path / "model.zip"
    alone.write_bytes(model_path.read_bytes())
    assert "there is no train.json" in error_of(capsys, "evaluate", "--model", str(alone))
    pink = error_of(capsys, "evaluate", "--model", str(model_path), "--noise", "pink")
    assert pink.endswith("--noise of FCDL/Chemical-v0 must be one of scale, color, got 'pink'")
    (tmp_path / "train.json").write_text("{}")
    assert "is not the record of a training run" in error_of(capsys, "evaluate", "--model", str(alone))
    (tmp_path / "other.csv").write_text("a,b\n")
    assert "other.csv has the columns a, b" in error_of(
        capsys, "evaluate", "--model", str(model_path), "--csv", str(tmp_path / "other.csv")
    )


def test_a_model_without_record_is_evaluated_with_given_keywords(capsys, model_path, tmp_path):
    alone = tmp_path / "model.zip"
    alone.write_bytes(model_path.read_bytes())
    assert main(["evaluate", "--model", str(alone), "--episodes", "1", "--env-kwargs", "dynamics_seed=5", *SMALL]) == 0
    assert "dynamics_seed=5" in capsys.readouterr().out


def test_profile_needs_a_model_file_alone(capsys, model_path, tmp_path, monkeypatch):
    monkeypatch.setattr(profile.measure_model, "__defaults__", (0.0,))  # the shortest measurement
    alone, json_path = tmp_path / "model.zip", tmp_path / "profile.json"
    alone.write_bytes(model_path.read_bytes())
    assert main(["profile", "--model", str(alone), "--n-envs", "3", "--json", str(json_path)]) == 0
    out = squeezed(capsys.readouterr().out)
    assert "| device | predict, 1 environment | predict, 3 environments | update |" in out and "| cpu | " in out
    result = json.loads(json_path.read_text())
    assert result["recommendation"] in out
    assert [device["device"] for device in result["devices"]] == list(profile.available_devices())
    for device in result["devices"]:
        assert list(device["predict_ms"]) == ["1", "3"]
        assert min(*device["predict_ms"].values(), device["update_ms"]) > 0
    assert result["versions"]["torch"] and result["machine"]["cores"] >= 1


def test_profile_tells_what_is_wrong_with_the_files(capsys, model_path, monkeypatch):
    monkeypatch.setattr(profile.measure_model, "__defaults__", (0.0,))
    record = model_path.parent / "train.json"
    assert str(record) in error_of(capsys, "profile", "--model", str(record))
    nowhere = model_path.parent / "nowhere" / "profile.json"
    assert str(nowhere) in error_of(capsys, "profile", "--model", str(model_path), "--json", str(nowhere))


def test_recommendation_weighs_training_and_acting():
    cpu = profile.DeviceSpeed("cpu", {1: 10.0, 10: 60.0}, update_ms=50.0)
    cuda = profile.DeviceSpeed("cuda", {1: 20.0, 10: 25.0}, update_ms=8.0)
    slow_cuda = profile.DeviceSpeed("cuda", {1: 90.0, 10: 95.0}, update_ms=20.0)
    assert profile.recommendation([cpu]) == (
        "Choose cpu, torch finds no other device here: a predict for 10 environments and an update take 110 ms."
    )
    assert profile.recommendation([cpu, slow_cuda]) == (
        "Choose cpu: a predict for 10 environments and an update take 110 ms there, 115 ms on cuda."
    )
    assert profile.recommendation([cpu, cuda]) == (
        "Choose cuda to train: a predict for 10 environments and an update take 33 ms there, 110 ms on cpu; "
        "cpu is faster at acting in 1 environment."
    )


def test_demo_prints_a_table_and_says_how_to_open_tensorboard(capsys, monkeypatch, tmp_path):
    demo = Path(__file__).parents[2] / "examples" / "demo.py"
    arguments = ["--timesteps", "60", "--episodes", "1", "--n-objects", "4", "--log-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [str(demo), *arguments])
    runpy.run_path(str(demo), run_name="__main__")
    out = capsys.readouterr().out
    assert "| no-op" in out and f"tensorboard --logdir {tmp_path}" in out
    assert (tmp_path / "model.zip").exists() and (tmp_path / "FCDL_1").is_dir()
