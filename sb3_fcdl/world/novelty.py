"""How new a state and action are, by all that was recorded."""

import math

import torch as th
from torch import nn

from sb3_fcdl.world.enumeration import Enumeration

# Random features: with more of them, more places can be told apart.
N_FEATURES = 128


class Novelty(nn.Module):
    """
    The variance that a Gaussian process has left: 1 where nothing is like it, about ``1 / (n + 1)`` where it was recorded
    ``n`` times. Its kernel is a Gaussian one, by random Fourier features (Rahimi and Recht, 2007), so its cost does not grow
    with the data. It tells what was never tried, whatever chance decides there.

    :param n_variables: of state and action
    :param width: numbers of an encoded state and action, ``D + A``
    """

    frequencies: th.Tensor
    phases: th.Tensor
    left: th.Tensor

    # Distance at which two states are no longer alike, in standard deviations of the data, for each variable.
    LENGTH = 0.5

    def __init__(self, n_variables: int, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", th.randn(width, N_FEATURES) / (self.LENGTH * math.sqrt(n_variables)))
        self.register_buffer("phases", 2 * math.pi * th.rand(N_FEATURES))
        self.register_buffer("left", th.eye(N_FEATURES))

    def forward(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """
        :param state: encoded, ``[R, D]``
        :param action: encoded, ``[R, A]``
        :return: in [0, 1], ``[R]``
        """
        features = self._features(state, action)
        return ((features @ self.left) * features).sum(-1).clamp(0, 1)

    def is_stale(self, n_recorded: int) -> bool:
        """
        :param n_recorded: transitions so far
        :return: whether ``fit`` would say more than ``add`` has: always, because the scale of the variables changes
        """
        return True

    @th.no_grad()
    def fit(self, state: th.Tensor, action: th.Tensor, n_recorded: int) -> None:
        """
        :param state: encoded, of recorded transitions, ``[R, D]``
        :param action: likewise, ``[R, A]``
        :param n_recorded: how many transitions these stand for
        """
        features = self._features(state, action).double()
        seen = features.T @ features * (n_recorded / len(features))
        self.left.copy_(th.cholesky_inverse(th.linalg.cholesky(seen + th.eye(N_FEATURES).to(seen))))

    @th.no_grad()
    def add(self, state: th.Tensor, action: th.Tensor) -> None:
        """
        Tell of further transitions, at once (Woodbury's identity).

        :param state: encoded, ``[R, D]``
        :param action: likewise, ``[R, A]``
        """
        features = self._features(state, action)
        known = features @ self.left
        covariance = known @ features.T + th.eye(len(features)).to(features)
        self.left -= known.T @ th.linalg.solve(covariance, known)

    def _features(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        angles = th.addmm(self.phases, th.cat([state, action], dim=-1), self.frequencies)
        return math.sqrt(2 / N_FEATURES) * angles.cos()


class Visits(nn.Module):
    """
    The same where all states and actions are listed: ``1 / (n + 1)`` of a pair that was recorded ``n`` times, exactly. It is
    the variance that is left where no pair tells of another.

    :param enumeration: of the states and actions
    """

    counts: th.Tensor

    def __init__(self, enumeration: Enumeration) -> None:
        super().__init__()
        self.enumeration = enumeration
        self.register_buffer("counts", th.zeros(enumeration.n_pairs))

    def forward(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """See ``Novelty``."""
        return 1 / (1 + self.counts[self.enumeration.pair_number(state, action)])

    def is_stale(self, n_recorded: int) -> bool:
        """See ``Novelty.is_stale``: only if somebody else has filled the buffer, or put another in its place."""
        return abs(float(self.counts.sum()) - n_recorded) > 0.5

    @th.no_grad()
    def fit(self, state: th.Tensor, action: th.Tensor, n_recorded: int) -> None:
        """See ``Novelty.fit``."""
        self.counts.zero_()
        self.add(state, action)
        self.counts.mul_(n_recorded / len(state))

    @th.no_grad()
    def add(self, state: th.Tensor, action: th.Tensor) -> None:
        """See ``Novelty.add``."""
        pair = self.enumeration.pair_number(state, action)
        self.counts.index_add_(0, pair, th.ones_like(pair, dtype=self.counts.dtype))
