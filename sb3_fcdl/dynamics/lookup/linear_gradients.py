"""The gradients of ``LinearTables``: those of the matrix products that the look-ups stand for."""

import torch as th
from torch.nn import functional as F

from sb3_fcdl.dynamics.lookup.runs import ParentRun


class LinearGradients(th.autograd.Function):
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
