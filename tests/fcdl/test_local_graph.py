"""Actions that ``local_graph`` is asked about."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_fcdl import FCDL


class Env(gym.Env):
    observation_space = spaces.Box(-5, 5, (2,), np.float32)

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, True, {}


@pytest.mark.parametrize(
    ("space", "right", "wrong"),
    [
        (spaces.Discrete(3), [0, 2, np.int64(1)], [3, -1, [1], 0.5, "1", None]),
        (spaces.Discrete(3, start=5), [5, 7], [4, 8]),
        (spaces.MultiDiscrete([3, 2]), [[0, 0], np.array([2, 1])], [3, [3, 0], [0, 2], [[0, 0]], [0, 0, 0], [0.5, 0]]),
        (spaces.MultiBinary(2), [[0, 1]], [1, [0, 2], [0]]),
        (
            spaces.Box(-2, 3, (2,), np.float32),
            [[-2, 3], np.zeros(2), np.array([3, 3.0 + 1e-9])],
            [0, [0], [0, 3.1], [np.nan, 0], [-2.1, 0]],
        ),
    ],
)
def test_only_actions_of_the_space_have_a_graph(space, right, wrong):
    model = FCDL("MlpPolicy", Env(space), buffer_size=10)
    for action in right:
        assert model.local_graph(np.zeros(2, np.float32), action).edges.shape == (
            2,
            2 + max(1, np.prod(space.shape, dtype=int)),
        )
    for action in wrong:
        with pytest.raises(ValueError, match=r"action=.* is not allowed; action must be one .*of (Discrete|Multi|Box)"):
            model.local_graph(np.zeros(2, np.float32), action)
