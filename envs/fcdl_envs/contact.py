"""Contact as a Gymnasium environment."""

import math
from typing import Any

import numpy as np
from gymnasium import spaces

from fcdl_envs.contact_system import BOWL, DIAMETER, STIFFNESS, STRENGTH, ContactSystem
from fcdl_envs.factored_env import FactoredEnv

GOAL = (0.8, 0.0)  # [m]
SHARPNESS = 0.3  # [m], distance of b from the goal at which the reward has fallen to exp(-1/2)
EFFORT = 0.1


def push_reward(state: Any, action: Any, next_state: Any, goal: Any) -> Any:
    """
    How near the second body is to its goal, less the effort.

    :param state: not used, ``[B, D]``
    :param action: forces, ``[B, 2]``
    :param next_state: columns of the observation, ``[B, D]``
    :param goal: not used
    :return: ``[B]``, of the type that is given: torch or NumPy
    """
    squared = (next_state[..., 4] - GOAL[0]) ** 2 + (next_state[..., 5] - GOAL[1]) ** 2
    return math.e ** (-squared / (2.0 * SHARPNESS**2)) - EFFORT * (action**2).sum(-1)


def contact_script(observation: np.ndarray) -> np.ndarray:
    """
    A sensible policy: goes behind the second body and pushes it to its goal. It does not look at the others.

    :param observation: one observation
    :return: an action, ``[2]``
    """
    own, velocity, body, its_velocity = np.asarray(observation[:8], dtype=np.float64).reshape(4, 2)
    wanted = 4.0 * (np.array(GOAL) - body) - 2.0 * its_velocity + BOWL * body
    strength = max(float(np.linalg.norm(wanted)), 1e-9)
    direction, offset = wanted / strength, own - body
    along = offset @ direction
    aside = offset - along * direction
    is_behind = along < 0 and np.linalg.norm(aside) < 0.3 * DIAMETER
    if is_behind or along < -0.5 * DIAMETER or np.linalg.norm(offset) > 3.0 * DIAMETER:
        depth = min(strength / STIFFNESS, 0.15)
        target, push = body - (DIAMETER - depth) * direction, depth * STIFFNESS * direction
    else:  # go around it
        side = aside / max(float(np.linalg.norm(aside)), 1e-9)
        target, push = body + DIAMETER * (1.3 * side - 0.8 * direction), np.zeros(2)
    acceleration = 8.0 * (target - own) - 5.0 * (velocity - its_velocity) + BOWL * own + push
    return np.clip(acceleration / STRENGTH, -1.0, 1.0).astype(np.float32)


class ContactEnv(FactoredEnv):
    """
    ## Description

    Round bodies in a shallow bowl, seen from above, that push each other when they touch and not otherwise. The agent drives
    the first one, `a`. The aim is to bring the second, `b`, to a place at the side of the bowl and keep it there: that takes
    going behind it and pushing. All others are in the way. A step is 0.1 s.

    What matters depends on the context: a body's velocity matters to another one only while they touch, and its position only
    where it could touch the other one by moving in one direction.

    ## Variables and ground-truth graph

    Of each body ``x``, ``y`` in m and ``vx``, ``vy`` in m/s, called `a_x`, `a_y`, `a_vx`, `a_vy`, `b_x`, ... With ``p`` and
    ``v`` for both coordinates of a body, ``q`` and ``u`` for those of another, and N for independent standard normal
    numbers:

    ``p' = p + 0.1 v + 0.01 N``
    ``v' = v + 0.1 (-1.0 p - 0.3 v + 3.0 force [a only] + sum of contacts) + 0.03 N``

    Bodies touch if their distance ``r = |p - q|`` is less than the diameter of 0.35 m. Then each contact adds
    ``20 (0.35 - r) (p - q) / r - 3 (v - u)``: they push each other apart and rub.

    Graphs are ``[V, P] = [4 n, 4 n + 2]`` bool, ``graph[child, parent]``; columns are the state variables, then ``force_x``
    and ``force_y``. ``info["transition_graph"]``: an edge is there if some other value of the parent, all else as it is,
    gives the child another distribution. So the x of another body is a parent if *some* x would make them touch.

    | child          | parents                                                                                   |
    |----------------|-------------------------------------------------------------------------------------------|
    | `a_x`          | `a_x`, `a_vx`                                                                             |
    | `a_vx`         | `a_x`, `a_vx`, `force_x`                                                                    |
    |                | `b_x` if a and b are less than 0.35 m apart in y                                            |
    |                | `b_y` and `a_y` if they are less than 0.35 m apart in x                                      |
    |                | `b_vx` if they touch                                                                        |

    Likewise for y, for all pairs of bodies, and without the force for the others. (Two bodies with exactly the same y and vy
    have fewer edges, which the transition graph respects.) ``info["local_graph"]`` is the union over the context: of each
    pair, whether they touch, are less than 0.35 m apart in x and in y (`close`), in y (`in a row`), in x (`in a column`), or
    `apart`. ``global_graph`` is the union of all. Graphs and ``info["context"]`` are those of the state before the step.

    ## Action

    ``Box(-1, 1, (2,))``: the force on `a`. Larger ones are clipped.

    ## Observation

    ``Box(-inf, inf, (4 n,))`` float32, the variables above without bounds, because a normal distribution has none.

    ## Reward

    ``exp(-d² / (2 * 0.3²)) - 0.1 |force|²``, d the distance of `b` from (0.8, 0) after the step in m. ``reward_fn`` is the
    same as a function of batched columns.

    ## Start

    Positions uniform within 1 m of the centre in x and in y, velocities N(0, 0.3²). ``reset(options={"a_x": 0.5})`` gives
    variables by name the values that they start with.

    ## End

    An episode does not terminate; ``gym.make`` truncates it after 100 steps.

    ## Arguments

    :param n_bodies: ``n``, 2 .. 5
    :param noise_scale: factor of all N above, 0 .. 10
    :param render_mode: ``rgb_array``, ``ansi`` or nothing
    :raises ValueError: if an argument is out of range
    :raises TypeError: if an argument is of a wrong type

    ## Version history

    * v0: first version
    """

    reward_fn = staticmethod(push_reward)

    def __init__(self, n_bodies: int = 3, noise_scale: float = 1.0, render_mode: str | None = None) -> None:
        system = ContactSystem(n_bodies, noise_scale)
        observation_space = spaces.Box(-np.inf, np.inf, (4 * n_bodies,))
        super().__init__(system, observation_space, spaces.Box(-1.0, 1.0, (2,)), render_mode)

    def _observe(self, state: np.ndarray) -> np.ndarray:
        return state.astype(np.float32)
