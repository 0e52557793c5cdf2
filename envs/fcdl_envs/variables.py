"""How an environment names the variables in its observations and actions, and which columns they take."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise


@dataclass(frozen=True)
class Variable:
    """
    One factor of a state or an action.

    :param name: what graphs and logs call it, unique within its environment
    :param n_categories: number of values of a categorical variable, one-hot in the observation; 0 for a continuous number
    :param category_names: what explanations and rules call its categories, unique; none: by number, from 0 on
    :raises ValueError: if there are names, but not one for each category
    """

    name: str
    n_categories: int = 0
    category_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = self.category_names
        if names and not len(set(names)) == len(names) == self.n_categories:
            raise ValueError(f"{self.name} has {self.n_categories} categories, got the names {names}")

    @property
    def is_categorical(self) -> bool:
        return self.n_categories > 0

    @property
    def width(self) -> int:
        """Columns that the variable takes in the flat encoded state."""
        return max(self.n_categories, 1)

    def in_words(self, value: float, digits: int = 4) -> str:
        """
        :param value: the number of a category, or a number
        :param digits: that are shown of a continuous number
        """
        if not self.is_categorical:
            return f"{value:.{digits}g}"
        return self.category_names[int(value)] if self.category_names else f"{value:.0f}"

    def category(self, value: float | str) -> int:
        """
        The inverse of ``in_words``.

        :param value: what a category is called
        :return: its number
        :raises ValueError: if none is called so
        """
        names = self.category_names or tuple(map(str, range(self.n_categories)))
        called = value if isinstance(value, str) else f"{value:.15g}"
        if called not in names:
            allowed = ", ".join(self.category_names) or f"0 to {self.n_categories - 1}"
            raise ValueError(f"{self.name} has the categories {allowed}, got {value!r}")
        return names.index(called)


@dataclass(frozen=True)
class Factors:
    """
    What the columns of a flat observation and of an action mean. Environments publish it as their attribute
    ``factorization``.

    :param state: the variables that the dynamics act on, in column order: of a ``Box`` observation as a tuple, of a flat
        ``Dict`` by observation key
    :param action: the variables of the action
    :param goal: observation keys that describe the task; the dynamics do not touch them
    """

    state: tuple[Variable, ...] | dict[str, tuple[Variable, ...]]
    action: tuple[Variable, ...]
    goal: tuple[str, ...] = ()

    @property
    def state_variables(self) -> tuple[Variable, ...]:
        """The rows of every graph."""
        if isinstance(self.state, tuple):
            return self.state
        return tuple(variable for variables in self.state.values() for variable in variables)

    @property
    def parents(self) -> tuple[Variable, ...]:
        """The columns of every graph, ``P`` of them: state variables, then action variables."""
        return self.state_variables + self.action

    @property
    def state_slices(self) -> tuple[slice, ...]:
        """Columns of each state variable in the flat state, ``V`` of them."""
        return self.parent_slices[: len(self.state_variables)]

    @property
    def parent_slices(self) -> tuple[slice, ...]:
        """Columns of each parent in the flat state followed by the flat action, ``P`` of them."""
        return consecutive_slices(variable.width for variable in self.parents)

    @property
    def action_slices(self) -> tuple[slice, ...]:
        """Columns of each action variable in the flat action."""
        return consecutive_slices(variable.width for variable in self.action)

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(variable.name for variable in self.state_variables)

    @property
    def parent_names(self) -> tuple[str, ...]:
        return tuple(variable.name for variable in self.parents)

    @property
    def state_width(self) -> int:
        """Columns of the flat state, ``D``."""
        return sum(variable.width for variable in self.state_variables)

    @property
    def action_width(self) -> int:
        """Columns of the flat action, ``A``."""
        return sum(variable.width for variable in self.action)

    def index_of(self, name: str) -> int:
        """
        :param name: of a variable
        :return: its index among the parents: its column in every graph
        :raises ValueError: if no variable is called so
        """
        return _index_of(name, self.parent_names, "variable")

    def state_index_of(self, name: str) -> int:
        """
        :param name: of a state variable
        :return: its index among the state variables: its row in every graph, and its column
        :raises ValueError: if no state variable is called so
        """
        return _index_of(name, self.state_names, "state variable")


def consecutive_slices(widths: Iterable[int]) -> tuple[slice, ...]:
    """
    :param widths: of parts that stand side by side, from column 0 on
    :return: the columns of each part
    """
    ends = list(accumulate(widths, initial=0))
    return tuple(slice(start, end) for start, end in pairwise(ends))


def _index_of(name: str, names: tuple[str, ...], kind: str) -> int:
    if name not in names:
        raise ValueError(f"unknown {kind} {name!r}, there are {', '.join(names)}")
    return names.index(name)
