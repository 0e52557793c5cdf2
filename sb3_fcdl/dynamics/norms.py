"""Normalisation layers."""

from typing import Any

from torch import nn


class FloatBatchNorm(nn.BatchNorm1d):
    """
    Batch normalisation over ``[R, dim]`` whose state holds floats only, as SB3 expects of every entry of a policy.

    :param dim: width
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        # An integer that nothing reads.
        self.num_batches_tracked = None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any], *args: Any) -> None:
        # Where the version is not known, as in a plain dictionary, torch would add the integer.
        super()._load_from_state_dict(state_dict, prefix, {**metadata, "version": self._version}, *args)


def batch_norm(dim: int) -> nn.BatchNorm1d:
    """:return: batch normalisation over ``[R, dim]``"""
    return FloatBatchNorm(dim)
