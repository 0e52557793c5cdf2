"""The learned actor as a policy of Stable-Baselines3."""

from typing import Any, NoReturn

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_fcdl.fcdl.reading import read_observations
from sb3_fcdl.observations import Observations
from sb3_fcdl.world.precision import in_float32
from sb3_fcdl.world.world_model import WorldModel


class Actor(BasePolicy):
    """
    What a model would do without a plan: one small network, or a table where all states are listed. It is learned with the
    values (docs/value.md), changes as the model learns, and is saved with it.

    As a ``torch.nn.Module`` it takes a batch of observations, as SB3's buffers have them, and returns actions in the
    environment's units, ``[B, *action_space.shape]``: it can be exported to ONNX.

    :param world: the model
    :raises ValueError: if the model learns no values, because its discount is 1
    """

    def __init__(self, world: WorldModel) -> None:
        if not world.has_value:
            raise ValueError(
                "the model has no actor: with gamma=1 no values are learned, and the actor with them. Give FCDL a gamma below "
                "1, or let predict() plan"
            )
        factorization = world.factorization
        super().__init__(factorization.observation_space, factorization.action_space)
        self.world = world
        self.set_training_mode(False)

    def forward(self, observation: PyTorchObs, deterministic: bool = True) -> th.Tensor:
        return self._predict(observation, deterministic)

    @in_float32
    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> th.Tensor:
        """
        :param observation: a batch
        :param deterministic: no effect: there is one action for an observation
        :return: whole numbers, or numbers within the bounds of the box, ``[B, *action_space.shape]``
        """
        world, space = self.world, self.action_space
        encoded = world.values.act(world.encode(observation), world.goal(observation))
        if isinstance(space, spaces.Box):
            return world.decode_action(encoded).clamp(world.factorization.action_low, world.factorization.action_high)
        return world.factorization.actions.decode(encoded) + getattr(space, "start", 0)

    def predict(
        self,
        observation: Observations,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, None]:
        """
        The actions for one observation or a batch, see ``BasePolicy.predict``.

        :param observation: one observation or a batch of ``B``
        :param state: no effect: nothing is remembered
        :param episode_start: no effect
        :param deterministic: no effect
        :return: actions, ``action_space.shape`` or ``[B, *action_space.shape]``, and None
        :raises ValueError: if an observation is NaN or infinite, or is a tuple, as ``env.reset()`` of Gymnasium returns it
        """
        tensors, is_batch = read_observations(self, self.world.factorization, observation, "predict()")
        with th.no_grad():
            actions = self(tensors).cpu().numpy()
        actions = actions.reshape(-1, *self.action_space.shape).astype(self.action_space.dtype)  # type: ignore[misc]
        return (actions if is_batch else actions.squeeze(axis=0)), None

    def save(self, path: Any) -> NoReturn:
        """:raises ValueError: always: the actor is part of the model"""
        raise ValueError("the actor is saved with its model: call save() of the model, or export the actor to ONNX")
