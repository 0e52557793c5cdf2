"""
The state of objects as plain data, taken and put back in place: what a checkpoint holds of environments and generators.

Nothing is made from a file: the objects are there already, built by their own constructors, and only what they hold is
replaced. So a file cannot run code.
"""

import random
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th

SCALARS = (bool, int, float, str, bytes, type(None))
SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
}
# What never changes, whoever holds it.
CONSTANTS = (type, FunctionType, MethodType, ModuleType, np.dtype, th.dtype, th.device, Path)
# Whose state does not decide how an episode goes on: files, windows, and what SB3's wrappers know of their class.
IGNORED = frozenset(
    {
        "class_attributes",
        "clock",
        "isopen",
        "metadata",
        "renderer",
        "results_writer",
        "screen",
        "spec",
        "surf",
        "viewer",
        "window",
    }
)


class NotPlainError(ValueError):
    """
    An object holds something whose state cannot be taken: a simulator in C, a process, a file.

    :param path: where it is, such as ``envs[0].env.data``
    :param value: what it is
    """

    def __init__(self, path: str, value: object) -> None:
        super().__init__(f"{path} is {type(value).__module__}.{type(value).__qualname__}, whose state cannot be taken")


def take(value: Any, path: str = "", _open: frozenset[int] = frozenset()) -> Any:
    """
    The state of an object with all that it holds: scalars, tensors, and dictionaries and lists of such, which ``torch.load``
    reads with ``weights_only=True``.

    An object with the methods ``get_state`` and ``set_state`` is asked for its state; of others the attributes are taken.

    :param value: any object
    :param path: what errors call it
    :raises NotPlainError: if a part of it has no state that can be taken
    """
    if isinstance(value, CONSTANTS) or (callable(value) and not hasattr(value, "__dict__")):
        return {"is": "constant"}
    if id(value) in _open:
        return {"is": "parent"}
    for name, kind in KINDS.items():
        if isinstance(value, kind.of):
            return {"is": name, "value": kind.take(value)}
    if isinstance(value, SCALARS):
        return value
    deeper = _open | {id(value)}
    if isinstance(value, Mapping) and not isinstance(value, gym.Space):
        if not all(isinstance(key, SCALARS) for key in value):
            raise NotPlainError(path, value)
        return {"is": "mapping", "items": [[key, take(each, f"{path}[{key!r}]", deeper)] for key, each in value.items()]}
    if type(value).__name__ in SEQUENCES:
        return {
            "is": type(value).__name__,
            "items": [take(each, f"{path}[{index}]", deeper) for index, each in enumerate(value)],
        }
    if not hasattr(value, "__dict__") or callable(value):
        raise NotPlainError(path, value)
    return _take_object(value, path, deeper)


def _take_object(value: Any, path: str, deeper: frozenset[int]) -> dict[str, Any]:
    held = {name: each for name, each in vars(value).items() if name not in IGNORED}
    if isinstance(value, gym.Space):
        # The bounds are the constructor's; the generator is not.
        held = {name: each for name, each in held.items() if name in ("_np_random", "spaces")}
    elif hasattr(type(value), "get_state") and hasattr(type(value), "set_state"):
        held = {name: each for name, each in held.items() if isinstance(each, SCALARS) or name == "_np_random"}
        state = take(value.get_state(), f"{path}.get_state()")
        attributes = {name: take(each, f"{path}.{name}", deeper) for name, each in held.items()}
        return {"is": "object", "vars": attributes, "state": state}
    return {"is": "object", "vars": {name: take(each, f"{path}.{name}".strip("."), deeper) for name, each in held.items()}}


def put_back(state: Any, present: Any = None, path: str = "") -> Any:
    """
    :param state: what ``take`` returned
    :param present: an object like the one that it was taken from; what it holds is replaced in place. None: there is none
    :param path: what errors call it
    :return: what stands for ``present`` from now on: itself, unless it is a scalar
    :raises ValueError: if it is another kind of object
    """
    if isinstance(state, SCALARS):
        return state
    what = state["is"]
    if what in ("constant", "parent"):
        return present
    if what in KINDS:
        kind = KINDS[what]
        return kind.put_back(state["value"], present if isinstance(present, kind.of) else None)
    if what == "mapping":
        return _put_back_mapping(state["items"], present, path)
    if what in SEQUENCES:
        return _put_back_sequence(SEQUENCES[what], state["items"], present, path)
    if present is None or isinstance(present, SCALARS):
        raise ValueError(
            f"the checkpoint is of another environment: there {path or 'it'} is an object, here it is {present!r}"
        )
    for name, each in state["vars"].items():
        vars(present)[name] = put_back(each, vars(present).get(name), f"{path}.{name}".strip("."))
    if "state" in state:
        present.set_state(put_back(state["state"]))
    return present


def _put_back_mapping(items: list[Any], present: Any, path: str) -> Any:
    old = dict(present) if isinstance(present, Mapping) else {}
    new = {key: put_back(each, old.get(key), f"{path}[{key!r}]") for key, each in items}
    if not isinstance(present, dict):
        return new
    present.clear()
    present.update(new)
    return present


def _put_back_sequence(make: Callable[[list[Any]], Any], items: list[Any], present: Any, path: str) -> Any:
    old = list(present) if isinstance(present, list | tuple | deque) else []
    if len(old) != len(items) and any(isinstance(each, dict) and each["is"] == "object" for each in items):
        raise ValueError(f"the checkpoint is of {len(items)} objects in {path}, here are {len(old)}")
    new = [put_back(each, old[i] if i < len(old) else None, f"{path}[{i}]") for i, each in enumerate(items)]
    if not isinstance(present, list | deque):
        return make(new)
    present.clear()
    present.extend(new)
    return present


class Kind(NamedTuple):
    """
    Values that are no objects to look into.

    :param of: their type
    :param take: their state
    :param put_back: the value with a state, given that and the present value or None
    """

    of: type
    take: Callable[[Any], Any]
    put_back: Callable[[Any, Any], Any]


def _take_array(array: np.ndarray) -> th.Tensor | list[Any]:
    # Numbers as a tensor; what torch has no type for, text or objects, as nested lists.
    return th.as_tensor(array.copy()) if array.dtype.kind in "biufc" else [str(array.dtype), take(array.tolist())]


def _put_back_array(saved: Any, present: np.ndarray | None) -> np.ndarray:
    array = saved.numpy().copy() if isinstance(saved, th.Tensor) else np.array(put_back(saved[1]), dtype=saved[0])
    if present is None or array.shape != present.shape or array.dtype != present.dtype or not present.flags.writeable:
        return array
    # In place: another object may hold the same array.
    present[...] = array
    return present


def _take_generator(generator: np.random.Generator) -> dict[str, Any]:
    return take(generator.bit_generator.state)


def _put_back_generator(saved: dict[str, Any], present: np.random.Generator | None) -> np.random.Generator:
    generator = np.random.default_rng(0) if present is None else present
    generator.bit_generator.state = put_back(saved)
    return generator


def _put_back_random(saved: dict[str, Any], present: random.Random | None) -> random.Random:
    generator = random.Random() if present is None else present
    generator.setstate(put_back(saved))
    return generator


KINDS: dict[str, Kind] = {
    "number": Kind(np.generic, lambda value: take(np.asarray(value)), lambda saved, _: put_back(saved)[()]),
    "array": Kind(np.ndarray, _take_array, _put_back_array),
    "tensor": Kind(
        th.Tensor, lambda value: value.detach().cpu().clone(), lambda saved, now: saved if now is None else saved.to(now)
    ),
    "generator": Kind(np.random.Generator, _take_generator, _put_back_generator),
    "random": Kind(random.Random, lambda value: take(value.getstate()), _put_back_random),
}
