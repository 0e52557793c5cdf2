import numpy as np
import pytest

from fcdl_envs.variables import Factors, Variable, consecutive_slices

LAMP = Variable("lamp", 3, ("off", "dim", "on"))


@pytest.mark.parametrize("variable", [LAMP, Variable("dial", 3)])
def test_a_category_is_found_by_what_it_is_called(variable):
    assert [variable.category(variable.in_words(number)) for number in range(3)] == [0, 1, 2]


def test_values_in_words():
    assert [LAMP.in_words(value) for value in (0, 1.0, np.float32(2))] == ["off", "dim", "on"]
    assert [Variable("x").in_words(value) for value in (3, 0.123456, -1e6)] == ["3", "0.1235", "-1e+06"]
    assert Variable("x").in_words(0.123456, digits=2) == "0.12"
    assert Variable("dial", 500).in_words(123.0) == "123"


@pytest.mark.parametrize("value", [2, 2.0, np.int64(2), np.float32(2), "2"])
def test_categories_without_names_go_by_their_numbers(value):
    assert Variable("dial", 3).category(value) == 2


@pytest.mark.parametrize("value", [3, -1, 0.5, float("nan"), "off"])
def test_unknown_categories_are_refused(value):
    with pytest.raises(ValueError, match="dial has the categories 0 to 2, got"):
        Variable("dial", 3).category(value)
    with pytest.raises(ValueError, match="lamp has the categories off, dim, on, got 1"):
        LAMP.category(1)


@pytest.mark.parametrize(
    ("n_categories", "names"), [(3, ("off", "on")), (2, ("on", "on")), (2, ("on", "off", "on")), (0, ("on",))]
)
def test_there_is_one_name_for_each_category(n_categories, names):
    with pytest.raises(ValueError, match=f"lamp has {n_categories} categories, got the names"):
        Variable("lamp", n_categories, names)


ROOM = Factors(
    state={"seen": (LAMP, Variable("x")), "felt": (Variable("heat"),)}, action=(Variable("switch", 2), Variable("dial", 4))
)


def test_columns_follow_each_other_in_the_order_of_the_variables():
    assert ROOM.state_slices == (slice(0, 3), slice(3, 4), slice(4, 5))
    assert ROOM.parent_slices == (*ROOM.state_slices, slice(5, 7), slice(7, 11))
    assert ROOM.action_slices == (slice(0, 2), slice(2, 6))
    assert ROOM.parent_slices[-1].stop == ROOM.state_width + ROOM.action_width
    assert consecutive_slices([]) == ()


def test_a_variable_has_the_index_of_its_column_in_a_graph():
    assert [ROOM.index_of(name) for name in ROOM.parent_names] == [0, 1, 2, 3, 4]
    assert [ROOM.state_index_of(name) for name in ROOM.state_names] == [0, 1, 2]


def test_an_unknown_variable_is_named_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"unknown variable 'lamps', there are lamp, x, heat, switch, dial$"):
        ROOM.index_of("lamps")
    with pytest.raises(ValueError, match=r"unknown state variable 'dial', there are lamp, x, heat$"):
        ROOM.state_index_of("dial")
