"""Small systems with known answers, shared by the tests."""

import re
from collections.abc import Sequence

import torch as th

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics import Windows

# Categories of the state variables and of the action variables; 0: a continuous variable.
KINDS = {
    "equal": ([3, 3, 3, 3], (12,)),
    "unequal": ([2, 2, 4, 3], (12,)),
    "mixed": ([2, 0, 3, 0], (0, 0, 4)),
    "continuous": ([0, 0, 0], (0, 0)),
    "wide": ([20, 3, 20], (4,)),
}


def factors(state_sizes: list[int], *action_sizes: int) -> Factors:
    """Variables with that many categories; 0: a continuous one."""
    state = tuple(Variable(f"x{index}", size) for index, size in enumerate(state_sizes))
    action = tuple(Variable(f"a{index}", size) for index, size in enumerate(action_sizes))
    return Factors(state=state, action=action)


def one_hot_state(values: th.Tensor, sizes: list[int], dtype: th.dtype = th.float32) -> th.Tensor:
    """``[..., V]`` categories to ``[..., D]``."""
    parts = [th.nn.functional.one_hot(values[..., index], size) for index, size in enumerate(sizes)]
    return th.cat(parts, dim=-1).to(dtype)


def random_windows(sizes: list[int], *action_sizes: int, n_rows: int, length: int, dtype: th.dtype = th.float32) -> Windows:
    """Windows of independent states and actions, uniform over categories and normal over numbers; every row valid."""

    def values(size: int) -> th.Tensor:
        if size == 0:
            return th.randn(n_rows, length, 1, dtype=dtype)
        return th.nn.functional.one_hot(th.randint(size, (n_rows, length)), size).to(dtype)

    def vectors(sizes: Sequence[int]) -> th.Tensor:
        return th.cat([values(size) for size in sizes], dim=-1)

    valid = th.ones(n_rows, length, dtype=th.bool)
    return Windows(vectors(sizes), vectors(action_sizes), vectors(sizes), valid)


def persist_and_set_windows(n_variables: int, n_categories: int, n_rows: int) -> Windows:
    """
    One-step windows of a system whose graph is known: action ``(k, c)`` sets variable ``k`` to ``c``, the rest persists.
    """
    sizes = [n_categories] * n_variables
    values = th.randint(n_categories, (n_rows, n_variables))
    action = th.randint(n_variables * n_categories, (n_rows,))
    successors = values.clone()
    successors[th.arange(n_rows), action // n_categories] = action % n_categories
    one_hot_action = th.nn.functional.one_hot(action, n_variables * n_categories).float()
    return Windows(
        one_hot_state(values, sizes).unsqueeze(1),
        one_hot_action.unsqueeze(1),
        one_hot_state(successors, sizes).unsqueeze(1),
        th.ones(n_rows, 1, dtype=th.bool),
    )


def squeezed(table: str) -> str:
    """A table as it is without the spaces that align it."""
    return re.sub(" +", " ", table)
