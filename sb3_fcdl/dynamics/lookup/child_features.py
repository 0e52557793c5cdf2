"""Features of each parent that belong to one child alone, and their element-wise maximum over the parents."""

from collections.abc import Iterable
from typing import cast

import torch as th
from torch import nn
from torch.nn import functional as F

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.lookup.features import BoundFeatures, ParentFeatures, ParentInputs
from sb3_fcdl.dynamics.lookup.maximum import TableMaximum, table_maximum
from sb3_fcdl.dynamics.lookup.runs import ParentRun
from sb3_fcdl.dynamics.stacked import StackedLinear


class ChildFeatures(nn.Module):
    """
    ``F_ji = relu(x_i W1_ji + b1_ji) W2_ji + b2_ji``: what child ``j`` of ``J`` makes of parent ``i``.

    :param factors: the variables
    :param hidden_dim: width of both layers, ``F``
    """

    row_shift: th.Tensor
    parent_of_row: th.Tensor
    is_own: th.Tensor

    def __init__(self, factors: Factors, hidden_dim: int) -> None:
        super().__init__()
        n_children = self.n_children = len(factors.state_variables)
        # Side by side, the first layers of all children are one wide layer a parent.
        self.first = ParentFeatures(factors, n_children * hidden_dim)
        self.second = nn.ModuleList(
            StackedLinear(run.n_parents * n_children, hidden_dim, hidden_dim) for run in self.first.runs
        )
        widths = th.tensor([variable.width for variable in factors.parents])
        # From the row of ``ParentInputs``, one for each category, to that of a table with one for each child as well.
        row_shift = self.first.first_row * (n_children - 1) + th.arange(n_children).view(-1, 1, 1) * widths
        self.register_buffer("row_shift", row_shift, persistent=False)
        parent_of_row = th.arange(len(widths), dtype=th.get_default_dtype()).repeat_interleave(widths * n_children)
        self.register_buffer("parent_of_row", parent_of_row, persistent=False)
        is_own = th.eye(n_children, len(widths), dtype=th.bool).unsqueeze(1)
        self.register_buffer("is_own", is_own, persistent=False)

    def bind(self, with_state_gradient: bool) -> "BoundChildFeatures":
        """
        For as long as the weights stay as they are.

        :param with_state_gradient: whether a gradient by the states will be asked for
        """
        return BoundChildFeatures(self, with_state_gradient)

    def by_run(self) -> Iterable[tuple[ParentRun, StackedLinear]]:
        """The second layer of each run of parents."""
        return zip(self.first.runs, cast(Iterable[StackedLinear], self.second), strict=True)

    def by_child(self, run: ParentRun, table: th.Tensor) -> th.Tensor:
        """The rows of a run, ``[D + A, J * F]`` to ``[n_parents * J, width, F]``."""
        rows = table[run.columns].unflatten(0, (run.n_parents, run.width))
        return rows.unflatten(-1, (self.n_children, -1)).transpose(1, 2).flatten(0, 1)


class BoundChildFeatures:
    """
    ``ChildFeatures`` for one version of the weights.

    Inputs are read for each child, ``columns [J, R, D + A]`` and ``rows [J, R, P]``: children may see different states.

    ``table`` has the features of every category of every parent for every child; by parent, child, category,
    ``[(D + A) * J, F]``. ``tangents`` are for each run of parents that has them the derivative of ``table`` by the input at
    each category, ``[n_parents * J, width * width, F]``, detached; none where no gradient by the states is wanted.

    :param layers: the layers
    :param with_state_gradient: whether a gradient by the states will be asked for
    """

    def __init__(self, layers: ChildFeatures, with_state_gradient: bool) -> None:
        self.layers = layers
        self.first = BoundFeatures(layers.first, with_state_gradient, with_lines=False)
        self.table = layers.first.weight.new_empty(0)
        self.tangents: tuple[th.Tensor, ...] = ()
        if self.first.uses_tables:
            first_table = layers.first.table()
            features = [layer(layers.by_child(run, first_table)).flatten(0, 1) for run, layer in layers.by_run()]
            self.table = th.cat(features)
            if with_state_gradient:
                self.tangents = self._tangents(first_table)

    def read(self, state: th.Tensor, action: th.Tensor) -> ParentInputs:
        """The batch ``state [R, D]``, ``action [R, A]``, the same for every child."""
        inputs = self.first.read(state, action)
        columns, rows = (each.expand(self.layers.n_children, -1, -1) for each in (inputs.columns, inputs.rows))
        return inputs._replace(columns=columns, rows=rows)

    def read_three(self, state: th.Tensor, action: th.Tensor) -> ParentInputs:
        """
        Three batches, one after the other. In the second a child sees its own variable, and all others of the first batch.

        :param state: ``[3 R, D]``
        :param action: ``[3 R, A]``
        """
        inputs = self.read(state, action)
        is_own = self.layers.is_own
        is_own_column = is_own[..., self.layers.first.parent_of_column]
        return inputs._replace(
            columns=_with_second_where(is_own_column, inputs.columns), rows=_with_second_where(is_own, inputs.rows)
        )

    def maximum(self, inputs: ParentInputs, mask: th.Tensor) -> th.Tensor:
        """
        :param inputs: the batch, as each child sees it
        :param mask: which parents count, ``[J, R, P]``, bool
        :return: the largest feature in each coordinate, ``[J, R, F]``; 0 for a child without parents
        """
        dense = list(inputs.dense)
        largest = []
        if len(dense) < mask.shape[-1]:
            is_table = mask.clone()
            is_table[..., dense] = False
            largest.append(self._looked_up(inputs, is_table))
        if dense:
            is_masked = ~mask[..., dense].permute(2, 0, 1).unsqueeze(-1)
            largest.append(self._of_dense(inputs).masked_fill(is_masked, -th.inf).max(0).values)
        maximum = largest[0] if len(largest) == 1 else th.maximum(*largest)
        return maximum.masked_fill(~mask.any(-1, keepdim=True), 0)

    def each(self, inputs: ParentInputs) -> th.Tensor:
        """
        Without a gradient by the inputs.

        :param inputs: the batch, as each child sees it
        :return: the feature of every parent, ``[J, R, P, F]``
        """
        if not self.first.uses_tables:
            return self._of_dense(inputs).permute(1, 2, 0, 3).contiguous()
        features = F.embedding(inputs.rows + self.layers.row_shift, self.table)
        if inputs.dense:
            features[:, :, list(inputs.dense)] = self._of_dense(inputs).permute(1, 2, 0, 3)
        return features

    def _looked_up(self, inputs: ParentInputs, mask: th.Tensor) -> th.Tensor:
        rows = inputs.rows + self.layers.row_shift
        if not th.is_grad_enabled():
            return table_maximum(self.table, rows, mask)
        first = self.layers.first
        runs = tuple(filter(first.has_tangents, first.runs))
        return TableMaximum.apply(
            self.table, inputs.columns, rows, mask, inputs.rows, self.layers.parent_of_row, runs, self.tangents
        )

    def _of_dense(self, inputs: ParentInputs) -> th.Tensor:
        """Features of the parents that no table serves, ``[n_dense, J, R, F]``."""
        layers, features = self.layers, []
        for run, layer in layers.by_run():
            own = [parent - run.first_parent for parent in inputs.dense if run.has(parent)]
            if own:
                # A list where there is no choice would copy the weights, and their gradient.
                chosen = slice(None) if len(own) == run.n_parents else own
                stack = (run.n_parents, layers.n_children)
                entries = run.of(inputs.columns)[:, :, chosen].permute(2, 0, 1, 3).flatten(0, 1)
                slopes, weight, bias = (
                    stacked.unflatten(0, stack)[chosen].flatten(0, 1)
                    for stacked in (layers.by_child(run, layers.first.weight), layer.weight, layer.bias)
                )
                offset = layers.first.bias[run.parents][chosen].view(len(slopes), 1, -1)
                hidden = th.baddbmm(offset, entries, slopes).relu_()
                features.append(th.baddbmm(bias, hidden, weight).unflatten(0, (len(own), layers.n_children)))
        return th.cat(features)

    @th.no_grad()
    def _tangents(self, first_table: th.Tensor) -> tuple[th.Tensor, ...]:
        runs = [(run, layer.weight) for run, layer in self.layers.by_run() if self.layers.first.has_tangents(run)]
        return tuple(self._tangent(run, first_table, weight) for run, weight in runs)

    def _tangent(self, run: ParentRun, first_table: th.Tensor, weight: th.Tensor) -> th.Tensor:
        slopes = self.layers.by_child(run, self.layers.first.weight)
        is_active = self.layers.by_child(run, first_table) > 0
        # Row (v, c): how the hidden layer moves with input c of the parent while its category is v.
        moves = is_active.unsqueeze(2) * slopes.unsqueeze(1)
        return th.bmm(moves.flatten(1, 2), weight)


def _with_second_where(is_own: th.Tensor, values: th.Tensor) -> th.Tensor:
    """Three batches one after the other, ``[J, 3 R, ...]``; the second is the first wherever ``is_own`` is False."""
    first, second, third = values.chunk(3, dim=1)
    return th.cat([first, second.where(is_own, first), third], dim=1)
