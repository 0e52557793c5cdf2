"""Small systems with known answers, shared by the tests."""

import torch as th
from gymnasium import spaces

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics import Windows
from sb3_fcdl.factorization import Factorization


def factorization(state_sizes: list[int], n_actions: int) -> Factorization:
    """Categorical state variables of the given sizes and one Discrete action."""
    variables = tuple(Variable(f"x{index}", size) for index, size in enumerate(state_sizes))
    factors = Factors(state={"state": variables}, action=(Variable("action", n_actions),))
    width = sum(state_sizes)
    observation_space = spaces.Dict(state=spaces.Box(-1e4, 1e4, (width,)))
    return Factorization(observation_space, spaces.Discrete(n_actions), factors)


def one_hot_state(values: th.Tensor, sizes: list[int], dtype: th.dtype = th.float32) -> th.Tensor:
    """``[..., V]`` categories to ``[..., D]``."""
    parts = [th.nn.functional.one_hot(values[..., index], size) for index, size in enumerate(sizes)]
    return th.cat(parts, dim=-1).to(dtype)


def random_windows(sizes: list[int], n_actions: int, n_rows: int, length: int, dtype: th.dtype = th.float32) -> Windows:
    """Windows of independent uniform states and actions; every row valid."""

    def states() -> th.Tensor:
        return one_hot_state(th.stack([th.randint(size, (n_rows, length)) for size in sizes], dim=-1), sizes, dtype)

    action = th.nn.functional.one_hot(th.randint(n_actions, (n_rows, length)), n_actions).to(dtype)
    return Windows(states(), action, states(), th.ones(n_rows, length, dtype=th.bool))


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
