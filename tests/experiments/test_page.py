"""The page on experiments: its file can be read, its commands parsed, its keys are all there are."""

import re
import shlex
from pathlib import Path

from sb3_fcdl.cli.options import make_parser
from sb3_fcdl.experiments.experiment import (
    ENVIRONMENT_KEYS,
    EXPERIMENT_KEYS,
    MODEL_KEYS,
    SHARED_KEYS,
    read_experiment,
)

PAGE = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text()


def test_its_file_makes_the_runs_that_it_says(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "experiment.toml").write_text(text)
    runs = read_experiment(tmp_path / "experiment.toml")
    # Of a seed: floors and ceiling twice; fork: FCDL twice, 64 codes, PPO; chain: FCDL twice, PPO.
    assert len(runs) == 3 * (2 + 4 + 3)
    assert {run.algo for run in runs} == {"references", "FCDL", "FCDL, paper", "FCDL, 64 codes", "PPO"}


def test_its_commands_are_ours():
    commands = re.findall(r"^sb3-fcdl (.*)$", PAGE, flags=re.MULTILINE)
    assert len(commands) == 9
    for command in commands:
        make_parser().parse_args(shlex.split(command))


def test_its_table_has_all_keys():
    for key in {*EXPERIMENT_KEYS, *SHARED_KEYS, *ENVIRONMENT_KEYS, *MODEL_KEYS} - {"models", "evaluations"}:
        assert f"`{key}`" in PAGE, key
