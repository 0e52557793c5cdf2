"""Thermostat as a Gymnasium environment."""

from typing import Any

import numpy as np
from gymnasium import spaces

from fcdl_envs.factored_env import FactoredEnv
from fcdl_envs.thermostat_system import (
    BETWEEN_ROOMS,
    HEAT,
    HEATING,
    KEEP,
    LEAVE,
    SHUT,
    THROUGH_WALLS,
    TO_SHUT,
    WALLS,
    ThermostatSystem,
)

COMFORT_LIVING, COMFORT_BEDROOM = 21.0, 18.0  # [°C]
TOLERANCE = 6.0  # [°C], sum of deviations at which comfort is zero
ENERGY = 1.0  # [kWh] a step and level of power


def comfort_reward(state: Any, action: Any, next_state: Any, goal: Any) -> Any:
    """
    Comfort of who is at home, less the cost of energy.

    :param state: columns of the state, one-hot where categorical, ``[B, 11]``
    :param action: one-hot, ``[B, 11]``
    :param next_state: likewise, ``[B, 11]``
    :param goal: not used
    :return: ``[B]``, of the type that is given: torch or NumPy
    """
    deviation = abs(next_state[..., 0] - COMFORT_LIVING) + abs(next_state[..., 1] - COMFORT_BEDROOM)
    level = action[..., 1] + 2.0 * action[..., 2] + 3.0 * action[..., 3]
    is_on, is_home = 1.0 - state[..., 6], state[..., 10]
    return is_home * (1.0 - deviation / TOLERANCE) - is_on * level * ENERGY * state[..., 3] / 100.0


def thermostat_script(observation: dict[str, Any]) -> np.ndarray:
    """
    A sensible policy: keeps the window shut, the heater in its mode `heat`, and the living room at 21 °C.

    :param observation: one observation
    :return: an action, ``[3]``
    """
    living, bedroom = observation["rooms"]
    is_heating = int(observation["mode"]) == HEAT
    expected = living + BETWEEN_ROOMS * (bedroom - living) + THROUGH_WALLS * (WALLS - living)
    level = np.clip(np.round((COMFORT_LIVING - expected) / HEATING[HEAT]), 0, 3) if is_heating else 0
    sash = LEAVE if int(observation["window"]) == SHUT else TO_SHUT
    return np.array([level, KEEP if is_heating else 1 + HEAT, sash], dtype=np.int64)


class ThermostatEnv(FactoredEnv):
    """
    ## Description

    A flat of two rooms with a window and a heater that can also cool. The aim is to keep both rooms comfortable while
    somebody is at home, for little money. A step is half an hour.

    What matters depends on the context: only while the window is open does the temperature outside change the rooms, and only
    while the heater is on does its power. Three variables are noise: the price, the temperature outside and who is at home
    follow themselves alone.

    ## Variables and ground-truth graph

    | variable    | values                | unit   | next value                                                     |
    |-------------|-----------------------|--------|----------------------------------------------------------------|
    | `living` L  | number                | °C     | L + 0.15 (B - L) + 0.05 (14 - L) + w 0.15 (O - L) + h p + 0.2 N |
    | `bedroom` B | number                | °C     | B + 0.15 (L - B) + 0.05 (14 - B) + w 0.15 (O - B) + 0.2 N       |
    | `outside` O | number                | °C     | 8 + 0.95 (O - 8) + 1.2 N                                        |
    | `price` E   | number                | ct/kWh | 30 + 0.9 (E - 30) + 3 N                                         |
    | `window` w  | 0 `shut`, 1 `open`    |        | see below                                                       |
    | `mode`      | `off`, `heat`, `cool` |        | itself, or what `switch` asks for                               |
    | `presence`  | `away`, `home`        |        | `home` with probability 0.2 (if away), 0.9 (if home)            |

    The window is open next with probability 0.1 (if shut), 0.9 (if open), but 0.05 if `sash` is `shut`, 0.95 if it is `open`.
    N are independent standard normal numbers, p = 0 .. 3 the level of `power`, h = 0, 0.5, -0.5 °C by mode.

    Graphs are ``[7, 10]`` bool, ``graph[child, parent]``; columns are the state variables, then the action's three.
    ``info["transition_graph"]``: an edge is there if some other value of the parent, all else as it is, gives the child
    another distribution. So the window is a parent of a room that is not as warm as outside, open or shut, and the mode is one
    of ``living`` if ``power`` is not ``none``.

    | child                          | parents                                                                            |
    |--------------------------------|------------------------------------------------------------------------------------|
    | `living`                       | `living`, `bedroom`, `window`; `outside` if open; `mode` if p > 0; `power` if not off |
    | `bedroom`                      | `bedroom`, `living`, `window`; `outside` if open                                     |
    | `outside`, `price`, `presence` | itself                                                                             |
    | `window`                       | `sash`; itself if `sash` is `leave`                                                  |
    | `mode`                         | `switch`; itself if `switch` is `keep`                                               |

    ``info["local_graph"]`` is the union over the context, which `window` and `mode` choose: six contexts such as "window open,
    mode heat". In it only the conditions "if open" and "if not off" remain. ``global_graph`` is the union of all. Graphs and
    ``info["context"]`` are those of the state and action before the step.

    ## Action

    ``MultiDiscrete([4, 4, 3])``: ``power`` (none, low, medium, high), ``switch`` (keep, off, heat, cool) for the next mode,
    ``sash`` (leave, shut, open) for the window.

    ## Observation

    A ``Dict``: ``rooms`` ``Box (2,)``, ``outside`` and ``price`` ``Box (1,)``, float32 without bounds, because a normal
    distribution has none; ``window`` ``Discrete(2)``, ``mode`` ``Discrete(3)``, ``presence`` ``Discrete(2)``.

    ## Reward

    ``home (1 - (|L' - 21| + |B' - 18|) / 6) - on * p * 1 kWh * E / 100``: comfort after the step if somebody is at home before
    it, less the cost in euros if the heater is not off. ``reward_fn`` is the same as a function of batched columns.

    ## Start

    Rooms uniform in 10 .. 24 °C, outside and price from their stationary distributions, each category with the same chance.
    ``reset(options={"window": 1, "living": 18.0})`` gives variables by name the values that they start with.

    ## End

    An episode does not terminate; ``gym.make`` truncates it after 48 steps, a day.

    ## Arguments

    :param outside_mean: mean temperature outside in °C, -100 .. 100
    :param price_mean: mean price in ct/kWh, 0 .. 1000
    :param noise_scale: factor of all N above, 0 .. 10
    :param render_mode: ``rgb_array``, ``ansi`` or nothing
    :raises ValueError: if an argument is out of range
    :raises TypeError: if an argument is of a wrong type

    ## Version history

    * v0: first version
    """

    reward_fn = staticmethod(comfort_reward)

    def __init__(
        self,
        outside_mean: float = 8.0,
        price_mean: float = 30.0,
        noise_scale: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        system = ThermostatSystem(outside_mean, price_mean, noise_scale)
        observation_space = spaces.Dict(
            rooms=spaces.Box(-np.inf, np.inf, (2,)),
            outside=spaces.Box(-np.inf, np.inf, (1,)),
            price=spaces.Box(-np.inf, np.inf, (1,)),
            window=spaces.Discrete(2),
            mode=spaces.Discrete(3),
            presence=spaces.Discrete(2),
        )
        super().__init__(system, observation_space, spaces.MultiDiscrete([4, 4, 3]), render_mode)

    def _observe(self, state: np.ndarray) -> dict[str, Any]:
        numbers = state[:4].astype(np.float32)
        window, mode, presence = state[4:].astype(np.int64)
        return {
            "rooms": numbers[:2],
            "outside": numbers[2:3],
            "price": numbers[3:],
            "window": window,
            "mode": mode,
            "presence": presence,
        }
