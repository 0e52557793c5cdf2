"""How sure the edges of a graph are."""

from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class EdgeEvidence:
    """
    What recorded transitions say of each entry of a graph: those that the model holds out or, of ``grader``, all, as its tests
    fit nothing.

    :param gain: mean gain of the edge, ``[V, P]``: by how many nats a transition the log-likelihood of the child is higher
        with the edge than without; finite. Of ``ncd`` higher than with the parent of another transition, of ``grader`` the
        information by its independence test
    :param standard_error: of the gain, ``[V, P]``, not negative; infinite where nothing was seen. Of ``grader`` that of a
        gain of zero
    :param q_values: p-values adjusted for false discovery, ``[V, P]``, in [0, 1]: of the entries of at most ``alpha``, a share
        of at most ``alpha`` is false on average. 1 for an entry that was not tested
    :param is_tested: whether the entry was tested, ``[V, P]``, bool. What was given, or could not be seen, was not
    :param n: transitions that were looked at, of the graph's context
    :raises ValueError: if the arrays are not tables of one shape, a number is out of its range or NaN, ``is_tested`` is not
        bool, or ``n`` is no whole number
    """

    gain: np.ndarray
    standard_error: np.ndarray
    q_values: np.ndarray
    is_tested: np.ndarray
    n: int

    def __post_init__(self) -> None:
        for name in ("gain", "standard_error", "q_values"):
            object.__setattr__(self, name, _table(name, getattr(self, name), "biuf", "numbers").astype(float))
        object.__setattr__(self, "is_tested", _table("is_tested", self.is_tested, "b", "bool"))
        if not np.isfinite(self.gain).all():
            raise ValueError(f"gain must be finite, got {self.gain[~np.isfinite(self.gain)][0]}")
        for name, high in (("standard_error", np.inf), ("q_values", 1)):
            values = getattr(self, name)
            wrong = values[~((values >= 0) & (values <= high))]  # NaN is in no range
            if wrong.size:
                raise ValueError(f"{name} must be in [0, {high}], got {wrong[0]}")
        for name in ("standard_error", "q_values", "is_tested"):
            if getattr(self, name).shape != self.gain.shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, the gain has {self.gain.shape}")
        if not isinstance(self.n, Integral) or isinstance(self.n, bool) or self.n < 0:
            raise ValueError(f"n must be a whole number of at least 0, got {self.n!r}")

    def named(self, name: str, child: int, parent: int) -> str:
        """
        :param name: of the parent
        :param child: row of the entry
        :param parent: its column
        :return: the name and, if the entry was tested, its gain
        """
        return f"{name} ({self.gain[child, parent]:.2g})" if self.is_tested[child, parent] else name

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON; null stands for an infinite standard error."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        lists = {name: value.tolist() if isinstance(value, np.ndarray) else int(value) for name, value in values.items()}
        errors = [[None if np.isinf(each) else float(each) for each in row] for row in self.standard_error]
        return {**lists, "standard_error": errors}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EdgeEvidence":
        """The inverse of ``as_dict``."""
        errors = [[np.inf if each is None else each for each in row] for row in values["standard_error"]]
        return cls(**{**values, "standard_error": np.array(errors, dtype=float)})


def _table(name: str, values: Any, kinds: str, what: str) -> np.ndarray:
    try:
        table = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} must be {what} [child, parent], got {values!r}") from error
    if table.ndim != 2 or table.dtype.kind not in kinds:
        raise ValueError(f"{name} must be {what} [child, parent], got {values!r}")
    return table
