"""Workshop as a Gymnasium environment."""

from typing import Any

import numpy as np
from gymnasium import spaces

from fcdl_envs.factored_env import FactoredEnv
from fcdl_envs.workshop_system import BROKEN, GOOD, MAX_ORDER, WORN, WorkshopSystem

ORDER_COST = 0.3  # of a part that is ordered
CREW_COST = 0.2  # of a step of the crew


def output_reward(state: Any, action: Any, next_state: Any, goal: Any) -> Any:
    """
    One for a finished part, less what parts and crew cost.

    :param state: not used, ``[B, D]``
    :param action: one-hot, ``[B, A]``
    :param next_state: one-hot, ``[B, D]``
    :param goal: not used
    :return: ``[B]``, of the type that is given: torch or NumPy
    """
    # the last four columns are `finished` and `shift`; the first three of the action are `order`, then the crew's `none`
    ordered = action[..., 1] + 2.0 * action[..., 2]
    return next_state[..., -3] - ORDER_COST * ordered - CREW_COST * (1.0 - action[..., 3])


def workshop_script(observation: np.ndarray) -> np.ndarray:
    """
    A sensible policy: sends the crew to the first broken machine, else to the last worn one, and orders what machine 1 needs.

    :param observation: one observation
    :return: an action, ``[2]``
    """
    queues, conditions = observation[:-2:2], observation[1:-2:2]
    broken, worn = np.flatnonzero(conditions == BROKEN), np.flatnonzero(conditions == WORN)
    crew = broken[0] + 1 if len(broken) else worn[-1] + 1 if len(worn) else 0
    order = int(queues[0] <= 1 and queues.sum() < 2 * len(queues))
    return np.array([order, crew], dtype=np.int64)


class WorkshopEnv(FactoredEnv):
    """
    ## Description

    Machines in a line, each with a queue in front of it. Each takes a part, and passes it on to the next queue; the last one
    finishes it. Machines wear out and break down; a crew makes them good again. The aim is to finish many parts for little
    money.

    What matters depends on the context: a broken machine takes nothing, so what is in its queue matters neither to it nor to
    the next queue, and only a machine that is not good depends on the crew. The shift is noise: it follows itself alone.

    ## Variables and ground-truth graph

    All are categorical. With machine m = 1, 2, ..., ``n_machines``:

    | variable    | values                     | next value                                                            |
    |-------------|----------------------------|-----------------------------------------------------------------------|
    | `queue{m}`  | 0 .. `capacity`            | less the part that machine m takes, plus what comes, at most `capacity` |
    | `machine{m}` | `good`, `worn`, `broken`   | see below                                                             |
    | `finished`  | `none`, `one`              | `one` if the last machine takes a part and it comes out well            |
    | `shift`     | `day`, `night`             | the other one with probability 0.2                                     |

    A machine that is not broken takes one part if its queue holds one. It comes out well with probability 0.9 (good), 0.6
    (worn), and else is lost. To the first queue comes each part that was ordered, with probability 0.9.

    | machine  | with the crew             | without the crew, if it takes a part | otherwise |
    |----------|---------------------------|--------------------------------------|-----------|
    | `good`   | as without                | `worn` with probability 0.25         | itself    |
    | `worn`   | `good` with probability 0.9 | `broken` with probability 0.35     | itself    |
    | `broken` | `good` with probability 0.7 | (it takes none)                    | itself    |

    Graphs are ``[V, P] = [2 n + 2, 2 n + 4]`` bool, ``graph[child, parent]``; columns are the state variables, then
    ``order`` and ``crew``. ``info["transition_graph"]``: an edge is there if some other value of the parent, all else as it
    is, gives the child another distribution.

    | child       | parents                                                                                         |
    |-------------|-------------------------------------------------------------------------------------------------|
    | `queue{m}`  | itself; `machine{m}` if the queue holds a part                                                   |
    |             | unless it is full and machine m is broken: `order` if m = 1; if m > 1                             |
    |             | `queue{m-1}` if machine m-1 is not broken, and `machine{m-1}` if its queue holds a part           |
    | `machine{m}` | itself; `crew` if it is not good; `queue{m}` if it is good, or worn and without the crew         |
    | `finished`  | the last queue if its machine is not broken, the last machine if its queue holds a part           |
    | `shift`     | itself                                                                                           |

    ``info["local_graph"]`` is the union over the context, the conditions of all machines, such as "machine1 good, machine2
    broken, machine3 worn". ``global_graph`` is the union of all. Graphs and ``info["context"]`` are those of the state and
    action before the step.

    ## Action

    ``MultiDiscrete([3, n_machines + 1])``: ``order`` (0, 1 or 2 parts) and ``crew`` (none, or to which machine).
    ``action_masks()`` allows orders that fit into the first queue, and the crew only where a machine is not good; the
    environment itself accepts every action.

    ## Observation

    ``MultiDiscrete``, the variables above in the order `queue1`, `machine1`, `queue2`, ..., `finished`, `shift`.

    ## Reward

    1 if ``finished`` is `one` after the step, less 0.3 for each part ordered and 0.2 if the crew is sent. ``reward_fn`` is
    the same as a function of batched columns.

    ## Start

    Queues of 0, 1 or 2 parts, each condition and each shift with the same chance, nothing finished.
    ``reset(options={"machine1": 2})`` gives variables by name the values that they start with.

    ## End

    An episode does not terminate; ``gym.make`` truncates it after 50 steps.

    ## Arguments

    :param n_machines: ``n``, 1 .. 6
    :param capacity: how many parts a queue holds, 2 .. 20
    :param render_mode: ``rgb_array``, ``ansi`` or nothing
    :raises ValueError: if an argument is out of range
    :raises TypeError: if an argument is of a wrong type

    ## Version history

    * v0: first version
    """

    reward_fn = staticmethod(output_reward)

    def __init__(self, n_machines: int = 3, capacity: int = 4, render_mode: str | None = None) -> None:
        system = WorkshopSystem(n_machines, capacity)
        self._capacity = capacity
        sizes = [variable.n_categories for variable in system.factors.state_variables]
        action_space = spaces.MultiDiscrete([variable.n_categories for variable in system.factors.action])
        super().__init__(system, spaces.MultiDiscrete(sizes), action_space, render_mode)

    def action_masks(self) -> np.ndarray:
        """
        Orders that fit into the first queue, and the crew only where a machine is not good.

        :return: of `order`, then of `crew`, ``[3 + 1 + n_machines]`` bool
        """
        state = self._now()[0]
        fits = state[0] + np.arange(MAX_ORDER + 1) <= self._capacity
        return np.concatenate([fits, [True], state[1:-2:2] != GOOD])

    def _observe(self, state: np.ndarray) -> np.ndarray:
        return state.astype(np.int64)
