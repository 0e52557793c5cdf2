"""
Features of each parent that belong to one child alone, and their element-wise maximum over parents.

As in ``layers.py``, what a categorical parent contributes is computed once for each category and looked up, with the gradient
of the dense layers that it stands for; other parents go through the layers.
"""

from collections.abc import Iterable
from typing import NamedTuple, cast

import torch as th
from torch import nn
from torch.nn import functional as F

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.lookup.parents import ParentFeatures, ParentInputs, ParentRun
from sb3_fcdl.dynamics.stacked import StackedLinear


class FeatureTables(NamedTuple):
    """
    ``ChildFeatures`` for one version of the weights.

    :param features: of every category of every parent for every child; by parent, child, category, ``[(D + A) * J, F]``
    :param tangents: for each run of parents that has them the derivative of ``features`` by the input at each category,
        ``[n_parents * J, width * width, F]``, detached; empty where no gradient by the input is wanted
    """

    features: th.Tensor
    tangents: tuple[th.Tensor, ...]


class ChildFeatures(nn.Module):
    """
    ``F_ji = relu(x_i W1_ji + b1_ji) W2_ji + b2_ji``: what child ``j`` of ``J`` makes of parent ``i``.

    Inputs are given for each child, ``columns [J, R, D + A]`` and ``rows [J, R, P]``: children may see different states.

    :param factors: the variables
    :param hidden_dim: width of both layers, ``F``
    """

    row_shift: th.Tensor
    parent_of_row: th.Tensor

    def __init__(self, factors: Factors, hidden_dim: int) -> None:
        super().__init__()
        n_children = self.n_children = len(factors.state_variables)
        # Side by side, the first layers of all children are one wide layer a parent.
        self.first = ParentFeatures(factors, n_children * hidden_dim)
        self.second = nn.ModuleList(
            StackedLinear(run.n_parents * n_children, hidden_dim, hidden_dim) for run in self.first.runs
        )
        widths = th.tensor([variable.width for variable in factors.parents])
        # From the row of ``ParentInputs``, one for each category, to that of ``FeatureTables``, one for each child as well.
        row_shift = (widths.cumsum(0) - widths) * (n_children - 1) + th.arange(n_children).view(-1, 1, 1) * widths
        self.register_buffer("row_shift", row_shift, persistent=False)
        parent_of_row = th.arange(len(widths), dtype=th.get_default_dtype()).repeat_interleave(widths * n_children)
        self.register_buffer("parent_of_row", parent_of_row, persistent=False)

    def tables(self, with_tangents: bool) -> FeatureTables:
        """
        :param with_tangents: whether a gradient by the inputs will be asked for
        """
        table = self.first.table()
        features = th.cat([layer(self._by_child(run, table)).flatten(0, 1) for run, layer in self._runs()])
        tangents: tuple[th.Tensor, ...] = ()
        if with_tangents:
            with th.no_grad():
                sampled = [(run, layer.weight) for run, layer in self._runs() if self.first.has_tangents(run)]
                tangents = tuple(self._tangents(run, table, weight) for run, weight in sampled)
        return FeatureTables(features, tangents)

    def _runs(self) -> Iterable[tuple[ParentRun, StackedLinear]]:
        return zip(self.first.runs, cast(Iterable[StackedLinear], self.second), strict=True)

    def _tangents(self, run: ParentRun, table: th.Tensor, weight: th.Tensor) -> th.Tensor:
        slopes = self._by_child(run, self.first.weight)
        is_active = self._by_child(run, table) > 0
        # Row (v, c): how the hidden layer moves with input c of the parent while its category is v.
        moves = is_active.unsqueeze(2) * slopes.unsqueeze(1)
        return th.bmm(moves.flatten(1, 2), weight)

    def _by_child(self, run: ParentRun, table: th.Tensor) -> th.Tensor:
        """The rows of a run, ``[D + A, J * F]`` to ``[n_parents * J, width, F]``."""
        rows = table[run.columns].unflatten(0, (run.n_parents, run.width))
        return rows.unflatten(-1, (self.n_children, -1)).transpose(1, 2).flatten(0, 1)

    def forward(self, tables: FeatureTables, inputs: ParentInputs, mask: th.Tensor) -> th.Tensor:
        """
        :param tables: of the present weights
        :param inputs: the batch, as each child sees it
        :param mask: which parents count, ``[J, R, P]``, bool
        :return: the largest feature in each coordinate, ``[J, R, F]``; 0 for a child without parents
        """
        dense = list(inputs.dense)
        largest = []
        if len(dense) < mask.shape[-1]:
            is_table = mask.clone()
            is_table[..., dense] = False
            if th.is_grad_enabled():
                look_up = _TableMaximum.apply(tables.features, inputs.columns, inputs.rows, is_table, self, tables.tangents)
            else:
                look_up = _table_maximum(tables.features, inputs.rows + self.row_shift, is_table)
            largest.append(look_up)
        if dense:
            is_masked = ~mask[..., dense].permute(2, 0, 1).unsqueeze(-1)
            largest.append(self._of_dense(inputs).masked_fill(is_masked, -th.inf).max(0).values)
        maximum = largest[0] if len(largest) == 1 else th.maximum(*largest)
        return maximum.masked_fill(~mask.any(-1, keepdim=True), 0)

    def each(self, tables: FeatureTables, inputs: ParentInputs) -> th.Tensor:
        """
        Without a gradient by the inputs.

        :param tables: of the present weights
        :param inputs: the batch, as each child sees it
        :return: the feature of every parent, ``[J, R, P, F]``
        """
        features = F.embedding(inputs.rows + self.row_shift, tables.features)
        if inputs.dense:
            features[:, :, list(inputs.dense)] = self._of_dense(inputs).permute(1, 2, 0, 3)
        return features

    def _of_dense(self, inputs: ParentInputs) -> th.Tensor:
        """Features of the parents that no table serves, ``[n_dense, J, R, F]``."""
        features = []
        for run, layer in self._runs():
            own = [parent - run.first_parent for parent in inputs.dense if run.has(parent)]
            if own:
                # A list where there is no choice would copy the weights, and their gradient.
                chosen = slice(None) if len(own) == run.n_parents else own
                stack = (run.n_parents, self.n_children)
                entries = run.of(inputs.columns)[:, :, chosen].permute(2, 0, 1, 3).flatten(0, 1)
                slopes, weight, bias = (
                    stacked.unflatten(0, stack)[chosen].flatten(0, 1)
                    for stacked in (self._by_child(run, self.first.weight), layer.weight, layer.bias)
                )
                offset = self.first.bias[run.parents][chosen].view(len(slopes), 1, -1)
                hidden = th.baddbmm(offset, entries, slopes).relu_()
                features.append(th.baddbmm(bias, hidden, weight).unflatten(0, (len(own), self.n_children)))
        return th.cat(features)


def _table_maximum(table: th.Tensor, rows: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """
    ``_TableMaximum`` without a gradient: one parent after the other, whole rows are compared. To know who won each coordinate,
    as the gradient must, costs eight times as much.

    :param table: ``[E, F]``
    :param rows: of the table, ``[J, R, P]``
    :param mask: which of them count, ``[J, R, P]``, bool
    """
    # What is masked looks up the row behind the last one.
    table = F.pad(table, (0, 0, 0, 1), value=-th.inf)
    first, *others = rows.masked_fill(~mask, len(table) - 1).permute(2, 0, 1).flatten(1)
    largest = table.index_select(0, first)
    for other in others:
        th.maximum(largest, table.index_select(0, other), out=largest)
    return largest.unflatten(0, mask.shape[:2])


class _TableMaximum(th.autograd.Function):
    """
    The largest of the table rows that the mask lets through, in each coordinate, ``[J, R, F]``; -inf where there is none.

    The gradient goes to the row that won the coordinate, and through its tangent to the straight-through sample that chose the
    row: the gradient of the dense layers, not of the look-up.
    """

    @staticmethod
    def forward(ctx, table, columns, rows, mask, layer, tangents):  # type: ignore[no-untyped-def]
        n_kept = mask.sum(-1).flatten()
        kept = (rows + layer.row_shift)[mask]
        largest, _, _, winner = th.embedding_bag(table, kept, n_kept.cumsum(0) - n_kept, mode=2)
        ctx.save_for_backward(winner, rows, *tangents)
        ctx.layer, ctx.table_shape, ctx.columns_shape = layer, table.shape, columns.shape
        return largest.masked_fill_((n_kept == 0).unsqueeze(-1), -th.inf).view(*mask.shape[:2], -1)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        winner, rows, *tangents = ctx.saved_tensors
        by_table = by_columns = None
        if ctx.needs_input_grad[0]:
            by_table = gradient.new_zeros(ctx.table_shape).scatter_add_(0, winner, gradient.flatten(0, 1))
        if ctx.needs_input_grad[1]:
            by_columns = gradient.new_zeros(ctx.columns_shape)
            parent = ctx.layer.parent_of_row[winner].view(gradient.shape)
            first = ctx.layer.first
            for run, tangent in zip(filter(first.has_tangents, first.runs), tangents, strict=True):
                by_columns[..., run.columns] = _gradient_by_inputs(run, tangent, gradient, parent, rows)
        return by_table, by_columns, None, None, None, None


def _gradient_by_inputs(
    run: ParentRun, tangent: th.Tensor, gradient: th.Tensor, winner: th.Tensor, rows: th.Tensor
) -> th.Tensor:
    """``<gradient[j, r] where parent i won, tangent[(i, j), (category of i, c)]>``, ``[J, R, n_parents * width]``."""
    category = rows[..., run.parents] - run.first_rows(rows.device)
    tangents = tangent.unflatten(0, (run.n_parents, -1))
    by_inputs = gradient.new_empty(*category.shape, run.width)
    # One parent at a time: what all of them need fits no cache.
    for index in range(run.n_parents):
        # In floats: to compare for equality takes several times as long.
        has_lost = (winner - (run.first_parent + index)).square_().clamp_(max=1)
        every = th.bmm(th.addcmul(gradient, gradient, has_lost, value=-1), tangents[index].mT)
        at_category = category[..., index, None, None].expand(-1, -1, 1, run.width)
        by_inputs[:, :, index] = every.unflatten(-1, (run.width, run.width)).gather(2, at_category).squeeze(2)
    return by_inputs.flatten(2)
