"""Problems whose best plan is computed in another way: from all sequences, or by Riccati's equation."""

import itertools
import math
from typing import Any

import numpy as np
import torch as th
from problems import problem

from sb3_fcdl.planning import DiscreteActions, Plan, Planner


def generators(n_envs: int, first_seed: int = 0) -> list[th.Generator]:
    return [th.Generator().manual_seed(first_seed + row) for row in range(n_envs)]


class Tables:
    """
    A reward for each step, last and present action, from the table whose number is the goal. A state is the step and the
    number of the last action, counted from 1.
    """

    def __init__(self, actions: Any, horizon: int = 2, n_tables: int = 8) -> None:
        self.sizes = (actions.n,) if isinstance(actions, DiscreteActions) else actions.sizes
        self.n = math.prod(self.sizes)
        generator = th.Generator().manual_seed(3)
        self.rewards = th.rand(n_tables, horizon, self.n + 1, self.n, generator=generator)

    def number(self, action: th.Tensor) -> th.Tensor:
        digits = [columns.argmax(dim=1).numpy() for columns in action.split(self.sizes, dim=1)]
        assert (action.sum(dim=1) == len(self.sizes)).all()
        return th.as_tensor(np.ravel_multi_index(digits, self.sizes))

    def step(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        return th.stack([state[:, 0] + 1, self.number(action) + 1.0], dim=1)

    def reward(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return self.rewards[goal[:, 0].long(), state[:, 0].long(), state[:, 1].long(), self.number(action)]

    def plan(self, planner: Planner, rows: range = range(8), options: dict[str, Any] | None = None, **kwargs: Any) -> Plan:
        """``options`` are of the problem, ``kwargs`` of the call."""
        kwargs.setdefault("generators", generators(len(rows), rows.start))
        state, goal = th.zeros(len(rows), 2), th.tensor(rows, dtype=th.float32)[:, None]
        return planner.plan(problem(self.step, self.reward, **options or {}), state, goal, **kwargs)

    def best(self, table: int, allowed: list[int] | None = None) -> tuple[float, list[Any]]:
        """The highest return and its sequence, from all there are."""
        first_actions = range(self.n) if allowed is None else allowed
        value, first, second = max(
            (float(self.rewards[table, 0, 0, first] + self.rewards[table, 1, first + 1, second]), first, second)
            for first, second in itertools.product(first_actions, range(self.n))
        )
        if len(self.sizes) == 1:
            return value, [first, second]
        return value, [[int(digit) for digit in np.unravel_index(number, self.sizes)] for number in (first, second)]


class LinearQuadratic:
    """Two positions that drift and are pushed; a quadratic cost of where they are and of the push."""

    DRIFT, PUSH = np.array([[1.0, 0.3], [-0.2, 0.9]]), np.array([[0.5, 0.1], [0.0, 0.4]])
    STATE_COST, ACTION_COST = np.diag([1.0, 2.0]), np.diag([0.3, 0.2])

    def step(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        drift, push = (th.tensor(matrix, dtype=state.dtype).T for matrix in (self.DRIFT, self.PUSH))
        # row by row, so that a row does not depend on how many there are
        return (state[:, :, None] * drift).sum(dim=1) + (action[:, :, None] * push).sum(dim=1)

    def reward(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        state_cost, action_cost = (
            th.tensor(cost.diagonal(), dtype=state.dtype) for cost in (self.STATE_COST, self.ACTION_COST)
        )
        return -(next_state.square() * state_cost).sum(dim=1) - (action.square() * action_cost).sum(dim=1)

    def riccati(self, state: np.ndarray, horizon: int) -> tuple[float, np.ndarray]:
        """The highest return, and its actions ``[H, 2]``."""
        cost_to_go, gains = np.zeros((2, 2)), []
        for _ in range(horizon):
            ahead = self.STATE_COST + cost_to_go
            gain = np.linalg.solve(self.ACTION_COST + self.PUSH.T @ ahead @ self.PUSH, self.PUSH.T @ ahead @ self.DRIFT)
            closed = self.DRIFT - self.PUSH @ gain
            cost_to_go = closed.T @ ahead @ closed + gain.T @ self.ACTION_COST @ gain
            gains.append(gain)
        actions, now = [], state
        for gain in reversed(gains):
            actions.append(-gain @ now)
            now = self.DRIFT @ now + self.PUSH @ actions[-1]
        return float(-state @ cost_to_go @ state), np.array(actions)
