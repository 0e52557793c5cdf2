"""A Chemical small enough, and an FCDL quick enough, to run in every test."""

import signal
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from sb3_fcdl import FCDL, FCDLPolicy

ENV_ID = "FCDL/Chemical-v0"
TINY = {"n_objects": 4, "n_colors": 3}
N_ACTIONS = 12


def tiny_env(**kwargs: Any) -> gym.Env:
    return gym.make(ENV_ID, **TINY, **kwargs)


def tiny_vec_env(n_envs: int = 2, **kwargs: Any) -> VecEnv:
    return make_vec_env(ENV_ID, n_envs=n_envs, seed=0, env_kwargs=TINY | kwargs)


def tiny_fcdl(env: Any = None, **kwargs: Any) -> FCDL:
    defaults: dict[str, Any] = {
        "learning_rate": 1e-4,
        "learning_starts": 20,
        "train_freq": 2,
        "batch_size": 16,
        "train_horizon": 3,
        "buffer_size": 1000,
        "seed": 0,
        "dynamics_kwargs": {"graph_prior": "order", "hidden_dim": 16, "n_codes": 4},
        "planner": "cem",
        "planner_kwargs": {"horizon": 2, "n_iterations": 1, "n_candidates": 8, "n_elites": 4},
    }
    return FCDL(kwargs.pop("policy", FCDLPolicy), tiny_env() if env is None else env, **(defaults | kwargs))


def ends_after(n_updates: int, error: type[BaseException]) -> Callable[..., None]:
    """In place of ``FCDL.train``: the same, but after so many updates the next one raises the error."""
    train = FCDL.train

    def train_or_raise(model: FCDL, **kwargs: Any) -> None:
        if model._n_updates == n_updates:
            raise error
        train(model, **kwargs)

    return train_or_raise


def signalled_after(n_updates: int, *numbers: int) -> Callable[..., None]:
    """In place of ``FCDL.train``: the same, and after so many updates the signals come."""
    train = FCDL.train

    def train_and_signal(model: FCDL, **kwargs: Any) -> None:
        train(model, **kwargs)
        if model._n_updates == n_updates:
            for number in numbers:
                signal.raise_signal(number)

    return train_and_signal
