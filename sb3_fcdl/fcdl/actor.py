"""The learned actor as a policy of Stable-Baselines3."""

import warnings
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_fcdl.extras import needs
from sb3_fcdl.fcdl.reading import read_observations
from sb3_fcdl.observations import Observations
from sb3_fcdl.world.precision import in_float32
from sb3_fcdl.world.world_model import WorldModel


class Actor(BasePolicy):
    """
    What a model would do without a plan: one small network, or a table where all states are listed. It is learned with the
    values (docs/value.md), changes as the model learns, and is saved with it.

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
            low, high = world.factorization.action_low, world.factorization.action_high
            return world.decode_action(encoded).clamp(low, high).view(-1, *space.shape)
        start = th.as_tensor(np.asarray(getattr(space, "start", 0), dtype=np.int64), device=encoded.device)
        return world.factorization.actions.decode(encoded) + start

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
            actions = self(tensors).cpu().numpy().astype(self.action_space.dtype)
        return (actions if is_batch else actions.squeeze(axis=0)), None

    def to_onnx(self, path: str | Path) -> None:
        """
        Write it as an ONNX program for a batch of observations of any size. The input is called ``observation``, or as the key
        of a ``Dict``; it is as the environment observes it, float32, or int64 where an observation is categorical. The output
        ``action`` is as the environment takes it. The program does not check its input: an invalid category gives an
        arbitrary action.

        :param path: the file
        :raises ImportError: if the extra ``onnx`` is not installed
        :raises ValueError: if the model learned from observations that ``VecNormalize`` had changed
        """
        if self.world.factorization.is_normalized:
            raise ValueError(
                "the model learned from observations that VecNormalize had changed, and the program would not have its "
                "statistics: pass norm_obs=False to it. FCDL has a normalization of its own"
            )
        with needs("onnxscript", "onnx"):
            import onnxscript  # noqa: F401
        space = self.observation_space
        parts = space.spaces if isinstance(space, spaces.Dict) else {"observation": space}
        zeros = {key: _first_of(part).to(self.device) for key, part in parts.items()}
        # Two rows: with one the exporter would fix the size of a batch.
        batch = {key: th.stack([each, each]) for key, each in zeros.items()}
        any_size = {key: {0: th.export.Dim("batch")} for key in batch}
        is_dict = isinstance(space, spaces.Dict)
        with warnings.catch_warnings():
            # Deprecations of torch in torch; and a note that all inputs have the same number of rows.
            warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec", FutureWarning)
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)
            th.onnx.export(
                self,
                kwargs={"observation": batch if is_dict else batch["observation"]},
                f=path,
                input_names=list(batch),
                output_names=["action"],
                dynamic_shapes={"observation": any_size if is_dict else any_size["observation"]},
                external_data=False,
                dynamo=True,
                verbose=False,
            )

    def save(self, path: Any) -> NoReturn:
        """:raises ValueError: always: the actor is part of the model"""
        raise ValueError("the actor is saved with its model: call save() of the model, or export the actor to ONNX")


def _first_of(space: spaces.Space) -> th.Tensor:
    """An observation of the space, as it is exported."""
    if isinstance(space, spaces.Box):
        return th.zeros(space.shape)
    return th.as_tensor(np.broadcast_to(getattr(space, "start", 0), space.shape or ()).astype(np.int64).copy())
