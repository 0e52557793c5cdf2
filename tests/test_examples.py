"""The examples that look at models, and what docs/graphs.md shows, are run: with little training."""

import json
import pathlib
import re
import runpy
import sys
from functools import partialmethod

import gymnasium as gym
import pytest

from sb3_fcdl import FCDLPolicy
from sb3_fcdl.callbacks import DynamicsCallback, MBPOCallback

pytestmark = pytest.mark.usefixtures("quick_plans")

ROOT = pathlib.Path(__file__).parent.parent
SHORT = ["--timesteps", "50"]
# An untrained policy soon ends an episode there.
QUICK_HOST = ["--env", "CartPole-v1", "--timesteps", "1024", "--episodes", "1"]
# What makes the code of the pages quick.
SHORTER = {
    "learn(30_000": "learn(50",
    "seed=0)": "seed=0, learning_starts=20)",
    "video_freq=10_000": "video_freq=30",
    '{"obj1": "noise"})': '{"obj1": "noise"}, n_episodes=1)',
}


@pytest.mark.parametrize(
    ("example", "arguments", "pictures", "words"),
    [
        ("inspect_graphs", ["--seeds", "2"], ["codes", "union", "stability"], ["code ", "shd ", "not all of 2 seeds"]),
        ("explain_action", [], ["explanation"], ["expected return", "runner-up", "do(obj4="]),
        ("robustness_report", ["--episodes", "1"], ["robustness"], ["obj1: noise; 1 episodes", "fcdl", "mlp"]),
    ],
)
def test_example_writes_its_pictures(example, arguments, pictures, words, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    source = ROOT / "examples" / f"{example}.py"
    assert len(source.read_text().splitlines()) <= 80
    monkeypatch.setattr(sys, "argv", [str(source), *SHORT, *arguments, "--output", str(tmp_path)])
    runpy.run_path(str(source), run_name="__main__")
    printed = capsys.readouterr().out
    assert [word for word in words if word not in printed] == []
    for picture in pictures:
        assert (tmp_path / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    if example == "robustness_report":
        assert json.loads((tmp_path / "robustness.json").read_text())["shifts"] == {"obj1": "noise"}


def test_model_learns_beside_ppo(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    late = partialmethod(DynamicsCallback.__init__, learning_starts=960)
    monkeypatch.setattr(DynamicsCallback, "__init__", late)
    source = ROOT / "examples" / "beside_ppo.py"
    monkeypatch.setattr(sys, "argv", [str(source), *QUICK_HOST, "--output", str(tmp_path)])
    runpy.run_path(str(source), run_name="__main__")
    printed = capsys.readouterr().out
    assert "PPO: mean return" in printed and "planning on the model: mean return" in printed
    assert (tmp_path / "graph.png").exists()
    policy = FCDLPolicy.load(tmp_path / "policy.pt")
    assert policy.predict(gym.make("CartPole-v1").reset(seed=0)[0])[0] in (0, 1)


@pytest.mark.parametrize("arguments", [["--env", "CartPole-v1"], ["--env", "Pendulum-v1"], ["--no-imagination"]])
def test_mbpo_imagines_beside_the_agent(arguments, monkeypatch):
    source = ROOT / "examples" / "mbpo.py"
    assert len(source.read_text().splitlines()) <= 30
    monkeypatch.setattr(MBPOCallback, "N_FIRST", 2)
    quick = {"learning_starts": 20, "train_freq": 70, "model_gradient_steps": 2, "n_branches": 100}
    monkeypatch.setattr(MBPOCallback, "__init__", partialmethod(MBPOCallback.__init__, **quick))
    monkeypatch.setattr(sys, "argv", [str(source), "--timesteps", "212", *arguments])
    names = runpy.run_path(str(source))
    agent, mbpo = names["agent"], names["mbpo"]
    assert agent.replay_buffer.pos == 212 and len(mbpo) == (arguments != ["--no-imagination"])
    # From the step after the first 200 on one update each, and ten with imagined transitions.
    assert agent._n_updates == (120 if mbpo else 12)
    assert all(each.branches.buffer.size() == 100 and each.trainer.n_updates == 6 for each in mbpo)


def test_code_of_the_page_on_callbacks_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "beside.md").read_text(), flags=re.DOTALL)
    names: dict = {}
    block = block.replace("Pendulum-v1", "CartPole-v1").replace("learn(40_000", "learn(1024")
    block = block.replace("n_envs=4)", "n_envs=4), n_steps=256").replace("train_freq=4", "train_freq=20")
    exec(compile(block.replace("n_eval_episodes=5", "n_eval_episodes=1"), "beside.md", "exec"), names)
    assert names["callback"].replay_buffer.size() == 256 and isinstance(names["policy"], FCDLPolicy)


def test_code_of_the_pages_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for page in ("graphs", "trust", "report"):
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), flags=re.DOTALL):
            for long, short in SHORTER.items():
                block = block.replace(long, short)
            exec(compile(block, f"{page}.md", "exec"), names)
            # What the second page calls the models of several seeds.
            names["models"] = [names["model"]]
    printed = capsys.readouterr().out
    assert "union of the" in printed and "shd " in printed and "do(obj3=2)" in printed
    assert names["stability"].edge_names == names["model"].causal_graph().edge_names
    assert names["report"].results[0].model == "FCDL"
    assert list((tmp_path / "runs" / "FCDL_2").glob("events.out.tfevents.*"))


def test_animation_of_chemical_shows_true_graphs_beside_learned_ones(tmp_path, monkeypatch, capsys):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    source, output = ROOT / "examples" / "chemical_gif.py", tmp_path / "chemical.gif"
    quick = ["--timesteps", "60", "--episodes", "2", "--steps", "2", "--size", "96"]
    monkeypatch.setattr(sys, "argv", [str(source), *quick, "--output", str(output)])
    names = runpy.run_path(str(source), run_name="__main__")
    assert "4 frames" in capsys.readouterr().out
    with image.open(output) as animation:
        assert animation.size == (192, 96 + names["HEADER"]) and animation.n_frames > 1
