"""What a planner is given and what it returns."""

from collections.abc import Callable
from typing import NamedTuple

import torch as th

StepFn = Callable[[th.Tensor, th.Tensor], th.Tensor]
"""``(state [R, D], encoded action [R, A]) -> next_state [R, D]``: deterministic, and each row by itself."""

RewardFn = Callable[[th.Tensor, th.Tensor, th.Tensor, th.Tensor], th.Tensor]
"""``(state [R, D], encoded action [R, A], next_state [R, D], goal [R, G]) -> reward [R]``: each row by itself."""

TerminationFn = Callable[[th.Tensor, th.Tensor, th.Tensor], th.Tensor]
"""
``(state [R, D], encoded action [R, A], next_state [R, D]) -> ended [R]``: each row by itself. Whether the episode ended with
this step, or how likely that is: bool, or a number in [0, 1].
"""

KeyFn = Callable[[th.Tensor], th.Tensor]
"""``state [R, D] -> int64 [R]``: equal for two states that ``step`` returns exactly when they are equal."""


class Plan(NamedTuple):
    """
    The decision of a planner for each environment.

    :param actions: the chosen sequence, ``[B, H]`` int64 for discrete actions, ``[B, H, M]`` int64 for multi-discrete ones,
        ``[B, H, A]`` with the dtype of the state for a box; the first action is to be taken now
    :param value: the return that the planner expects under its model, ``[B]``
    :param warm_start: what the next call may be given, so that it does not start anew: K sequences, best first, one step on,
        ``[B, K, H, *]``, float for every kind of action; None from a planner that always starts anew. NaN stands for what
        nobody knows yet, such as the last step. Hence a row that is filled with NaN starts anew
    """

    actions: th.Tensor
    value: th.Tensor
    warm_start: th.Tensor | None
