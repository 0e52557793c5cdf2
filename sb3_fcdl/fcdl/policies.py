"""The policy: a learned dynamics model and a planner that acts on it."""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics import DynamicsModel, dynamics_class
from sb3_fcdl.factorization import Factorization
from sb3_fcdl.graph import CausalGraph
from sb3_fcdl.planning import CEM
from sb3_fcdl.planning.base import RewardFn

Observation = np.ndarray | dict[str, np.ndarray]


class FCDLPolicy(BasePolicy):
    """
    Model-predictive control on a learned causal model of the environment.

    ``predict`` plans from each observation anew: it needs no ``state``, and hands back the one that it was given.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param factors: what the observation's columns mean; ``FCDL`` takes it from the environment's ``factorization``
    :param reward_fn: what the planner maximises; ``FCDL`` takes it from the environment's ``reward_fn``
    :param dynamics: the model: a name in ``DYNAMICS`` or a class
    :param dynamics_kwargs: keyword arguments of its class
    :param planner_kwargs: keyword arguments of ``CEM``
    :param clip_obs: largest absolute value of a continuous variable, in its standard deviations in the data; None: no limit
    :param normalize_images: for SB3's sake; there are no images
    :param optimizer_class: optimizer of the dynamics model
    :param optimizer_kwargs: its keyword arguments, without the learning rate
    :raises ValueError: if the spaces are not supported, or ``dynamics`` is unknown
    :raises TypeError: if ``dynamics_kwargs`` or ``planner_kwargs`` have an unknown key
    """

    optimizer: th.optim.Optimizer

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        factors: Factors,
        reward_fn: RewardFn,
        dynamics: str | type[DynamicsModel] = "fcdl",
        dynamics_kwargs: dict[str, Any] | None = None,
        planner_kwargs: dict[str, Any] | None = None,
        clip_obs: float | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if optimizer_kwargs is None and optimizer_class is th.optim.Adam:
            # One pass over the weights instead of one a parameter: six times faster on a CPU, same numbers.
            optimizer_kwargs = {"fused": True}
        super().__init__(
            observation_space,
            action_space,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        self.factors = factors
        self.reward_fn = reward_fn
        self.dynamics_name = dynamics
        self.dynamics_kwargs = dynamics_kwargs or {}
        self.planner_kwargs = planner_kwargs or {}
        self.clip_obs = clip_obs
        self.factorization = Factorization(observation_space, action_space, factors, clip_obs)
        model = dynamics_class(dynamics)
        check_keywords("dynamics_kwargs", model, self.dynamics_kwargs)
        check_keywords("planner_kwargs", CEM, self.planner_kwargs)
        self.planner = CEM(self.factorization.actions, **self.planner_kwargs)
        self.dynamics = model(factors, **self.dynamics_kwargs)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def forward(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self._predict(observation, deterministic)

    def _predict(
        self, observation: PyTorchObs, deterministic: bool = False, action_masks: th.Tensor | None = None
    ) -> th.Tensor:
        """
        :param observation: observations, a batch of ``B``
        :param deterministic: whether the planner's randomness is a function of the observation
        :param action_masks: allowed actions, ``[B, n_actions]``, bool; all if None
        :return: encoded actions, ``[B]`` int64 or ``[B, A]`` in [-1, 1]
        """
        step = self.dynamics.stepper()

        def most_likely(state: th.Tensor, action: th.Tensor) -> th.Tensor:
            return step(state, action).next_state.mode()

        state, goal = self.factorization.encode_state(observation), self.factorization.encode_goal(observation)
        plan = self.planner.plan(
            most_likely,
            self._reward,
            state,
            goal,
            generators=observation_generators(state, goal) if deterministic else None,
            action_mask=action_masks,
            key=self.factorization.state_key,
        )
        return plan.actions[:, 0]

    def _reward(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """The reward function, which knows the environment's units, on encoded states and actions."""
        raw = self.factorization
        return self.reward_fn(raw.decode_state(state), raw.decode_action(action), raw.decode_state(next_state), goal)

    def predict(
        self,
        observation: Observation,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Plan, and return the first action of the plan.

        :param observation: one observation or a batch of ``B``
        :param state: not used, returned as it is
        :param episode_start: not used
        :param deterministic: whether the action is a function of weights, observation and mask alone
        :param action_masks: allowed actions, ``[n_actions]`` or ``[B, n_actions]``, bool; all if None
        :return: actions, shape ``action_space.shape`` or ``[B, *action_space.shape]``, and ``state``
        :raises ValueError: if the observation is a tuple, as ``env.reset()`` of Gymnasium returns it
        """
        self.set_training_mode(False)
        if isinstance(observation, tuple):
            raise ValueError(
                "predict() was given a tuple instead of an observation. You are probably mixing the Gym and the SB3 VecEnv "
                "API: `obs, info = env.reset()` (Gym) vs `obs = vec_env.reset()` (SB3 VecEnv)."
            )
        tensors, is_batch = self.obs_to_tensor(observation)
        masks = None
        if action_masks is not None:
            masks = th.as_tensor(action_masks, dtype=th.bool, device=self.device).reshape(-1, self.factors.action_width)
        with th.no_grad():
            actions = self._predict(tensors, deterministic, masks).cpu().numpy()
        if isinstance(self.action_space, spaces.Box):
            actions = self.unscale_action(actions)
        return (actions if is_batch else actions.squeeze(axis=0)), state

    def local_graph(self, observation: Observation, action: np.ndarray | int) -> CausalGraph:
        """
        The graph that the model uses for one observation and action.

        :param observation: one observation
        :param action: one action
        :return: the graph, labelled with its context
        :raises ValueError: if a batch was given, or the model has no graph
        """
        self.set_training_mode(False)
        tensors, is_batch = self.obs_to_tensor(observation)
        if is_batch:
            raise ValueError("local_graph() explains one observation, it was given a batch")
        if isinstance(self.action_space, spaces.Box):
            action = self.scale_action(np.asarray(action))
        actions = th.as_tensor(np.asarray(action)[None], device=self.device)
        with th.no_grad():
            state_and_action = self.encode(tensors, actions)
            graph = self.dynamics.local_graph(*state_and_action)
            code = self.dynamics.step(*state_and_action).code
        if code is not None:
            return self.dynamics.context_graphs()[int(code[0])]
        return CausalGraph(graph[0].cpu().numpy(), self.factors.state_names, self.factors.parent_names)

    def encode(self, observation: PyTorchObs, action: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        :param observation: observations, ``[..., width]``
        :param action: actions as SB3's buffers hold them
        :return: encoded states ``[..., D]`` and actions ``[..., A]``
        """
        return self.factorization.encode_state(observation), self.factorization.encode_action(action)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            lr_schedule=self._dummy_schedule,
            factors=self.factors,
            reward_fn=self.reward_fn,
            dynamics=self.dynamics_name,
            dynamics_kwargs=self.dynamics_kwargs,
            planner_kwargs=self.planner_kwargs,
            clip_obs=self.clip_obs,
            optimizer_class=self.optimizer_class,
            optimizer_kwargs=self.optimizer_kwargs,
        )
        return data


def observation_generators(state: th.Tensor, goal: th.Tensor) -> list[th.Generator]:
    """
    A generator for each row, seeded by a hash of what was observed.

    One seed for all would be as deterministic, but every step of every episode would then search among the same candidates:
    on the true dynamics that costs 2 to 7 points of return.

    :param state: as observed, ``[B, D]``
    :param goal: ``[B, G]``
    """
    rows = th.cat([state, goal], dim=-1).cpu().numpy()
    digests = [hashlib.blake2b(row.tobytes(), digest_size=7).digest() for row in rows]
    return [th.Generator().manual_seed(int.from_bytes(digest, "big")) for digest in digests]


def check_keywords(argument: str, target: Callable[..., Any], keywords: dict[str, Any]) -> None:
    """
    :param argument: what the user calls the dictionary
    :param target: what the keywords are for; its first parameter is not the user's
    :param keywords: what the user gave
    :raises TypeError: if a keyword is unknown; names it and the known ones
    """
    known = list(inspect.signature(target).parameters)[1:]
    for keyword in keywords:
        if keyword not in known:
            raise TypeError(f"{argument} has an unknown key '{keyword}', allowed: {', '.join(known)}")
