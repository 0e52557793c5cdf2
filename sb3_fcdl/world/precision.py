"""The type that a model reckons in."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch as th

P = ParamSpec("P")
R = TypeVar("R")


def in_float32(function: Callable[P, R]) -> Callable[P, R]:
    """Inside the function, new tensors are float32, whatever a program has set with ``torch.set_default_dtype``."""

    @wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        before = th.get_default_dtype()
        th.set_default_dtype(th.float32)
        try:
            return function(*args, **kwargs)
        finally:
            th.set_default_dtype(before)

    return inside
