"""A linear layer on the masked features of all parents: of a categorical parent a look-up, weighted by the mask."""

from typing import Protocol

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_fcdl.dynamics.lookup.features import BoundFeatures, ParentFeatures, ParentInputs
from sb3_fcdl.dynamics.lookup.linear_gradients import LinearGradients
from sb3_fcdl.dynamics.lookup.runs import ParentRun
from sb3_fcdl.dynamics.stacked import Distinct


class LinearFn(Protocol):
    """A ``ParentLinear`` for one version of the weights."""

    def __call__(self, inputs: ParentInputs, mask: th.Tensor, distinct: Distinct | None = None) -> th.Tensor:
        """
        :param inputs: a batch
        :param mask: the weight of each parent for each child, ``[J, R, P]``
        :param distinct: the different ones; None: all are wanted
        :return: ``[J, R, O]``; of the different ones ``[n, O]``
        """


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
        self.runs = features.runs
        self.fan_in = sum(run.n_parents * features.width(run) for run in self.runs)
        bound = (6 / self.fan_in) ** 0.5
        self.n_children = n_children
        self.output_dim = output_dim
        # One tensor a run: the gradient of a part of a larger one would be as large as the whole.
        shapes = [(run.n_parents, features.width(run), n_children * output_dim) for run in self.runs]
        self.weights = nn.ParameterList(th.empty(shape).uniform_(-bound, bound) for shape in shapes)
        self.bias = nn.Parameter(th.zeros(n_children, 1, output_dim)) if bias else None

    def bind(self, features: BoundFeatures) -> LinearFn:
        """
        :param features: that it reads, bound to the present weights
        :return: the layer, for as long as the weights stay as they are
        """
        if features.uses_tables:
            return LinearTables(self, features)

        def multiplied_out(inputs: ParentInputs, mask: th.Tensor, distinct: Distinct | None = None) -> th.Tensor:
            outputs = self._multiply_out(features.features, inputs, mask)
            return outputs if distinct is None else outputs.flatten(0, 1)[distinct.chosen]

        return multiplied_out

    def by_child(self, outputs: th.Tensor) -> th.Tensor:
        """``[..., J * O]`` to ``[..., J, O]``."""
        return outputs.unflatten(-1, (self.n_children, self.output_dim))

    def plus_bias(self, outputs: th.Tensor, distinct: Distinct | None = None) -> th.Tensor:
        """``[J, R, O]``, or ``[n, O]`` of the different ones, likewise."""
        if self.bias is None:
            return outputs
        return outputs + (self.bias if distinct is None else self.bias.squeeze(1)[distinct.child])

    def _multiply_out(self, features: ParentFeatures, inputs: ParentInputs, mask: th.Tensor) -> th.Tensor:
        total = self.of_numbers(features, inputs, mask)
        for run, weight in zip(self.runs, self.weights, strict=True):
            if run.is_categorical:
                hidden = features.of_run(run, slice(None), run.of(inputs.columns).transpose(0, 1))
                outputs = self.by_child(th.bmm(hidden, weight))
                of_run = mask[..., run.parents]
                total = total + th.einsum("prjo,jrp->jro", _without_masked(outputs, of_run.permute(2, 1, 0)), of_run)
        return self.plus_bias(total)

    def of_numbers(self, features: ParentFeatures, inputs: ParentInputs, mask: th.Tensor) -> th.Tensor:
        """
        What the continuous parents contribute, multiplied out. Their features are masked first: those of all parents are
        narrower than what these contribute to all children.

        :param mask: ``[J, R, P]``
        :return: ``[J, R, O]``
        """
        total = mask.new_zeros(self.n_children, len(inputs.columns), self.output_dim)
        for run, weight in zip(self.runs, self.weights, strict=True):
            if not run.is_categorical:
                hidden = features.of_run(run, slice(None), run.of(inputs.columns).transpose(0, 1)).transpose(0, 1)
                of_run = mask[..., run.parents]
                masked = _without_masked(hidden * of_run.unsqueeze(-1), of_run).flatten(2)
                total = total.baddbmm(masked, self.by_child(weight).permute(2, 0, 1, 3).flatten(1, 2))
        return total


class LinearTables:
    """
    A ``ParentLinear`` for one version of the weights, by look-ups.

    ``outputs`` are what each category contributes, ``[D + A, J, O]``; with lines then, for each continuous parent, the offsets
    of its ``F + 1`` lines and their slopes. ``tangents`` are for each run of parents that has them the derivative of
    ``outputs`` by the input at each category, ``[J, O, n_parents * width * width]``, detached; none where no gradient by the
    states is wanted.

    :param layer: the layer
    :param features: that it reads
    """

    def __init__(self, layer: ParentLinear, features: BoundFeatures) -> None:
        self.layer = layer
        self.features = features.features
        table = self.features.table()
        outputs = [
            th.bmm(table[run.columns, : weight.shape[1]].unflatten(0, (run.n_parents, run.width)), weight).flatten(0, 1)
            for run, weight in zip(layer.runs, layer.weights, strict=True)
        ]
        self.tangents: tuple[th.Tensor, ...] = ()
        if features.with_state_gradient:
            self.tangents = self._tangents(table)
        if features.lines is not None:
            weight = th.cat([part for run, part in zip(layer.runs, layer.weights, strict=True) if not run.is_categorical])
            outputs.append(th.bmm(th.cat([features.lines.offsets, features.lines.slopes], dim=1), weight).flatten(0, 1))
        self.outputs = layer.by_child(th.cat(outputs))

    @th.no_grad()
    def _tangents(self, table: th.Tensor) -> tuple[th.Tensor, ...]:
        runs = zip(self.layer.runs, self.layer.weights, strict=True)
        return tuple(self._tangent(table, run, weight) for run, weight in runs if self.features.has_tangents(run))

    def _tangent(self, table: th.Tensor, run: ParentRun, weight: th.Tensor) -> th.Tensor:
        shape = (run.n_parents, run.width)
        slopes = self.features.weight[run.columns].unflatten(0, shape)
        is_active = (table[run.columns] > 0).unflatten(0, shape)
        # Row (i, v, c): how the feature of parent i moves with its input c while its category is v.
        moves = is_active.unsqueeze(2) * slopes.unsqueeze(1)
        outputs = th.bmm(moves.flatten(1, 2), weight)
        return self.layer.by_child(outputs.flatten(0, 1)).permute(1, 2, 0).contiguous()

    def __call__(self, inputs: ParentInputs, mask: th.Tensor, distinct: Distinct | None = None) -> th.Tensor:
        if distinct is not None:
            rows, weights = inputs.rows[distinct.row], mask.flatten(0, 1)[distinct.chosen]
            return self.layer.plus_bias(_bag_sums(self.outputs, rows, distinct.child.unsqueeze(-1), weights), distinct)
        table, rows, weights = self.outputs, inputs.rows, mask
        if inputs.scales is not None:
            mask_of_rows = th.cat([mask, mask.index_select(-1, self.features.line_parents)], dim=-1)
            weights = (mask_of_rows * inputs.scales).masked_fill_(mask_of_rows == 0, 0)
        dense = [parent for parent in inputs.dense if parent not in self.features.continuous]
        of_numbers = None
        if len(dense) < len(inputs.dense):
            of_numbers = self.layer.of_numbers(self.features, inputs, mask)
            if len(self.features.continuous) == self.features.n_parents:
                return self.layer.plus_bias(of_numbers)
            mask = mask.index_fill(-1, self.features.line_parents, 0)
            weights = mask
        if dense:
            own, own_rows = self._own_rows(inputs.columns, dense)
            rows = rows.clone()
            rows[:, dense] = len(table) + own_rows
            own = self.layer.by_child(own)
            table = th.cat([table, _without_masked(own, mask[..., dense].permute(2, 1, 0).flatten(0, 1))])
        output = _weighted_sums(table.detach(), rows, weights)
        if inputs.scales is None and th.is_grad_enabled():
            # The bags give the gradient by the mask; their own one by the table is eight times slower than this.
            runs = tuple(filter(self.features.has_tangents, self.features.runs))
            is_shared = mask.new_ones(self.features.n_parents)
            is_shared[dense] = 0
            output = LinearGradients.apply(
                output, table, inputs.columns, mask.detach(), is_shared, inputs.rows, rows, runs, self.tangents
            )
        return self.layer.plus_bias(output if of_numbers is None else output + of_numbers)

    def _own_rows(self, columns: th.Tensor, dense: list[int]) -> tuple[th.Tensor, th.Tensor]:
        """
        What each dense parent contributes in each row of the batch.

        :param columns: encoded state and action, ``[R, D + A]``
        :param dense: these parents, in order
        :return: ``[n_dense * R, J * O]``, and which of these rows each parent has in each row of the batch, ``[R, n_dense]``
        """
        own = []
        for run, weight in zip(self.layer.runs, self.layer.weights, strict=True):
            chosen = [parent - run.first_parent for parent in dense if run.has(parent)]
            if chosen:
                # A list where there is no choice would copy the weights, and their gradient.
                part = slice(None) if len(chosen) == run.n_parents else chosen
                entries = run.of(columns)[:, part].transpose(0, 1)
                own.append(th.bmm(self.features.of_run(run, part, entries), weight[part]).flatten(0, 1))
        return th.cat(own), th.arange(len(dense) * len(columns), device=columns.device).view(len(dense), -1).T


def _weighted_sums(table: th.Tensor, rows: th.Tensor, weights: th.Tensor) -> th.Tensor:
    """
    ``out[j, r] = sum_i weights[j, r, i] * table[rows[r, i], j]``.

    :param table: ``[E, J, O]``
    :param rows: ``[R, n]``
    :param weights: ``[J, R, n]``
    :return: ``[J, R, O]``
    """
    child = th.arange(table.shape[1], device=rows.device).view(-1, 1, 1)
    return _bag_sums(table, rows, child, weights.flatten(0, 1)).unflatten(0, weights.shape[:2])


def _bag_sums(table: th.Tensor, rows: th.Tensor, child: th.Tensor, weights: th.Tensor) -> th.Tensor:
    """
    ``out[b] = sum_i weights[b, i] * table[rows[b, i], child[b]]``.

    :param table: ``[E, J, O]``
    :param rows: ``[..., n]``
    :param child: broadcastable to it
    :param weights: ``[B, n]``, ``B`` as many as there are rows and children
    :return: ``[B, O]``
    """
    bags = (rows * table.shape[1] + child).view(-1, rows.shape[-1])
    return F.embedding_bag(bags, table.view(-1, table.shape[-1]), mode="sum", per_sample_weights=weights)


def _without_masked(outputs: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """
    Puts zeros where something is masked, in place: 0 times infinity is not 0. Not in training, where the gradient by the mask
    needs what is masked, and the numbers are finite.

    :param outputs: ``[..., O]``
    :param mask: ``[...]``
    """
    return outputs if th.is_grad_enabled() else outputs.masked_fill_((mask == 0).unsqueeze(-1), 0)
