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
def test_quickstart_runs(capsys):
    """As printed, but with fewer timesteps and a shorter warm-up, so that it still learns."""
    (quickstart,) = blocks("python")
    assert len([line for line in quickstart.splitlines() if line.strip()]) <= 12
    quickstart = quickstart.replace("learn(5000)", "learn(60)").replace("learning_starts=1000", "learning_starts=20")
    exec(compile(quickstart.replace('"noise"}', '"noise"}, n_episodes=2'), "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert "code 0" in printed and "obj3' <- " in printed and "obj1: noise; 2 episodes" in printed


def test_first_page_is_short_and_its_links_are_absolute():
    assert len(README.splitlines()) <= 120
    assert [target for target in re.findall(r"\]\(([^)\s]+)\)", README) if not target.startswith("https://")] == []


@pytest.mark.parametrize("line", re.findall(r"^sb3-fcdl .*$", "\n".join(blocks("bash")), flags=re.MULTILINE))
def test_commands_are_understood(line):
    assert make_parser().parse_args(shlex.split(line)[1:]).command in ("train", "evaluate", "robustness", "report", "profile")


def test_make_targets_exist():
    makefile = (pathlib.Path(__file__).parent.parent / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("bash")), flags=re.MULTILINE):
        assert f"\n{target}:" in makefile
