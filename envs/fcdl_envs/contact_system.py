"""The Contact simulator, apart from its Gym class: round bodies in a bowl that push each other when they touch. NumPy only."""

from itertools import combinations

import numpy as np

from fcdl_envs.arguments import check, integer, number
from fcdl_envs.factored_system import FactoredSystem, normal
from fcdl_envs.variables import Factors, Variable

NAMES = "abcde"
DIAMETER = 0.35  # [m]
TIME_STEP = 0.1  # [s]
BOWL = 1.0  # [1/s²], acceleration to the centre by distance from it
DRAG = 0.3  # [1/s]
STIFFNESS = 20.0  # [1/s²], acceleration by depth of a contact
FRICTION = 3.0  # [1/s], acceleration by relative velocity in a contact
STRENGTH = 3.0  # [m/s²], acceleration by an action of 1
POSITION_NOISE = 0.01  # [m], standard deviation a step
VELOCITY_NOISE = 0.03  # [m/s], standard deviation a step
START_RANGE, START_SPEED = 1.0, 0.3  # [m], [m/s]

X, Y, VX, VY = range(4)
# Of a pair, by whether they touch, whether one would if it moved along x, and whether along y.
_RELATIONS = {
    (True, True, True): "touch",
    (False, True, True): "close",
    (False, True, False): "in a row",
    (False, False, True): "in a column",
    (False, False, False): "apart",
}


class ContactSystem(FactoredSystem):
    """
    See :class:`fcdl_envs.contact.ContactEnv` for the equations.

    :param n_bodies: how many bodies, 2 .. 5
    :param noise_scale: factor of all noise
    :raises ValueError: if an argument is out of range
    :raises TypeError: if an argument is of a wrong type
    """

    def __init__(self, n_bodies: int = 3, noise_scale: float = 1.0) -> None:
        check(n_bodies=(n_bodies, integer(2, len(NAMES))), noise_scale=(noise_scale, number(at_least=0, at_most=10)))
        names = NAMES[:n_bodies]
        state = tuple(Variable(f"{name}_{part}") for name in names for part in ("x", "y", "vx", "vy"))
        factors = Factors(state, (Variable("force_x"), Variable("force_y")))
        positions = [f"{name}_{part}" for name in names for part in ("x", "y")]
        ranges = {variable.name: (-1.5, 1.5) if variable.name in positions else (-2.0, 2.0) for variable in state}
        super().__init__(factors, positions, ranges)
        self.n_bodies, self.noise_scale = n_bodies, noise_scale
        self._pairs = tuple(combinations(range(n_bodies), 2))

    @property
    def global_graph(self) -> np.ndarray:
        """The local graph of bodies that all touch."""
        return self.local_graph(np.zeros((1, 4 * self.n_bodies)))[0]

    def conditional(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        bodies = states.reshape(len(states), self.n_bodies, 4)
        position, velocity = bodies[..., :2], bodies[..., 2:]
        acceleration = -BOWL * position - DRAG * velocity
        acceleration[:, 0] += STRENGTH * actions
        for one, other in self._pairs:
            push = _contact(bodies[:, one] - bodies[:, other])
            acceleration[:, one] += push
            acceleration[:, other] -= push
        means = np.concatenate([position + TIME_STEP * velocity, velocity + TIME_STEP * acceleration], axis=2)
        noise = self.noise_scale * np.array([POSITION_NOISE, POSITION_NOISE, VELOCITY_NOISE, VELOCITY_NOISE])
        return tuple(normal(means[:, body, part], noise[part]) for body in range(self.n_bodies) for part in range(4))

    def transition_graph(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return self._graphs(states, is_exact=True)

    def local_graph(self, states: np.ndarray) -> np.ndarray:
        return self._graphs(states, is_exact=False)

    def context(self, states: np.ndarray) -> tuple[str, ...]:
        bodies, words = states.reshape(len(states), self.n_bodies, 4), []
        for one, other in self._pairs:
            relations = zip(*(each.tolist() for each in _relation(bodies[:, one] - bodies[:, other])), strict=True)
            words.append([f"{NAMES[one]} and {NAMES[other]} {_RELATIONS[relation]}" for relation in relations])
        return tuple(", ".join(pairs) for pairs in zip(*words, strict=True))

    def draw_start(self, rng: np.random.Generator) -> np.ndarray:
        """Positions uniform within 1 m of the centre in x and in y, velocities ``N(0, 0.3²)``."""
        positions = rng.uniform(-START_RANGE, START_RANGE, (self.n_bodies, 2))
        velocities = START_SPEED * rng.standard_normal((self.n_bodies, 2))
        return np.concatenate([positions, velocities], axis=1).ravel()

    def _graphs(self, states: np.ndarray, is_exact: bool) -> np.ndarray:
        """
        :param is_exact: whether to tell apart states with equal coordinates and velocities, which have probability zero
        """
        bodies = states.reshape(len(states), self.n_bodies, 4)
        result = np.zeros((len(states), 4 * self.n_bodies, 4 * self.n_bodies + 2), dtype=bool)
        for first in range(0, 4 * self.n_bodies, 4):
            for position, velocity in ((first + X, first + VX), (first + Y, first + VY)):
                result[:, position, [position, velocity]] = True
                result[:, velocity, [position, velocity]] = True
        result[:, VX, -2] = result[:, VY, -1] = True
        for one, other in self._pairs:
            difference = bodies[:, one] - bodies[:, other]
            touch, row, column = _relation(difference)
            slanted = (difference[:, [Y, X]] != 0) | (difference[:, [VY, VX]] != 0) | (not is_exact)
            for child, parent in ((one, other), (other, one), (one, one), (other, other)):
                result[:, 4 * child + VX, 4 * parent + X] |= row
                result[:, 4 * child + VY, 4 * parent + X] |= row & slanted[:, 0]
                result[:, 4 * child + VY, 4 * parent + Y] |= column
                result[:, 4 * child + VX, 4 * parent + Y] |= column & slanted[:, 1]
                result[:, 4 * child + VX, 4 * parent + VX] |= touch
                result[:, 4 * child + VY, 4 * parent + VY] |= touch
        return result


def _contact(difference: np.ndarray) -> np.ndarray:
    """
    :param difference: place and velocity of a body less those of another, ``[B, 4]``
    :return: acceleration of the first by the contact, ``[B, 2]``; the other's is the opposite
    """
    distance = np.sqrt((difference[:, :2] ** 2).sum(axis=1, keepdims=True))
    direction = difference[:, :2] / np.where(distance > 0, distance, 1.0)
    push = STIFFNESS * (DIAMETER - distance) * direction - FRICTION * difference[:, 2:]
    return np.where(distance < DIAMETER, push, 0.0)


def _relation(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    :param difference: place and velocity of a body less those of another, ``[B, 4]``
    :return: whether they touch, whether they would at some other x of one of them, and at some other y, ``[B]``
    """
    touch = np.sqrt((difference[:, :2] ** 2).sum(axis=1)) < DIAMETER
    return touch, np.abs(difference[:, Y]) < DIAMETER, np.abs(difference[:, X]) < DIAMETER
