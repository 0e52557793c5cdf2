"""Which category each variable of a batch has."""

from typing import NamedTuple

import torch as th


class Categories(NamedTuple):
    """
    :param category: the number of the largest entry of each variable, ``[...]``, int64
    :param is_exact: whether the variable is exactly one-hot, likewise, bool
    """

    category: th.Tensor
    is_exact: th.Tensor


def categories(entries: th.Tensor) -> Categories:
    """
    :param entries: whatever numbers stand in the columns of variables of one width, ``[..., width]``
    :return: the category of each of them
    """
    values = entries.detach()
    largest, category = values.max(-1)
    return Categories(category, (largest == 1) & (values.abs().sum(-1) == 1))
