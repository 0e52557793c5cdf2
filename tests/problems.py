"""What a planner is given, out of functions of tensors."""

from collections.abc import Callable
from typing import Any

import torch as th

from sb3_fcdl.planning import Problem, RewardFn, Step


def problem(step: Callable[[th.Tensor, th.Tensor], th.Tensor], reward: RewardFn, **options: Any) -> Problem:
    """
    :param step: ``(state [R, D], encoded action [R, A]) -> next_state [R, D]``
    :param reward: see ``Problem``
    :param options: the other fields of a ``Problem``
    """
    return Problem(lambda state, action: Step(step(state, action)), reward, **options)
