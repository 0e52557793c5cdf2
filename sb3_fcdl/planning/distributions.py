"""What a sampling planner refines: a distribution over action sequences, one class for whole numbers and one for a box."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch as th

from sb3_fcdl.planning.actions import Actions, BoxActions, CategoricalActions
from sb3_fcdl.planning.noise import Noise


class SequenceDistribution(ABC):
    """
    A distribution over sequences of H actions for each of B environments. It never changes: a fit is a new one.

    A sequence is ``[H, *]``, where ``*`` is the shape of one action: nothing for discrete actions, the number of sizes for
    multi-discrete ones, A for a box. It is int64, for a box float.
    """

    @abstractmethod
    def sample(self, noise: Noise, n_candidates: int) -> th.Tensor:
        """
        :param noise: where randomness comes from
        :param n_candidates: sequences wanted for each environment, N
        :return: sequences, ``[B, N, H, *]``
        """

    @abstractmethod
    def completed(self, known: th.Tensor, samples: th.Tensor) -> th.Tensor:
        """
        :param known: sequences with gaps, ``[B, L, H, *]``, float, NaN in the gaps
        :param samples: what to fill the gaps with, ``[B, L, H, *]``; it also replaces what cannot be drawn
        :return: sequences that can be drawn, ``[B, L, H, *]``
        """

    @abstractmethod
    def fitted(self, sequences: th.Tensor, weights: th.Tensor) -> "SequenceDistribution":
        """
        The distribution under which the weighted sequences are most likely.

        :param sequences: ``[B, L, H, *]``
        :param weights: whole numbers, of which a float32 can hold the sum of an environment, at least one of them positive,
            ``[B, L]``; or bool: which sequences count
        """

    def graded(self) -> "SequenceDistribution":
        """The same, some of whose samples stay close to its centre until it is fitted, if there is such a thing as close."""
        return self

    def held(self, samples: th.Tensor) -> th.Tensor:
        """
        What to try where nothing is known. Of a box: the first sample is replaced by a sequence that holds the action at a
        corner, the one that the sample leans to, and the second by one at the opposite corner. Of whole numbers: the samples.

        :param samples: ``[B, L, H, *]``
        :return: ``[B, L, H, *]``
        """
        return samples

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
    One categorical distribution for each environment, step and dimension. Whole numbers in place of probabilities: there is
    no rounding error, in whatever order a device sums up, and a value of frequency 0 is never drawn.

    In the shapes, n counts the dimensions of all steps, and C the values of the largest dimension.

    :param actions: what an action is
    :param frequency: of each value, ``[B, n, C]``, float32
    """

    actions: CategoricalActions
    frequency: th.Tensor

    @classmethod
    def initial(
        cls,
        actions: CategoricalActions,
        horizon: int,
        state: th.Tensor,
        action_mask: th.Tensor | None,
        known: th.Tensor,
    ) -> "CategoricalSequences":
        """Every allowed value equally likely, and one that is known as likely as all together."""
        n_envs, largest = len(state), max(actions.sizes)
        first = th.ones(n_envs, sum(actions.sizes), device=state.device)
        allowed = _by_dimension(first, actions.sizes).repeat(1, horizon, 1)
        if action_mask is not None:
            if action_mask.shape != first.shape:
                raise ValueError(f"action_mask must have shape {tuple(first.shape)}, got {tuple(action_mask.shape)}")
            first = _by_dimension(action_mask.float(), actions.sizes)
            if not first.any(dim=2).all():
                raise ValueError(f"action_mask must allow every environment at least one action, got {action_mask}")
            allowed[:, : len(actions.sizes)] = first
        best = known[:, :1].reshape(n_envs, -1)
        if not best.numel():
            return cls(actions, allowed)
        is_best = th.arange(largest, device=state.device) == best[:, :, None]
        return cls(actions, allowed * (1 + is_best * allowed.sum(dim=2, keepdim=True)))

    def sample(self, noise: Noise, n_candidates: int) -> th.Tensor:
        # the inverse of the cumulative distribution
        cumulative = self.frequency.cumsum(dim=2)
        place = noise.uniform(n_candidates, self.frequency.shape[1]).mT * cumulative[:, :, -1:]
        values = th.searchsorted(cumulative, place.contiguous(), right=True)
        return self._sequences(values.mT)

    def completed(self, known: th.Tensor, samples: th.Tensor) -> th.Tensor:
        values = known.nan_to_num(0).long()
        possible = self.frequency.gather(2, values.flatten(2).mT).mT.reshape(values.shape) > 0
        return values.where(possible & known.isfinite(), samples)

    def fitted(self, sequences: th.Tensor, weights: th.Tensor) -> "CategoricalSequences":
        """The frequencies of the values."""
        values = sequences.flatten(2).mT
        frequency = th.zeros_like(self.frequency)
        return replace(self, frequency=frequency.scatter_add_(2, values, weights.to(frequency)[:, None].expand_as(values)))

    def chosen(self, noise: Noise) -> th.Tensor:
        """The most likely value of each step and dimension."""
        highest = self.frequency == self.frequency.amax(dim=2, keepdim=True)
        return self._sequences(noise.uniform(*self.frequency.shape[1:]).where(highest, -1).argmax(dim=2))

    def _sequences(self, values: th.Tensor) -> th.Tensor:
        """``[..., n]`` as ``[..., H, *]``."""
        return values.unflatten(-1, (-1, *self.actions.shape))


@dataclass(frozen=True)
class NormalSequences(SequenceDistribution):
    """
    One normal distribution for each environment, step and dimension. Its samples are clipped to the bounds.

    :param low: smallest action, ``[A]``
    :param high: largest action, ``[A]``
    :param mean: ``[B, H, A]``
    :param std: of the first sample, ``[B, H, A]``
    :param last_scale: standard deviation of the last sample, in ``std``; between them it falls geometrically
    """

    # smallest standard deviation, in half ranges
    MIN_STD = 1e-6
    # ``last_scale`` while graded: with equal deviations one draw keeps actions small only by luck (the figures:
    # benchmarks/results/README.md, "Horizon and discount").
    GRADED = 0.01

    low: th.Tensor
    high: th.Tensor
    mean: th.Tensor
    std: th.Tensor
    last_scale: float = 1.0

    @classmethod
    def initial(cls, actions: BoxActions, horizon: int, state: th.Tensor, known: th.Tensor) -> "NormalSequences":
        """Around the middle of the box, or what is known, with half the range of the box as standard deviation."""
        bounds = th.tensor((actions.low, actions.high), dtype=state.dtype)
        low, high = bounds.to(state.device, non_blocking=True)
        mean = ((low + high) / 2).expand(len(state), horizon, -1)
        for best in known[:, :1].unbind(dim=1):
            mean = best.where(best.isfinite(), mean)
        return cls(low, high, mean=mean, std=((high - low) / 2).expand_as(mean))

    def sample(self, noise: Noise, n_candidates: int) -> th.Tensor:
        scale = th.logspace(0, math.log10(self.last_scale), n_candidates, device=self.mean.device).view(-1, 1, 1)
        standard = noise.normal(n_candidates, *self.mean.shape[1:]).to(self.mean.dtype)
        return (self.mean[:, None] + self.std[:, None] * scale * standard).clamp(self.low, self.high)

    def completed(self, known: th.Tensor, samples: th.Tensor) -> th.Tensor:
        return known.where(known.isfinite(), samples).clamp(self.low, self.high)

    def fitted(self, sequences: th.Tensor, weights: th.Tensor) -> "NormalSequences":
        """Mean and biased standard deviation; after graded samples the mean alone, as theirs says little of the elites."""
        share = weights.to(sequences)[:, :, None, None]
        total = share.sum(dim=1)
        mean = (share * sequences).sum(dim=1) / total
        if self.last_scale != 1:
            return replace(self, mean=mean, last_scale=1.0)
        variance = (share * (sequences - mean[:, None]).square()).sum(dim=1) / total
        return replace(self, mean=mean, std=variance.sqrt().maximum(self.MIN_STD * (self.high - self.low) / 2))

    def held(self, samples: th.Tensor) -> th.Tensor:
        corner = self.high.where(samples[:, :1, :1] > (self.low + self.high) / 2, self.low)
        corners = th.cat([corner, self.low + self.high - corner], dim=1)[:, : samples.shape[1]].clamp(self.low, self.high)
        return th.cat([corners.expand(-1, -1, samples.shape[2], -1), samples[:, corners.shape[1] :]], dim=1)

    def graded(self) -> "NormalSequences":
        return replace(self, last_scale=self.GRADED)

    def chosen(self, noise: Noise) -> th.Tensor:
        """The mean of each step. There are no ties."""
        # the mean of numbers within bounds can round to one outside
        return self.mean.clamp(self.low, self.high)


def initial_distribution(
    actions: Actions, horizon: int, state: th.Tensor, action_mask: th.Tensor | None, known: th.Tensor
) -> SequenceDistribution:
    """
    The distribution of one who knows nothing but a warm start.

    :param actions: what an action is
    :param horizon: length of a sequence, in env steps, H
    :param state: encoded current state, ``[B, D]``; continuous actions have its dtype
    :param action_mask: the values allowed at the first step, ``[B, sum(sizes)]``, bool; None: all
    :param known: sequences with gaps, ``[B, L, H, *]``, NaN in the gaps. The distribution is centred on the first, if any
    :raises ValueError: if ``action_mask`` has another shape, allows an environment no action, or is given for a box
    """
    if not isinstance(actions, BoxActions):
        return CategoricalSequences.initial(actions, horizon, state, action_mask, known)
    if action_mask is not None:
        raise ValueError(f"action masks are for discrete actions, got one for {actions}")
    return NormalSequences.initial(actions, horizon, state, known)


def _by_dimension(columns: th.Tensor, sizes: tuple[int, ...]) -> th.Tensor:
    """``[B, sum(sizes)]`` as ``[B, len(sizes), C]``, with zeros where a dimension has less than C values."""
    largest = max(sizes)
    dimensions = columns.split(sizes, dim=1)
    return th.stack([th.nn.functional.pad(each, (0, largest - each.shape[1])) for each in dimensions], dim=1)
