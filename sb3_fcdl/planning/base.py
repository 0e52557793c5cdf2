"""What a planner is given and what it returns."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch as th

StepFn = Callable[[th.Tensor, th.Tensor], th.Tensor]
"""``(state [R, D], encoded action [R, A]) -> next_state [R, D]``: deterministic, and each row by itself."""

RewardFn = Callable[[th.Tensor, th.Tensor, th.Tensor, th.Tensor], th.Tensor]
"""``(state [R, D], encoded action [R, A], next_state [R, D], goal [R, G]) -> reward [R]``: each row by itself."""

KeyFn = Callable[[th.Tensor], th.Tensor]
"""``state [R, D] -> int64 [R]``: equal for two states that ``step`` returns exactly when they are equal."""


class Plan(NamedTuple):
    """
    The decision of a planner for each environment.

    :param actions: the chosen sequence, ``[B, H]`` int64 for discrete actions, ``[B, H, A]`` with the dtype of the state for a
        box; the first one is to be taken now
    :param value: the return that the planner expects under its model, ``[B]``
    """

    actions: th.Tensor
    value: th.Tensor


class Planner(Protocol):
    """Chooses actions by looking ahead with a model. It keeps nothing between two calls."""

    def plan(
        self,
        step: StepFn,
        reward: RewardFn,
        state: th.Tensor,
        goal: th.Tensor,
        *,
        generators: Sequence[th.Generator] | None = None,
        action_mask: th.Tensor | None = None,
        key: KeyFn | None = None,
    ) -> Plan:
        """
        Plan for B environments at once.

        :param step: the model
        :param reward: reward of one modelled step
        :param state: encoded current state, ``[B, D]``
        :param goal: encoded task of each environment, ``[B, G]``
        :param generators: a CPU generator for each environment. With them the plan of an environment is a function of its own
            row and generator alone, on every device; without them the noise comes from torch's global generator
        :param action_mask: the discrete actions allowed now, ``[B, n_actions]``, bool; later steps are not restricted
        :param key: code of a state that ``step`` returned; makes planning faster where different actions often lead to equal
            states, and changes nothing else
        """
