"""FCDL as a Stable-Baselines3 algorithm."""

import io
import pathlib
import time
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from fcdl_envs.variables import Factors
from sb3_fcdl.buffers import sample_windows
from sb3_fcdl.dynamics import DynamicsModel, Windows
from sb3_fcdl.fcdl.meter import TrainingMeter
from sb3_fcdl.fcdl.policies import FCDLPolicy, Observation
from sb3_fcdl.graph import CausalGraph
from sb3_fcdl.planning.base import RewardFn

SelfFCDL = TypeVar("SelfFCDL", bound="FCDL")


class FCDL(OffPolicyAlgorithm):
    """
    Fine-Grained Causal Dynamics Learning (Hwang et al., ICML 2024), planned with by model-predictive control.

    Learns a model of the environment online from the replay buffer: the model quantizes states and actions into contexts,
    learns a sparse causal graph for each and predicts every variable from its parents in that graph alone. Acts by planning
    on the model with the cross-entropy method and the environment's reward function.

    The environment must publish ``factorization`` (its named variables) and ``reward_fn``, as ``FCDL/Chemical-v0`` does.

    The published schedule is one update every ten transitions: ``train_freq=10`` with one environment (the default), or
    ``train_freq=1`` with ten.

    :param policy: ``FCDLPolicy``, or ``"MultiInputPolicy"``
    :param env: the environment, or its registered name
    :param learning_rate: of Adam; a function of the remaining progress (1 to 0) or a constant
    :param buffer_size: capacity of the replay buffer, transitions
    :param learning_starts: transitions collected with random actions before the first update
    :param batch_size: windows in an update
    :param train_freq: environment steps between updates (each step is ``n_envs`` transitions), or ``(n, "episode")``
    :param gradient_steps: updates after each rollout; -1: as many as transitions were collected
    :param replay_buffer_class: replay buffer class, SB3's for the observation space if None
    :param replay_buffer_kwargs: its keyword arguments
    :param optimize_memory_usage: SB3's memory-saving buffer; SB3 does not have it for ``Dict`` observations
    :param train_horizon: length of a training window, environment steps; the loss covers all its steps
    :param exploration_rate: probability of a random action, drawn for each environment, while training
    :param dynamics: the model: a name in ``sb3_fcdl.dynamics.DYNAMICS``, or a class of one's own
    :param dynamics_kwargs: keyword arguments of its class
    :param planner_kwargs: keyword arguments of ``CEM``
    :param stats_window_size: episodes that ``rollout/`` statistics average over
    :param tensorboard_log: directory for TensorBoard; no log if None
    :param policy_kwargs: further arguments of the policy, such as ``optimizer_kwargs``
    :param verbose: 0 nothing, 1 info, 2 debug
    :param seed: of the pseudo-random generators
    :param device: ``"cpu"``, ``"cuda"``, or ``"auto"``
    :param _init_setup_model: whether to build the networks now
    :raises ValueError: if the environment lacks what FCDL needs, or an argument is out of range
    :raises TypeError: if ``dynamics_kwargs`` or ``planner_kwargs`` have an unknown key
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": FCDLPolicy, "MultiInputPolicy": FCDLPolicy}
    policy: FCDLPolicy
    dynamics: DynamicsModel

    # Transitions with a known local graph that `causal/shd` looks at.
    N_GRAPH_SAMPLES = 256

    def __init__(
        self,
        policy: str | type[FCDLPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 10_000,
        batch_size: int = 256,
        train_freq: int | tuple[int, str] = 10,
        gradient_steps: int = 1,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        train_horizon: int = 3,
        exploration_rate: float = 0.05,
        dynamics: str | type[DynamicsModel] = "fcdl",
        dynamics_kwargs: dict[str, Any] | None = None,
        planner_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Discrete, spaces.Box),
        )
        if train_horizon < 1:
            raise ValueError(f"train_horizon must be at least 1, got {train_horizon}")
        if not 0 <= exploration_rate <= 1:
            raise ValueError(f"exploration_rate must be in [0, 1], got {exploration_rate}")
        self.train_horizon = train_horizon
        self.exploration_rate = exploration_rate
        self.dynamics_name = dynamics
        self.dynamics_kwargs = dynamics_kwargs
        self.planner_kwargs = planner_kwargs
        # Not known when a model is loaded without an environment: load() fills them in from the file.
        self.factors: Factors | None = None
        self.reward_fn: RewardFn | None = None
        if self.env is not None:
            self.factors = _published(self.env, "factorization", "which named variables the observation holds")
            self.reward_fn = _published(self.env, "reward_fn", "what the planner is to maximise")
        if _init_setup_model:
            self._setup_model()

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        # SB3 comes through here whenever it is given an environment: constructor, set_env, load.
        wrapped = OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)
        normalizer = unwrap_vec_normalize(wrapped)
        if normalizer is not None and normalizer.norm_obs:
            raise ValueError("VecNormalize would turn one-hot variables into other numbers: pass norm_obs=False to it")
        return wrapped

    def _setup_model(self) -> None:
        # The user's dictionary stays as it was: load() compares it with the saved one.
        user_kwargs = self.policy_kwargs
        self.policy_kwargs = {
            "factors": self.factors,
            "reward_fn": self.reward_fn,
            "dynamics": self.dynamics_name,
            "dynamics_kwargs": self.dynamics_kwargs,
            "planner_kwargs": self.planner_kwargs,
            **user_kwargs,
        }
        super()._setup_model()
        self.policy_kwargs = user_kwargs
        self.dynamics = self.policy.dynamics
        self._meter = TrainingMeter(self.N_GRAPH_SAMPLES)
        self._window_rng = np.random.default_rng(self.seed)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        masks = self._action_masks()
        actions = self._random_actions(n_envs, masks)
        # After the warm-up SB3 acts once before it trains: an untrained model is no better than chance.
        if self.num_timesteps >= learning_starts and self._n_updates > 0:
            assert self._last_obs is not None
            start = time.perf_counter()
            planned, _ = self.policy.predict(self._last_obs, action_masks=masks)
            self._meter.add_plan(time.perf_counter() - start)
            follows_plan = np.random.rand(n_envs) >= self.exploration_rate
            actions[follows_plan] = planned[follows_plan]
        if isinstance(self.action_space, spaces.Box):
            return actions, self.policy.scale_action(actions)
        return actions, actions

    def _random_actions(self, n_envs: int, masks: np.ndarray | None) -> np.ndarray:
        if masks is None:
            return np.array([self.action_space.sample() for _ in range(n_envs)])
        return np.array([self.action_space.sample(mask=row) for row in masks.astype(np.int8)])

    def _action_masks(self) -> np.ndarray | None:
        """Allowed actions, ``[n_envs, n_actions]``, where the environment tells (sb3-contrib's convention)."""
        assert self.env is not None
        return np.stack(self.env.env_method("action_masks")) if self.env.has_attr("action_masks") else None

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        assert self._last_obs is not None
        self.policy.factorization.observe(obs_as_tensor(self._last_obs, self.device))
        if "local_graph" in infos[0]:
            actions = th.as_tensor(buffer_action, device=self.device)
            encoded = self.policy.encode(obs_as_tensor(self._last_obs, self.device), actions)
            self._meter.add_graphs(*encoded, np.stack([info["local_graph"] for info in infos]))
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)

    def _on_step(self) -> None:
        self.logger.record("rollout/exploration_rate", self.exploration_rate)

    def train(self, gradient_steps: int, batch_size: int) -> None:
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        start = time.perf_counter()
        for _ in range(gradient_steps):
            losses = self.dynamics.loss(self._windows(batch_size))
            self.policy.optimizer.zero_grad()
            losses.total.backward()
            self.policy.optimizer.step()
            self._n_updates += 1
            self.dynamics.after_update(self._n_updates, self._windows)
            self._meter.add_losses(losses)
        self._meter.add_updates(gradient_steps, time.perf_counter() - start)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _windows(self, batch_size: int) -> Windows:
        assert self.replay_buffer is not None
        batch = sample_windows(self.replay_buffer, batch_size, self.train_horizon, self._window_rng)
        actions = th.as_tensor(batch.actions, device=self.device)
        if isinstance(self.action_space, spaces.Discrete):
            actions = actions.squeeze(-1)
        state, action = self.policy.encode(obs_as_tensor(batch.observations, self.device), actions)
        next_state = self.policy.factorization.encode_state(obs_as_tensor(batch.next_observations, self.device))
        return Windows(state, action, next_state, th.as_tensor(batch.valid, device=self.device))

    def dump_logs(self) -> None:
        for key, value in self._meter.summary(self.policy).items():
            self.logger.record(key, value)
        super().dump_logs()

    def predict(
        self,
        observation: Observation,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """See ``FCDLPolicy.predict``."""
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    def local_graph(self, observation: Observation, action: np.ndarray | int) -> CausalGraph:
        """See ``FCDLPolicy.local_graph``."""
        return self.policy.local_graph(observation, action)

    def learn(
        self: SelfFCDL,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "FCDL",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfFCDL:
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )

    def load_replay_buffer(self, path: str | pathlib.Path | io.BufferedIOBase, truncate_last_traj: bool = True) -> None:
        """
        See ``OffPolicyAlgorithm.load_replay_buffer``.

        :raises ValueError: if the buffer is of another number of environments; the present one is kept
        """
        present = self.replay_buffer
        super().load_replay_buffer(path, truncate_last_traj)
        assert self.replay_buffer is not None
        n_envs = self.replay_buffer.n_envs
        if n_envs != self.n_envs:
            self.replay_buffer = present
            raise ValueError(
                f"{path} holds transitions of {n_envs} environments, the model has {self.n_envs}: pass as many to load()"
            )

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "dynamics", "_meter", "_window_rng"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []


def _published(env: VecEnv, attribute: str, meaning: str) -> Any:
    """
    An attribute that the environment publishes on its unwrapped class.

    :raises ValueError: if it does not
    """
    if not env.has_attr(attribute):
        raise ValueError(
            f"the environment has no attribute '{attribute}' ({meaning}). FCDL needs it for now; "
            "FCDL/Chemical-v0 shows how an environment publishes it"
        )
    return env.get_attr(attribute, indices=0)[0]
