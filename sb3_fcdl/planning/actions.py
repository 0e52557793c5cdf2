"""What a planner needs to know of an action, in the units that the model is given."""

import math
from dataclasses import dataclass

import torch as th


@dataclass(frozen=True)
class DiscreteActions:
    """
    One of n actions, an int64; encoded as one-hot.

    :param n: number of actions
    :raises ValueError: if there is none
    """

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}")

    def encode(self, actions: th.Tensor, dtype: th.dtype) -> th.Tensor:
        """
        :param actions: ``[R]``, int64
        :param dtype: of the result
        :return: ``[R, n]``
        """
        one_hot = th.zeros(*actions.shape, self.n, dtype=dtype, device=actions.device)
        return one_hot.scatter_(-1, actions[..., None], 1)


@dataclass(frozen=True)
class BoxActions:
    """
    A vector of A numbers within bounds; encoded as it is.

    :param low: smallest value of each number
    :param high: largest value of each number
    :raises ValueError: if there is no number, or a bound is missing, not finite or on the wrong side of the other
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.low or len(self.low) != len(self.high):
            raise ValueError(f"low and high must be equally long and not empty, got {self.low} and {self.high}")
        if not all(map(math.isfinite, self.low + self.high)):
            raise ValueError(f"low and high must be finite, got {self.low} and {self.high}")
        if any(low > high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low must nowhere be above high, got {self.low} and {self.high}")

    def encode(self, actions: th.Tensor, dtype: th.dtype) -> th.Tensor:
        """
        :param actions: ``[R, A]``, float
        :param dtype: of the result
        :return: ``[R, A]``
        """
        return actions.to(dtype)


Actions = DiscreteActions | BoxActions
"""Every kind of action that can be planned."""
