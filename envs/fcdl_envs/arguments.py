"""
What the arguments of environments and constructors may be, stated in one way::

    check(n_candidates=(n_candidates, integer(1)), discount=(discount, number(above=0, at_most=1)))

A wrong type is a ``TypeError``, a wrong value a ``ValueError``; both name the argument, its value and what is allowed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, Protocol

import numpy as np

# What a tensor can hold.
LARGEST_INTEGER = 2**63 - 1
# Whose square float32 still holds.
LARGEST_NUMBER = 1e18
# NumPy's and PyTorch's generators take no other seeds.
SEED_LIMIT = 2**32 - 1


class Rule(Protocol):
    """What an argument may be; as text, what to write after "must be"."""

    def takes_type_of(self, value: Any) -> bool: ...
    def takes(self, value: Any) -> bool: ...


@dataclass(frozen=True)
class Number:
    """
    A number of a range. It is never NaN; True and False are no numbers, text is none, and an integer is not written 3.0.

    :param is_integer: whether it must be an integer, of Python or NumPy
    :param at_least: smallest value
    :param above: what it must be above
    :param at_most: largest value
    :param below: what it must be below
    :param or_infinite: whether it may be infinite
    :param most_is: what the largest value is, if it depends on other arguments
    """

    is_integer: bool
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    or_infinite: bool = False
    most_is: str = ""

    def takes_type_of(self, value: Any) -> bool:
        return isinstance(value, Integral if self.is_integer else Real) and not isinstance(value, bool | np.bool_)

    def takes(self, value: Any) -> bool:
        return (
            value == value
            and (self.or_infinite or abs(value) != float("inf"))
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        kind = "an integer" if self.is_integer else "a number" if self.or_infinite else "a finite number"
        most = f"{self.most_is} = {self.at_most}" if self.most_is else self.at_most
        bounds = {"at least": self.at_least, "above": self.above, "at most": most, "below": self.below}
        words = [f"{word} {bound}" for word, bound in bounds.items() if bound is not None]
        text = f"{kind}, {' and '.join(words)}" if words else kind
        return text.replace(f"at most {LARGEST_INTEGER}", "below 2**63")


@dataclass(frozen=True)
class Flag:
    """True or False, of Python or NumPy; 0 and 1 are not."""

    def takes_type_of(self, value: Any) -> bool:
        return isinstance(value, bool | np.bool_)

    def takes(self, value: Any) -> bool:
        return True

    def __str__(self) -> str:
        return "True or False"


@dataclass(frozen=True)
class Choice:
    """One of some names."""

    names: tuple[str, ...]

    def takes_type_of(self, value: Any) -> bool:
        return isinstance(value, str)

    def takes(self, value: Any) -> bool:
        return value in self.names

    def __str__(self) -> str:
        return f"one of {', '.join(self.names)}"


@dataclass(frozen=True)
class Function:
    """Anything that can be called."""

    def takes_type_of(self, value: Any) -> bool:
        return callable(value)

    def takes(self, value: Any) -> bool:
        return True

    def __str__(self) -> str:
        return "a function"


@dataclass(frozen=True)
class Keywords:
    """A dictionary of keyword arguments."""

    def takes_type_of(self, value: Any) -> bool:
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)

    def takes(self, value: Any) -> bool:
        return True

    def __str__(self) -> str:
        return 'a dictionary of keyword arguments, such as {"hidden_dim": 64} (in YAML a mapping, not text in quotes)'


@dataclass(frozen=True)
class Instance:
    """An object of a class."""

    of: type

    def takes_type_of(self, value: Any) -> bool:
        return isinstance(value, self.of)

    def takes(self, value: Any) -> bool:
        return True

    def __str__(self) -> str:
        return f"a {self.of.__name__}"


@dataclass(frozen=True)
class Subclass:
    """A class of one's own."""

    of: type

    def takes_type_of(self, value: Any) -> bool:
        return isinstance(value, type)

    def takes(self, value: Any) -> bool:
        return issubclass(value, self.of)

    def __str__(self) -> str:
        return f"a subclass of {self.of.__name__}"


@dataclass(frozen=True)
class Several:
    """
    A list, a tuple or an array of as many values, each of which keeps to the rule.

    :param rule: of each
    :param length: how many
    :param is_rising: whether none may be smaller than the one before it
    """

    rule: Rule
    length: int
    is_rising: bool = False

    def takes_type_of(self, value: Any) -> bool:
        is_list = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
        return is_list and np.ndim(value) == 1 and all(map(self.rule.takes_type_of, value))

    def takes(self, value: Any) -> bool:
        is_sorted = not self.is_rising or all(one <= other for one, other in pairwise(value))
        return len(value) == self.length and all(map(self.rule.takes, value)) and is_sorted

    def __str__(self) -> str:
        return f"{self.length} values{', none smaller than the last' if self.is_rising else ''}, each {self.rule}"


@dataclass(frozen=True)
class OrNone:
    """None, or what keeps to the rule."""

    rule: Rule

    def takes_type_of(self, value: Any) -> bool:
        return value is None or self.rule.takes_type_of(value)

    def takes(self, value: Any) -> bool:
        return value is None or self.rule.takes(value)

    def __str__(self) -> str:
        return f"{self.rule}, or None"


@dataclass(frozen=True, init=False)
class Either:
    """What keeps to one of several rules."""

    rules: tuple[Rule, ...]

    def __init__(self, *rules: Rule) -> None:
        object.__setattr__(self, "rules", rules)

    def takes_type_of(self, value: Any) -> bool:
        return any(rule.takes_type_of(value) for rule in self.rules)

    def takes(self, value: Any) -> bool:
        return any(rule.takes_type_of(value) and rule.takes(value) for rule in self.rules)

    def __str__(self) -> str:
        return ", or ".join(map(str, self.rules))


def integer(at_least: int | None = None, at_most: int = LARGEST_INTEGER, most_is: str = "") -> Number:
    """An integer of this range, both ends included; see :class:`Number`."""
    return Number(True, at_least, at_most=at_most, most_is=most_is)


def number(
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    or_infinite: bool = False,
) -> Number:
    """A number of this range; a finite one, and none that is too large to reckon with, unless ``or_infinite``."""
    if not or_infinite:
        at_least = -LARGEST_NUMBER if at_least is None and above is None else at_least
        at_most = LARGEST_NUMBER if at_most is None and below is None else at_most
    return Number(False, at_least, above, at_most, below, or_infinite)


def seed() -> OrNone:
    """The seed of all generators, or None."""
    return OrNone(integer(0, SEED_LIMIT))


def one_of(*names: str) -> Choice:
    """One of these names."""
    return Choice(names)


def check(**arguments: tuple[Any, Rule]) -> None:
    """
    :param arguments: by name, the value that was given and what it may be
    :raises TypeError: naming the first argument of a wrong type
    :raises ValueError: naming the first argument of a wrong value
    """
    for name, (value, rule) in arguments.items():
        is_of_type = rule.takes_type_of(value)
        if not (is_of_type and rule.takes(value)):
            refuse(name, value, str(rule), ValueError if is_of_type else TypeError)


def refuse(name: str, value: Any, allowed: str, error: type[Exception] = ValueError) -> None:
    """
    For what no rule states.

    :raises ValueError: or another error, naming the argument, its value and what is allowed
    """
    raise error(f"{name}={value!r} is not allowed; {name} must be {allowed}")
