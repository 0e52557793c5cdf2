"""What Magnetic asks for: the places of its task and its reward. Importable without MuJoCo; for arrays of any library."""

import math
from typing import Any

BALL_HEIGHT = 0.8  # [m], of its centre
STEP_SIZE = 0.05  # [m], how far ahead of the end effector an action of 1 puts the target
REWARD_SHARPNESS = 5.0  # [1/m]


def distance(ball: Any, eef: Any) -> Any:
    """
    L1 distance of the end effector from the ball.

    :param ball: x and y in metres, ``[..., 2]``
    :param eef: x, y and z of the end effector in metres, ``[..., 3]``
    :return: in metres, ``[...]``
    """
    return abs(eef[..., :2] - ball).sum(-1) + abs(eef[..., 2] - BALL_HEIGHT)


def reward_of(ball: Any, eef: Any) -> Any:
    """``1 - tanh(5 d)`` for the distance ``d`` of where ball and end effector are after a step, see ``distance``."""
    # 1 - tanh(z) = 2u / (1 + u) with u = exp(-2z), which cannot overflow and needs neither NumPy's nor torch's functions
    decay = math.e ** (-2.0 * REWARD_SHARPNESS * distance(ball, eef))
    return 2.0 * decay / (1.0 + decay)


def ball_and_eef(observation: Any) -> tuple[Any, Any]:
    """Their columns of an observation, ``[..., D]``, with or without the ball's velocity."""
    # ball_x and ball_y come before the velocity, if there is one, and the end effector comes last
    return observation[..., 2:4], observation[..., -3:]


def reach_reward(state: Any, action: Any, next_state: Any, goal: Any) -> Any:
    """
    The reward, as a function of batched observations.

    :param state: not used, ``[B, D]``
    :param action: not used, ``[B, A]``
    :param next_state: columns and units of the observation, with or without the ball's velocity, ``[B, D]``
    :param goal: not used
    :return: ``[B]``, of the type that is given: torch or NumPy
    """
    return reward_of(*ball_and_eef(next_state))
