"""How new a state and action are, by all that was recorded."""

import math

import torch as th
from torch import nn

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
