"""A small environment of mixed variables, whose dynamics and best return are known in closed form."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from fcdl_envs.variables import Factors, Variable

N_STEPS = 10


def reward_fn(state: Any, action: Any, next_state: Any, goal: Any) -> Any:
    """Highest where x is 1: columns are the gate's two, x, y."""
    return -abs(next_state[..., 2] - 1)


class GatedEnv(gym.Env):
    """
    A gate that is open or shut and two numbers: ``x' = x + action / 10``, and ``y' = y + x / 10`` while the gate is open.

    The gate is redrawn at every reset, x starts at 0 and y at 5; the action is in [-2, 2].
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"]}  # make_vec_env asks for them
    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Box(-2, 2, (1,), np.float32)
    factorization = Factors(
        state=(Variable("gate", 2, ("shut", "open")), Variable("x"), Variable("y")),
        action=(Variable("push"),),
    )
    reward_fn = staticmethod(reward_fn)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.gate, self.x, self.y, self.n_steps = int(self.np_random.integers(2)), 0.0, 5.0, 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.x, self.y = self.x + float(action[0]) / 10, self.y + self.gate * self.x / 10
        self.n_steps += 1
        graph = np.eye(3, 4, dtype=bool)
        graph[1, 3], graph[2, 1] = True, bool(self.gate)
        reward = float(reward_fn(None, None, self._observe(), None))
        return self._observe(), reward, False, self.n_steps == N_STEPS, {"local_graph": graph}

    def _observe(self) -> np.ndarray:
        return np.array([1 - self.gate, self.gate, self.x, self.y], dtype=np.float32)
