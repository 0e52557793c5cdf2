"""The Workshop simulator, apart from its Gym class: machines in a line, with queues, wear and breakdowns. NumPy only."""

import numpy as np

from fcdl_envs.arguments import check, integer
from fcdl_envs.factored_system import FactoredSystem, two_valued
from fcdl_envs.variables import Factors, Variable

GOOD, WORN, BROKEN = 0, 1, 2
CONDITIONS = ("good", "worn", "broken")
DAY, NIGHT = 0, 1
MAX_ORDER = 2

# By condition: probability that a part which a machine takes comes out well. A broken one takes none.
YIELD = np.array([0.9, 0.6, 0.0])
# By condition: probability that a machine which takes a part is in the next worse condition afterwards.
WEAR = np.array([0.25, 0.35, 0.0])
# By condition: probability that the crew makes the machine good. A good one is left alone.
REPAIR = np.array([0.0, 0.9, 0.7])
DELIVERY = 0.9  # probability that a part that was ordered comes
SHIFT_ENDS = 0.2  # probability that the shift changes


class WorkshopSystem(FactoredSystem):
    """
    See :class:`fcdl_envs.workshop.WorkshopEnv` for the rules.

    :param n_machines: how many machines, 1 .. 6
    :param capacity: how many parts a queue holds, 2 .. 20
    :raises ValueError: if an argument is out of range
    :raises TypeError: if an argument is of a wrong type
    """

    def __init__(self, n_machines: int = 3, capacity: int = 4) -> None:
        check(n_machines=(n_machines, integer(1, 6)), capacity=(capacity, integer(2, 20)))
        machines = range(1, n_machines + 1)
        state = [
            variable
            for machine in machines
            for variable in (Variable(f"queue{machine}", capacity + 1), Variable(f"machine{machine}", 3, CONDITIONS))
        ]
        state += [Variable("finished", 2, ("none", "one")), Variable("shift", 2, ("day", "night"))]
        crew = ("none", *(f"machine{machine}" for machine in machines))
        action = (Variable("order", MAX_ORDER + 1), Variable("crew", n_machines + 1, crew))
        super().__init__(Factors(tuple(state), action), [f"machine{machine}" for machine in machines])
        self.n_machines, self.capacity = n_machines, capacity

    @property
    def global_graph(self) -> np.ndarray:
        """The local graph of worn machines, which no other exceeds."""
        state = np.zeros((1, 2 * self.n_machines + 2))
        state[0, 1:-2:2] = WORN
        return self.local_graph(state)[0]

    def conditional(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        queues, conditions = self._parts(states)
        order, crew = actions.T.astype(np.int64)
        takes = (queues > 0) & (conditions != BROKEN)
        well = np.where(takes, YIELD[conditions], 0.0)
        result = []
        for machine in range(self.n_machines):
            left = queues[:, machine] - takes[:, machine]
            coming = _deliveries(order) if machine == 0 else two_valued(well[:, machine - 1])
            result.append(self._next_queue(left, coming))
            is_served = crew == machine + 1
            result.append(_next_condition(conditions[:, machine], takes[:, machine], is_served))
        shift = states[:, -1]
        return (*result, two_valued(well[:, -1]), two_valued(np.where(shift == DAY, SHIFT_ENDS, 1.0 - SHIFT_ENDS)))

    def transition_graph(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        queues, conditions = self._parts(states)
        works, waits = conditions != BROKEN, queues > 0
        # nothing that comes can change a full queue from which nothing is taken
        has_room = works | (queues < self.capacity)
        is_served = actions[:, 1:] == np.arange(1, self.n_machines + 1)
        is_left = (conditions == GOOD) | ((conditions == WORN) & ~is_served)
        return self._graphs(works, waits, has_room, is_left, conditions != GOOD)

    def local_graph(self, states: np.ndarray) -> np.ndarray:
        conditions = self._parts(states)[1]
        works, always = conditions != BROKEN, np.ones_like(conditions, dtype=bool)
        return self._graphs(works, always, always, works, conditions != GOOD)

    def context(self, states: np.ndarray) -> tuple[str, ...]:
        return tuple(
            ", ".join(f"machine{index + 1} {CONDITIONS[condition]}" for index, condition in enumerate(row))
            for row in self._parts(states)[1]
        )

    def draw_start(self, rng: np.random.Generator) -> np.ndarray:
        """Queues of 0, 1 or 2 parts, any condition, any shift; nothing finished."""
        queues = rng.integers(3, size=self.n_machines)
        machines = np.stack([queues, rng.integers(3, size=self.n_machines)], axis=1)
        return np.concatenate([machines.ravel(), [0, rng.integers(2)]]).astype(np.float64)

    def _parts(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """:return: queues and conditions of the machines, ``[B, n_machines]`` integers"""
        machines = states[:, :-2].astype(np.int64)
        return machines[:, ::2], machines[:, 1::2]

    def _next_queue(self, left: np.ndarray, coming: np.ndarray) -> np.ndarray:
        """
        :param left: parts in a queue after the machine has taken one, ``[B]``
        :param coming: probabilities of how many come, ``[B, n]``
        :return: ``[B, capacity + 1]``
        """
        result = np.zeros((len(left), self.capacity + 1))
        for number, probability in enumerate(coming.T):
            result[np.arange(len(left)), np.minimum(left + number, self.capacity)] += probability
        return result

    def _graphs(
        self, works: np.ndarray, waits: np.ndarray, has_room: np.ndarray, wears: np.ndarray, needs_crew: np.ndarray
    ) -> np.ndarray:
        """
        :param works: whether a machine is not broken, ``[B, n_machines]``
        :param waits: whether its queue holds a part, likewise
        :param has_room: whether what comes can change its queue, likewise
        :param wears: whether it depends on its queue how the machine goes on, likewise
        :param needs_crew: whether the crew can change its condition, likewise
        :return: ``[B, V, P]`` bool
        """
        edges: dict[tuple[str, str], np.ndarray | bool] = {
            ("queue1", "order"): has_room[:, 0],
            ("finished", f"machine{self.n_machines}"): waits[:, -1],
            ("finished", f"queue{self.n_machines}"): works[:, -1],
            ("shift", "shift"): True,
        }
        for index in range(self.n_machines):
            queue, machine = f"queue{index + 1}", f"machine{index + 1}"
            edges[queue, queue] = edges[machine, machine] = True
            edges[queue, machine] = waits[:, index]
            edges[machine, queue] = wears[:, index]
            edges[machine, "crew"] = needs_crew[:, index]
            if index > 0:
                edges[queue, f"machine{index}"] = waits[:, index - 1] & has_room[:, index]
                edges[queue, f"queue{index}"] = works[:, index - 1] & has_room[:, index]
        return self.graph(len(works), edges)


def _deliveries(order: np.ndarray) -> np.ndarray:
    """:return: probabilities that 0, 1, 2 of the parts ordered come, ``[B, 3]``"""
    lost = 1.0 - DELIVERY
    return np.array([[1.0, 0.0, 0.0], [lost, DELIVERY, 0.0], [lost**2, 2 * lost * DELIVERY, DELIVERY**2]])[order]


def _next_condition(condition: np.ndarray, takes: np.ndarray, is_served: np.ndarray) -> np.ndarray:
    """
    :param condition: of a machine, ``[B]``
    :param takes: whether it takes a part, ``[B]``
    :param is_served: whether the crew is there, ``[B]``
    :return: ``[B, 3]``
    """
    rows, is_repaired = np.arange(len(condition)), is_served & (condition != GOOD)
    change = np.where(is_repaired, REPAIR[condition], np.where(takes, WEAR[condition], 0.0))
    result = np.zeros((len(condition), 3))
    result[rows, np.where(is_repaired, GOOD, np.minimum(condition + 1, BROKEN))] += change
    result[rows, condition] += 1.0 - change
    return result
