"""Normalisation layers."""

from torch import nn


def batch_norm(dim: int) -> nn.BatchNorm1d:
    """Batch normalisation over ``[R, dim]`` whose state holds floats only."""
    norm = nn.BatchNorm1d(dim)
    # An integer that nothing reads: SB3's own tools expect every entry of a policy's state to be a float.
    norm.num_batches_tracked = None
    return norm
