"""The Thermostat simulator, apart from its Gym class: two rooms, the weather, a window and a heater. NumPy only."""

import numpy as np

from fcdl_envs.arguments import check, number
from fcdl_envs.factored_system import FactoredSystem, normal, two_valued
from fcdl_envs.variables import Factors, Variable

SHUT, OPEN = 0, 1
OFF, HEAT, COOL = 0, 1, 2
KEEP = 0  # of the action `switch`; 1, 2 and 3 set the mode to off, heat and cool
LEAVE, TO_SHUT, TO_OPEN = 0, 1, 2  # of the action `sash`

# Shares of a difference in temperature that pass in one step of 30 minutes.
BETWEEN_ROOMS = 0.15
THROUGH_WALLS = 0.05
THROUGH_WINDOW = 0.15
WALLS = 14.0  # [°C], of what is behind the walls
HEATING = np.array([0.0, 0.5, -0.5])  # [°C] a step and level of power, by mode
ROOM_NOISE = 0.2  # [°C], standard deviation a step
# Autoregression of first order: what remains of a deviation, and the standard deviation of the noise.
OUTSIDE_MEMORY, OUTSIDE_NOISE = 0.95, 1.2  # [°C]
PRICE_MEMORY, PRICE_NOISE = 0.9, 3.0  # [ct/kWh]

# Probability that the window is open next.
OPEN_IF_LEFT = np.array([0.1, 0.9])  # by window
OPEN_IF_MOVED = np.array([0.0, 0.05, 0.95])  # by sash, of which the first is not moved
HOME_NEXT = np.array([0.2, 0.9])  # by presence

_FACTORS = Factors(
    state={
        "rooms": (Variable("living"), Variable("bedroom")),
        "outside": (Variable("outside"),),
        "price": (Variable("price"),),
        "window": (Variable("window", 2, ("shut", "open")),),
        "mode": (Variable("mode", 3, ("off", "heat", "cool")),),
        "presence": (Variable("presence", 2, ("away", "home")),),
    },
    action=(
        Variable("power", 4, ("none", "low", "medium", "high")),
        Variable("switch", 4, ("keep", "off", "heat", "cool")),
        Variable("sash", 3, ("leave", "shut", "open")),
    ),
)
_RANGES = {"living": (0.0, 30.0), "bedroom": (0.0, 30.0), "outside": (-10.0, 30.0), "price": (0.0, 60.0)}


class ThermostatSystem(FactoredSystem):
    """
    See :class:`fcdl_envs.thermostat.ThermostatEnv` for the equations.

    :param outside_mean: mean temperature outside, in °C
    :param price_mean: mean price of energy, in ct/kWh
    :param noise_scale: factor of all noise of numbers
    :raises ValueError: if an argument is out of range
    :raises TypeError: if an argument is of a wrong type
    """

    def __init__(self, outside_mean: float = 8.0, price_mean: float = 30.0, noise_scale: float = 1.0) -> None:
        check(
            outside_mean=(outside_mean, number(at_least=-100, at_most=100)),
            price_mean=(price_mean, number(at_least=0, at_most=1000)),
            noise_scale=(noise_scale, number(at_least=0, at_most=10)),
        )
        super().__init__(_FACTORS, ("window", "mode"), _RANGES)
        self.outside_mean, self.price_mean, self.noise_scale = outside_mean, price_mean, noise_scale

    @property
    def global_graph(self) -> np.ndarray:
        """The local graph of an open window and a heater that is on, which no other exceeds."""
        state = np.zeros((1, 7))
        state[0, [4, 5]] = OPEN, HEAT
        return self.local_graph(state)[0]

    def conditional(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        living, bedroom, outside, price, window, mode, presence = states.T
        power, switch, sash = actions.T
        heating = HEATING[mode.astype(np.int64)] * power
        next_mode = np.where(switch == KEEP, mode, switch - 1).astype(np.int64)
        if_left, if_moved = OPEN_IF_LEFT[window.astype(np.int64)], OPEN_IF_MOVED[sash.astype(np.int64)]
        return (
            normal(_next_room(living, bedroom, outside, window) + heating, self.noise_scale * ROOM_NOISE),
            normal(_next_room(bedroom, living, outside, window), self.noise_scale * ROOM_NOISE),
            normal(_revert(outside, self.outside_mean, OUTSIDE_MEMORY), self.noise_scale * OUTSIDE_NOISE),
            normal(_revert(price, self.price_mean, PRICE_MEMORY), self.noise_scale * PRICE_NOISE),
            two_valued(np.where(sash == LEAVE, if_left, if_moved)),
            np.eye(3)[next_mode],
            two_valued(HOME_NEXT[presence.astype(np.int64)]),
        )

    def transition_graph(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        living, bedroom, outside, _, window, mode, _ = states.T
        power, switch, sash = actions.T
        edges = {
            **_everywhere(window == OPEN),
            # where it is as warm as outside, an open window changes nothing
            ("living", "window"): living != outside,
            ("bedroom", "window"): bedroom != outside,
            ("living", "mode"): power > 0,
            ("living", "power"): mode != OFF,
            ("window", "window"): sash == LEAVE,
            ("mode", "mode"): switch == KEEP,
        }
        return self.graph(len(states), edges)

    def local_graph(self, states: np.ndarray) -> np.ndarray:
        window, mode = states[:, 4], states[:, 5]
        edges = {
            **_everywhere(window == OPEN),
            ("living", "window"): True,
            ("bedroom", "window"): True,
            ("living", "mode"): True,
            ("living", "power"): mode != OFF,
            ("window", "window"): True,
            ("mode", "mode"): True,
        }
        return self.graph(len(states), edges)

    def context(self, states: np.ndarray) -> tuple[str, ...]:
        window, mode = self.factors.state_variables[4:6]
        return tuple(f"window {window.in_words(row[4])}, mode {mode.in_words(row[5])}" for row in states)

    def draw_start(self, rng: np.random.Generator) -> np.ndarray:
        """Rooms uniform in 10 .. 24 °C, outside and price stationary, each category with the same chance."""
        rooms = rng.uniform(10.0, 24.0, 2)
        deviations = self.noise_scale * np.array([OUTSIDE_NOISE, PRICE_NOISE])
        deviations /= np.sqrt(1.0 - np.array([OUTSIDE_MEMORY, PRICE_MEMORY]) ** 2)
        weather = np.array([self.outside_mean, self.price_mean]) + deviations * rng.standard_normal(2)
        return np.concatenate([rooms, weather, rng.integers([2, 3, 2])])


def _everywhere(is_open: np.ndarray) -> dict[tuple[str, str], np.ndarray | bool]:
    """Edges by (child, parent) that all graphs have, and those from outside, which are there while the window is open."""
    alike = ("living", "bedroom"), ("bedroom", "living"), ("window", "sash"), ("mode", "switch")
    selves = ((name, name) for name in ("living", "bedroom", "outside", "price", "presence"))
    edges: dict[tuple[str, str], np.ndarray | bool] = dict.fromkeys((*selves, *alike), True)
    return {**edges, ("living", "outside"): is_open, ("bedroom", "outside"): is_open}


def _next_room(room: np.ndarray, other: np.ndarray, outside: np.ndarray, window: np.ndarray) -> np.ndarray:
    """:return: the mean next temperature of a room without heating, ``[B]``"""
    through_window = np.where(window == OPEN, THROUGH_WINDOW * (outside - room), 0.0)
    return room + BETWEEN_ROOMS * (other - room) + THROUGH_WALLS * (WALLS - room) + through_window


def _revert(values: np.ndarray, mean: float, memory: float) -> np.ndarray:
    return mean + memory * (values - mean)
