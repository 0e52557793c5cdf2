"""One imagined step of many environments, and where imagination begins."""

from typing import NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.utils import obs_as_tensor

from sb3_fcdl.buffers import sample_windows
from sb3_fcdl.dynamics.ensemble import MixtureDistribution
from sb3_fcdl.observations import Observations, map_observations
from sb3_fcdl.world.gate import check_buffer, is_usable
from sb3_fcdl.world.world_model import WorldModel


class Imagined(NamedTuple):
    """
    What ``R`` steps lead to.

    :param observations: in their space, ``[R, *obs_shape]``; of a ``Dict`` by key
    :param rewards: ``[R]``, float32
    :param terminated: which episodes ended, ``[R]``, bool
    :param disagreement: of the members of an ensemble, see ``MixtureDistribution.disagreement``, ``[R]``; 0 of a single model
    """

    observations: Observations
    rewards: np.ndarray
    terminated: np.ndarray
    disagreement: np.ndarray


@th.no_grad()
def imagine(world: WorldModel, observations: Observations, actions: np.ndarray, generator: th.Generator) -> Imagined:
    """
    Samples of what a model predicts. An end happens with the probability that the model says.

    :param world: the model
    :param observations: ``[R, *obs_shape]``
    :param actions: as SB3's buffers hold them, ``[R, action_dim]``
    :param generator: on the device of the model
    """
    before = obs_as_tensor(observations, world.device)
    state, goal = world.encode(before), world.goal(before)
    action = world.encode_action(th.as_tensor(actions, device=world.device))
    predicted = world.step(state, action).next_state
    after = world.factorization.observation(predicted.sample(generator), goal)
    # What is observed is paid for, and what the next step starts from.
    next_state = world.encode(obs_as_tensor(after, world.device))
    disagreement = predicted.disagreement() if isinstance(predicted, MixtureDistribution) else th.zeros(len(state))
    return Imagined(after, *outcome(world, state, action, next_state, goal, generator), disagreement.cpu().numpy())


def outcome(
    world: WorldModel,
    state: th.Tensor,
    action: th.Tensor,
    next_state: th.Tensor,
    goal: th.Tensor,
    generator: th.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """
    :param world: knows reward and end, or has learned them
    :param state: encoded, ``[R, D]``
    :param action: encoded, ``[R, A]``
    :param next_state: encoded, ``[R, D]``
    :param goal: ``[R, G]``
    :param generator: draws which episodes end, on the device of the model
    :return: rewards, ``[R]``, float32, and which episodes ended, ``[R]``, bool
    """
    rewards = world.reward(state, action, next_state, goal)
    ended = world.termination(state, action, next_state, goal)
    terminated = th.rand(len(state), generator=generator, device=world.device) < ended
    return rewards.cpu().numpy().astype(np.float32), terminated.cpu().numpy()


def replayed(world: WorldModel, replay_buffer: ReplayBuffer, n: int, rng: np.random.Generator) -> Observations:
    """
    :param world: knows the spaces
    :param replay_buffer: in the units that the model is given
    :param n: how many
    :param rng: draws them, uniformly and with replacement
    :return: recorded observations, ``[n, *obs_shape]``
    :raises ValueError: if the buffer is empty, or holds what no model can be given
    """
    observations = sample_windows(replay_buffer, n, 1, rng).observations
    if not is_usable(world.factorization, observations):
        check_buffer(world.factorization, replay_buffer)
    # Buffers hold a Discrete observation as [1].
    space = world.factorization.observation_space
    parts = getattr(space, "spaces", space)
    return map_observations(lambda array, part: array.reshape(n, *part.shape), observations, parts)
