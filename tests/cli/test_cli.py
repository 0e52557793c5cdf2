"""The command line: its help, its errors, and a short run from training to a table."""

import json
import runpy
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from command import SIZES, SMALL, error_of
from toy import squeezed

from sb3_fcdl import FCDL
from sb3_fcdl.cli import main
from sb3_fcdl.dynamics import ContextTreeDynamics
from sb3_fcdl.runs import profile, read_csv
from sb3_fcdl.runs.table import AccuracyCsvRow, ContextCsvRow, TransitionCsvRow


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    log_dir = tmp_path_factory.mktemp("runs")
    run = ["train", "--timesteps", "300", "--seed", "5", "--log-dir", str(log_dir), "--eval-freq", "150", *SIZES]
    assert main(run) == 0
    return log_dir / "Chemical-v0_full_fork_seed5_1" / "model.zip"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["train", "evaluate", "profile", "examples:", "tensorboard --logdir"]),
        (
            ["train"],
            ["default: 30000", "default: 10", "max(1, K // N_ENVS) steps", "--rule full_chain", "train.json", "examples:"],
        ),
        (
            ["evaluate"],
            ["--episodes", "default: 50", "--noise", "--csv", "planner on the true dynamics", "examples:"],
        ),
        (["robustness"], ["--shift", "--episodes", "--json", "--plot", "Normal(MEAN,STD)", "examples:"]),
        (["report"], ["MODEL", "--output", "--shift", "--episodes", "FILE", "examples:"]),
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
        (["train", "--dynamics", "mlpp"], "dynamics='mlpp' is not allowed; dynamics must be one of fcdl, fcdl_tree, ncd"),
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
        (["report", "nowhere/model.zip", "-o", "page.html"], "there is no model file nowhere/model.zip"),
        (["report", "model.zip", "-o", "page.html", "--shift", "x"], "expected NAME=VALUE, such as x=noise, got 'x'"),
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


def test_report_writes_one_page_that_loads_nothing(capsys, model_path, tmp_path, monkeypatch):
    model_page = pytest.importorskip("sb3_fcdl.runs.model_page")
    monkeypatch.setattr(model_page, "N_STEPS", 10)
    path = tmp_path / "page.html"
    assert main(["report", str(model_path), "-o", str(path), "--shift", "obj1=noise", "obj2=1", "--episodes", "2"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(path)] and "obj2 observed as 1.0 (2 of 2)" in told.err
    text = path.read_text()
    assert "<h1>FCDL_TREE on FCDL/Chemical-v0</h1>" in text and "eval/mean_reward" in text
    assert "<td>obj1: noise</td>" in text and "<td>obj2: 1.0</td>" in text and "<td>obj0: " not in text
    assert "://" not in text.partition("<body>")[2].replace("http://www.w3.org", "")


def test_report_refuses_what_it_cannot_do(capsys, model_path, tmp_path):
    page = str(tmp_path / "page.html")
    assert "unknown variable 'obj7', those that can be shifted are obj0, obj1, obj2, obj3" in error_of(
        capsys, "report", str(model_path), "-o", page, "--shift", "obj7=noise"
    )
    assert "there is no folder" in error_of(capsys, "report", str(model_path), "-o", str(tmp_path / "none" / "page.html"))
    assert list(tmp_path.iterdir()) == []


def test_evaluate_prints_the_model_beside_floors_and_ceiling(capsys, model_path, tmp_path):
    csv_path = tmp_path / "results.csv"
    assert main(["evaluate", "--model", str(model_path), "--episodes", "3", "--noise", "color", "--csv", str(csv_path)]) == 0
    out = capsys.readouterr().out
    references = ["no-op", "random", "random, root excluded", "fix in index order", "planner on the true dynamics"]
    names = ["FCDL_TREE", "FCDL_TREE, not corrupted", *references]
    assert [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("| ")][2:9] == names
    rows = read_csv(csv_path)
    assert [row.algo for row in rows] == names
    assert [row.timesteps for row in rows] == [300, 300, 0, 0, 0, 0, 0]
    system = "dynamics_seed=5 n_colors=3 n_objects=4 noise=color rule=full_fork"
    assert {(row.env_kwargs, row.task, row.seed, row.n_episodes) for row in rows} == {(system, "train", 5, 3)}
    accuracies = read_csv(tmp_path / "results_accuracy.csv", AccuracyCsvRow)
    assert [(row.algo, row.timesteps) for row in accuracies] == [
        ("chance", 0), ("no change", 0), ("FCDL_TREE", 300), ("Bayes", 0)
    ]  # fmt: skip
    assert accuracies[0].accuracy == pytest.approx(1 / 3, abs=1e-4) and "| chance | 33.3 % |" in squeezed(out)
    contexts = read_csv(tmp_path / "results_contexts.csv", ContextCsvRow)
    # Both regimes of four objects, self and action edges counted; on the training task nothing is corrupted.
    assert [row.n_true_edges for row in contexts] == [8, 14] and sum(row.share for row in contexts) == pytest.approx(1)
    assert {(row.env_kwargs, row.algo, row.same_code, row.same_graph) for row in contexts} == {(system, "FCDL_TREE", 1, 1)}
    transitions = read_csv(tmp_path / "results_transitions.csv", TransitionCsvRow)
    assert [(row.n_true_edges, row.share) for row in transitions] == [(row.n_true_edges, row.share) for row in contexts]
    # Of each regime, which of four objects is painted.
    assert [row.n_contexts for row in transitions] == [4, 4] and "| contexts | codes | purity |" in squeezed(out)


def test_evaluate_says_what_chooses_the_context(capsys, model_path, monkeypatch):
    monkeypatch.setattr(
        ContextTreeDynamics, "variable_importance", lambda model: {"obj0": 0.01872, "obj1": 0.0, "action": 0.0036}
    )
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
