"""Replay buffers as ``.npz`` files: arrays and numbers alone, so that reading one runs no code."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer

# Where the numbers of a buffer that are no arrays stand in its file, as JSON.
NUMBERS = "numbers"


def save_buffer(replay_buffer: ReplayBuffer, path: str | Path) -> None:
    """
    Write what a replay buffer holds; of one that is not full the rows in use alone.

    :param replay_buffer: any of SB3's
    :param path: the file
    :raises ValueError: if the buffer holds objects (``HerReplayBuffer(copy_info_dict=True)``)
    """
    n_rows = replay_buffer.buffer_size if replay_buffer.full else replay_buffer.pos + int(replay_buffer.optimize_memory_usage)
    n_rows = min(n_rows, replay_buffer.buffer_size)
    arrays, numbers = _contents(replay_buffer)
    if getattr(replay_buffer, "copy_info_dict", False):
        raise ValueError("a HerReplayBuffer with copy_info_dict=True holds dictionaries, which no .npz does: use a .pkl")
    kept = {name: array[:n_rows] if len(array) == replay_buffer.buffer_size else array for name, array in arrays.items()}
    numbers |= _made_for(replay_buffer) | {"n_rows": n_rows}
    with Path(path).open("wb") as file:
        np.savez(file, **{NUMBERS: np.array(json.dumps(numbers))}, **kept)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())


def load_buffer(replay_buffer: ReplayBuffer, path: str | Path) -> None:
    """
    Fill a replay buffer with what ``save_buffer`` wrote. Nothing is changed if the file does not fit.

    :param replay_buffer: of the same class, spaces, size and number of environments
    :param path: the file
    :raises ValueError: if the file is of another kind, damaged, or of another buffer; names what differs
    """
    try:
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            numbers = json.loads(str(file[NUMBERS]))
            saved = {name: file[name] for name in file.files if name != NUMBERS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a replay buffer that sb3_fcdl wrote, or it is damaged: {error!r}") from error
    for name, expected in _made_for(replay_buffer).items():
        if numbers.get(name) != expected:
            raise ValueError(f"{path} holds a replay buffer with {name} = {numbers.get(name)}, the model has {expected}")
    arrays, own = _contents(replay_buffer)
    if arrays.keys() != saved.keys():
        raise ValueError(f"{path} holds the arrays {sorted(saved)}, a {type(replay_buffer).__name__} has {sorted(arrays)}")
    for name, values in saved.items():
        if values.shape[1:] != arrays[name].shape[1:] or len(values) > len(arrays[name]):
            raise ValueError(f"{path} holds {name} of shape {values.shape}, the model has {arrays[name].shape}")
    for name, values in saved.items():
        arrays[name][: len(values)] = values
    for name in own:
        setattr(replay_buffer, name, numbers[name])


def _made_for(replay_buffer: ReplayBuffer) -> dict[str, Any]:
    """What must be alike."""
    return {
        "class": type(replay_buffer).__name__,
        "observation_space": str(replay_buffer.observation_space),
        "action_space": str(replay_buffer.action_space),
        "n_envs": replay_buffer.n_envs,
        "buffer_size": replay_buffer.buffer_size,
        "optimize_memory_usage": replay_buffer.optimize_memory_usage,
    }


def _contents(replay_buffer: ReplayBuffer) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a buffer by name, those of a dictionary as ``name/key``, and its own counters."""
    arrays: dict[str, np.ndarray] = {}
    for name, value in vars(replay_buffer).items():
        parts = {f"{name}/{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
        arrays |= {key: each for key, each in parts.items() if isinstance(each, np.ndarray) and not each.dtype.hasobject}
    return arrays, {name: getattr(replay_buffer, name) for name in ("pos", "full")}
