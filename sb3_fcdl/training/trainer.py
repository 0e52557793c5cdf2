"""Training the model of a policy on recorded transitions, and looking at it on them."""

import time
import warnings
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecNormalize

from sb3_fcdl.buffers import WindowBatch, sample_distinct_windows, sample_ends, sample_windows
from sb3_fcdl.dynamics import DynamicsModel, Windows
from sb3_fcdl.fcdl.policies import FCDLPolicy
from sb3_fcdl.graphs.graph import CausalGraph
from sb3_fcdl.imagination import ActionMaskFn, ImaginedVecEnv
from sb3_fcdl.inspection.codes import Code, codes_of
from sb3_fcdl.inspection.explain import Explanation
from sb3_fcdl.inspection.report import N_WINDOWS, report, report_lengths
from sb3_fcdl.observations import Observations
from sb3_fcdl.training.log import TrainingMeter
from sb3_fcdl.world.rewards import Outcomes


class ModelTraining:
    """
    What ``FCDL`` and ``DynamicsCallback`` have in common: a policy, recorded transitions, and a model that learns from them.

    Who inherits it sets the attributes below, and calls ``_observe`` at each step of the environment and ``_update`` to train.
    """

    policy: FCDLPolicy
    replay_buffer: ReplayBuffer | None
    # Length of a training window, environment steps.
    train_horizon: int
    # The buffer holds what VecNormalize was given; the policy is given what this one makes of it. None: the same.
    _vec_normalize_env: VecNormalize | None
    # Draws the windows that are trained on.
    _window_rng: np.random.Generator
    _meter: TrainingMeter
    _n_updates: int
    # Whether VecNormalize changed what the model has learned from; saved, as VecNormalize is not.
    _learned_normalized = False
    # Whether given rewards and ends have been compared with those of the environment.
    _has_checked_outcomes = False

    # Transitions that `codes` and `causal_graph` look at.
    N_DESCRIBED = 4096
    # Ends of episodes in an update of a learned termination. By chance a batch has one or two: then the ends on either side of
    # CartPole's track, seen once and thrice, had a probability of 0.13 and 0.04 after 1000 updates; with these 0.36 and 0.43.
    N_ENDS = 64
    # Transitions that a given reward or termination is compared with.
    N_CHECKED = 256

    def _learn_from(self, replay_buffer: ReplayBuffer) -> None:
        """
        :param replay_buffer: becomes the one that is trained on. If nothing has been observed yet, it sets the scale of the
            variables, if it holds anything
        :raises ValueError: if it does not hold what is to be learned
        """
        if replay_buffer.optimize_memory_usage and self.policy.learner.termination_head is not None:
            raise ValueError(
                "with optimize_memory_usage the buffer does not keep the state that an episode ended in, so ends cannot be "
                "learned: pass optimize_memory_usage=False, or a termination_fn "
                "(sb3_fcdl.world.rewards.never_ends: there are none)"
            )
        self.replay_buffer = replay_buffer
        self._observe_recorded()

    @property
    def dynamics(self) -> DynamicsModel:
        """The model."""
        return self.policy.dynamics

    def local_graph(self, observation: Observations, action: np.ndarray | int) -> CausalGraph:
        """See ``FCDLPolicy.local_graph``."""
        return self.policy.local_graph(observation, action)

    def explain(self, observation: Observations, action_masks: np.ndarray | None = None) -> Explanation:
        """See ``sb3_fcdl.inspection.explain.explain``."""
        return self.policy.explain(observation, action_masks)

    def codes(self) -> list[Code]:
        """
        The contexts of the recorded transitions, the most frequent first: share, graph, rule in words, samples.

        :raises ValueError: if the replay buffer is empty, or the model has no contexts
        """
        return codes_of(self.policy, self._recorded(self.N_DESCRIBED))

    def causal_graph(self) -> CausalGraph:
        """
        The union of the graphs of all contexts, which are its ``parts``: of the contexts met in the replay buffer, or of all
        if it is empty, as after ``load``. The label says which.

        :raises ValueError: if the model has no graph
        """
        graphs = self.dynamics.context_graphs()
        if len(graphs) > 1 and self.replay_buffer is not None and self.replay_buffer.size():
            met = [code.graph for code in self.codes()]
            return CausalGraph.union(met, f"union of the {len(met)} contexts met")
        return CausalGraph.union(graphs, f"union of all {len(graphs)} contexts" if len(graphs) > 1 else "all contexts")

    def imagined_env(self, n_envs: int = 64, horizon: int = 5, action_mask_fn: ActionMaskFn | None = None) -> ImaginedVecEnv:
        """
        The model as environments that any algorithm of SB3 can learn in, see ``sb3_fcdl.imagination.ImaginedVecEnv``.

        :raises ValueError: if the model learned from observations that VecNormalize had changed
        """
        if self._learned_normalized or self._is_normalized:
            raise ValueError(
                "an imagined environment speaks the units of the real one, which VecNormalize hides from the model: pass "
                "norm_obs=False to it. FCDL has a normalization of its own"
            )
        assert self.replay_buffer is not None
        return ImaginedVecEnv(self.policy, self.replay_buffer, n_envs, horizon, action_mask_fn)

    def _observe(self, observations: Observations, buffer_actions: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """
        Take in what is no part of an update: the scale of each variable and, where the environment tells, the true graph.

        :param observations: before the step, as the policy is given them, ``[n_envs, *obs_shape]``
        :param buffer_actions: as SB3's buffers hold them
        :param infos: of the step
        """
        tensors = obs_as_tensor(observations, self.policy.device)
        self.policy.factorization.observe(tensors)
        if "local_graph" in infos[0]:
            encoded = self.policy.encode(tensors, buffer_actions.reshape(len(infos), -1))
            self._meter.add_graphs(*encoded, np.stack([info["local_graph"] for info in infos]))

    def _update(self, n_updates: int, batch_size: int) -> None:
        """
        Train the model and the learned heads of the policy.

        :param n_updates: gradient steps
        :param batch_size: windows in each
        """
        if not self._has_checked_outcomes:
            self._observe_recorded()
            self._check_outcomes()
            self._has_checked_outcomes = True
        self._learned_normalized |= self._is_normalized
        learner, start = self.policy.learner.train(), time.perf_counter()
        for _ in range(n_updates):
            windows, outcomes = self._sample(batch_size)
            losses, heads = learner.dynamics.loss(windows), learner.outcome_losses(outcomes, self._ends())
            self.policy.optimizer.zero_grad()
            sum(heads.values(), losses.total).backward()
            self.policy.optimizer.step()
            self._n_updates += 1
            learner.dynamics.after_update(self._n_updates, self._windows)
            self.policy.follow_learner(self._n_updates)
            self._meter.add_losses(losses._replace(terms=losses.terms | {name: loss.detach() for name, loss in heads.items()}))
        self._meter.add_updates(n_updates, time.perf_counter() - start)

    def _observe_recorded(self) -> None:
        """The scale of each variable, from a buffer that was filled without us."""
        assert self.replay_buffer is not None
        if self.replay_buffer.size() and not self.policy.factorization.moments.count:
            batch = sample_windows(self.replay_buffer, self.N_DESCRIBED, 1, np.random.default_rng(0))
            self.policy.factorization.observe(self._as_given(batch.observations))

    def _check_outcomes(self) -> None:
        """Warns if a reward or termination that is given is not that of the environment."""
        assert self.replay_buffer is not None
        # Of its own generator: who gives nothing to check gets the same windows.
        batch = sample_windows(self.replay_buffer, self.N_CHECKED, 1, np.random.default_rng(0))
        for sentence in self.policy.check_outcomes(self._encode(batch)[1]):
            warnings.warn(sentence, stacklevel=2)

    def _windows(self, batch_size: int) -> Windows:
        """What the dynamics may look at after an update."""
        assert self.replay_buffer is not None
        held_out = True if self.dynamics.holds_out else None
        draw = sample_distinct_windows(self.replay_buffer, batch_size, self.train_horizon, self._window_rng, held_out)
        return self._encode(draw)[0]

    def _sample(self, batch_size: int) -> tuple[Windows, Outcomes]:
        """Windows for the dynamics, and their transitions for reward and termination."""
        assert self.replay_buffer is not None
        held_out = False if self.dynamics.holds_out else None
        return self._encode(sample_windows(self.replay_buffer, batch_size, self.train_horizon, self._window_rng, held_out))

    def _ends(self) -> Outcomes | None:
        """Transitions that ended their episode, for who learns that."""
        assert self.replay_buffer is not None
        if self.policy.learner.termination_head is None:
            return None
        batch = sample_ends(self.replay_buffer, self.N_ENDS, self._window_rng)
        return None if batch is None else self._encode(batch)[1]

    def _recorded(self, n_windows: int, length: int = 1) -> Windows:
        """Windows for looking at the model: the same ones for the same buffer, and training draws what it would have drawn."""
        assert self.replay_buffer is not None
        if not self.replay_buffer.size():
            raise ValueError("the replay buffer is empty: learn() first, or load_replay_buffer()")
        return self._encode(sample_windows(self.replay_buffer, n_windows, length, np.random.default_rng(0)))[0]

    def _encode(self, batch: WindowBatch) -> tuple[Windows, Outcomes]:
        policy = self.policy
        before, after = self._as_given(batch.observations), self._as_given(batch.next_observations)
        state, action = policy.encode(before, batch.actions)
        next_state, goal = policy.factorization.encode_state(after), policy.factorization.encode_goal(before)
        valid, reward, terminated, rows = (
            th.as_tensor(each, device=policy.device)
            for each in (batch.valid, batch.rewards, batch.terminated, np.flatnonzero(batch.valid))
        )
        transitions = (each.flatten(0, 1)[rows] for each in (state, action, next_state, goal, reward, terminated))
        return Windows(state, action, next_state, valid), Outcomes(*transitions)

    @property
    def _is_normalized(self) -> bool:
        return self._vec_normalize_env is not None and self._vec_normalize_env.norm_obs

    def _as_given(self, observations: Observations) -> PyTorchObs:
        """Recorded observations as the policy is given them."""
        assert self.replay_buffer is not None
        if self._learned_normalized and not self._is_normalized:
            raise ValueError(
                "the model learned from observations as VecNormalize had made them, and the recorded ones are those of the "
                "environment: load it with the environment in VecNormalize.load(), FCDL.load(path, env=...)"
            )
        normalized = self.replay_buffer._normalize_obs(observations, self._vec_normalize_env)
        return obs_as_tensor(normalized, self.policy.device)

    def _report(self, logger: Logger, timesteps: int) -> None:
        """
        See ``sb3_fcdl.inspection.report.report``.

        :param logger: with a TensorBoard writer
        :param timesteps: so far; they choose what is looked at
        """
        assert self.replay_buffer is not None
        # Of its own generator: training is the same with and without TensorBoard.
        rng, length = np.random.default_rng(timesteps), max(report_lengths(self.policy))
        batch = sample_windows(self.replay_buffer, N_WINDOWS, length, rng)
        windows, _ = self._encode(batch)
        goal = self.policy.factorization.encode_goal(self._as_given(batch.observations))
        report(logger, self.policy, windows, goal[:, 0], batch.rewards)
