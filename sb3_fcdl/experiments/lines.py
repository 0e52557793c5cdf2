"""Lines of results, whoever wrote them: our result files, and SB3's evaluations and monitor files."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sb3_fcdl.experiments.run import SETTINGS
from sb3_fcdl.runs.record import TrainRecord

EVALUATIONS = "evaluations.npz"
MONITOR = "monitor.csv"
# Episodes at the end of a monitor file that its return is the mean of: as many as SB3 logs.
MONITOR_EPISODES = 100
# By name, as in our result files: env, algo, seed, timesteps, task, wall_s, and what was measured.
Line = dict[str, Any]


def lines_of(path: Path) -> list[Line]:
    """
    The lines of a file. Keyword arguments of the environment are values of a line too, and so is what follows from others:
    ``shd``, of graphs, and ``step_ms``, the time of training for each timestep.

    * one of our result files
    * ``evaluations.npz`` of SB3's ``EvalCallback``: a line an evaluation, ``mean`` over its episodes
    * ``monitor.csv`` of SB3's ``Monitor``, also ``0.monitor.csv``: one line, ``mean`` of the last 100 episodes

    Of the latter two, environment, algorithm and seed are those of ``run.json`` or ``train.json`` beside it, else those of RL
    Zoo's folders, ``ALGO/ENV_SEED``.

    :param path: the file
    :raises OSError: if it cannot be read
    :raises ValueError: if it is none of these
    """
    if path.name == EVALUATIONS:
        return list(_evaluations(path))
    if path.name.endswith(MONITOR):
        return [_monitor(path)]
    return list(_results(path))


def monitored(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    :param path: of a monitor file
    :return: timesteps at the end of each episode, its return, seconds since the start; ``[n]`` each
    :raises ValueError: if it is no monitor file
    """
    with path.open(newline="") as file:
        if not file.readline().startswith("#"):
            raise ValueError(f"{path} is no monitor file of SB3: its first line does not begin with #")
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path} has no episode")
    lengths, returns, seconds = (np.array([float(row[key]) for row in rows]) for key in "lrt")
    return lengths.cumsum(), returns, seconds


def _results(path: Path) -> Iterator[Line]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if not {"env", "algo", "seed", "timesteps"} <= set(reader.fieldnames or ()):
            raise ValueError(
                f"{path} is no result file: give one with the columns env, algo, seed and timesteps, or SB3's {EVALUATIONS} "
                f"or {MONITOR}"
            )
        for row in reader:
            words = dict(word.partition("=")[::2] for word in row.get("env_kwargs", "").split())
            line = {**words, **{key: _number(value) for key, value in row.items()}}
            if "missing" in line:
                line["shd"] = line["missing"] + line["extra"]
            if line["timesteps"] and "wall_s" in line:
                line["step_ms"] = 1000 * line["wall_s"] / line["timesteps"]
            yield line


def _evaluations(path: Path) -> Iterator[Line]:
    run = _run_of(path)
    with np.load(path) as found:
        try:
            timesteps, results = found["timesteps"], found["results"]
        except KeyError as error:
            raise ValueError(f"{path} is not what SB3's EvalCallback writes: {error}") from error
    for when, returns in zip(timesteps, results, strict=True):
        yield {**run, "task": "train", "timesteps": int(when), "mean": float(returns.mean()), "n_episodes": len(returns)}


def _monitor(path: Path) -> Line:
    timesteps, returns, seconds = monitored(path)
    last = returns[-MONITOR_EPISODES:]
    return {
        **_run_of(path),
        "task": "train",
        "timesteps": int(timesteps[-1]),
        "wall_s": float(seconds[-1]),
        "mean": float(last.mean()),
        "n_episodes": len(last),
    }


def _run_of(path: Path) -> Line:
    folder = path.parent
    for name in (SETTINGS, TrainRecord.FILE_NAME):
        if (folder / name).exists():
            run: Mapping[str, Any] = json.loads((folder / name).read_text())
            env = run["env"].rpartition(":")[2]
            return {**run["env_kwargs"], "env": env, "algo": run["algo"], "seed": run["seed"]}
    named = re.fullmatch(r"(.+)_(\d+)", folder.name)
    if named is None:
        raise ValueError(f"the folder of {path} does not tell which run it is: it has no {SETTINGS}, and is not ALGO/ENV_SEED")
    return {"env": named[1], "algo": folder.parent.name.upper(), "seed": int(named[2])}


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
