"""FCDL as a Stable-Baselines3 algorithm."""

import time
import warnings
from typing import Any, ClassVar, TypeVar

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_fcdl.dynamics import DEFAULT_DYNAMICS, DynamicsModel
from sb3_fcdl.fcdl.arguments import check_arguments
from sb3_fcdl.fcdl.elsewhere import tells_where
from sb3_fcdl.fcdl.policies import FCDLPolicy
from sb3_fcdl.fcdl.resumable import ResumableAlgorithm
from sb3_fcdl.fcdl.views import ModelViews
from sb3_fcdl.observations import Observations
from sb3_fcdl.planning import Planner, RewardFn, TerminationFn
from sb3_fcdl.training.experience import Experience, check_keeps_ends
from sb3_fcdl.training.log import ModelLog
from sb3_fcdl.training.trainer import Trainer
from sb3_fcdl.world.declared import (
    Declared,
    action_masks_of,
    check_fits,
    check_functions,
    check_normalized,
    check_order_of_wrappers,
    factors_of,
    normalizes,
    published_by,
    sampling_mask,
)
from sb3_fcdl.world.gate import check_observations, check_step, originals
from sb3_fcdl.world.spaces import check_spaces

SelfFCDL = TypeVar("SelfFCDL", bound="FCDL")


class FCDL(ModelViews, ResumableAlgorithm):  # type: ignore[misc]  # SB3 has an attribute actor, of any module
    """
    Fine-Grained Causal Dynamics Learning (Hwang et al., ICML 2024), planned with by model-predictive control.

    Learns a model of the environment online from the replay buffer: the model quantizes states and actions into contexts,
    learns a sparse causal graph for each and predicts every variable from its parents in that graph alone. Acts by planning
    on the model.

    Every entry of the observation is a variable, unless the environment publishes a ``factorization`` that says more. Reward
    and end of an episode are learned too, unless they are given here or the environment publishes them as ``reward_fn`` and
    ``termination_fn``; one that publishes its reward alone ends by time limits alone. What is given or published is compared
    with recorded transitions before the first update, and a disagreement reported.

    The defaults learn ``CartPole-v1`` and ``Pendulum-v1`` in a few thousand steps. The published experiments on Chemical learn
    more slowly and plan less far: ``sb3_fcdl.presets.preset("FCDL/Chemical-v0", "paper")``.

    :param policy: ``FCDLPolicy``, ``"MlpPolicy"``, or ``"MultiInputPolicy"`` for a ``Dict`` observation
    :param env: the environment, or its registered name
    :param learning_rate: of Adam, for the dynamics; a function of the remaining progress (1 to 0) or a constant
    :param buffer_size: capacity of the replay buffer, transitions
    :param learning_starts: transitions collected with random actions before the first update
    :param batch_size: windows in an update
    :param gamma: discount of the rewards that the planner adds up, per environment step, in (0, 1]
    :param train_freq: environment steps between updates (each step is ``n_envs`` transitions), or ``(n, "episode")``
    :param gradient_steps: updates after each rollout; -1: as many as transitions were collected
    :param replay_buffer_class: replay buffer class, SB3's for the observation space if None. The model reads what is stored,
        all transitions alike: how the class samples does not matter
    :param replay_buffer_kwargs: its keyword arguments
    :param optimize_memory_usage: SB3's memory-saving buffer; SB3 does not have it for ``Dict`` observations
    :param train_horizon: length of a training window, environment steps; the loss covers all its steps. The default
        model predicts each step from the recorded state, most others from their own samples
    :param exploration_rate: probability of a random action, drawn for each environment, while training. At 1 no plan is made
    :param dynamics: the model: a name in ``sb3_fcdl.dynamics.DYNAMICS``, or a class of one's own
    :param dynamics_kwargs: keyword arguments of its class
    :param planner: a name in ``sb3_fcdl.planning.PLANNERS``, or a class of one's own, see ``FCDLPolicy``
    :param planner_kwargs: keyword arguments of its class
    :param reward_fn: what the planner maximises, a function or ``"package.module:function"``, see ``FCDLPolicy``
    :param termination_fn: when an episode ends, likewise
    :param stats_window_size: episodes that ``rollout/`` statistics average over
    :param tensorboard_log: directory for TensorBoard; no log if None
    :param policy_kwargs: further arguments of the policy, such as ``optimizer_kwargs``
    :param verbose: 0 nothing, 1 info, 2 debug
    :param seed: of the pseudo-random generators
    :param device: ``"cpu"``, ``"cuda"``, or ``"auto"``
    :param _init_setup_model: whether to build the networks now
    :raises ValueError: if the environment lacks what FCDL needs, or an argument is out of range
    :raises TypeError: if it is of a wrong type, or ``dynamics_kwargs`` or ``planner_kwargs`` have an unknown key
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": FCDLPolicy, "MultiInputPolicy": FCDLPolicy}
    policy: FCDLPolicy
    # Whether an action has been forbidden in training, and whether it was told that predict() knows nothing of that.
    _met_masks = False
    _warned_of_masks = False

    @tells_where
    def __init__(
        self,
        policy: str | type[FCDLPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 500,
        batch_size: int = 256,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 2,
        gradient_steps: int = 1,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        train_horizon: int = 1,
        exploration_rate: float = 0.05,
        dynamics: str | type[DynamicsModel] = DEFAULT_DYNAMICS,
        dynamics_kwargs: dict[str, Any] | None = None,
        planner: str | type[Planner] = "icem",
        planner_kwargs: dict[str, Any] | None = None,
        reward_fn: RewardFn | str | None = None,
        termination_fn: TerminationFn | str | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        check_arguments(locals())
        if policy == "CnnPolicy":
            raise ValueError(
                "policy='CnnPolicy' is not allowed: FCDL learns a causal graph of named quantities, not of pixels: use "
                "'MlpPolicy' on observations that hold these quantities"
            )
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            gamma=gamma,
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
            supported_action_spaces=(spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Box),
        )
        if replay_buffer_class is not None and issubclass(replay_buffer_class, HerReplayBuffer | NStepReplayBuffer):
            warnings.warn(
                f"{replay_buffer_class.__name__} has no effect on FCDL: the model reads the transitions as they were stored, "
                "neither relabelled goals nor n-step returns",
                stacklevel=3,
            )
        self.train_horizon = train_horizon
        self.exploration_rate = exploration_rate
        self.dynamics_name = dynamics
        self.dynamics_kwargs = dynamics_kwargs
        self.planner_name = planner
        self.planner_kwargs = planner_kwargs
        # As SB3's load() sets them: their setters are for later.
        vars(self).update(reward_fn=reward_fn, termination_fn=termination_fn)
        # Not known when a model is loaded without an environment: load() fills them in from the file.
        self.published: Declared | None = None
        self.heads: list[str] | None = None
        if _init_setup_model:
            self._setup_model()

    @property
    def reward_fn(self) -> RewardFn | str | None:
        """
        What the planner maximises instead of what the environment publishes or the model has learned; None: nothing was given.
        It can be set at any time: the next plan is for it.
        """
        return vars(self)["reward_fn"]

    @reward_fn.setter
    def reward_fn(self, reward_fn: RewardFn | str | None) -> None:
        self._give(reward_fn=reward_fn)

    @property
    def termination_fn(self) -> TerminationFn | str | None:
        """When an episode ends, likewise."""
        return vars(self)["termination_fn"]

    @termination_fn.setter
    def termination_fn(self, termination_fn: TerminationFn | str | None) -> None:
        self._give(termination_fn=termination_fn)

    def _give(self, **given: Any) -> None:
        """Takes up what the user gives and the environment publishes, unless it is refused."""
        functions = {"reward_fn": self.reward_fn, "termination_fn": self.termination_fn, **given}
        if self.published is not None:
            declared = self.published.with_given(**functions)
            check_functions(declared, self.env)
            self.policy.give(declared.reward_fn, declared.termination_fn)
            self.trainer.has_checked_outcomes = False
        vars(self).update(given)

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        # SB3 comes through here whenever it is given an environment: constructor, set_env, load.
        if isinstance(env, gym.vector.VectorEnv):
            raise ValueError(
                "env is a VectorEnv of Gymnasium, which SB3 does not step: give FCDL sb3_fcdl.vec_env.GymVectorVecEnv(env)"
            )
        check_spaces(env.observation_space, env.action_space)
        wrapped = OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)
        check_order_of_wrappers(wrapped)
        normalizer = unwrap_vec_normalize(wrapped)
        if normalizer is not None and normalizer.norm_obs:
            check_normalized(factors_of(wrapped), normalizer.norm_obs_keys)
        return wrapped

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """
        See ``BaseAlgorithm.set_env``. What the new environment publishes, ``reward_fn`` and ``termination_fn``, holds from now
        on, unless the model was given its own.

        :raises ValueError: if the environment does not fit the model; nothing has changed then
        """
        wrapped = self._wrap_env(env, self.verbose)
        check_for_correct_spaces(wrapped, self.observation_space, self.action_space)
        published = self.check_env_fits(wrapped)
        super().set_env(wrapped, force_reset)
        self.published = published
        self._give()

    def check_env_fits(self, env: VecEnv) -> Declared:
        """
        :param env: that the model is to be used in
        :return: what it publishes
        :raises ValueError: if it has other variables than the model, units other than those that the model learned in, or
            nobody says what the model does not learn
        """
        world, published = self.policy.world, published_by(env)
        declared = published.with_given(self.reward_fn, self.termination_fn)
        check_functions(declared, env)
        check_fits(declared, world.factors, list(world.heads))
        has_learned = self._n_updates > 0 or bool(world.factorization.moments.count)
        learned_normalized = bool(world.factorization.is_normalized)
        if has_learned and learned_normalized != normalizes(env):
            trained, given = ("with", "without") if learned_normalized else ("without", "with")
            raise ValueError(
                f"the model learned from observations {trained} VecNormalize, the environment is {given} it: predictions "
                "would be in other units. Load the statistics with VecNormalize.load(), or pass norm_obs=False to a new one"
            )
        return published

    def set_random_seed(self, seed: int | None = None) -> None:
        super().set_random_seed(seed)
        self._window_rng = np.random.default_rng(seed)

    def _setup_model(self) -> None:
        if not issubclass(self.policy_class, FCDLPolicy):
            raise ValueError(
                f"the policy is a {self.policy_class.__name__}, FCDL has an FCDLPolicy: a file of another algorithm is loaded "
                "by the class of that algorithm"
            )
        before = self.published
        if self.env is not None:
            self.published = published_by(self.env)
        assert self.published is not None
        declared = self.published.with_given(self.reward_fn, self.termination_fn)
        check_functions(declared, self.env)
        if before is not None and self.heads is not None:
            # Of a file: the environment may be another one.
            check_fits(declared, before.factors, self.heads)
        # The user's dictionary stays as it was: load() compares it with the saved one.
        user_kwargs = self.policy_kwargs
        own = {"reward_fn", "termination_fn", "dynamics", "dynamics_kwargs", "planner", "planner_kwargs", "gamma"}
        if twice := sorted(own & user_kwargs.keys()):
            raise TypeError(f"policy_kwargs has {', '.join(twice)}: give it to FCDL itself, which hands it to the policy")
        self.policy_kwargs = {
            "factors": declared.factors,
            "reward_fn": declared.reward_fn,
            "termination_fn": declared.termination_fn,
            "heads": self.heads,
            "dynamics": self.dynamics_name,
            "dynamics_kwargs": self.dynamics_kwargs,
            "planner": self.planner_name,
            "planner_kwargs": self.planner_kwargs,
            "gamma": self.gamma,
            **user_kwargs,
        }
        try:
            super()._setup_model()
        finally:
            self.policy_kwargs = user_kwargs
        policy = self.policy
        self.heads = list(policy.world.heads)
        self.model_log = ModelLog(policy.world, policy.planner.horizon)
        self.trainer = Trainer(
            policy.learner, policy.world, policy.optimizer, policy.average_decay, self.model_log, self._n_updates
        )
        check_keeps_ends(self.replay_buffer, policy.learner)
        # What the planner knows of the plans that it is carrying out, see FCDLPolicy.predict.
        self._last_plan: tuple[np.ndarray, ...] | None = None

    @property
    def experience(self) -> Experience:
        """The recorded transitions, as the model learns from them."""
        if self.replay_buffer is None:
            raise ValueError("the model has no replay buffer")
        return Experience(
            self.policy.learner, self.replay_buffer, self._vec_normalize_env, self.train_horizon, self._window_rng
        )

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        assert self.env is not None
        self._is_between_rollouts = False
        masks = action_masks_of(self.env)
        self._met_masks = self._met_masks or (masks is not None and not masks.all())
        actions = self._random_actions(n_envs, masks)
        last_plan, self._last_plan = self._last_plan, None
        # After the warm-up SB3 acts once before it trains: an untrained model is no better than chance.
        if self.num_timesteps >= learning_starts and self._n_updates > 0 and self.exploration_rate < 1:
            assert self._last_obs is not None
            start = time.perf_counter()
            planned, self._last_plan = self.policy.predict(
                self._last_obs, last_plan, self._last_episode_starts, action_masks=masks, explores=True
            )
            self.model_log.add_plan(time.perf_counter() - start)
            follows_plan = np.random.rand(n_envs) >= self.exploration_rate
            actions[follows_plan] = planned[follows_plan]
        return actions, self.policy.world.factorization.buffer_actions(actions)

    def _random_actions(self, n_envs: int, masks: np.ndarray | None) -> np.ndarray:
        if masks is None:
            return np.array([self.action_space.sample() for _ in range(n_envs)])
        return np.array([self.action_space.sample(mask=sampling_mask(self.action_space, row)) for row in masks])

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: Observations,
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        assert self._last_obs is not None
        # What was recorded is checked before it is stored, so that the buffer never holds what cannot be learned from.
        factorization, normalizer = self.policy.learner.factorization, self._vec_normalize_env
        seen, paid = originals(new_obs, reward, normalizer)
        before = self._last_obs if normalizer is None else self._last_original_obs
        check_observations(factorization, before, "the environment observed")  # type: ignore[arg-type]
        factorization.is_normalized.fill_(float(normalizer is not None and normalizer.norm_obs))
        check_step(factorization, seen, buffer_action, paid, infos, self.num_timesteps)
        self.trainer.observe(self._last_obs, buffer_action, infos)
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        # SB3 does this for on-policy algorithms only.
        self._last_episode_starts = dones

    def _on_step(self) -> None:
        self.logger.record("rollout/exploration_rate", self.exploration_rate)

    def train(self, gradient_steps: int, batch_size: int) -> None:
        learning_rate = self.lr_schedule(self._current_progress_remaining)
        self.logger.record("train/learning_rate", learning_rate)
        self.policy.set_learning_rate(learning_rate)
        try:
            self.trainer.train(self.experience, gradient_steps, batch_size)
        finally:
            # SB3's own count, which is saved; an interruption comes between any two updates.
            self._n_updates = self.trainer.n_updates
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def dump_logs(self) -> None:
        self.model_log.record(self.logger, self.experience, self.num_timesteps, self._n_updates, self._hyperparameters())
        super().dump_logs()

    def _hyperparameters(self) -> dict[str, Any]:
        """What the run was made with, for TensorBoard."""
        chosen: dict[str, Any] = {
            "dynamics": type(self.dynamics).__name__,
            "planner": type(self.policy.planner).__name__,
            "horizon": self.policy.planner.horizon,
        }
        names = (
            "learning_starts",
            "batch_size",
            "gradient_steps",
            "train_horizon",
            "exploration_rate",
            "gamma",
            "seed",
            "n_envs",
        )
        chosen |= {name: getattr(self, name) for name in names}
        chosen |= {"learning_rate": self.lr_schedule(1), "train_freq": self.train_freq.frequency}  # type: ignore[union-attr]
        for kwargs in ("dynamics_kwargs", "planner_kwargs"):
            chosen |= {f"{kwargs}.{key}": value for key, value in (getattr(self, kwargs) or {}).items()}
        return chosen

    def predict(
        self,
        observation: Observations,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        See ``FCDLPolicy.predict``. Warns once if actions were forbidden in training and no masks are given, as by SB3's own
        evaluation.
        """
        if action_masks is None and self._met_masks and not self._warned_of_masks:
            self._warned_of_masks = True
            warnings.warn(
                "predict() was given no action_masks, though actions were forbidden in training: it may choose them. Pass "
                "env.action_masks(), and evaluate with MaskableEvalCallback and evaluate_policy of sb3_contrib, which do",
                stacklevel=2,
            )
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    def learn(
        self: SelfFCDL,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "FCDL",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfFCDL:
        if reset_num_timesteps:
            self.model_log.start()
        super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )
        self._is_between_rollouts = True
        return self

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "model_log",
            "trainer",
            "_window_rng",
            "_last_plan",
            "_resumed",
            "_is_between_rollouts",
            "_warned_of_masks",
        ]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []
