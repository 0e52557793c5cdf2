"""The running mean and standard deviation of what an environment hands out."""

import torch as th
from torch import nn

# A number that varies by less counts as constant: absolutely, and relative to its mean, where rounding begins.
MIN_STD, MIN_RELATIVE_STD = 1e-6, 1e-9


class RunningMoments(nn.Module):
    """
    Mean and standard deviation of each of ``W`` numbers over all batches so far (Welford's method, float64).

    The standard deviation of a number that has not varied is 1: what is divided by it stays as it is.

    :param width: how many numbers, ``W``
    """

    count: th.Tensor
    mean: th.Tensor
    std: th.Tensor
    sum_of_squares: th.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("count", th.zeros((), dtype=th.float64))
        self.register_buffer("mean", th.zeros(width, dtype=th.float64))
        self.register_buffer("sum_of_squares", th.zeros(width, dtype=th.float64))
        self.register_buffer("std", th.ones(width, dtype=th.float64))

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
        rounding = MIN_RELATIVE_STD * self.mean.abs()
        self.std.copy_(std.where(std > rounding.clamp(min=MIN_STD), rounding.clamp(min=1)))

    def normalize(self, values: th.Tensor) -> th.Tensor:
        """``[..., W]`` to mean 0 and standard deviation 1, float32."""
        return ((values - self.mean) / self.std).float()

    def denormalize(self, values: th.Tensor) -> th.Tensor:
        """The inverse of ``normalize``, in the dtype of ``values``."""
        return (values * self.std + self.mean).to(values.dtype)
