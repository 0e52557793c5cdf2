"""What can stand in the slots of a network that lets each variable look at one slot: numbered, and computed once each."""

from collections.abc import Callable
from functools import cached_property
from math import prod
from typing import NamedTuple

import torch as th

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.lookup.categories import categories
from sb3_fcdl.dynamics.lookup.slots import Slots
from sb3_fcdl.memo import Memo
from sb3_fcdl.planning.actions import MultiDiscreteActions

RuleFn = Callable[[th.Tensor, th.Tensor, th.Tensor], th.Tensor]
"""From features of a variable and of what it looks at, ``[N, 2F]``, the variable and its rule, ``[N]``, to ``[N, O]``."""


class Choices(NamedTuple):
    """
    What a network makes of each of ``n`` contents, for one version of the weights.

    :param features: of each content, ``[n, F]``
    :param rule: that each category of each variable selects, ``[n_states]``, int64
    :param scores: of each content for each category of each variable: the largest is looked at, ``[n_states, n]``
    """

    features: th.Tensor
    rule: th.Tensor
    scores: th.Tensor


class Distinct(NamedTuple):
    """
    The different ones among the pairs of a variable and a row of a batch.

    :param pairs: one of each kind, ``[N]``: ``variable * R + row``
    :param kind: of each pair, ``[V * R]``: an index of ``pairs``
    """

    pairs: th.Tensor
    kind: th.Tensor


class Contents:
    """
    Numbers everything that can stand in a slot: the categories, one variable after the other, then the actions.

    :param factors: the variables
    :param slots: their slots
    """

    # With more actions, or with continuous ones, nothing is numbered: a table has a row for each combination of two contents.
    MAX_ACTIONS = 1024

    def __init__(self, factors: Factors, slots: Slots) -> None:
        self.slots = slots
        self.action_slices = factors.action_slices
        sizes = tuple(variable.n_categories for variable in factors.action)
        self.actions = MultiDiscreteActions(sizes) if all(sizes) and prod(sizes) <= self.MAX_ACTIONS else None

    @property
    def n_states(self) -> int:
        """How many categories of variables there are."""
        return self.slots.n_slots * self.slots.width

    @property
    def n(self) -> int:
        """How many numbers there are."""
        assert self.actions is not None
        return self.n_states + self.actions.n

    def every_category(self, like: th.Tensor) -> th.Tensor:
        """The slots of each variable by its category, ``[V, width, width]``."""
        return th.eye(self.slots.width).to(like).expand(self.slots.n_slots, -1, -1)

    def every_action(self, like: th.Tensor) -> th.Tensor:
        """The encoded actions, by their numbers, ``[n_actions, A]``."""
        assert self.actions is not None
        return self.actions.encode(self.actions.numbered(th.arange(self.actions.n)), like.dtype)

    def numbers(self, slots: th.Tensor, action: th.Tensor) -> th.Tensor | None:
        """
        :param slots: of the variables, ``[V, R, width]``
        :param action: ``[R, A]``
        :return: what stands in the slots, the action's first, ``[1 + V, R]``, int64; None where it has no numbers: something
            is not one-hot, or tables may not be used
        """
        if self.actions is None:
            return None
        category = self.slots.categories(slots)
        if category is None:
            return None
        chosen = [categories(action[:, columns]) for columns in self.action_slices]
        if not all(each.is_exact.all() for each in chosen):
            return None
        number = self.actions.number(th.stack([each.category for each in chosen], dim=-1))
        own = category + th.arange(len(slots)).unsqueeze(-1) * self.slots.width
        return th.cat([number.unsqueeze(0) + self.n_states, own])

    def combinations(self, numbers: th.Tensor, slot: th.Tensor) -> th.Tensor:
        """
        Numbers a variable, its category, and what stands in the slot that it looks at.

        :param numbers: see ``numbers``, ``[1 + V, R]``
        :param slot: that each variable looks at, ``[V, R]``, int64
        :return: below ``n_states * n``, ``[V, R]``, int64
        """
        return numbers[1:] * self.n + numbers.gather(0, slot)

    def distinct(self, slots: th.Tensor, action: th.Tensor, slot: th.Tensor) -> Distinct:
        """
        :param slots: of the variables, ``[V, R, width]``
        :param action: ``[R, A]``
        :param slot: that each variable looks at, ``[V, R]``, int64
        :return: pairs that differ in variable, category or what is looked at; all of them where nothing has numbers
        """
        numbers = self.numbers(slots, action)
        pairs = th.arange(slot.numel(), device=slot.device)
        if numbers is None:
            return Distinct(pairs, pairs)
        kind = self.combinations(numbers, slot).flatten().unique(return_inverse=True)[1]
        return Distinct(pairs.new_empty(int(kind.max()) + 1).scatter_(0, kind, pairs), kind)

    def bind(self, choices: Callable[[], Choices], rule: RuleFn) -> "BoundContents":
        """
        For planning, as long as the weights stay as they are.

        :param choices: of the network; asked for once, when something is looked up
        :param rule: the network behind the choices
        """
        return BoundContents(self, choices, rule)


class BoundContents:
    """
    The outputs of a network on numbered contents, for one version of the weights; see ``Contents.bind``.

    :param contents: numbers them
    :param choices: of the network
    :param rule: the network behind the choices
    """

    def __init__(self, contents: Contents, choices: Callable[[], Choices], rule: RuleFn) -> None:
        self.contents = contents
        self.rule = rule
        self.outputs = Memo()
        self._choices = choices

    @cached_property
    def choices(self) -> Choices:
        return self._choices()

    def __call__(self, slots: th.Tensor, action: th.Tensor) -> th.Tensor | None:
        """
        :param slots: of the variables, ``[V, R, width]``
        :param action: ``[R, A]``
        :return: ``[V, R, O]``; None where something has no number, or a gradient is wanted
        """
        numbers = None if th.is_grad_enabled() else self.contents.numbers(slots, action)
        if numbers is None:
            return None
        slot = self.choices.scores[numbers[1:].unsqueeze(1), numbers].argmax(1)
        combination = self.contents.combinations(numbers, slot)
        rows = self.outputs.rows(combination, self.contents.n**2, self._compute)
        return self.outputs.answers[rows]

    def _compute(self, combination: th.Tensor) -> th.Tensor:
        own, content = combination // self.contents.n, combination % self.contents.n
        inputs = th.cat([self.choices.features[own], self.choices.features[content]], dim=-1)
        return self.rule(inputs, own // self.contents.slots.width, self.choices.rule[own])
