"""The launcher for RL Zoo; the whole way only where ``rl_zoo3`` is installed."""

import argparse
import importlib.util
import runpy
import subprocess
import sys
import types

import gymnasium as gym
import pytest
from stable_baselines3.common.env_util import make_vec_env

from sb3_fcdl import FCDL
from sb3_fcdl.zoo.__main__ import main
from sb3_fcdl.zoo.hyperparams import hyperparams


def zoo(*arguments: str, folder: str = ".") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "sb3_fcdl.zoo", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("env_id", hyperparams)
def test_hyperparameters_are_arguments_of_fcdl(env_id):
    arguments = {key: value for key, value in hyperparams[env_id].items() if key not in ("n_timesteps", "n_envs", "policy")}
    env = make_vec_env("CartPole-v1" if env_id == "default" else env_id, n_envs=2)
    model = FCDL(hyperparams[env_id]["policy"], env, **arguments)
    assert model.learning_starts == hyperparams[env_id].get("learning_starts", 500)
    env.close()


def test_unknown_command_is_named(monkeypatch):
    """As ``python -m`` runs the package, without a process that would import torch first."""
    monkeypatch.setattr(sys, "argv", ["sb3_fcdl.zoo", "optimise"])
    monkeypatch.delitem(sys.modules, "sb3_fcdl.zoo.__main__")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("sb3_fcdl.zoo", run_name="__main__")
    # A text is written to stderr, and the status is 1.
    assert isinstance(ended.value.code, str) and "train | enjoy" in ended.value.code and "'optimise'" in ended.value.code


@pytest.mark.parametrize(
    ("given", "conf_file", "gym_packages"),
    [
        (["--algo", "fcdl"], "sb3_fcdl.zoo.hyperparams", ["sb3_fcdl"]),
        (["--algo=fcdl", "-conf", "my.yml"], "my.yml", ["sb3_fcdl"]),
        (["--conf", "my.yml", "--alg", "fcdl", "--gym", "mine"], "my.yml", ["mine"]),
        (["--algo", "ppo"], None, ["sb3_fcdl"]),
    ],
)
def test_what_is_given_counts_in_every_spelling(monkeypatch, given, conf_file, gym_packages):
    parser = argparse.ArgumentParser()  # those of the zoo's arguments that matter here
    parser.add_argument("--algo")
    parser.add_argument("-conf", "--conf-file")
    parser.add_argument("--gym-packages", nargs="+")
    parsed = []
    package, script = types.ModuleType("rl_zoo3"), types.ModuleType("rl_zoo3.train")
    package.ALGOS, script.train = {}, lambda: parsed.append(parser.parse_args())
    monkeypatch.setitem(sys.modules, "rl_zoo3", package)
    monkeypatch.setitem(sys.modules, "rl_zoo3.train", script)
    monkeypatch.setattr(sys, "argv", ["sb3_fcdl.zoo", "train", *given])
    main()
    assert package.ALGOS == {"fcdl": FCDL}
    assert (parsed[0].conf_file, parsed[0].gym_packages) == (conf_file, gym_packages)


def test_missing_zoo_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rl_zoo3", None)
    monkeypatch.setattr(sys, "argv", ["sb3_fcdl.zoo", "train", "--algo", "fcdl", "--env", "CartPole-v1"])
    with pytest.raises(SystemExit, match="pip install rl_zoo3"):
        main()


@pytest.mark.skipif(importlib.util.find_spec("rl_zoo3") is None, reason="needs rl_zoo3")
def test_train_and_enjoy(tmp_path):
    small = ("learning_starts:40", "batch_size:16", "dynamics_kwargs:dict(hidden_dim=16)", "planner_kwargs:dict(horizon=3)")
    name = ("--algo", "fcdl", "--env", "CartPole-v1")
    trained = zoo("train", *name, "-n", "80", "-f", "logs", "--eval-freq", "-1", "--hyperparams", *small, folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "Loading hyperparameters from: sb3_fcdl.zoo.hyperparams" in trained.stdout
    assert (tmp_path / "logs" / "fcdl" / "CartPole-v1_1" / "CartPole-v1.zip").exists()
    played = zoo("enjoy", *name, "-f", "logs", "-n", "20", "--no-render", folder=tmp_path)
    assert played.returncode == 0, played.stderr


def test_importing_the_package_leaves_gymnasium_alone():
    """RL Zoo replaces gymnasium's TimeLimit as it is imported."""
    assert gym.wrappers.TimeLimit.__module__.startswith("gymnasium")
    assert "rl_zoo3" not in sys.modules
