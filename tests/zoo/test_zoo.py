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
from sb3_fcdl.presets import preset
from sb3_fcdl.zoo.__main__ import main
from sb3_fcdl.zoo.hyperparams import hyperparams
from sb3_fcdl.zoo.search import convert_fcdl, sample_fcdl


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
    package, script, search = (types.ModuleType(name) for name in ("rl_zoo3", "rl_zoo3.train", "rl_zoo3.hyperparams_opt"))
    package.ALGOS, script.train, package.hyperparams_opt = {}, lambda: parsed.append(parser.parse_args()), search
    search.HYPERPARAMS_SAMPLER, search.HYPERPARAMS_CONVERTER = {}, {}
    for module in (package, script, search):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys, "argv", ["sb3_fcdl.zoo", "train", *given])
    main()
    assert package.ALGOS == {"fcdl": FCDL}
    assert (search.HYPERPARAMS_SAMPLER, search.HYPERPARAMS_CONVERTER) == ({"fcdl": sample_fcdl}, {"fcdl": convert_fcdl})
    assert (parsed[0].conf_file, parsed[0].gym_packages) == (conf_file, gym_packages)


class Extreme:
    """Draws like a trial of Optuna: always the first, or always the last."""

    def __init__(self, place):
        self.place = place

    def suggest_float(self, name, low, high, log=False):
        return (low, high)[self.place]

    suggest_int = suggest_float

    def suggest_categorical(self, name, choices):
        return choices[self.place]


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "FCDL/Magnetic-v0"])
def test_the_whole_search_space_is_arguments_of_fcdl(place, env_id):
    sampled = sample_fcdl(Extreme(place), n_actions=1, n_envs=1, additional_args={})
    env = make_vec_env(env_id, n_envs=1)
    model = FCDL("MlpPolicy", env, **{**preset(env_id), **sampled})
    assert model.batch_size == (64, 512)[place] and model.policy.planner.n_candidates == (32, 256)[place]
    assert model.policy.uncertainty_coef == (0.0, 1.0)[place] and model.policy.planner.horizon == (3, 20)[place]
    env.close()


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


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("rl_zoo3") is None, reason="needs rl_zoo3")
def test_optimize(tmp_path):
    name = ("--algo", "fcdl", "--env", "CartPole-v1")
    trials = ("--optimize", "--n-trials", "2", "--n-evaluations", "1", "--eval-episodes", "1", "--n-startup-trials", "1")
    small = ("--hyperparams", "learning_starts:30")
    found = zoo("train", *name, "-n", "60", "-f", "logs", *trials, *small, folder=tmp_path)
    assert found.returncode == 0, found.stderr
    (report,) = (tmp_path / "logs" / "fcdl").glob("report_CartPole-v1_2-trials*.csv")
    lines = report.read_text().splitlines()
    assert len(lines) == 3 and "params_horizon" in lines[0] and lines[1].split(",")[-1] == "COMPLETE"


def test_importing_the_package_leaves_gymnasium_alone():
    """RL Zoo replaces gymnasium's TimeLimit as it is imported."""
    assert gym.wrappers.TimeLimit.__module__.startswith("gymnasium")
    assert "rl_zoo3" not in sys.modules
