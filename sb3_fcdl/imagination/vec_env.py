"""The learned model as a Stable-Baselines3 VecEnv: any algorithm of SB3 can learn in it."""

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from fcdl_envs.arguments import check, integer
from sb3_fcdl.imagination.step import imagine, replayed
from sb3_fcdl.observations import Observations, map_observations
from sb3_fcdl.world.declared import checked_mask
from sb3_fcdl.world.gate import is_finite
from sb3_fcdl.world.world_model import WorldModel

ActionMaskFn = Callable[[Observations], np.ndarray]
"""``observations -> allowed actions [n_envs, n_actions]``, bool; the actions of sb3-contrib's masks."""


class ImaginedVecEnv(VecEnv):
    """
    Environments whose steps are samples of a learned model.

    An episode starts from a recorded observation, drawn uniformly from the replay buffer; a task description in it stays for
    the episode. Reward and end of the episode are those of the world model, given or learned; an end happens with the
    probability that it says. After ``horizon`` steps the episode is truncated, so that an algorithm
    bootstraps there, as at a time limit. The model may learn on meanwhile: every step is that of its present weights.

    What the environment of the model has beyond its spaces, this one has not: time limits, infos, attributes. Its
    observations are in the spaces, hence a number that the model puts beyond the bounds of a ``Box`` is put on them.

    :param world: the model
    :param replay_buffer: with recorded transitions, in the units that the policy is given
    :param n_envs: environments that are stepped together
    :param horizon: after how many environment steps an episode is truncated
    :param action_mask_fn: which actions are allowed, given the observations ``[n_envs, *obs_shape]`` (of a ``Dict`` by key),
        ``[n_envs, n_actions]``, bool; what sb3-contrib then finds as ``action_masks``. None: there are no masks
    :raises ValueError: if ``n_envs`` or ``horizon`` is below 1; and from ``reset`` if the buffer is empty
    :raises TypeError: if one of them is no integer
    """

    def __init__(
        self,
        world: WorldModel,
        replay_buffer: ReplayBuffer,
        n_envs: int = 64,
        horizon: int = 5,
        action_mask_fn: ActionMaskFn | None = None,
    ) -> None:
        check(n_envs=(n_envs, integer(1)), horizon=(horizon, integer(1)))
        self.world = world
        self.replay_buffer = replay_buffer
        self.horizon = horizon
        self.action_mask_fn = action_mask_fn
        self._draw_from(None)
        super().__init__(n_envs, world.factorization.observation_space, world.factorization.action_space)

    def reset(self) -> VecEnvObs:
        if any(self._options):
            raise ValueError(f"options={self._options} are not allowed: imagined episodes start from recorded observations")
        # SB3 only knows consecutive seeds: the first one tells them all.
        if self._seeds[0] is not None:
            self._draw_from(self._seeds[0])
        self._reset_seeds()
        self._n_steps = np.zeros(self.num_envs, dtype=int)
        self._observations = self._starts(self.num_envs)
        return map_observations(np.copy, self._observations)

    def step_async(self, actions: np.ndarray) -> None:
        if not is_finite(actions):
            raise ValueError(f"actions={actions} are not allowed; they must be finite numbers")
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        stored = self.world.factorization.buffer_actions(self._actions)
        observations, rewards, terminated, _ = imagine(self.world, self._observations, stored, self._generator)
        self._n_steps += 1
        truncated = (self._n_steps == self.horizon) & ~terminated
        dones = terminated | truncated
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": is_limit} for is_limit in truncated.tolist()]
        if dones.any():
            last = map_observations(np.copy, observations)
            for index in np.flatnonzero(dones):
                infos[index]["terminal_observation"] = map_observations(itemgetter(index), last)

            def start_anew(array: np.ndarray, starts: np.ndarray) -> None:
                array[dones] = starts

            map_observations(start_anew, observations, self._starts(int(dones.sum())))
            self._n_steps[dones] = 0
        self._observations = observations
        return map_observations(np.copy, observations), rewards, dones, infos

    def _starts(self, n_starts: int) -> Observations:
        return replayed(self.world, self.replay_buffer, n_starts, self._rng)

    def _draw_from(self, seed: int | None) -> None:
        """Begin with the random numbers of that seed; None: with any."""
        self._rng = np.random.default_rng(seed)
        self._generator = th.Generator(self.world.device).manual_seed(int(self._rng.integers(2**63)))

    def _action_masks(self) -> np.ndarray:
        assert self.action_mask_fn is not None
        masks = self.action_mask_fn(map_observations(np.copy, self._observations))
        return np.stack([checked_mask(mask, self.action_space, index) for index, mask in enumerate(masks)])

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        known: dict[str, Any] = {"render_mode": None}
        if self.action_mask_fn is not None:
            known["action_masks"] = self._action_masks
        if attr_name not in known:
            raise AttributeError(f"imagined environments have no attribute {attr_name!r}, only {sorted(known)}")
        return [known[attr_name] for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        raise AttributeError(f"imagined environments have no attributes of their own to set, such as {attr_name!r}")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        # The same for all of them, called once.
        answers = self.get_attr(method_name)[0](*method_args, **method_kwargs)
        return [answers[index] for index in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def close(self) -> None:
        """There is nothing to close."""
