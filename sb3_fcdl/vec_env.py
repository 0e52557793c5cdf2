"""Any Gymnasium vector environment as a Stable-Baselines3 VecEnv."""

from collections.abc import Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn


class GymVectorVecEnv(VecEnv):
    """
    Lets an SB3 algorithm train on a Gymnasium ``VectorEnv``, for example on a simulator that steps many environments at once.

    Attributes and methods of sub-environments are asked of each of them where the vector environment can do so
    (``SyncVectorEnv``, ``AsyncVectorEnv``). Otherwise they are the vector environment's own: an attribute is then the same
    for all sub-environments, and a method is called once for all of them; an array, list or tuple with ``num_envs`` entries
    that it returns is shared out, one entry each.

    :param venv: with ``AutoresetMode.SAME_STEP``
    :raises ValueError: if the environment resets in another way
    """

    def __init__(self, venv: VectorEnv) -> None:
        mode = venv.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"autoreset_mode={mode} of {venv} is not allowed; SB3 needs AutoresetMode.SAME_STEP: for example "
                "gym.make_vec(..., vectorization_mode='sync', vector_kwargs={'autoreset_mode': AutoresetMode.SAME_STEP})"
            )
        self.venv = venv
        self._actions: np.ndarray | None = None
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)
        # Recorders of videos read the frames per second from here.
        self.metadata = {**self.metadata, **venv.metadata}

    def reset(self) -> VecEnvObs:
        if any(options != self._options[0] for options in self._options):
            raise ValueError(f"options={self._options} are not allowed; a Gymnasium VectorEnv takes the same ones for all")
        # SB3 only knows consecutive seeds, and Gymnasium counts on from the first
        observations, infos = self.venv.reset(seed=self._seeds[0], options=self._options[0] or None)
        self.reset_infos = unbatch_infos(infos, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return self._fresh(observations)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, terminated, truncated, batched = self.venv.step(self._actions)
        dones = np.logical_or(terminated, truncated)
        infos = unbatch_infos(batched, self.num_envs)
        for index in np.flatnonzero(dones):
            last_observation, last_info = infos[index].pop("final_obs"), infos[index].pop("final_info", {})
            self.reset_infos[index] = infos[index]
            infos[index] = {**last_info, "terminal_observation": last_observation}
        for info, is_limit in zip(infos, np.logical_and(truncated, ~terminated).tolist(), strict=True):
            info["TimeLimit.truncated"] = is_limit
        return self._fresh(observations), np.array(rewards, dtype=np.float32), dones, infos

    def close(self) -> None:
        self.venv.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        chosen = self._get_indices(indices)
        if attr_name == "render_mode":
            return [self.venv.render_mode for _ in chosen]
        if not self._asks_each:
            return [getattr(self.venv.unwrapped, attr_name) for _ in chosen]
        # asked first, because a worker of AsyncVectorEnv does not survive an AttributeError
        if not all(self._call("has_wrapper_attr", attr_name)):
            raise AttributeError(f"{self.venv} has sub-environments without an attribute {attr_name!r}")
        values = self._call("get_wrapper_attr", attr_name)
        return [values[index] for index in chosen]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        self._check_all(indices)
        if self._asks_each:
            self._call("set_wrapper_attr", attr_name, value)
        else:
            setattr(self.venv.unwrapped, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        self._check_all(indices)
        if self._asks_each:
            return list(self._call(method_name, *method_args, **method_kwargs))
        result = getattr(self.venv.unwrapped, method_name)(*method_args, **method_kwargs)
        if isinstance(result, (np.ndarray, list, tuple)) and len(result) == self.num_envs:
            return list(result)
        return [result for _ in range(self.num_envs)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        return cast("Sequence[np.ndarray | None]", self.venv.render() or [None] * self.num_envs)

    @property
    def _asks_each(self) -> bool:
        return hasattr(self.venv.unwrapped, "call")

    def _call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        return self.venv.unwrapped.call(name, *args, **kwargs)  # type: ignore[attr-defined]

    def _check_all(self, indices: VecEnvIndices) -> None:
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise ValueError(f"indices={indices} are not allowed; a Gymnasium VectorEnv only acts on all of its environments")

    def _fresh(self, observations: Any) -> VecEnvObs:
        """A copy with the dtype of the space: SB3 and its users keep and change what they get."""
        if isinstance(observations, dict):
            spaces = self.observation_space.spaces  # type: ignore[attr-defined]
            return {key: np.array(values, dtype=spaces[key].dtype) for key, values in observations.items()}
        return np.array(observations, dtype=self.observation_space.dtype)


def unbatch_infos(infos: dict[str, Any], n_envs: int) -> list[dict[str, Any]]:
    """
    Gymnasium's infos of a vector environment, one dictionary for each environment.

    :param infos: by key, values ``[n_envs, ...]``; where there is a mask ``_key``, only some environments have them
    :param n_envs: how many environments
    :return: ``n_envs`` dictionaries; numbers are Python numbers
    """
    unbatched: list[dict[str, Any]] = [{} for _ in range(n_envs)]
    for key, batch in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        if isinstance(batch, dict):
            values: Sequence[Any] = unbatch_infos(batch, n_envs)
        else:
            values = batch.tolist() if isinstance(batch, np.ndarray) and batch.ndim == 1 else batch
        for index in np.flatnonzero(infos.get(f"_{key}", np.ones(n_envs, dtype=bool))).tolist():
            unbatched[index][key] = values[index]
    return unbatched
