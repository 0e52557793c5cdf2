"""
The state of objects as plain data, taken and put back: what a checkpoint holds of environments and generators.

Nothing is made from a file: the objects are there already, built by their own constructors, and their attributes are replaced.
So a file cannot run code.
"""

import copy
import random
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

# Objects that hold one another in a chain: what pickle and Python's stack have room for.
MAX_DEPTH = 100
SCALARS = (bool, int, float, str, bytes, type(None))
SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
}
# What never changes, whoever holds it.
CONSTANTS = (type, FunctionType, MethodType, ModuleType, partial, np.dtype, th.dtype, th.device, Path)
# What gymnasium and SB3 know of a class, not of an episode.
OF_THE_CLASS = frozenset({"class_attributes", "metadata", "spec"})
# Windows and files under these names do not decide how an episode goes on; a number under one of them may.
FOR_SHOW = frozenset({"clock", "isopen", "renderer", "results_writer", "screen", "surf", "viewer", "window"})


class NotPlainError(ValueError):
    """
    An object holds something whose state cannot be taken: a simulator in C, a process, a file.

    :param path: where it is, such as ``envs[0].env.data``
    :param value: what it is
    """

    def __init__(self, path: str, value: object) -> None:
        super().__init__(f"{path} is {type(value).__module__}.{type(value).__qualname__}, whose state cannot be taken")


def take(value: Any) -> Any:
    """
    The state of an object with all that it holds: scalars, tensors, and dictionaries and lists of such, which ``torch.load``
    reads with ``weights_only=True``. What is held twice is taken once.

    An object with the methods ``get_state`` and ``set_state`` is asked for its state; of others the attributes are taken.

    :param value: any object
    :raises NotPlainError: if a part of it has no state that can be taken
    """
    return _Taker().take(value, "")


def put_back(state: Any, present: Any = None) -> Any:
    """
    :param state: what ``take`` returned
    :param present: an object like the one that it was taken from; its attributes are replaced, and those of the objects that
        it holds. Arrays, lists and dictionaries are new ones, as others may hold the old ones. None: there is none
    :return: what stands for ``present`` from now on: itself, if it is an object with attributes
    :raises ValueError: if it is another kind of object
    """
    return _Restorer().restore(state, present, "")


class _Taker:
    """Takes states; numbers what may be met again in the order in which it is met."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        # So that no id is used again meanwhile.
        self.met: list[Any] = []
        self.depth = 0

    def take(self, value: Any, path: str) -> Any:
        if type(value) in SCALARS:
            return value
        if isinstance(value, Enum):
            return {"is": "enum", "name": value.name}
        if isinstance(value, CONSTANTS) or (callable(value) and not hasattr(value, "__dict__")):
            return {"is": "constant"}
        if isinstance(value, np.generic):
            return {"is": "number", "value": self.take_array(np.asarray(value), path)}
        if id(value) in self.numbers:
            return {"is": "again", "number": self.numbers[id(value)]}
        self.numbers[id(value)] = len(self.met)
        self.met.append(value)
        if self.depth == MAX_DEPTH:
            raise NotPlainError(f"{path[:40]}..., held by {MAX_DEPTH} others,", value)
        self.depth += 1
        try:
            return self.take_first(value, path)
        finally:
            self.depth -= 1

    def take_first(self, value: Any, path: str) -> dict[str, Any]:
        if isinstance(value, np.ndarray):
            return {"is": "array", "value": self.take_array(value, path)}
        if isinstance(value, th.Tensor):
            return {"is": "tensor", "value": value.detach().cpu().clone()}
        if isinstance(value, np.random.Generator):
            return {"is": "generator", "value": self.take(value.bit_generator.state, path)}
        if isinstance(value, random.Random):
            return {"is": "random", "value": self.take(value.getstate(), path)}
        if isinstance(value, Mapping) and not isinstance(value, gym.Space):
            items = [[self.take(key, path), self.take(each, f"{path}[{key!r}]")] for key, each in value.items()]
            return {"is": "mapping", "items": items}
        if type(value).__name__ in SEQUENCES:
            items = [self.take(each, f"{path}[{index}]") for index, each in enumerate(value)]
            return {"is": type(value).__name__, "items": items}
        if not hasattr(value, "__dict__") or callable(value):
            raise NotPlainError(path, value)
        return self.take_object(value, path)

    def take_object(self, value: Any, path: str) -> dict[str, Any]:
        held = {name: each for name, each in vars(value).items() if name not in OF_THE_CLASS}
        state = {}
        if isinstance(value, gym.Space):
            # The bounds are the constructor's; the generator is not.
            held = {name: each for name, each in held.items() if name in ("_np_random", "spaces")}
        elif hasattr(type(value), "get_state") and hasattr(type(value), "set_state"):
            held = {name: each for name, each in held.items() if type(each) in SCALARS or name == "_np_random"}
            state = {"state": self.take(value.get_state(), f"{path}.get_state()")}
        attributes = {}
        for name, each in held.items():
            try:
                attributes[name] = self.take(each, f"{path}.{name}".strip("."))
            except NotPlainError:
                if name not in FOR_SHOW:
                    raise
        return {"is": "object", "vars": attributes, **state}

    def take_array(self, array: np.ndarray, path: str) -> Any:
        # Numbers as a tensor; what torch has no type for, text or objects, as a list.
        if array.dtype.kind in "biufc":
            return th.as_tensor(array.copy())
        return [str(array.dtype), list(array.shape), self.take(array.reshape(-1).tolist(), path)]


class _Restorer:
    """Puts states back; what is met again is the same object again."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def restore(self, state: Any, present: Any, path: str) -> Any:
        if type(state) in SCALARS:
            return state
        what = state["is"]
        if what == "constant":
            return present
        if what == "again":
            return self.made[state["number"]]
        if what == "number":
            return self.restore_array(state["value"])[()]
        if what == "enum":
            if not isinstance(present, Enum):
                raise ValueError(f"the checkpoint is of another environment: {path} is a choice there, here it is {present!r}")
            return type(present)[state["name"]]
        self.made.append(None)
        return self.restore_first(state, present, path, len(self.made) - 1)

    def restore_first(self, state: dict[str, Any], present: Any, path: str, number: int) -> Any:
        what = state["is"]
        if what == "mapping":
            return self.restore_mapping(state["items"], present, path, number)
        if what in SEQUENCES:
            return self.restore_sequence(what, state["items"], present, path, number)
        if what == "object":
            return self.restore_object(state, present, path, number)
        if what == "array":
            made: Any = self.restore_array(state["value"])
        elif what == "tensor":
            made = state["value"].to(present) if isinstance(present, th.Tensor) else state["value"].clone()
        elif what == "generator":
            made = present if isinstance(present, np.random.Generator) else np.random.default_rng(0)
            made.bit_generator.state = self.restore(state["value"], None, path)
        else:
            made = present if isinstance(present, random.Random) else random.Random()
            made.setstate(self.restore(state["value"], None, path))
        self.made[number] = made
        return made

    def restore_mapping(self, items: list[Any], present: Any, path: str, number: int) -> Any:
        old = dict(present) if isinstance(present, Mapping) else {}
        made = self.made[number] = copy.copy(present) if isinstance(present, dict) else {}
        made.clear()
        for key_state, each in items:
            key = self.restore(key_state, None, path)
            made[key] = self.restore(each, old.get(key), f"{path}[{key!r}]")
        return made

    def restore_sequence(self, what: str, items: list[Any], present: Any, path: str, number: int) -> Any:
        old = list(present) if isinstance(present, list | tuple | deque) else []
        made: Any = []
        if what == "deque":
            made = copy.copy(present) if isinstance(present, deque) else deque()
            made.clear()
        if what in ("list", "deque"):
            self.made[number] = made
        for index, each in enumerate(items):
            made.append(self.restore(each, old[index] if index < len(old) else None, f"{path}[{index}]"))
        if what not in ("list", "deque"):
            made = self.made[number] = SEQUENCES[what](made)
        return made

    def restore_object(self, state: dict[str, Any], present: Any, path: str, number: int) -> Any:
        if not hasattr(present, "__dict__"):
            raise ValueError(
                f"the checkpoint is of another environment: {path or 'it'} is an object there, here it is {present!r}"
            )
        is_frozen = getattr(getattr(type(present), "__dataclass_params__", None), "frozen", False)
        # What is frozen may be a constant that others hold too.
        made = self.made[number] = copy.copy(present) if is_frozen else present
        for name, each in state["vars"].items():
            vars(made)[name] = self.restore(each, vars(made).get(name), f"{path}.{name}".strip("."))
        if "state" in state:
            made.set_state(self.restore(state["state"], None, path))
        return made

    def restore_array(self, saved: Any) -> np.ndarray:
        if isinstance(saved, th.Tensor):
            return saved.numpy().copy()
        dtype, shape, values = saved
        restored = self.restore(values, None, "")
        array = np.empty(len(restored), dtype=dtype)
        array[:] = restored
        return array.reshape(shape)
