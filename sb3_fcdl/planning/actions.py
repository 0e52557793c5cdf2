"""What a planner needs to know of an action, in the units that the model is given."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

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

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values of each dimension: of the only one."""
        return (self.n,)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return ()

    @property
    def width(self) -> int:
        """Columns of an encoded action."""
        return self.n

    def encode(self, actions: th.Tensor, dtype: th.dtype) -> th.Tensor:
        """
        :param actions: ``[R]``, int64
        :param dtype: of the result
        :return: ``[R, n]``
        """
        one_hot = th.zeros(*actions.shape, self.n, dtype=dtype, device=actions.device)
        return one_hot.scatter_(-1, actions[..., None], 1)

    def decode(self, encoded: th.Tensor) -> th.Tensor:
        """
        The inverse of :meth:`encode`.

        :param encoded: ``[R, n]``; of columns that are no one-hot the largest counts
        :return: ``[R]``, int64
        """
        return encoded.argmax(-1)

    def number(self, actions: th.Tensor) -> th.Tensor:
        """
        :param actions: ``[R]``, int64
        :return: a number below ``n`` for each, ``[R]``: itself
        """
        return actions

    def numbered(self, numbers: th.Tensor) -> th.Tensor:
        """The inverse of :meth:`number`."""
        return numbers


@dataclass(frozen=True)
class MultiDiscreteActions:
    """
    A vector of whole numbers, an int64 each; encoded as their one-hots, one after the other. A vector of n bits is one with
    ``sizes`` ``(2,) * n``.

    :param sizes: number of values of each dimension
    :raises ValueError: if there is no dimension, or one without a value
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"sizes must hold at least one number, and none below 1, got {self.sizes}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return (len(self.sizes),)

    @property
    def width(self) -> int:
        """Columns of an encoded action."""
        return sum(self.sizes)

    @property
    def n(self) -> int:
        """Number of different actions."""
        return math.prod(self.sizes)

    def encode(self, actions: th.Tensor, dtype: th.dtype) -> th.Tensor:
        """
        :param actions: ``[R, len(sizes)]``, int64
        :param dtype: of the result
        :return: ``[R, sum(sizes)]``
        """
        first_columns = _constant([0, *accumulate(self.sizes[:-1])], actions.device)
        one_hots = th.zeros(*actions.shape[:-1], self.width, dtype=dtype, device=actions.device)
        return one_hots.scatter_(-1, actions + first_columns, 1)

    def decode(self, encoded: th.Tensor) -> th.Tensor:
        """
        The inverse of :meth:`encode`.

        :param encoded: ``[R, sum(sizes)]``; of columns of a dimension that are no one-hot the largest counts
        :return: ``[R, len(sizes)]``, int64
        """
        return th.stack([part.argmax(-1) for part in encoded.split(self.sizes, dim=-1)], dim=-1)

    def number(self, actions: th.Tensor) -> th.Tensor:
        """
        :param actions: ``[R, len(sizes)]``, int64
        :return: a number below ``n`` for each, ``[R]``: its digits, in mixed radix
        """
        return (actions * self._place_values(actions.device)).sum(dim=-1)

    def numbered(self, numbers: th.Tensor) -> th.Tensor:
        """The inverse of :meth:`number`."""
        return numbers[:, None] // self._place_values(numbers.device) % _constant(self.sizes, numbers.device)

    def _place_values(self, device: th.device) -> th.Tensor:
        return _constant([math.prod(self.sizes[dimension + 1 :]) for dimension in range(len(self.sizes))], device)


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

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return (len(self.low),)

    @property
    def width(self) -> int:
        """Columns of an encoded action."""
        return len(self.low)

    def encode(self, actions: th.Tensor, dtype: th.dtype) -> th.Tensor:
        """
        :param actions: ``[R, A]``, float
        :param dtype: of the result
        :return: ``[R, A]``
        """
        return actions.to(dtype)

    def decode(self, encoded: th.Tensor) -> th.Tensor:
        """The inverse of :meth:`encode`: the same."""
        return encoded


CategoricalActions = DiscreteActions | MultiDiscreteActions
"""The kinds of action that are whole numbers; a :class:`DiscreteActions` is one dimension, and has no axis for it."""

Actions = CategoricalActions | BoxActions
"""Every kind of action that can be planned."""


def alternatives(actions: Actions, taken: th.Tensor, chosen: th.Tensor, n: int) -> th.Tensor:
    """
    Actions to compare: all, if they are whole numbers and there are at most ``n``; else the one that was taken, the one that
    a policy chooses, and others drawn uniformly, of a box half of them near the chosen one: at a distance of a third of the
    range down to a hundredth.

    :param actions: what an action is
    :param taken: encoded, ``[R, A]``
    :param chosen: encoded, ``[R, A]``
    :param n: how many, at least 2
    :return: encoded, ``[n, R, A]`` or fewer
    """
    if not isinstance(actions, BoxActions) and actions.n <= n:
        numbers = th.arange(actions.n, device=taken.device)
        return actions.encode(actions.numbered(numbers), taken.dtype).unsqueeze(1).expand(-1, len(taken), -1)
    given = th.stack([taken, chosen])
    if not isinstance(actions, BoxActions):
        numbers = th.randint(actions.n, ((n - 2) * len(taken),), device=taken.device)
        others = actions.encode(actions.numbered(numbers), taken.dtype)
        return th.cat([given, others.view(n - 2, *taken.shape)])
    low, high = (th.tensor(bound).to(taken) for bound in (actions.low, actions.high))
    n_near = (n - 2) // 2
    others = chosen.expand(n - 2, *chosen.shape)
    sizes = th.logspace(-2, -0.5, n_near).to(taken).view(-1, 1, 1) * (high - low)
    near = (others[:n_near] + sizes * th.randn_like(others[:n_near])).clamp(low, high)
    return th.cat([given, near, low + (high - low) * th.rand_like(others[n_near:])])


def _constant(numbers: Sequence[int], device: th.device) -> th.Tensor:
    """These numbers on the device, for which the host does not wait."""
    return th.tensor(numbers).to(device, non_blocking=True)
