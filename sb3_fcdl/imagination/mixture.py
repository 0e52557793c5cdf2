"""Batches of recorded and imagined transitions."""

from typing import Any

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from sb3_fcdl.observations import map_observations


class MixedReplay:
    """
    What an off-policy algorithm of SB3 asks of its replay buffer while it trains: batches.

    :param recorded: the algorithm's own, or another mixture
    :param imagined: holds at least one transition
    :param real_ratio: share of recorded transitions in a batch, in [0, 1], to the nearest transition
    :param gamma: discount of an imagined transition, which is of one step, where recorded ones are of several
    """

    def __init__(
        self, recorded: "ReplayBuffer | MixedReplay", imagined: ReplayBuffer, real_ratio: float, gamma: float
    ) -> None:
        self.recorded = recorded
        self.imagined = imagined
        self.real_ratio = real_ratio
        self.gamma = gamma

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> Any:
        """See ``ReplayBuffer.sample``."""
        n_recorded = round(self.real_ratio * batch_size)
        if n_recorded == batch_size:
            return self.recorded.sample(batch_size, env=env)
        imagined = self.imagined.sample(batch_size - n_recorded, env=env)
        if not n_recorded:
            return imagined
        recorded = self.recorded.sample(n_recorded, env=env)
        if recorded.discounts is not None:
            imagined = imagined._replace(discounts=th.full_like(imagined.rewards, self.gamma))
        pairs = zip(recorded._fields, recorded, imagined, strict=True)
        return recorded._replace(**{name: _joined(one, other) for name, one, other in pairs})


def _joined(one: Any, other: Any) -> Any:
    """Recorded before imagined: tensors, dictionaries of tensors, or both None."""
    if one is None:
        return None
    return map_observations(lambda *both: th.cat(both), one, other)
