"""Parents that are computed together."""

from typing import NamedTuple

import torch as th

from fcdl_envs.variables import Factors


class ParentRun(NamedTuple):
    """Neighbouring parents of equal kind and width, which are computed together."""

    first_parent: int
    n_parents: int
    first_column: int
    width: int
    is_categorical: bool

    @property
    def parents(self) -> slice:
        return slice(self.first_parent, self.first_parent + self.n_parents)

    @property
    def columns(self) -> slice:
        return slice(self.first_column, self.first_column + self.n_parents * self.width)

    def has(self, parent: int) -> bool:
        """Whether the parent with this index belongs to the run."""
        return self.first_parent <= parent < self.first_parent + self.n_parents

    def first_rows(self, device: th.device) -> th.Tensor:
        """The table row of each parent's first category, ``[n_parents]``."""
        return th.arange(self.n_parents, device=device) * self.width + self.first_column

    def of(self, inputs: th.Tensor) -> th.Tensor:
        """``[..., D + A]`` to ``[..., n_parents, width]``."""
        return inputs[..., self.columns].unflatten(-1, (self.n_parents, self.width))


def parent_runs(factors: Factors) -> tuple[ParentRun, ...]:
    """
    :param factors: the variables
    :return: as few runs as possible, in the order of the parents
    """
    runs: list[ParentRun] = []
    for index, (parent, columns) in enumerate(zip(factors.parents, factors.parent_slices, strict=True)):
        kind = (parent.width, parent.is_categorical)
        if runs and (runs[-1].width, runs[-1].is_categorical) == kind:
            runs[-1] = runs[-1]._replace(n_parents=runs[-1].n_parents + 1)
        else:
            runs.append(ParentRun(index, 1, columns.start, *kind))
    return tuple(runs)
