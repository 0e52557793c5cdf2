"""
The first layers of a masked network: features of each parent, and what each child makes of them.

A categorical parent has only as many distinct features as it has categories, so a linear layer on them is a table: each
row is computed once for a version of the weights and then looked up. ``ParentLinear`` does this for every parent whose
input is exactly one-hot, and multiplies matrices for the others, in the same call. Both give the same numbers.
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
    :param rows: the table row of each parent's category, ``[R, P]``, int64; meaningless where ``dense``
    :param dense: parents that no table can serve, in order: continuous ones, and those that are not exactly one-hot in every
        row of the batch
    """

    columns: th.Tensor
    rows: th.Tensor
    dense: tuple[int, ...]


class ParentFeatures(nn.Module):
    """
    ``h_i = relu(x_i W_i + b_i)`` for each parent ``i``: one feature a parent, shared by all children.

    :param factors: the variables
    :param hidden_dim: width of a feature, ``F``
    """

    parent_of_column: th.Tensor
    # Tests and the speed benchmark hold the two ways of computing the same thing against each other.
    use_tables = True

    def __init__(self, factors: Factors, hidden_dim: int) -> None:
        super().__init__()
        widths = [variable.width for variable in factors.parents]
        self.n_state_parents = len(factors.state_variables)
        self.runs = parent_runs(factors.parents)
        # One category of a parent is active at a time, so He's fan-in is 1 whatever the number of categories.
        self.weight = nn.Parameter(th.empty(sum(widths), hidden_dim).uniform_(-(6**0.5), 6**0.5))
        self.bias = nn.Parameter(th.zeros(len(widths), hidden_dim))
        parent_of_column = th.arange(len(widths)).repeat_interleave(th.tensor(widths))
        self.register_buffer("parent_of_column", parent_of_column, persistent=False)

    @property
    def n_parents(self) -> int:
        return self.bias.shape[0]

    def read(self, state: th.Tensor, action: th.Tensor) -> ParentInputs:
        """
        :param state: ``[R, D]``
        :param action: ``[R, A]``
        """
        columns = th.cat([state, action], dim=-1)
        values = columns.detach()
        rows, exact = [], []
        for run in self.runs:
            entries = run.of(values)
            largest, category = entries.max(-1)
            rows.append(category + run.first_rows(state.device))
            exact.append(run.is_categorical & ((largest == 1) & (entries.abs().sum(-1) == 1)).all(0))
        # Elsewhere than on a CPU matrix products are cheap, and to ask for the kind of the inputs is to wait for the device.
        if self.use_tables and state.device.type == "cpu":
            is_exact = th.cat(exact).tolist()
        else:
            is_exact = [False] * self.n_parents
        return ParentInputs(columns, th.cat(rows, dim=-1), tuple(i for i, is_table in enumerate(is_exact) if not is_table))

    def may_be_sampled(self, run: ParentRun) -> bool:
        """Whether the inputs of a run may be one-hot samples of the model, which carry a gradient."""
        return run.is_categorical and run.first_parent < self.n_state_parents

    def table(self) -> th.Tensor:
        """The feature of every category of every parent, ``[D + A, F]``."""
        return (self.weight + self.bias[self.parent_of_column]).relu()

    def of_parent(self, parent: int, inputs: th.Tensor) -> th.Tensor:
        """
        :param parent: index
        :param inputs: encoded state and action, ``[R, D + A]``
        :return: the feature of one parent from whatever numbers stand in its columns, ``[R, F]``
        """
        run = next(run for run in self.runs if run.has(parent))
        first = run.first_column + (parent - run.first_parent) * run.width
        columns = slice(first, first + run.width)
        return F.linear(inputs[:, columns], self.weight[columns].T, self.bias[parent]).relu()


class LinearTables(NamedTuple):
    """
    A ``ParentLinear`` for one version of the weights.

    :param outputs: what each category contributes, ``[D + A, J, O]``
    :param tangents: for each run of parents that the model samples the derivative of ``outputs`` by the one-hot input at each
        category, ``[J, O, n_parents * width * width]``, detached; empty where no gradient by the input is wanted
    """

    outputs: th.Tensor
    tangents: tuple[th.Tensor, ...]


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
        if with_tangents:
            with th.no_grad():
                tangents = tuple(
                    self._tangents(features, table, run, weight)
                    for run, weight in zip(features.runs, self.weights, strict=True)
                    if features.may_be_sampled(run)
                )
        return LinearTables(th.cat(outputs).unflatten(1, (self.n_children, self.output_dim)), tangents)

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
            mask = inputs.columns.new_ones(self.n_children, *inputs.rows.shape)
        if not inputs.dense:
            output = self._from_tables(features, tables, inputs, mask)
        elif len(inputs.dense) == features.n_parents:
            output = self._from_features(features, inputs, mask)
        else:
            is_table = mask.new_ones(features.n_parents)
            is_table[list(inputs.dense)] = 0
            output = self._from_tables(features, tables, inputs, mask * is_table)
            output = output + self._from_features(features, inputs, mask)
        return output if self.bias is None else output + self.bias

    @staticmethod
    def _from_tables(features: ParentFeatures, tables: LinearTables, inputs: ParentInputs, mask: th.Tensor) -> th.Tensor:
        runs = tuple(filter(features.may_be_sampled, features.runs))
        return _MaskedTableSum.apply(tables.outputs, mask, inputs.columns, inputs.rows, runs, tables.tangents)

    def _from_features(self, features: ParentFeatures, inputs: ParentInputs, mask: th.Tensor) -> th.Tensor:
        total = mask.new_zeros(self.n_children, len(inputs.columns), self.output_dim)
        for run, weight in zip(features.runs, self.weights, strict=True):
            own = [parent for parent in inputs.dense if run.has(parent)]
            if own:
                hidden = th.stack([features.of_parent(parent, inputs.columns) for parent in own])
                # Without the choice where there is none: it would copy the weights, and their gradient.
                of_own = weight if len(own) == run.n_parents else weight[[parent - run.first_parent for parent in own]]
                outputs = th.bmm(hidden, of_own)
                outputs = outputs.unflatten(-1, (self.n_children, self.output_dim))
                total = total + th.einsum("prjo,jrp->jro", outputs, mask[..., own])
        return total


class _MaskedTableSum(th.autograd.Function):
    """
    ``out[j, r] = sum_i mask[j, r, i] * table[rows[r, i], j]``, with the gradient of the dense layer that it stands for.

    A look-up has no derivative by its input, but a straight-through sample carries one: the slope of the feature layer at
    the sampled category. ``tangents`` hold it, so that the gradient is that of the matrix products, not of the table.
    """

    @staticmethod
    def forward(ctx, table, mask, columns, rows, runs, tangents):  # type: ignore[no-untyped-def]
        n_children, n_rows, n_parents = mask.shape
        bags = (rows * n_children).unsqueeze(0) + th.arange(n_children, device=rows.device).view(-1, 1, 1)
        output = F.embedding_bag(
            bags.view(-1, n_parents),
            table.view(-1, table.shape[-1]),
            mode="sum",
            per_sample_weights=mask.reshape(-1, n_parents),
        )
        ctx.save_for_backward(table, mask, rows, *tangents)
        ctx.runs = runs
        ctx.width = columns.shape[-1]
        return output.view(n_children, n_rows, -1)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        table, mask, rows, *tangents = ctx.saved_tensors
        gradient = gradient.contiguous()
        index = rows.unsqueeze(0).expand_as(mask)
        by_table = by_mask = by_columns = None
        if ctx.needs_input_grad[0]:
            weights = mask.new_zeros(*mask.shape[:2], table.shape[0]).scatter_(2, index, mask)
            by_table = th.bmm(weights.transpose(1, 2), gradient).transpose(0, 1)
        if ctx.needs_input_grad[1]:
            by_mask = th.bmm(gradient, table.permute(1, 2, 0)).gather(2, index)
        if ctx.needs_input_grad[2]:
            by_columns = gradient.new_zeros(rows.shape[0], ctx.width)
            for run, tangent in zip(ctx.runs, tangents, strict=True):
                by_columns[:, run.columns] = _gradient_by_inputs(run, tangent, gradient, mask, rows)
        return by_table, by_mask, by_columns, None, None, None


def _gradient_by_inputs(
    run: ParentRun, tangent: th.Tensor, gradient: th.Tensor, mask: th.Tensor, rows: th.Tensor
) -> th.Tensor:
    """``sum_j mask[j, r, i] * <gradient[j, r], tangent[j, :, (i, category of i, c)]>``, ``[R, n_parents * width]``."""
    category = rows[:, run.parents] - run.first_rows(rows.device)
    every = th.bmm(gradient, tangent).unflatten(-1, (run.n_parents, run.width, run.width))
    index = category[None, :, :, None, None].expand(*every.shape[:3], 1, run.width)
    at_category = every.gather(3, index).squeeze(3)
    return th.einsum("jric,jri->ric", at_category, mask[..., run.parents]).flatten(1)
