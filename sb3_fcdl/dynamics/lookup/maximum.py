"""The largest rows of a table in each coordinate, and their gradients: those of the layers that the table stands for."""

import torch as th
from torch.nn import functional as F

from sb3_fcdl.dynamics.lookup.runs import ParentRun


def table_maximum(table: th.Tensor, rows: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """
    ``TableMaximum`` without a gradient: one parent after the other, whole rows are compared. To know who won each coordinate,
    as the gradient must, costs eight times as much.

    :param table: ``[E, F]``
    :param rows: of the table, ``[J, R, P]``
    :param mask: which of them count, ``[J, R, P]``, bool
    :return: ``[J, R, F]``; -inf where none counts
    """
    # What is masked looks up the row behind the last one.
    table = F.pad(table, (0, 0, 0, 1), value=-th.inf)
    first, *others = rows.masked_fill(~mask, len(table) - 1).permute(2, 0, 1).flatten(1)
    largest = table.index_select(0, first)
    for other in others:
        th.maximum(largest, table.index_select(0, other), out=largest)
    return largest.unflatten(0, mask.shape[:2])


class TableMaximum(th.autograd.Function):
    """
    The largest of the table rows that the mask lets through, in each coordinate, ``[J, R, F]``; -inf where there is none.

    The gradient goes to the row that won the coordinate, and through its tangent to the straight-through sample that chose the
    row: the gradient of the dense layers, not of the look-up.
    """

    @staticmethod
    def forward(ctx, table, columns, rows, mask, categories, parent_of_row, runs, tangents):  # type: ignore[no-untyped-def]
        n_kept = mask.sum(-1).flatten()
        largest, _, _, winner = th.embedding_bag(table, rows[mask], n_kept.cumsum(0) - n_kept, mode=2)
        ctx.save_for_backward(winner, categories, parent_of_row, *tangents)
        ctx.runs, ctx.table_shape, ctx.columns_shape = runs, table.shape, columns.shape
        return largest.masked_fill_((n_kept == 0).unsqueeze(-1), -th.inf).view(*mask.shape[:2], -1)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        winner, categories, parent_of_row, *tangents = ctx.saved_tensors
        by_table = by_columns = None
        if ctx.needs_input_grad[0]:
            by_table = gradient.new_zeros(ctx.table_shape).scatter_add_(0, winner, gradient.flatten(0, 1))
        if ctx.needs_input_grad[1]:
            by_columns = gradient.new_zeros(ctx.columns_shape)
            parent = parent_of_row[winner].view(gradient.shape)
            for run, tangent in zip(ctx.runs, tangents, strict=True):
                by_columns[..., run.columns] = _gradient_by_inputs(run, tangent, gradient, parent, categories)
        return by_table, by_columns, None, None, None, None, None, None


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
