"""An environment of any spaces in which nothing means anything."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class RandomEnv(gym.Env):
    """
    Observes at random, pays at random, and ends at random or after seven steps.

    :param observation_space: any
    :param action_space: any
    :param mask: allowed actions, sb3-contrib's convention; None: the environment has no masks
    """

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, mask: np.ndarray | None = None) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        if mask is not None:
            self.action_masks = lambda: mask

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n_steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.n_steps += 1
        terminated = bool(self.np_random.random() < 0.1)
        return self.observation_space.sample(), float(self.np_random.normal()), terminated, self.n_steps == 7, {}
