"""A causal dynamics model that learns beside any algorithm of SB3."""

import copy
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import FloatSchedule

from fcdl_envs.arguments import integer, number
from sb3_fcdl.dynamics import DEFAULT_DYNAMICS
from sb3_fcdl.fcdl.arguments import check_arguments
from sb3_fcdl.fcdl.elsewhere import tells_where
from sb3_fcdl.fcdl.policies import FCDLPolicy
from sb3_fcdl.fcdl.views import ModelViews
from sb3_fcdl.observations import Observations
from sb3_fcdl.training.experience import Experience, check_keeps_ends
from sb3_fcdl.training.log import ModelLog
from sb3_fcdl.training.trainer import Trainer
from sb3_fcdl.world.declared import Declared, check_fits, check_functions, check_order_of_wrappers, published_by
from sb3_fcdl.world.gate import check_buffer, check_observations, check_step, originals


class DynamicsCallback(ModelViews, BaseCallback):
    """
    Trains a causal dynamics model beside any on- or off-policy algorithm of SB3 or sb3-contrib, the host.

    The host learns what it would have learned without it, bit for bit. The model learns from the host's replay buffer, read
    in place; a host without one (PPO, A2C, TRPO, MaskablePPO, RecurrentPPO) gets a buffer beside it, which holds what an
    off-policy algorithm would have stored. That is in the environment's units, whatever VecNormalize shows the host.

    From the start of ``learn`` there are ``policy``, the ``FCDLPolicy`` that is being trained, ``dynamics``, its model,
    ``replay_buffer``, and FCDL's ways to look at a model: ``causal_graph``, ``local_graph``, ``codes``, ``explain``,
    ``imagined_env``. Variables, reward and end of an episode are found as ``FCDL`` finds them. A further ``learn`` of the same
    host goes on with the same model.

    All arguments can be written in YAML, as RL Zoo needs it.

    :param dynamics: the model, see ``FCDL``
    :param dynamics_kwargs: keyword arguments of its class
    :param planner: what the policy plans with, see ``FCDL``
    :param planner_kwargs: keyword arguments of its class
    :param reward_fn: what the policy maximises, ``"package.module:function"``, see ``FCDL``
    :param termination_fn: when an episode ends, likewise
    :param gamma: discount of the rewards that the policy's planner adds up, per environment step, in (0, 1]
    :param learning_rate: of Adam
    :param buffer_size: capacity of the buffer beside a host without one, transitions
    :param learning_starts: transitions recorded before the first update
    :param batch_size: windows in an update
    :param train_freq: calls of ``env.step`` from one training to the next
    :param gradient_steps: updates in each
    :param train_horizon: length of a training window, environment steps
    :param log_freq: calls of ``env.step`` from one log entry to the next; the host's next log dump writes the latest. Every
        tenth has graphs and model errors for TensorBoard
    :param seed: of the model and its training; None: the host's
    :raises ValueError: if a number is out of range, or ``dynamics`` or ``planner`` unknown; and from ``learn`` if the host,
        its spaces or the place of the callback are not supported, or a function is unknown
    :raises TypeError: if an argument is of a wrong type; and from ``learn``, if
        ``dynamics_kwargs`` or ``planner_kwargs`` have an unknown key
    """

    replay_buffer: ReplayBuffer

    @tells_where
    def __init__(
        self,
        dynamics: str = DEFAULT_DYNAMICS,
        dynamics_kwargs: dict[str, Any] | None = None,
        planner: str = "icem",
        planner_kwargs: dict[str, Any] | None = None,
        reward_fn: str | None = None,
        termination_fn: str | None = None,
        gamma: float = 0.99,
        learning_rate: float = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 500,
        batch_size: int = 256,
        train_freq: int = 2,
        gradient_steps: int = 1,
        train_horizon: int = 1,
        log_freq: int = 1000,
        seed: int | None = None,
    ) -> None:
        check_arguments(
            locals(),
            learning_rate=number(at_least=0, at_most=1),
            learning_starts=integer(1),
            train_freq=integer(1),
            gradient_steps=integer(1),
        )
        super().__init__()
        self.policy_kwargs: dict[str, Any] = {
            "dynamics": dynamics,
            "dynamics_kwargs": dynamics_kwargs,
            "planner": planner,
            "planner_kwargs": planner_kwargs,
            "gamma": gamma,
        }
        self.reward_fn = reward_fn
        self.termination_fn = termination_fn
        self.learning_rate = learning_rate
        self.buffer_size = buffer_size
        self.learning_starts = learning_starts
        self.batch_size = batch_size
        self.train_freq = train_freq
        self.gradient_steps = gradient_steps
        self.train_horizon = train_horizon
        self.log_freq = log_freq
        self.seed = seed
        self._host: BaseAlgorithm | None = None
        self._recorder: _Recorder | None = None

    @property
    def experience(self) -> Experience:
        """The recorded transitions, as the model learns from them: in the environment's units, those of the buffers."""
        return Experience(self.policy.learner, self.replay_buffer, None, self.train_horizon, self._window_rng)

    def as_policy(self) -> FCDLPolicy:
        """
        A copy of the policy as it is now: it plans on the model, for ``evaluate_policy`` or anything else that predicts.

        It is given observations in the environment's units, hence evaluated in an environment without VecNormalize.
        """
        return copy.deepcopy(self.policy)

    def save(self, path: str | pathlib.Path) -> None:
        """
        :param path: the file to write, for ``FCDLPolicy.load``
        """
        self.policy.save(str(path))

    def _init_callback(self) -> None:
        self._check_place()

    def _on_training_start(self) -> None:
        # A member of a CallbackList is told only now that the list is nested.
        self._check_place()
        if self._host is None:
            self._build()
        elif self._host is not self.model:
            raise ValueError("this DynamicsCallback learned beside another model already: make one for each")
        else:
            # The host may have got another environment since.
            declared = self._declared()
            check_fits(declared, self.policy.world.factors, list(self.policy.world.heads))
            self.policy.give(declared.reward_fn, declared.termination_fn)
            self.trainer.has_checked_outcomes = False
        if self._recorder is not None:
            self._recorder.start(self.model)
        else:
            assert isinstance(self.model, OffPolicyAlgorithm) and self.model.replay_buffer is not None
            # It holds something if it was loaded, or the host has learned before.
            if self.model.replay_buffer.observation_space != self.model.observation_space:
                theirs, ours = self.model.replay_buffer.observation_space, self.model.observation_space
                raise ValueError(f"the host's replay buffer holds transitions of {theirs}, the host has {ours}")
            check_keeps_ends(self.model.replay_buffer, self.policy.learner)
            check_buffer(self.policy.world.factorization, self.model.replay_buffer)
            self.replay_buffer = self.model.replay_buffer
            self.experience.take_scale()
        capacity = self.replay_buffer.buffer_size * self.replay_buffer.n_envs
        if capacity < self.learning_starts:
            raise ValueError(
                f"learning_starts={self.learning_starts} transitions never fit the replay buffer, which holds {capacity}: "
                "nothing would be learned; lower it, or pass a larger buffer_size"
            )
        self.model_log.start()
        self._host = self.model

    def _check_place(self) -> None:
        if self.parent is not None:
            raise ValueError(
                f"DynamicsCallback is nested in {type(self.parent).__name__}, which does not hand on every step: give it to "
                "learn() itself, as in learn(callback=[DynamicsCallback(), ...])"
            )

    def _build(self) -> None:
        host = self.model
        if not isinstance(host, OffPolicyAlgorithm | OnPolicyAlgorithm):
            raise ValueError(
                f"{type(host).__name__} is neither an OnPolicyAlgorithm nor an OffPolicyAlgorithm: it shows callbacks no "
                "transitions: use DynamicsCallback beside one of those, such as PPO, A2C, DQN, SAC or TD3"
            )
        self._rng = np.random.default_rng(host.seed if self.seed is None else self.seed)
        declared = self._declared()
        with self._own_random_numbers():
            self.policy = FCDLPolicy(
                host.observation_space,
                host.action_space,
                FloatSchedule(self.learning_rate),
                factors=declared.factors,
                reward_fn=declared.reward_fn,
                termination_fn=declared.termination_fn,
                **self.policy_kwargs,
            ).to(host.device)
        self._window_rng = np.random.default_rng(self._rng.integers(2**63))
        policy = self.policy
        self.model_log = ModelLog(policy.world, policy.planner.horizon, is_guest=True)
        self.trainer = Trainer(policy.learner, policy.world, policy.optimizer, policy.average_decay, self.model_log)
        if isinstance(host, OnPolicyAlgorithm):
            self._recorder = _Recorder(host, self.buffer_size)
            self.replay_buffer = self._recorder.replay_buffer

    def _declared(self) -> Declared:
        """What is given, and else what the environment publishes."""
        check_order_of_wrappers(self.training_env)
        declared = published_by(self.training_env).with_given(self.reward_fn, self.termination_fn)
        check_functions(declared, self.training_env, sees_own_units=True)
        return declared

    def _on_step(self) -> bool:
        normalizer = self.model.get_vec_normalize_env()
        before = _last_observations(self.model if self._recorder is None else self._recorder)
        check_observations(self.policy.world.factorization, before, "the environment observed")
        seen, paid = originals(self.locals["new_obs"], self.locals["rewards"], normalizer)
        infos = self.locals["infos"]
        check_step(self.policy.world.factorization, seen, self.locals["actions"], paid, infos, self.num_timesteps)
        if self._recorder is None:
            self.trainer.observe(_last_observations(self.model), self.locals["buffer_actions"], self.locals["infos"])
        else:
            # MaskablePPO has nothing to clip.
            actions = self.policy.world.factorization.buffer_actions(
                self.locals.get("clipped_actions", self.locals["actions"])
            )
            self.trainer.observe(_last_observations(self._recorder), actions, self.locals["infos"])
            self._recorder.store(actions, self.locals)
        if self.n_calls % self.train_freq == 0 and self.experience.n_recorded >= self.learning_starts:
            with self._own_random_numbers():
                self._update_model()
        if self.n_calls % self.log_freq == 0:
            self._record()
        return True

    def _update_model(self) -> None:
        self.trainer.train(self.experience, self.gradient_steps, self.batch_size)

    def _record(self) -> None:
        n_updates = self.trainer.n_updates
        self.model_log.record(self.logger, self.experience, self.num_timesteps, n_updates)
        self.logger.record("dynamics/n_updates", n_updates, exclude="tensorboard")

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Inside, PyTorch draws numbers of the callback's own; afterwards the host draws what it would have drawn."""
        device = self.model.device
        with th.random.fork_rng([device] if device.type == "cuda" else []):
            th.manual_seed(int(self._rng.integers(2**63)))
            yield


class _Recorder:
    """
    A replay buffer for a host without one, filled by the method by which SB3's off-policy algorithms fill theirs. What that
    reads and writes of an algorithm are the attributes with an underscore.

    :param host: an on-policy algorithm
    :param buffer_size: capacity, transitions
    """

    def __init__(self, host: OnPolicyAlgorithm, buffer_size: int) -> None:
        is_dict = isinstance(host.observation_space, spaces.Dict)
        buffer_class: type[ReplayBuffer] = DictReplayBuffer if is_dict else ReplayBuffer
        self.replay_buffer = buffer_class(buffer_size, host.observation_space, host.action_space, n_envs=host.n_envs)

    def start(self, host: BaseAlgorithm) -> None:
        """``learn`` begins."""
        self._vec_normalize_env = host._vec_normalize_env
        self._last_obs = copy.deepcopy(host._last_obs)
        if self._vec_normalize_env is not None:
            # The host's own is that of its very first step.
            self._last_original_obs = self._vec_normalize_env.get_original_obs()

    def store(self, buffer_actions: np.ndarray, step: dict[str, Any]) -> None:
        """
        :param buffer_actions: ``[n_envs, *]``
        :param step: local variables of the host, with what ``env.step`` returned
        """
        # Buffers reshape the Discrete entries of what they are given; the host's observations stay as they are.
        new_obs = copy.deepcopy(step["new_obs"])
        OffPolicyAlgorithm._store_transition(
            self,  # type: ignore[arg-type]
            self.replay_buffer,
            buffer_actions,
            new_obs,
            step["rewards"],
            step["dones"],
            step["infos"],
        )


def _last_observations(keeper: Any) -> Observations:
    """
    :param keeper: an off-policy algorithm, or the recorder
    :return: what the last actions answered, in the environment's units
    """
    return keeper._last_obs if keeper._vec_normalize_env is None else keeper._last_original_obs
