"""
Means over the rows of a batch that count, and draws among them.

The number of these rows is known to the device only, and to ask for it is to wait. Where all rows count, everything is what it
would be without a mask, bit for bit.
"""

import torch as th


def mean_of_rows(values: th.Tensor, valid: th.Tensor) -> th.Tensor:
    """
    :param values: finite, ``[R, ...]``
    :param valid: which rows count, ``[R]``, bool
    :return: mean over the rows that count and over all other dimensions, a scalar; 0 if no row counts
    """
    return masked(values, valid).mean() * weight_of_rows(valid, values.dtype)


def masked(values: th.Tensor, valid: th.Tensor) -> th.Tensor:
    """``values [R, ...]`` with zeros in the rows that do not count."""
    return values * valid.view(-1, *[1] * (values.dim() - 1))


def weight_of_rows(valid: th.Tensor, dtype: th.dtype) -> th.Tensor:
    """What turns a mean over all rows, zeros included, into one over those that count: 1 if these are all, a scalar."""
    return valid.numel() / valid.sum().clamp(min=1).to(dtype)


def valid_first(valid: th.Tensor) -> th.Tensor:
    """Indices of the rows, those that count first, in their order, ``[R]``, int64."""
    return (~valid).int().argsort(stable=True)


def shuffled_rows(valid: th.Tensor) -> th.Tensor:
    """
    A random permutation that mixes rows that count with each other only.

    :param valid: which rows count, ``[R]``, bool
    :return: the row that takes the place of each, ``[R]``, int64
    """
    order = th.randperm(len(valid), device=valid.device)
    return order.new_empty(len(order)).scatter_(0, valid_first(valid), order[valid_first(valid[order])])


def shuffled_within(groups: th.Tensor) -> th.Tensor:
    """
    A random permutation that mixes the rows of each group with each other only.

    :param groups: number of the group of each row, ``[R]``, int64
    :return: the row that takes the place of each, ``[R]``, int64
    """
    order = th.rand(len(groups), device=groups.device).argsort()
    shuffled = order[groups[order].argsort(stable=True)]
    return th.empty_like(shuffled).scatter_(0, groups.argsort(stable=True), shuffled)


def drawn_rows(valid: th.Tensor, n: int) -> th.Tensor:
    """
    :param valid: which rows count, ``[R]``, bool
    :param n: how many rows to draw, with replacement
    :return: rows that count, each as probable, ``[n]``, int64; any row if none counts
    """
    # The remainder of a number that is large beside R is as good as uniform. Below 2**28, that is for batches of less than
    # 2**16 rows, it is the number that torch would draw for R rows.
    numbers = th.randint(len(valid) * 2**12, (n,), device=valid.device)
    return valid_first(valid)[numbers % valid.sum().clamp(min=1)]
