from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from fcdl_envs.arguments import Flag, OrNone, Several, check, integer, number, one_of

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        (integer(2), [2, 10**18, np.int64(2), np.uint8(200)]),
        (integer(-3, 4), [-3, 0, 4, np.int8(-3)]),
        (integer(), [-(10**9), 0]),
        (number(above=0, at_most=1), [1, 1e-300, np.float32(0.5), Fraction(1, 3), True + 0.0]),
        (number(at_least=0, below=1), [0, 0.0, -0.0, 0.999, np.float64(0)]),
        (number(above=0, or_infinite=True), [INF, 3]),
        (Flag(), [True, False, np.True_]),
        (one_of("train", "test"), ["train", np.str_("test")]),
        (OrNone(integer(1)), [None, 1]),
        (Several(number(at_least=0), 2, is_rising=True), [(0, 1), [2.0, 2.0], np.array([0.0, 3.0])]),
    ],
)
def test_allowed_values_pass(rule, values):
    for value in values:
        check(argument=(value, rule))


@pytest.mark.parametrize(
    ("rule", "values", "allowed"),
    [
        (integer(2), [1, -1, 2**63, 10**400], "an integer, at least 2 and below 2**63"),
        (integer(0, 6, "n - 4"), [-1, 7], "an integer, at least 0 and at most n - 4 = 6"),
        (number(above=0, at_most=1), [0, -1, 1.0001, NAN, INF, -INF, 10**400], "a finite number, above 0 and at most 1"),
        (number(at_least=0, below=1), [1, 1.0, -1e-300, np.float32(NAN)], "a finite number, at least 0 and below 1"),
        (number(), [NAN, INF], "a finite number"),
        (number(above=0, or_infinite=True), [NAN, -INF, 0], "a number, above 0"),
        (one_of("train", "test"), ["exam", ""], "one of train, test"),
        (OrNone(integer(1)), [0], "an integer, at least 1 and below 2**63, or None"),
        (
            Several(number(), 2, is_rising=True),
            [(1, 0), (1,), (0, 1, 2), (0, NAN), ()],
            "2 values, none smaller",
        ),
    ],
)
def test_wrong_values_are_named(rule, values, allowed):
    for value in values:
        with pytest.raises(ValueError) as error:
            check(other=(1, integer(1)), argument=(value, rule))
        assert str(error.value).startswith(f"argument={value!r} is not allowed; argument must be {allowed}")


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        (integer(1), [3.0, np.float64(3), NAN, INF, True, np.True_, "3", None, [3], np.array(3), 3j, Decimal(3)]),
        (number(above=0), [True, "1", None, (1.0,), np.array(1.0), 1j, Decimal(1)]),
        (Flag(), [0, 1, 1.0, "yes", None, NAN]),
        (one_of("train"), [None, 1, ["train"], True]),
        (OrNone(number()), ["None", False]),
        (Several(number(), 2), ["ab", 1, None, ("a", "b"), (True, False), {1, 2}, np.zeros((2, 2))]),
    ],
)
def test_wrong_types_are_named(rule, values):
    for value in values:
        with pytest.raises(TypeError) as error:
            check(argument=(value, rule))
        assert str(error.value) == f"argument={value!r} is not allowed; argument must be {rule}"
