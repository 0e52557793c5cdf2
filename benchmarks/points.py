"""An environment with independent parts: points on lines of their own, paid only while all are at their goals."""

import math
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from fcdl_envs.variables import Factors, Variable

N_POINTS = 3
GOAL = 0.5
SPEED = 0.1  # a step, by an action of 1
NOISE = 0.01  # a step, standard deviation
N_STEPS = 50


class PointsEnv(gym.Env[np.ndarray, np.ndarray]):
    """
    ``x_k' = x_k + 0.1 a_k + 0.01 N``, put on [-1, 1], for each of three points; all begin uniformly. No point depends on
    another or its action. The reward is ``exp(-sum_k (x_k' - 0.5)² / (2 sharpness²))``, close to 0 where one point is away
    from its goal: a random policy sees little of it.

    :param sharpness: distance of one point from its goal at which the reward has fallen to exp(-1/2)
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}  # make_vec_env asks for them
    observation_space = spaces.Box(-1, 1, (N_POINTS,), np.float32)
    action_space = spaces.Box(-1, 1, (N_POINTS,), np.float32)
    factorization = Factors(
        tuple(Variable(f"x{index}") for index in range(N_POINTS)), tuple(Variable(f"a{index}") for index in range(N_POINTS))
    )

    def __init__(self, sharpness: float) -> None:
        self.sharpness = sharpness

    def reward_fn(self, state: Any, action: Any, next_state: Any, goal: Any) -> Any:
        """
        :param state: not used, ``[B, D]``
        :param action: not used
        :param next_state: ``[B, D]``
        :param goal: not used
        :return: ``[B]``, of the type that is given: torch or NumPy
        """
        return math.e ** (-((next_state - GOAL) ** 2).sum(-1) / (2 * self.sharpness**2))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._state = self.np_random.uniform(-1, 1, N_POINTS)
        return self._state.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        moved = self._state + SPEED * action + NOISE * self.np_random.standard_normal(N_POINTS)
        self._state = moved.clip(-1, 1)
        observation = self._state.astype(np.float32)
        return observation, float(self.reward_fn(None, None, observation, None)), False, False, {}


for name, sharpness in (("Points-v0", 0.2), ("RarePoints-v0", 0.1)):
    gym.register(name, PointsEnv, max_episode_steps=N_STEPS, kwargs={"sharpness": sharpness})
