"""The running mean and standard deviation of what an environment hands out."""

import numpy as np
import torch as th
from torch import nn

# Relative to its mean, a number that varies by less counts as constant. Rounding begins there: of float32, and of sums of
# float64.
MIN_RELATIVE_STD = 1e-9
MIN_RELATIVE_STD_OF_FLOAT32 = float(np.finfo(np.float32).eps)


class RunningMoments(nn.Module):
    """
    Mean and standard deviation of each of ``W`` numbers over all batches so far (Welford's method, float64).

    The standard deviation of a number that has not varied is 1: what is divided by it stays as it is. Whether it has varied
    is judged relative to its mean, so that the unit of a number does not matter.

    :param width: how many numbers, ``W``
    :param rounding: share of its mean by which a number must vary, of all or of each, ``[W]``
    """

    count: th.Tensor
    mean: th.Tensor
    std: th.Tensor
    sum_of_squares: th.Tensor
    rounding: th.Tensor

    def __init__(self, width: int, rounding: float | np.ndarray = MIN_RELATIVE_STD) -> None:
        super().__init__()
        relative = th.tensor(np.broadcast_to(rounding, width), dtype=th.float64)
        self.register_buffer("rounding", relative, persistent=False)
        self.register_buffer("count", th.zeros((), dtype=th.float64))
        self.register_buffer("mean", th.zeros(width, dtype=th.float64))
        self.register_buffer("sum_of_squares", th.zeros(width, dtype=th.float64))
        self.register_buffer("std", th.ones(width, dtype=th.float64))

    def reset(self) -> None:
        """Nothing was seen."""
        self.count.zero_()
        self.mean.zero_()
        self.sum_of_squares.zero_()
        self.std.fill_(1)

    def update(self, values: th.Tensor) -> None:
        """
        :param values: a batch, ``[R, W]``
        """
        values = values.double()
        n_new = len(values)
        total = self.count + n_new
        new_mean = values.mean(0)
        shift = new_mean - self.mean
        self.sum_of_squares += (values - new_mean).square().sum(0) + shift.square() * self.count * n_new / total
        self.mean += shift * n_new / total
        self.count.copy_(total)
        std = (self.sum_of_squares / total).sqrt()
        rounding = self.rounding * self.mean.abs()
        self.std.copy_(std.where(std > rounding, rounding.clamp(min=1)))

    def normalize(self, values: th.Tensor) -> th.Tensor:
        """``[..., W]`` to mean 0 and standard deviation 1, float32."""
        return ((values - self.mean) / self.std).float()

    def denormalize(self, values: th.Tensor) -> th.Tensor:
        """The inverse of ``normalize``, in the dtype of ``values``."""
        return (values * self.std + self.mean).to(values.dtype)


def rounding_of(dtype: np.dtype | type | None) -> float:
    """
    :param dtype: of recorded numbers
    :return: share of its mean by which such a number must vary to count as varying
    """
    is_short = dtype is not None and np.issubdtype(dtype, np.floating) and np.finfo(dtype).bits <= 32
    return MIN_RELATIVE_STD_OF_FLOAT32 if is_short else MIN_RELATIVE_STD
