"""
The first layers of a masked network: features of each parent, and what each child makes of them.

A categorical parent has only as many distinct features as it has categories, so a linear layer on them is a table: each
row is computed once for a version of the weights and then looked up. ``ParentLinear`` does this for every parent whose
input is exactly one-hot; the others add rows of their own to the table, in the same call. The features of a continuous parent
are rectified lines of one number, so that any sum of them is a line between each two of their knots: another table, which
planning looks up; training has too few rows a version of the weights for it. Plain matrix products, for devices
where they are cheap, give the same numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

from fcdl_envs.variables import Factors, Variable


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
        """``[R, D + A]`` to ``[R, n_parents, width]``."""
        return inputs[..., self.columns].unflatten(-1, (self.n_parents, self.width))


def parent_runs(parents: Sequence[Variable]) -> tuple[ParentRun, ...]:
    """
    :param parents: the variables, in order
    :return: as few runs as possible
    """
    runs: list[ParentRun] = []
    column = 0
    for index, parent in enumerate(parents):
        kind = (parent.width, parent.is_categorical)
        if runs and (runs[-1].width, runs[-1].is_categorical) == kind:
            runs[-1] = runs[-1]._replace(n_parents=runs[-1].n_parents + 1)
        else:
            runs.append(ParentRun(index, 1, column, *kind))
        column += parent.width
    return tuple(runs)


class ParentInputs(NamedTuple):
    """
    A batch of states and actions, seen as parents.

    :param columns: encoded state and action, ``[R, D + A]``
    :param rows: the table row of each parent's category, ``[R, P]``, int64; meaningless where ``dense``. Where continuous
        ones are looked up, ``[R, P + n]``: the rows of their lines' offsets in their own places, of the slopes behind all
    :param dense: parents that no table can serve, in order: continuous ones that are not looked up, those that are not
        exactly one-hot in every row of the batch, and those whose gradient no table has
    :param scales: what the table rows are multiplied by, ``[R, P + n]``; None where continuous parents are not looked up
    """

    columns: th.Tensor
    rows: th.Tensor
    dense: tuple[int, ...]
    scales: th.Tensor | None = None


class Lines(NamedTuple):
    """
    The features of each of ``n`` continuous parents as functions of its value: lines between knots.

    :param knots: where a feature starts or ends, ascending, ``[n, F]``
    :param offsets: of the line of each feature on each piece between knots, ``[n, F + 1, F]``
    :param slopes: likewise
    """

    knots: th.Tensor
    offsets: th.Tensor
    slopes: th.Tensor


class ParentFeatures(nn.Module):
    """
    ``h_i = relu(x_i W_i + b_i)`` for each parent ``i``: one feature a parent, shared by all children.

    :param factors: the variables
    :param hidden_dim: width of a feature, ``F``
    """

    parent_of_column: th.Tensor
    first_row: th.Tensor
    first_line: th.Tensor
    line_parents: th.Tensor
    line_columns: th.Tensor
    # Tests and the speed benchmark hold the two ways of computing the same thing against each other.
    use_tables = True
    # Most categories of a parent whose inputs' gradient comes from tables, which are quadratic in them: an update of five
    # parents of 16 takes as long with the products (117 and 126 ms), of 64 a fifth (897 and 168 ms).
    WIDEST_TANGENT = 16

    def __init__(self, factors: Factors, hidden_dim: int) -> None:
        super().__init__()
        widths = [variable.width for variable in factors.parents]
        self.n_state_parents = len(factors.state_variables)
        self.runs = parent_runs(factors.parents)
        self.continuous = [index for index, parent in enumerate(factors.parents) if not parent.is_categorical]
        # One category of a parent is active at a time, so He's fan-in is 1 whatever the number of categories.
        self.weight = nn.Parameter(th.empty(sum(widths), hidden_dim).uniform_(-(6**0.5), 6**0.5))
        self.bias = nn.Parameter(th.zeros(len(widths), hidden_dim))
        parent_of_column = th.arange(len(widths)).repeat_interleave(th.tensor(widths))
        self.register_buffer("parent_of_column", parent_of_column, persistent=False)
        # A table has a row a column; behind them may come hidden_dim + 1 offsets and as many slopes a continuous parent.
        for name, index in (
            ("first_row", th.tensor([0, *widths[:-1]]).cumsum(0)),
            ("first_line", sum(widths) + 2 * (hidden_dim + 1) * th.arange(len(self.continuous))),
            ("line_parents", th.tensor(self.continuous, dtype=th.int64)),
            ("line_columns", th.tensor([sum(widths[:index]) for index in self.continuous], dtype=th.int64)),
        ):
            self.register_buffer(name, index, persistent=False)

    @property
    def n_parents(self) -> int:
        return self.bias.shape[0]

    def read(self, state: th.Tensor, action: th.Tensor, knots: th.Tensor | None = None) -> ParentInputs:
        """
        :param state: ``[R, D]``
        :param action: ``[R, A]``
        :param knots: of the tables in which continuous parents are to be looked up; None: they are dense
        """
        columns = th.cat([state, action], dim=-1)
        values, looks_up = columns.detach(), self.looks_up(state.device)
        rows, dense = [], []
        for run in self.runs:
            entries = run.of(values)
            is_exact = [False] * run.n_parents
            if run.is_categorical:
                largest, category = entries.max(-1)
                has_gradient = state.requires_grad and self.may_be_sampled(run)
                if looks_up and (self.has_tangents(run) or not has_gradient):
                    is_exact = ((largest == 1) & (entries.abs().sum(-1) == 1)).all(0).tolist()
            else:
                category = th.zeros_like(entries[..., 0], dtype=th.int64)
            rows.append(category)
            dense += [run.first_parent + index for index, is_table in enumerate(is_exact) if not is_table]
        inputs = ParentInputs(columns, th.cat(rows, dim=-1) + self.first_row, tuple(dense))
        return inputs if knots is None or not looks_up else self._on_lines(inputs, knots)

    def _on_lines(self, inputs: ParentInputs, knots: th.Tensor) -> ParentInputs:
        """The same with the continuous parents looked up; ``knots [n, F]``."""
        values = inputs.columns.index_select(-1, self.line_columns)
        offsets = self.first_line + th.searchsorted(knots, values.T.contiguous()).T
        rows = inputs.rows.index_copy(-1, self.line_parents, offsets)
        return inputs._replace(
            rows=th.cat([rows, offsets + knots.shape[1] + 1], dim=-1),
            dense=tuple(parent for parent in inputs.dense if parent not in self.continuous),
            scales=th.cat([th.ones_like(rows, dtype=values.dtype), values], dim=-1),
        )

    def looks_up(self, device: th.device) -> bool:
        """
        Whether tables are used. Elsewhere than on a CPU matrix products are cheap, and to ask whether inputs are one-hot is to
        wait for the device.
        """
        return self.use_tables and device.type == "cpu"

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
        slope, offset = self.weight[self.line_columns], self.bias[self.line_parents]
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
        weight = self.weight[run.columns].unflatten(0, (run.n_parents, run.width))[chosen]
        return th.baddbmm(self.bias[run.parents][chosen].unsqueeze(1), entries, weight).relu()


class LinearTables(NamedTuple):
    """
    A ``ParentLinear`` for one version of the weights.

    :param outputs: what each category contributes, ``[D + A, J, O]``; with knots then, for each continuous parent, the
        offsets of its ``F + 1`` lines and their slopes
    :param tangents: for each run of parents that has them the derivative of ``outputs`` by the input at each category,
        ``[J, O, n_parents * width * width]``, detached; empty where no gradient by the input is wanted
    :param knots: of the continuous parents, ``[n, F]``; None where a gradient is wanted, or nothing is continuous
    """

    outputs: th.Tensor
    tangents: tuple[th.Tensor, ...]
    knots: th.Tensor | None


class ParentLinear(nn.Module):
    """
    ``z_j = bias_j + sum_i mask[j, i] * (h_i A_ji)``: a linear layer on the concatenated, masked features, for ``J`` children.

    :param features: the features that it reads
    :param n_children: ``J``
    :param output_dim: ``O``
    :param bias: whether to add one; a layer in front of a normalisation needs none
    """

    def __init__(self, features: ParentFeatures, n_children: int, output_dim: int, bias: bool = True) -> None:
        super().__init__()
        hidden_dim = features.bias.shape[1]
        bound = (6 / (features.n_parents * hidden_dim)) ** 0.5
        self.n_children = n_children
        self.output_dim = output_dim
        weight = th.empty(features.n_parents, hidden_dim, n_children * output_dim).uniform_(-bound, bound)
        # One tensor a run: the gradient of a part of a larger one would be as large as the whole.
        self.weights = nn.ParameterList(part.clone() for part in weight.split([run.n_parents for run in features.runs]))
        self.bias = nn.Parameter(th.zeros(n_children, 1, output_dim)) if bias else None

    def tables(self, features: ParentFeatures, with_tangents: bool) -> LinearTables:
        """
        :param features: the features that the layer reads
        :param with_tangents: whether a gradient by the inputs will be asked for
        """
        table = features.table()
        outputs = [
            th.bmm(table[run.columns].unflatten(0, (run.n_parents, run.width)), weight).flatten(0, 1)
            for run, weight in zip(features.runs, self.weights, strict=True)
        ]
        tangents: tuple[th.Tensor, ...] = ()
        knots = None
        if with_tangents:
            with th.no_grad():
                tangents = tuple(
                    self._tangents(features, table, run, weight)
                    for run, weight in zip(features.runs, self.weights, strict=True)
                    if features.has_tangents(run)
                )
        elif features.continuous and not th.is_grad_enabled():
            lines = features.lines()
            knots = lines.knots
            weight = th.cat([part for run, part in zip(features.runs, self.weights, strict=True) if not run.is_categorical])
            outputs.append(th.bmm(th.cat([lines.offsets, lines.slopes], dim=1), weight).flatten(0, 1))
        return LinearTables(th.cat(outputs).unflatten(1, (self.n_children, self.output_dim)), tangents, knots)

    def _tangents(self, features: ParentFeatures, table: th.Tensor, run: ParentRun, weight: th.Tensor) -> th.Tensor:
        shape = (run.n_parents, run.width)
        slopes = features.weight[run.columns].unflatten(0, shape)
        is_active = (table[run.columns] > 0).unflatten(0, shape)
        # Row (i, v, c): how the feature of parent i moves with its input c while its category is v.
        moves = is_active.unsqueeze(2) * slopes.unsqueeze(1)
        outputs = th.bmm(moves.flatten(1, 2), weight)
        return outputs.flatten(0, 1).unflatten(1, (self.n_children, self.output_dim)).permute(1, 2, 0).contiguous()

    def forward(
        self, features: ParentFeatures, tables: LinearTables, inputs: ParentInputs, mask: th.Tensor | None = None
    ) -> th.Tensor:
        """
        :param features: the features that the layer reads
        :param tables: of the present weights
        :param inputs: the batch
        :param mask: weight of each parent for each child, ``[J, R, P]``; all ones if None
        :return: ``[J, R, O]``
        """
        if mask is None:
            mask = inputs.columns.new_ones(self.n_children, len(inputs.columns), features.n_parents)
        compute = self._look_up if features.looks_up(mask.device) else self._multiply_out
        output = compute(features, tables, inputs, mask)
        return output if self.bias is None else output + self.bias

    def _look_up(self, features: ParentFeatures, tables: LinearTables, inputs: ParentInputs, mask: th.Tensor) -> th.Tensor:
        table, rows, weights = tables.outputs, inputs.rows, mask
        if inputs.scales is not None:
            mask_of_rows = th.cat([mask, mask.index_select(-1, features.line_parents)], dim=-1)
            weights = (mask_of_rows * inputs.scales).masked_fill_(mask_of_rows == 0, 0)
        dense = list(inputs.dense)
        if dense:
            own, own_rows = self._own_rows(features, inputs.columns, dense)
            rows = rows.clone()
            rows[:, dense] = len(table) + own_rows
            own = own.unflatten(-1, (self.n_children, self.output_dim))
            table = th.cat([table, _without_masked(own, mask[..., dense].permute(2, 1, 0).flatten(0, 1))])
        n_rows, n_entries = rows.shape
        bags = rows * self.n_children + th.arange(self.n_children, device=rows.device).view(-1, 1, 1)
        output = F.embedding_bag(
            bags.view(-1, n_entries),
            table.detach().view(-1, self.output_dim),
            mode="sum",
            per_sample_weights=weights.reshape(-1, n_entries),
        )
        output = output.view(self.n_children, n_rows, self.output_dim)
        if inputs.scales is not None or not th.is_grad_enabled():
            return output
        # The bags give the gradient by the mask; their own one by the table is eight times slower than this.
        runs = tuple(filter(features.has_tangents, features.runs))
        is_shared = mask.new_ones(features.n_parents)
        is_shared[dense] = 0
        return _TableGradients.apply(
            output, table, inputs.columns, mask.detach(), is_shared, inputs.rows, rows, runs, tables.tangents
        )

    def _own_rows(self, features: ParentFeatures, columns: th.Tensor, dense: Sequence[int]) -> tuple[th.Tensor, th.Tensor]:
        """
        What each dense parent contributes in each row of the batch.

        :param columns: encoded state and action, ``[R, D + A]``
        :param dense: these parents, in order
        :return: ``[n_dense * R, J * O]``, and which of these rows each parent has in each row of the batch, ``[R, n_dense]``
        """
        own = []
        for run, weight in zip(features.runs, self.weights, strict=True):
            chosen = [parent - run.first_parent for parent in dense if run.has(parent)]
            if chosen:
                # A list where there is no choice would copy the weights, and their gradient.
                part = slice(None) if len(chosen) == run.n_parents else chosen
                entries = run.of(columns)[:, part].transpose(0, 1)
                own.append(th.bmm(features.of_run(run, part, entries), weight[part]).flatten(0, 1))
        return th.cat(own), th.arange(len(dense) * len(columns), device=columns.device).view(len(dense), -1).T

    def _multiply_out(
        self, features: ParentFeatures, tables: LinearTables, inputs: ParentInputs, mask: th.Tensor
    ) -> th.Tensor:
        total = mask.new_zeros(self.n_children, len(inputs.columns), self.output_dim)
        for run, weight in zip(features.runs, self.weights, strict=True):
            hidden = features.of_run(run, slice(None), run.of(inputs.columns).transpose(0, 1))
            outputs = th.bmm(hidden, weight).unflatten(-1, (self.n_children, self.output_dim))
            of_run = mask[..., run.parents]
            total = total + th.einsum("prjo,jrp->jro", _without_masked(outputs, of_run.permute(2, 1, 0)), of_run)
        return total


def _without_masked(outputs: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """
    Puts zeros where something is masked, in place: 0 times infinity is not 0. Not in training, where the gradient by the mask
    needs what is masked, and the numbers are finite.

    :param outputs: ``[..., O]``
    :param mask: ``[...]``
    """
    return outputs if th.is_grad_enabled() else outputs.masked_fill_((mask == 0).unsqueeze(-1), 0)


class _TableGradients(th.autograd.Function):
    """
    Passes ``out[j, r] = sum_i mask[j, r, i] * table[rows[r, i], j]`` through, and gives its gradients by the table and by the
    inputs, as the dense layer has them that it stands for.

    A look-up has no derivative by its input, but a straight-through sample carries one: the slope of the feature layer at
    the sampled category. ``tangents`` hold it, so that the gradient is that of the matrix products, not of the table.
    """

    @staticmethod
    def forward(ctx, output, table, columns, mask, is_shared, categories, rows, runs, tangents):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(mask, is_shared, categories, rows, *tangents)
        ctx.runs = runs
        ctx.table_shape, ctx.columns_shape = table.shape, columns.shape
        return output.view_as(output)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        mask, is_shared, categories, rows, *tangents = ctx.saved_tensors
        gradient = gradient.contiguous()
        by_table = by_columns = None
        if ctx.needs_input_grad[1]:
            by_table = _gradient_by_table(ctx.table_shape[0], gradient, mask, rows)
        if ctx.needs_input_grad[2]:
            by_columns = gradient.new_zeros(ctx.columns_shape)
            for run, tangent in zip(ctx.runs, tangents, strict=True):
                by_columns[:, run.columns] = _gradient_by_inputs(run, tangent, gradient, mask * is_shared, categories)
        return gradient, by_table, by_columns, None, None, None, None, None, None


def _gradient_by_table(n_entries: int, gradient: th.Tensor, mask: th.Tensor, rows: th.Tensor) -> th.Tensor:
    """
    For each entry ``e`` of a table the sum of ``mask[j, r, i] * gradient[j, r]`` over all ``rows[r, i] == e``.

    Bags again, the other way round: each entry has a bag of the rows of the batch that have looked it up.

    :param n_entries: ``E``
    :param gradient: by the output, ``[J, R, O]``, contiguous
    :param mask: ``[J, R, P]``
    :param rows: the table row of each parent, ``[R, P]``
    :return: ``[E, J, O]``
    """
    n_children, n_rows, n_parents = mask.shape
    look_ups = rows.flatten().argsort()
    ends = th.bincount(rows.flatten(), minlength=n_entries).cumsum(0)
    starts = F.pad(ends[:-1], (1, 0))
    child = th.arange(n_children, device=rows.device).unsqueeze(-1)
    sums = F.embedding_bag(
        (look_ups // n_parents + child * n_rows).flatten(),
        gradient.view(n_children * n_rows, -1),
        (starts + child * rows.numel()).flatten(),
        mode="sum",
        per_sample_weights=mask.flatten(1)[:, look_ups].flatten(),
    )
    return sums.view(n_children, n_entries, -1).transpose(0, 1)


def _gradient_by_inputs(
    run: ParentRun, tangent: th.Tensor, gradient: th.Tensor, mask: th.Tensor, rows: th.Tensor
) -> th.Tensor:
    """``sum_j mask[j, r, i] * <gradient[j, r], tangent[j, :, (i, category of i, c)]>``, ``[R, n_parents * width]``."""
    category = rows[:, run.parents] - run.first_rows(rows.device)
    every = th.bmm(gradient, tangent).unflatten(-1, (run.n_parents, run.width, run.width))
    index = category[None, :, :, None, None].expand(*every.shape[:3], 1, run.width)
    at_category = every.gather(3, index).squeeze(3)
    return th.einsum("jric,jri->ric", at_category, mask[..., run.parents]).flatten(1)
