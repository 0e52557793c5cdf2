import numpy as np
import pytest

from fcdl_envs.variables import Variable

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
