"""Short imagined episodes that branch off recorded ones (Janner et al., 2019), as a replay buffer of SB3."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from sb3_fcdl.imagination.step import Imagined, imagine
from sb3_fcdl.observations import Observations, map_observations
from sb3_fcdl.world.world_model import WorldModel

ActFn = Callable[[Observations], np.ndarray]
"""``observations -> actions as SB3's buffers hold them [R, action_dim]``."""


class RolloutLength(NamedTuple):
    """
    How long branches are: it grows linearly between two timesteps, and is the same before and after.

    :param first: environment steps
    :param last: likewise
    :param begin: timestep at which it begins to change
    :param end: timestep at which it has changed
    """

    first: int
    last: int
    begin: int
    end: int

    @classmethod
    def of(cls, length: int | Sequence[int]) -> "RolloutLength":
        """
        :param length: the same at all times, or the four numbers
        """
        return cls(length, length, 0, 0) if isinstance(length, int | np.integer) else cls(*length)

    def at(self, timestep: int) -> int:
        """The length of branches at a timestep."""
        share = min(max((timestep - self.begin) / max(self.end - self.begin, 1), 0.0), 1.0)
        return int(self.first + share * (self.last - self.first))


class Branches(NamedTuple):
    """
    :param buffer: all imagined transitions
    :param cut_off: share of the imagined transitions that members disagreed about, which are left out
    """

    buffer: ReplayBuffer
    cut_off: float


def branch(
    world: WorldModel,
    starts: Observations,
    act: ActFn,
    length: int,
    max_disagreement: float,
    generator: th.Generator,
) -> Branches:
    """
    Follow the model from each start, until the episode ends, the branch has its length, or the members of an ensemble
    disagree. A transition that they disagree about is left out.

    :param world: the model
    :param starts: observations, ``[R, *obs_shape]``
    :param act: the policy
    :param length: of a branch, environment steps
    :param max_disagreement: see ``MixtureDistribution.disagreement``
    :param generator: on the device of the model
    """
    parts: list[tuple[Observations, np.ndarray, Imagined]] = []
    observations, n_imagined = starts, 0
    for _ in range(length):
        if not _count(observations):
            break
        actions = act(observations)
        step = imagine(world, observations, actions, generator)
        n_imagined += len(actions)
        is_kept = step.disagreement <= max_disagreement
        before, after = _rows(observations, is_kept), _rows(step.observations, is_kept)
        step = Imagined(after, *(each[is_kept] for each in step[1:]))
        parts.append((before, actions[is_kept], step))
        observations = _rows(step.observations, ~step.terminated)
    buffer = as_buffer(world, parts)
    return Branches(buffer, 1 - buffer.size() / max(n_imagined, 1))


def as_buffer(world: WorldModel, parts: Sequence[tuple[Observations, np.ndarray, Imagined]]) -> ReplayBuffer:
    """
    :param world: knows the spaces
    :param parts: observations, actions as SB3's buffers hold them, and what they lead to
    :return: a full buffer of these transitions; one of a single row that is not full, if there are none
    """
    factorization = world.factorization
    is_dict = isinstance(factorization.observation_space, spaces.Dict)
    n_rows = sum(len(actions) for _, actions, _ in parts)
    buffer_class: type[ReplayBuffer] = DictReplayBuffer if is_dict else ReplayBuffer
    buffer = buffer_class(max(n_rows, 1), factorization.observation_space, factorization.action_space, world.device)
    if not n_rows:
        return buffer
    before, actions, steps = zip(*parts, strict=True)

    def fill(array: np.ndarray, *each: np.ndarray) -> None:
        array[:, 0] = np.concatenate(each).reshape(array[:, 0].shape)

    map_observations(fill, buffer.observations, *before)
    map_observations(fill, buffer.next_observations, *(step.observations for step in steps))
    fill(buffer.actions, *actions)
    fill(buffer.rewards, *(step.rewards for step in steps))
    fill(buffer.dones, *(step.terminated for step in steps))
    buffer.full = True
    return buffer


def _rows(values: Observations, which: np.ndarray) -> Observations:
    return map_observations(lambda array: array[which], values)


def _count(observations: Observations) -> int:
    return len(next(iter(observations.values())) if isinstance(observations, dict) else observations)
