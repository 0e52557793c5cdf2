"""What the README shows is run."""

import pathlib
import re
import shlex

import pytest

from sb3_fcdl.cli.options import make_parser

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.usefixtures("quick_plans")
def test_quickstart_runs(tmp_path, monkeypatch, capsys):
    """As printed, but with fewer timesteps and a shorter warm-up, so that it still learns."""
    monkeypatch.chdir(tmp_path)
    quickstart = blocks("python")[0]
    assert len([line for line in quickstart.splitlines() if line.strip()]) <= 12
    quickstart = quickstart.replace("learn(30_000", "learn(60").replace("learning_starts=10_000", "learning_starts=20")
    quickstart = quickstart.replace("n_eval_episodes=5", "n_eval_episodes=1")
    exec(compile(quickstart, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert "code " in printed and "obj9' <- " in printed
    assert list((tmp_path / "runs" / "FCDL_1").glob("events.out.tfevents.*"))


def test_environment_lines_run():
    import gymnasium as gym
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import SubprocVecEnv

    names = {"gym": gym, "make_vec_env": make_vec_env, "SubprocVecEnv": SubprocVecEnv}
    made = []
    for line in blocks("python")[1].splitlines():
        if "make" in line:
            made.append(eval(line.replace("n_envs=8", "n_envs=2"), names))
    assert len(made) == 3
    for env in made:
        env.reset()
        env.close()


@pytest.mark.parametrize("line", re.findall(r"^sb3-fcdl .*$", "\n".join(blocks("bash")), flags=re.MULTILINE))
def test_commands_are_understood(line):
    assert make_parser().parse_args(shlex.split(line)[1:]).command in ("train", "evaluate", "robustness", "profile")


def test_make_targets_exist():
    makefile = (pathlib.Path(__file__).parent.parent / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("bash")), flags=re.MULTILINE):
        assert f"\n{target}:" in makefile
