"""
Models as files that run no code: the configuration as JSON, the weights as tensors.

A file is never asked to import anything. Of functions and classes that are not the library's own it holds the names alone, to
tell the user what to pass.
"""

import json
import pickle
from collections.abc import Callable, Mapping
from functools import reduce
from importlib import import_module
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.her import HerReplayBuffer

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics import DYNAMICS, GraphPrior
from sb3_fcdl.dynamics.ensemble import Ensemble
from sb3_fcdl.graphs import CausalGraph
from sb3_fcdl.planning import PLANNERS
from sb3_fcdl.world.rewards import never_ends

# Arguments that may be functions by name.
FUNCTIONS = ("reward_fn", "termination_fn")
# Functions and classes that a file may name, as they do nothing but what the library does with them anyway.
KNOWN: dict[str, Any] = {
    f"{each.__module__}:{each.__qualname__}": each
    for each in (
        *DYNAMICS.values(),
        Ensemble,
        *PLANNERS.values(),
        *(getattr(th.optim, name) for name in ("Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "SGD", "Adagrad", "Adamax")),
        ReplayBuffer,
        DictReplayBuffer,
        HerReplayBuffer,
        never_ends,
    )
}


class NotInFileError(ValueError):
    """
    A file names something that only the user can give.

    :param name: what the file calls it
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def to_plain(value: Any) -> Any:
    """
    :param value: an argument of the constructor, a space, or what they are made of
    :return: the same as JSON has it; of what is code the name
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, list):
        return [to_plain(each) for each in value]
    if isinstance(value, Mapping) and not isinstance(value, spaces.Space) and all(isinstance(key, str) for key in value):
        return {"is": "dict", "items": {key: to_plain(each) for key, each in value.items()}}
    for kind, (of, take, _) in KINDS.items():
        if isinstance(value, of):
            return {"is": kind, "value": to_plain(take(value))}
    return {"is": "code" if callable(value) else "object", "name": name_of(value)}


def function_to_plain(function: Any) -> Any:
    """See ``to_plain``; a function may be given by its name."""
    return {"is": "code", "name": function} if isinstance(function, str) else to_plain(function)


def from_plain(plain: Any, find: Callable[[str], Any]) -> Any:
    """
    :param plain: what ``to_plain`` returned
    :param find: gives the function or class of a name
    :return: the value
    """
    if isinstance(plain, list):
        return [from_plain(each, find) for each in plain]
    if not isinstance(plain, dict):
        return plain
    what = plain["is"]
    if what == "dict":
        return {key: _item(key, each, find) for key, each in plain["items"].items()}
    if what == "code":
        return find(plain["name"])
    if what == "object":
        raise NotInFileError(plain["name"])
    return KINDS[what][2](from_plain(plain["value"], find))


def _item(key: str, plain: Any, find: Callable[[str], Any]) -> Any:
    # A function may be given by its name, which would be imported.
    return find(plain) if key in FUNCTIONS and isinstance(plain, str) else from_plain(plain, find)


def imported(name: str) -> Any:
    """
    :param name: of a function or class, ``"package.module:name"``, in a file that is trusted
    :return: it
    :raises NotInFileError: if it cannot be imported
    """
    module, _, path = name.partition(":")
    try:
        return KNOWN[name] if name in KNOWN else reduce(getattr, path.split("."), import_module(module))
    except (AttributeError, ImportError, ValueError) as error:
        raise NotInFileError(name) from error


def known(name: str) -> Any:
    """
    :param name: of a function or class
    :return: it, if it is the library's own
    :raises NotInFileError: if not
    """
    if name not in KNOWN:
        raise NotInFileError(name)
    return KNOWN[name]


def name_of(value: Any) -> str:
    """What a file calls a function or class, or the class of an object: ``"package.module:name"``."""
    of = value if hasattr(value, "__qualname__") else type(value)
    return f"{of.__module__}:{of.__qualname__}"


def _take_factors(factors: Factors) -> dict[str, Any]:
    return {"state": factors.state, "action": factors.action, "goal": factors.goal}


def _take_array(array: np.ndarray) -> list[Any]:
    return [str(array.dtype), array.tolist()]


def _make_box(saved: list[Any]) -> spaces.Box:
    low, high = saved
    return spaces.Box(low, high, dtype=low.dtype.type)


# By the name in the file: the type, what its instances hold, and how they are made of that.
KINDS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tuple": (tuple, list, tuple),
    "array": (np.ndarray, _take_array, lambda saved: np.array(saved[1], dtype=np.dtype(saved[0]))),
    "Box": (spaces.Box, lambda space: [space.low, space.high], _make_box),
    "Discrete": (
        spaces.Discrete,
        lambda space: [space.n, space.start],
        lambda saved: spaces.Discrete(saved[0], start=saved[1]),
    ),
    "MultiDiscrete": (
        spaces.MultiDiscrete,
        lambda space: [space.nvec, space.start],
        lambda saved: spaces.MultiDiscrete(saved[0], start=saved[1]),
    ),
    "MultiBinary": (
        spaces.MultiBinary,
        lambda space: list(space.shape),
        lambda saved: spaces.MultiBinary(saved if len(saved) > 1 else saved[0]),
    ),
    "Dict": (spaces.Dict, lambda space: dict(space.spaces), lambda saved: spaces.Dict(saved)),
    "Variable": (
        Variable,
        lambda variable: [variable.name, variable.n_categories, variable.category_names],
        lambda saved: Variable(*saved),
    ),
    "Factors": (Factors, _take_factors, lambda saved: Factors(**saved)),
    "GraphPrior": (
        GraphPrior,
        lambda prior: [prior.base, prior.required_edges, prior.forbidden_edges],
        lambda saved: GraphPrior(*saved),
    ),
    "CausalGraph": (CausalGraph, lambda graph: graph.to_json(), lambda saved: CausalGraph.from_json(saved)),
}


def arguments_of(plain: Mapping[str, Any], given: Mapping[str, Any], find: Callable[[str], Any], path: Any) -> dict[str, Any]:
    """
    :param plain: what ``to_plain`` returned for each argument
    :param given: what the user gives instead
    :param find: gives the function or class of a name
    :param path: the file, for errors
    :return: the arguments
    :raises ValueError: if the user has to give one of them, says which; or if the file is damaged
    """
    arguments = {}
    for name, saved in plain.items():
        if name in given:
            continue
        try:
            arguments[name] = _item(name, saved, find)
        except NotInFileError as error:
            called = name.removesuffix("_name")
            raise ValueError(
                f"{path} names {error.name} in {called}, which is not taken from the file: pass {called}=... to load()"
                + (f", or env=... if the environment publishes its {called}" if called in FUNCTIONS else "")
            ) from error
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {name} cannot be read ({error!r})") from error
    return {**arguments, **given}


def load_tensors(path: Any, device: th.device) -> dict[str, Any]:
    """
    :param path: of a file of ``torch.save``
    :param device: to load to
    :return: tensors and plain data; nothing is unpickled
    :raises ValueError: if it holds anything else
    """
    try:
        return th.load(path, map_location=device, weights_only=True)
    except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is damaged, or holds something else than tensors, which is not loaded: {error}") from error


def save_policy(path: Any, state_dict: dict[str, th.Tensor], arguments: Mapping[str, Any]) -> None:
    """
    :param path: the file
    :param state_dict: of the policy
    :param arguments: that its constructor takes
    :raises ValueError: if a function among them has no name that it can be imported by
    """
    plain = {name: function_to_plain(each) if name in FUNCTIONS else to_plain(each) for name, each in arguments.items()}
    for name in FUNCTIONS:
        if plain.get(name) is not None and "<" in plain[name]["name"]:
            raise ValueError(
                f"a policy is saved with the name of its {name}, and {plain[name]['name']} cannot be imported by that: make "
                "it a function of a module"
            )
    th.save({"state_dict": state_dict, "data": json.dumps(plain)}, path)


def load_policy(
    path: Any, device: th.device, trusted: bool, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    :param path: what ``save_policy`` wrote
    :param device: to load to
    :param trusted: whether to import the functions and classes that the file names
    :param given: arguments that replace the saved ones
    :return: the state dict, and the arguments of the constructor
    :raises ValueError: if it is another kind of file, or names what the user has to give
    """
    found = load_tensors(path, device)
    try:
        state_dict, plain = found["state_dict"], dict(json.loads(found["data"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a policy that sb3_fcdl wrote, or it is damaged: {error!r}") from error
    return state_dict, arguments_of(plain, given, imported if trusted else known, path)
