"""What a training run needs to go on as if it had not stopped, beside its model and its replay buffer."""

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from sb3_fcdl.training.log import ModelLog
from sb3_fcdl.training.snapshot import NotPlainError, put_back, take

MODEL, BUFFER, STATE = "model.zip", "replay_buffer.npz", "state.pt"


def take_environments(env: VecEnv) -> dict[str, Any]:
    """
    :param env: with all its wrappers
    :return: its state, or under ``"reason"`` why it cannot be taken
    """
    try:
        return {"environments": take(env)}
    except NotPlainError as error:
        return {"environments": None, "reason": str(error)}


def put_back_environments(state: Any, env: VecEnv) -> str:
    """
    :param state: what ``take_environments`` returned under ``"environments"``
    :param env: made alike
    :return: why it could not be put back; empty: it is
    """
    # Many environments make what they hold when they are reset.
    env.reset()
    try:
        put_back(state, env)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        return str(error)
    return ""


def take_generators(window_rng: np.random.Generator, action_space: gym.Space) -> dict[str, Any]:
    """
    :param window_rng: draws what is trained on
    :param action_space: draws random actions
    :return: the state of all generators that training draws from, Python's, NumPy's and PyTorch's global ones included
    """
    return {
        "windows": take(window_rng),
        "actions": take(action_space.np_random),
        "python": take(random.getstate()),
        "numpy": take(np.random.get_state(legacy=False)),
        "torch": th.get_rng_state(),
        "cuda": th.cuda.get_rng_state_all() if th.cuda.is_available() else [],
    }


def put_back_generators(state: dict[str, Any], window_rng: np.random.Generator, action_space: gym.Space) -> None:
    """The inverse of ``take_generators``."""
    put_back(state["windows"], window_rng)
    put_back(state["actions"], action_space.np_random)
    random.setstate(put_back(state["python"]))
    np.random.set_state(put_back(state["numpy"]))
    th.set_rng_state(state["torch"])
    if th.cuda.is_available() and state["cuda"]:
        th.cuda.set_rng_state_all(state["cuda"])


def take_log(log: ModelLog, logger: Logger | None) -> dict[str, Any]:
    """
    :param log: of the model
    :param logger: of the run; None: there was none yet
    :return: what has been measured and not yet written
    """
    if logger is None:
        return {"log": take(log.get_state()), "values": {}, "counts": {}, "excluded": {}}
    recorded = {key: value.item() if isinstance(value, np.generic) else value for key, value in logger.name_to_value.items()}
    values = {key: value for key, value in recorded.items() if isinstance(value, int | float | str)}
    counts = {key: int(logger.name_to_count[key]) for key in values}
    excluded = {key: take(logger.name_to_excluded.get(key)) for key in values}
    return {"log": take(log.get_state()), "values": values, "counts": counts, "excluded": excluded}


def put_back_log(state: dict[str, Any], log: ModelLog, logger: Logger) -> None:
    """The inverse of ``take_log``."""
    log.set_state(put_back(state["log"]))
    logger.name_to_value.update(state["values"])
    logger.name_to_count.update(state["counts"])
    logger.name_to_excluded.update({key: put_back(each) for key, each in state["excluded"].items()})


def complete_one(folder: Path) -> Path:
    """The folder, or the one before, if a crash came between the two renames of ``replaced``."""
    before = folder.with_name(f"{folder.name}.before")
    return before if before.exists() and not folder.exists() else folder


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """
    A folder that is there only when it is complete, and until then the one before.

    :param folder: to be
    :return: where to write what it is to hold
    """
    partial, before = folder.with_name(f"{folder.name}.partial"), folder.with_name(f"{folder.name}.before")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for path in partial.iterdir():
        sync(path)
    sync(partial)
    if folder.exists():
        shutil.rmtree(before, ignore_errors=True)
        folder.rename(before)
    partial.rename(folder)
    sync(folder.parent)
    shutil.rmtree(before, ignore_errors=True)


def sync(path: Path) -> None:
    """Has the operating system write a file or folder to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
