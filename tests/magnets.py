"""What the tests of Magnetic's simulator and of its environment share."""

import numpy as np

from fcdl_envs.magnetic_simulator import RED

ROLLING = {"ball_speed": (0.1, 0.3)}
BOTH_RED = {"ball_color": RED, "box_color": RED}
STILL = np.zeros(3)


def act_randomly(observation, rng):
    return rng.uniform(-1, 1, 3)
