"""The first layer of a masked network: a feature of each parent, shared by all children."""

from typing import NamedTuple

import torch as th
from torch import nn

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.lookup import rule
from sb3_fcdl.dynamics.lookup.categories import categories
from sb3_fcdl.dynamics.lookup.runs import ParentRun, parent_runs


class ParentInputs(NamedTuple):
    """
    A batch of states and actions, read for the layers that are bound to the same features.

    :param columns: encoded state and action, ``[R, D + A]``
    :param rows: the table row of each parent's category, ``[R, P]``, int64; meaningless where ``dense``. Where continuous
        parents are looked up, ``[R, P + n]``: the rows of their lines' offsets in their own places, of the slopes behind all
    :param dense: parents that no table can serve, in order: continuous ones that are not looked up, those that are not
        exactly one-hot in every row of the batch, and those whose gradient no table has
    :param categories: of the parents, ``[R, P]``, int64; meaningless of a number, and where ``dense``
    :param scales: what the table rows are multiplied by, ``[R, P + n]``; None where continuous parents are not looked up
    """

    columns: th.Tensor
    rows: th.Tensor
    dense: tuple[int, ...]
    categories: th.Tensor
    scales: th.Tensor | None = None


class Lines(NamedTuple):
    """
    The features of each of ``n`` continuous parents as functions of its value: lines between knots. ``F`` is their width.

    :param knots: where a feature starts or ends, ascending, ``[n, F]``
    :param offsets: of the line of each feature on each piece between knots, ``[n, F + 1, F]``
    :param slopes: likewise
    """

    knots: th.Tensor
    offsets: th.Tensor
    slopes: th.Tensor


def width_of_numbers(factors: Factors, hidden_dim: int) -> int:
    """
    How wide the features of continuous parents may be where each child has weights of its own for each of them: as wide as all
    features in systems of up to a dozen variables. In larger ones the weights, and the time of an update, would grow with the
    square of the number of variables, so there the width falls with it.

    :param factors: the variables
    :param hidden_dim: width of all other features
    """
    n_pairs = len(factors.state_variables) * len(factors.parents)
    return max(min(hidden_dim, 8), min(hidden_dim, hidden_dim * 160 // n_pairs))


class ParentFeatures(nn.Module):
    """
    ``h_i = relu(x_i W_i + b_i)`` for each parent ``i``: one feature a parent, shared by all children.

    A categorical parent has as many distinct features as categories: a table of the features has a row for each column of
    state and action. A feature of a continuous parent is a rectified line of one number, so any sum of features is a line
    between each two of their knots: another table, for planning. In training there are too few rows for a version of the
    weights for it.

    :param factors: the variables
    :param hidden_dim: width of a feature, ``F``
    :param number_width: width of the feature of a continuous parent, which has only so many entries; None: ``F``
    """

    parent_of_column: th.Tensor
    first_row: th.Tensor
    first_line: th.Tensor
    line_parents: th.Tensor
    line_columns: th.Tensor

    # Most categories of a parent whose gradient comes from tables: these are quadratic in the categories. About as fast as
    # the products with 16, five times slower with 64 (benchmarks/results/README.md, "What the
    # code says of its constants").
    WIDEST_TANGENT = 16

    def __init__(self, factors: Factors, hidden_dim: int, number_width: int | None = None) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.number_width = hidden_dim if number_width is None else number_width
        columns, n_columns = factors.parent_slices, factors.state_width + factors.action_width
        self.n_state_parents = len(factors.state_variables)
        self.runs = parent_runs(factors)
        self.continuous = [index for index, parent in enumerate(factors.parents) if not parent.is_categorical]
        # One category of a parent is active at a time, so He's fan-in is 1 whatever the number of categories.
        self.weight = nn.Parameter(th.empty(n_columns, hidden_dim).uniform_(-(6**0.5), 6**0.5))
        self.bias = nn.Parameter(th.zeros(len(columns), hidden_dim))
        widths = th.tensor([variable.width for variable in factors.parents])
        # A table has a row a column; behind them may come number_width + 1 offsets and as many slopes a continuous parent.
        first_line = n_columns + 2 * (self.number_width + 1) * th.arange(len(self.continuous))
        self._register("parent_of_column", th.arange(len(columns)).repeat_interleave(widths))
        self._register("first_row", th.tensor([each.start for each in columns]))
        self._register("first_line", first_line)
        self._register("line_parents", th.tensor(self.continuous, dtype=th.int64))
        self._register("line_columns", th.tensor([columns[index].start for index in self.continuous], dtype=th.int64))

    @property
    def n_parents(self) -> int:
        return self.bias.shape[0]

    def bind(self, with_state_gradient: bool) -> "BoundFeatures":
        """
        For as long as the weights stay as they are.

        :param with_state_gradient: whether a gradient by the states will be asked for
        """
        return BoundFeatures(self, with_state_gradient, with_lines=not with_state_gradient and not th.is_grad_enabled())

    def width(self, run: ParentRun) -> int:
        """Of the features of a run."""
        return self.hidden_dim if run.is_categorical else self.number_width

    def may_be_sampled(self, run: ParentRun) -> bool:
        """Whether the inputs of a run may be one-hot samples of the model, which carry a gradient."""
        return run.is_categorical and run.first_parent < self.n_state_parents

    def has_tangents(self, run: ParentRun) -> bool:
        """Whether tables give that gradient. Where there are many categories they cost more than the products do."""
        return self.may_be_sampled(run) and run.width <= self.WIDEST_TANGENT

    def table(self) -> th.Tensor:
        """The feature of every category of every parent, ``[D + A, F]``."""
        return (self.weight + self.bias[self.parent_of_column]).relu()

    def lines(self) -> Lines:
        """Of the continuous parents, in order."""
        slope, offset = (
            each[:, : self.number_width] for each in (self.weight[self.line_columns], self.bias[self.line_parents])
        )
        knots, order = (-offset / slope).where(slope != 0, th.inf).sort(dim=-1)
        # Piece k lies above knot k - 1 and not above knot k.
        is_above = th.arange(knots.shape[1] + 1, device=knots.device).unsqueeze(-1) > order.argsort(dim=-1).unsqueeze(1)
        is_active = th.where((slope > 0).unsqueeze(1), is_above, ~is_above & ((slope < 0) | (offset > 0)).unsqueeze(1))
        return Lines(knots, is_active * offset.unsqueeze(1), is_active * slope.unsqueeze(1))

    def of_run(self, run: ParentRun, chosen: slice | list[int], entries: th.Tensor) -> th.Tensor:
        """
        :param run: neighbouring parents
        :param chosen: ``n`` of them, counted from the first
        :param entries: whatever numbers stand in their columns, ``[n, R, width]``
        :return: their features, ``[n, R, F]``
        """
        weight = self.weight[run.columns, : self.width(run)].unflatten(0, (run.n_parents, run.width))[chosen]
        return th.baddbmm(self.bias[run.parents, : self.width(run)][chosen].unsqueeze(1), entries, weight).relu()

    def _register(self, name: str, index: th.Tensor) -> None:
        self.register_buffer(name, index, persistent=False)


class BoundFeatures:
    """
    ``ParentFeatures`` for one version of the weights. Reads batches for the layers that are bound to it.

    :param features: the layer
    :param with_state_gradient: whether a gradient by the states will be asked for
    :param with_lines: whether continuous parents may be looked up
    """

    def __init__(self, features: ParentFeatures, with_state_gradient: bool, with_lines: bool) -> None:
        self.features = features
        self.with_state_gradient = with_state_gradient
        self.uses_tables = rule.uses_tables(features.weight.device)
        has_lines = with_lines and self.uses_tables and bool(features.continuous)
        self.lines = features.lines() if has_lines else None

    def read(self, state: th.Tensor, action: th.Tensor) -> ParentInputs:
        """
        :param state: ``[R, D]``
        :param action: ``[R, A]``
        """
        columns = th.cat([state, action], dim=-1)
        values = columns.detach()
        rows, dense = [], []
        for run in self.features.runs:
            entries, is_looked_up = run.of(values), [False] * run.n_parents
            if run.is_categorical:
                category, is_exact = categories(entries)
                if self._serves(run, state.requires_grad):
                    is_looked_up = is_exact.all(0).tolist()
            else:
                category = th.zeros_like(entries[..., 0], dtype=th.int64)
            rows.append(category)
            dense += [run.first_parent + index for index, has_table in enumerate(is_looked_up) if not has_table]
        category_of = th.cat(rows, dim=-1)
        inputs = ParentInputs(columns, category_of + self.features.first_row, tuple(dense), category_of)
        return inputs if self.lines is None else self._on_lines(inputs, self.lines.knots)

    def _serves(self, run: ParentRun, state_has_gradient: bool) -> bool:
        """Whether tables serve a run of one-hot parents, with the gradient that is asked for."""
        has_gradient = state_has_gradient and self.features.may_be_sampled(run)
        return self.uses_tables and (self.features.has_tangents(run) or not has_gradient)

    def _on_lines(self, inputs: ParentInputs, knots: th.Tensor) -> ParentInputs:
        """The same with the continuous parents looked up; ``knots [n, F]``."""
        features = self.features
        values = inputs.columns.index_select(-1, features.line_columns)
        offsets = features.first_line + th.searchsorted(knots, values.T.contiguous()).T
        rows = inputs.rows.index_copy(-1, features.line_parents, offsets)
        return inputs._replace(
            rows=th.cat([rows, offsets + knots.shape[1] + 1], dim=-1),
            dense=tuple(parent for parent in inputs.dense if parent not in features.continuous),
            scales=th.cat([th.ones_like(rows, dtype=values.dtype), values], dim=-1),
        )
