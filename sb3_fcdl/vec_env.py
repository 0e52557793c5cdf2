"""Any Gymnasium vector environment as a Stable-Baselines3 VecEnv."""

from collections.abc import Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn


class GymVectorVecEnv(VecEnv):
    """
    Lets an SB3 algorithm train on a Gymnasium ``VectorEnv``, for example on a simulator that steps many environments at once.

    Attributes and methods of sub-environments are asked of each of them where the vector environment can do so
    (``SyncVectorEnv``, ``AsyncVectorEnv``), or of those with the given ``indices``. Otherwise they are the vector
    environment's own: an attribute is then the same for all sub-environments, and a method is called once for all of them;
    an array, list or tuple with ``num_envs`` entries that it returns is shared out, one entry each. Such an environment
    cannot act on some of its sub-environments alone, and refuses to.

    :param venv: with ``AutoresetMode.SAME_STEP``
    :raises ValueError: if the environment resets in another way
    :raises TypeError: if it is no ``VectorEnv``
    """

    def __init__(self, venv: VectorEnv) -> None:
        if not isinstance(venv, VectorEnv):
            raise TypeError(
                f"venv must be a gymnasium.vector.VectorEnv, got {venv!r}; SB3 takes an Env as it is, or as a DummyVecEnv"
            )
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
        chosen = self._chosen(indices)
        if attr_name == "render_mode":
            return [self.venv.render_mode for _ in chosen]
        if not self._asks_each:
            return [getattr(self.venv.unwrapped, attr_name) for _ in chosen]
        # asked first, because a worker of AsyncVectorEnv does not survive an AttributeError
        if not all(self._call(chosen, "has_wrapper_attr", attr_name)):
            raise AttributeError(f"{self.venv} has sub-environments without an attribute {attr_name!r}")
        return self._call(chosen, "get_wrapper_attr", attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        if self._asks_each:
            self._call(self._chosen(indices), "set_wrapper_attr", attr_name, value)
        else:
            self._all_chosen(indices)
            setattr(self.venv.unwrapped, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        if self._asks_each:
            return self._call(self._chosen(indices), method_name, *method_args, **method_kwargs)
        chosen = self._all_chosen(indices)
        result = getattr(self.venv.unwrapped, method_name)(*method_args, **method_kwargs)
        is_shared_out = isinstance(result, (np.ndarray, list, tuple)) and len(result) == self.num_envs
        return [result[index] if is_shared_out else result for index in chosen]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """In the workers of an ``AsyncVectorEnv`` a wrapper is known by the name of its class."""
        chosen, venv = self._chosen(indices), self.venv.unwrapped
        if isinstance(venv, SyncVectorEnv):
            return [is_wrapped(venv.envs[index], wrapper_class) for index in chosen]
        if isinstance(venv, AsyncVectorEnv):
            # "<Monitor<TimeLimit<...>>>"
            return [f"<{wrapper_class.__name__}<" in text for text in self._call(chosen, "__str__")]
        return [False for _ in chosen]

    def get_images(self) -> Sequence[np.ndarray | None]:
        return cast("Sequence[np.ndarray | None]", self.venv.render() or [None] * self.num_envs)

    @property
    def _asks_each(self) -> bool:
        return isinstance(self.venv.unwrapped, SyncVectorEnv | AsyncVectorEnv)

    def _call(self, chosen: list[int], name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Calls a method of the chosen sub-environments, in this order."""
        venv = self.venv.unwrapped
        if isinstance(venv, SyncVectorEnv):
            return [venv.envs[index].get_wrapper_attr(name)(*args, **kwargs) for index in chosen]
        assert isinstance(venv, AsyncVectorEnv)
        if chosen == list(range(self.num_envs)):
            return list(venv.call(name, *args, **kwargs))
        # AsyncVectorEnv.call can only ask all workers
        results = []
        for index in chosen:
            pipe = venv.parent_pipes[index]
            pipe.send(("_call", (name, args, kwargs)))
            result, is_success = pipe.recv()
            # Gymnasium has no public way to raise the error of a worker.
            venv._raise_if_errors([is_success or each != index for each in range(self.num_envs)])  # noqa: SLF001
            results.append(result)
        return results

    def _chosen(self, indices: VecEnvIndices) -> list[int]:
        """:raises IndexError: if there is no such environment"""
        return [range(self.num_envs)[index] for index in self._get_indices(indices)]

    def _all_chosen(self, indices: VecEnvIndices) -> list[int]:
        chosen = self._chosen(indices)
        if sorted(chosen) != list(range(self.num_envs)):
            raise ValueError(
                f"indices={indices} are not allowed: {self.venv} only acts on all of its {self.num_envs} environments; "
                "SyncVectorEnv and AsyncVectorEnv act on single ones"
            )
        return chosen

    def _fresh(self, observations: Any) -> VecEnvObs:
        """A copy with the dtype of the space: SB3 and its users keep and change what they get."""
        return _copy(self.observation_space, observations)


def _copy(space: gym.Space, observations: Any) -> Any:
    """
    :param space: of one observation
    :param observations: a batch, as Gymnasium has it
    :return: new arrays in the dtype of the space; of a ``Dict`` by key, of a ``Tuple`` a tuple
    """
    if isinstance(space, spaces.Dict):
        return {key: _copy(part, observations[key]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_copy(part, values) for part, values in zip(space.spaces, observations, strict=True))
    return np.array(observations, dtype=space.dtype)


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
