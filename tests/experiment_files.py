"""Experiments small enough to run in every test."""

import csv

from sb3_fcdl.evaluation import TaskResult

TINY = """
seeds = [0, 1]
timesteps = {timesteps}
checkpoint_freq = {checkpoint_freq}
episodes = 2
references = false

[environments.chain]
env = "FCDL/Chemical-v0"
env_kwargs = {{ rule = "full_chain", n_objects = 4, n_colors = 3 }}

[models.FCDL]
dynamics = "fcdl"
dynamics_kwargs = {{ hidden_dim = 16, n_codes = 4 }}
planner_kwargs = {{ horizon = 2, n_iterations = 2, n_candidates = 8, n_elites = 4 }}

[models.MLP]
dynamics = "mlp"
dynamics_kwargs = {{ hidden_dim = 16 }}
planner_kwargs = {{ horizon = 2, n_iterations = 2, n_candidates = 8, n_elites = 4 }}
"""


def tiny_file(folder, timesteps=60, checkpoint_freq=10_000, more=""):
    path = folder / "tiny.toml"
    path.write_text(TINY.format(timesteps=timesteps, checkpoint_freq=checkpoint_freq) + more)
    return path


def figures(path):
    """A result file without the seconds, which are no two times the same."""
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "wall_s"} for row in csv.DictReader(file)]


def result(mean):
    return TaskResult("train", mean, 0, 25, 0.5, 50, 1.0)
