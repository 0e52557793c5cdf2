"""What a sampling planner refines: a distribution over action sequences, one class for each kind of action."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch as th

from sb3_fcdl.planning.actions import Actions, BoxActions, DiscreteActions
from sb3_fcdl.planning.noise import Noise


class SequenceDistribution(ABC):
    """
    A distribution over sequences of H actions for each of B environments. It never changes: a fit is a new one.

    A sequence is ``[H]`` int64 for discrete actions, ``[H, A]`` float for a box; in the shapes below ``*`` is nothing or A.
    """

    @abstractmethod
    def sample(self, noise: Noise, n_candidates: int) -> th.Tensor:
        """
        :param noise: where randomness comes from
        :param n_candidates: sequences wanted for each environment, N
        :return: sequences, ``[B, N, H, *]``
        """

    @abstractmethod
    def fitted(self, elites: th.Tensor, kept: th.Tensor) -> "SequenceDistribution":
        """
        The distribution under which the elites are most likely.

        :param elites: sequences, ``[B, n_elites, H, *]``
        :param kept: which elites count, at least one of each environment, ``[B, n_elites]``, bool
        """

    @abstractmethod
    def chosen(self, noise: Noise) -> th.Tensor:
        """
        The centre of the distribution.

        :param noise: breaks ties
        :return: one sequence for each environment, ``[B, H, *]``
        """


@dataclass(frozen=True)
class CategoricalSequences(SequenceDistribution):
    """
    One categorical distribution for each environment and step, as a list of L equally likely actions. Whole numbers in place
    of probabilities: there is no rounding error, and an action that is not listed is never drawn.

    :param n_actions: number of actions
    :param listed: actions in ascending order, then unused entries that hold ``n_actions``, ``[B, L, H]``
    :param n_listed: how many entries are used, ``[B, H]``
    """

    n_actions: int
    listed: th.Tensor
    n_listed: th.Tensor

    @classmethod
    def initial(
        cls, actions: DiscreteActions, horizon: int, state: th.Tensor, action_mask: th.Tensor | None
    ) -> "CategoricalSequences":
        """Every allowed action equally likely; see :func:`initial_distribution`."""
        n_envs = len(state)
        every_action = th.arange(actions.n, device=state.device)
        listed = every_action[:, None].repeat(n_envs, 1, horizon)
        n_listed = th.full((n_envs, horizon), actions.n, device=state.device)
        if action_mask is not None:
            if action_mask.shape != (n_envs, actions.n):
                raise ValueError(f"action_mask must have shape {(n_envs, actions.n)}, got {tuple(action_mask.shape)}")
            if not action_mask.any(dim=1).all():
                raise ValueError(f"action_mask must allow every environment at least one action, got {action_mask}")
            listed[:, :, 0] = every_action.where(action_mask, actions.n).sort(dim=1).values
            n_listed[:, 0] = action_mask.sum(dim=1)
        return cls(actions.n, listed, n_listed)

    def sample(self, noise: Noise, n_candidates: int) -> th.Tensor:
        # the inverse of the cumulative distribution
        place = noise.uniform(n_candidates, self.listed.shape[2]) * self.n_listed[:, None]
        return self.listed.gather(1, place.long())

    def fitted(self, elites: th.Tensor, kept: th.Tensor) -> "CategoricalSequences":
        """The frequencies of the actions among the elites."""
        listed = elites.where(kept[:, :, None], self.n_actions).sort(dim=1).values
        return replace(self, listed=listed, n_listed=kept.sum(dim=1, keepdim=True).expand_as(self.n_listed))

    def chosen(self, noise: Noise) -> th.Tensor:
        """The most likely action of each step."""
        n_envs, _, horizon = self.listed.shape
        counts = th.zeros(n_envs, horizon, self.n_actions + 1, device=self.listed.device)
        counts.scatter_add_(2, self.listed.mT, th.ones_like(self.listed.mT, dtype=counts.dtype))
        # counts are whole numbers: noise below one half only decides between equal ones
        return (counts[:, :, : self.n_actions] + noise.uniform(horizon, self.n_actions) / 2).argmax(dim=2)


@dataclass(frozen=True)
class NormalSequences(SequenceDistribution):
    """
    One normal distribution for each environment, step and dimension. Its samples are clipped to the bounds.

    :param low: smallest action, ``[A]``
    :param high: largest action, ``[A]``
    :param mean: ``[B, H, A]``
    :param std: ``[B, H, A]``
    """

    # smallest standard deviation, in half ranges
    MIN_STD = 1e-6

    low: th.Tensor
    high: th.Tensor
    mean: th.Tensor
    std: th.Tensor

    @classmethod
    def initial(cls, actions: BoxActions, horizon: int, state: th.Tensor) -> "NormalSequences":
        """The middle of the box, with half its range as standard deviation; see :func:`initial_distribution`."""
        low, high = state.new_tensor(actions.low), state.new_tensor(actions.high)
        shape = len(state), horizon, len(low)
        return cls(low, high, mean=((low + high) / 2).expand(shape), std=((high - low) / 2).expand(shape))

    def sample(self, noise: Noise, n_candidates: int) -> th.Tensor:
        standard = noise.normal(n_candidates, *self.mean.shape[1:]).to(self.mean.dtype)
        return (self.mean[:, None] + self.std[:, None] * standard).clamp(self.low, self.high)

    def fitted(self, elites: th.Tensor, kept: th.Tensor) -> "NormalSequences":
        """Mean and biased standard deviation of the elites."""
        counts, n_counted = kept[:, :, None, None], kept.sum(dim=1)[:, None, None]
        mean = elites.where(counts, 0).sum(dim=1) / n_counted
        variance = (elites - mean[:, None]).square().where(counts, 0).sum(dim=1) / n_counted
        return replace(self, mean=mean, std=variance.sqrt().maximum(self.MIN_STD * (self.high - self.low) / 2))

    def chosen(self, noise: Noise) -> th.Tensor:
        """The mean of each step. There are no ties."""
        # the mean of numbers within bounds can round to one outside
        return self.mean.clamp(self.low, self.high)


def initial_distribution(
    actions: Actions, horizon: int, state: th.Tensor, action_mask: th.Tensor | None
) -> SequenceDistribution:
    """
    The distribution of one who knows nothing.

    :param actions: what an action is
    :param horizon: length of a sequence, in env steps, H
    :param state: encoded current state, ``[B, D]``; continuous actions have its dtype
    :param action_mask: the actions allowed at the first step, ``[B, n_actions]``, bool; None: all
    :raises ValueError: if ``action_mask`` has another shape, allows an environment no action, or actions are not discrete
    """
    if isinstance(actions, DiscreteActions):
        return CategoricalSequences.initial(actions, horizon, state, action_mask)
    if action_mask is not None:
        raise ValueError(f"action masks are for discrete actions, got one for {actions}")
    return NormalSequences.initial(actions, horizon, state)
