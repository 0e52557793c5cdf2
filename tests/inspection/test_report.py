"""What TensorBoard is shown of a model, of windows that differ from its predictions in a known way."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from known import known_world
from stable_baselines3.common.logger import configure

from sb3_fcdl.dynamics import Windows
from sb3_fcdl.dynamics.distributions import StateDistribution, StateLayout
from sb3_fcdl.inspection.report import report, report_lengths


def one_more(layout: StateLayout, state: th.Tensor, action: th.Tensor) -> StateDistribution:
    """The gate and ``y`` stay as they are, ``x`` grows by one."""
    numbers = state[:, 2:] + th.tensor([1.0, 0.0])
    return StateDistribution(layout, state[:, None, :2], numbers, th.zeros_like(numbers))


def where_x_is(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
    return next_state[:, 2]


def written(tmp_path: Any, valid: th.Tensor, horizon: int) -> dict[str, float]:
    """
    Of two windows of three steps. ``x`` is at 0 and 10, and grows by half more than the model expects; in the first window the
    gate changes with the second step.
    """
    steps = th.arange(4)
    states = th.zeros(2, 4, 4)
    states[..., 0], states[..., 2] = 1, th.tensor([[0.0], [10.0]]) + 1.5 * steps
    states[0, 2:, :2] = th.tensor([0.0, 1.0])
    windows = Windows(states[:, :-1], th.zeros(2, 3, 1), states[:, 1:], valid)
    logger = configure(str(tmp_path), [])
    rewards = np.array([[1.0, 2, 50], [3, 4, 60]])
    world = known_world(GatedEnv(), one_more, reward_fn=where_x_is)
    report(logger, world, horizon, windows, th.zeros(2, 0), rewards)
    assert set(logger.name_to_excluded.values()) == {("stdout", "log", "json", "csv")}
    return dict(logger.name_to_value)


def test_errors_and_returns_by_hand(tmp_path: Any) -> None:
    assert report_lengths(2) == (1, 2, 3)
    values = written(tmp_path, th.tensor([[True, True, True], [True, True, False]]), horizon=2)
    by_variable = {1: (0, 0.5, 0), 2: (0.5, 1, 0), 3: (1, 1.5, 0)}  # of the third step there is the first window alone
    expected = {
        f"model_error_{step}/{name}": error
        for step, errors in by_variable.items()
        for name, error in zip(("gate", "x", "y"), errors, strict=True)
    }
    expected |= {f"model/error_{step}": np.mean(errors) for step, errors in by_variable.items()}
    # Two steps of a plan: to 1 and 2, and to 11 and 12; recorded were 1 + 2 and 3 + 4.
    assert values == pytest.approx(expected | {"model/imagined_return": (3 + 23) / 2, "model/recorded_return": 5})


def test_what_no_window_is_long_enough_for_is_left_out(tmp_path: Any) -> None:
    values = written(tmp_path, th.tensor([[True, False, False]] * 2), horizon=3)
    assert set(values) == {"model/error_1", "model_error_1/gate", "model_error_1/x", "model_error_1/y"}
