"""All states and actions of a system that is small enough to list them."""

from collections.abc import Sequence
from math import prod

import torch as th
from torch import nn

from sb3_fcdl.planning import BoxActions
from sb3_fcdl.world.factorization import Factorization

# With 1024 of them an update, all are visited in sixteen updates.
MAX_PAIRS = 2**14


class Enumeration(nn.Module):
    """
    Numbers the states and actions of a system of ``S`` states and ``N`` actions.

    :param state_sizes: categories of each state variable
    :param action_sizes: of each action variable
    """

    states: th.Tensor
    actions: th.Tensor

    def __init__(self, state_sizes: Sequence[int], action_sizes: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("states", _all_of(state_sizes), persistent=False)
        self.register_buffer("actions", _all_of(action_sizes), persistent=False)
        self.state_sizes, self.action_sizes = list(state_sizes), list(action_sizes)

    @property
    def n_pairs(self) -> int:
        return len(self.states) * len(self.actions)

    def state_number(self, state: th.Tensor) -> th.Tensor:
        """
        :param state: encoded, ``[R, D]``
        :return: its row in ``states``, ``[R]``, int64; of columns that are no one-hot, the largest counts
        """
        return _number(state, self.state_sizes)

    def action_number(self, action: th.Tensor) -> th.Tensor:
        """
        :param action: encoded, ``[R, A]``
        :return: its row in ``actions``, likewise
        """
        return _number(action, self.action_sizes)

    def pair_number(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """
        :param state: encoded, ``[R, D]``
        :param action: encoded, ``[R, A]``
        :return: a number of each pair, below ``n_pairs``, ``[R]``, int64
        """
        return self.state_number(state) * len(self.actions) + self.action_number(action)


def enumeration_of(factorization: Factorization) -> Enumeration | None:
    """None: a variable is a number, there is a goal, or there are more than ``MAX_PAIRS`` pairs of a state and an action."""
    sizes, actions = [variable.n_categories for variable in factorization.factors.state_variables], factorization.actions
    if isinstance(actions, BoxActions) or factorization.goal_width or not 0 < prod(sizes) * actions.n <= MAX_PAIRS:
        return None
    return Enumeration(sizes, actions.sizes)


def _all_of(sizes: Sequence[int]) -> th.Tensor:
    """The one-hots of every combination of categories, in the order of their numbers, ``[prod(sizes), sum(sizes)]``."""
    number, columns = th.arange(prod(sizes)), []
    for size in sizes:
        columns.append(nn.functional.one_hot(number % size, size))
        number = number // size
    return th.cat(columns, dim=1).float()


def _number(columns: th.Tensor, sizes: Sequence[int]) -> th.Tensor:
    """The category of the first variable counts 1. ``[R, sum(sizes)]`` to ``[R]``."""
    # Not len(): an exported network is for any number of rows.
    number, place = columns.new_zeros(columns.shape[0], dtype=th.int64), 1
    for part, size in zip(columns.split(list(sizes), dim=-1), sizes, strict=True):
        number, place = number + place * part.argmax(-1), place * size
    return number
