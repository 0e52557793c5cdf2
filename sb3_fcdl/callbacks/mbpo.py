"""An off-policy algorithm of SB3 learns from what a model imagines."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from fcdl_envs.arguments import Either, Several, check, integer, number
from sb3_fcdl.callbacks.dynamics import DynamicsCallback
from sb3_fcdl.dynamics import dynamics_class
from sb3_fcdl.dynamics.ensemble import Ensemble
from sb3_fcdl.fcdl.elsewhere import check_keywords, tells_where
from sb3_fcdl.imagination import Branches, MixedReplay, RolloutLength, branch, check_has_graph, recombined, replayed
from sb3_fcdl.observations import Observations, given_to

# Environment steps: the same at all times, or first, last, begin, end.
ROLLOUT_LENGTH = Either(integer(1), Several(integer(1), 4))


class MBPOCallback(DynamicsCallback):
    """
    Model-based policy optimization (Janner et al., 2019) for any off-policy algorithm of SB3 or sb3-contrib, the host: SAC,
    TD3, TQC, DDPG, DQN, QR-DQN. The host makes many updates a transition, mostly on transitions that a model imagines.

    Every ``train_freq`` calls of ``env.step`` an epoch begins. An ensemble of models learns from the host's replay buffer,
    read in place; then, from recorded observations on, the host's policy acts in the model for ``rollout_length`` steps.
    The last epoch's imagined transitions are kept in ``branches.buffer``, a replay buffer in the environment's units. After
    each rollout the host's own ``train`` makes ``gradient_steps`` updates a transition, whose batches are of recorded and of
    imagined transitions. Until the first epoch, which comes with ``learning_starts``, the host learns as it does alone; its
    replay buffer, files and other attributes are always what they would be without the callback.

    With a ``counterfactual_ratio`` that share of the batches is of counterfactual transitions (CoDA, Pitis et al., 2020): in
    pairs of recorded ones, parts that are independent of each other by the learned graphs have changed places, see
    ``sb3_fcdl.imagination.recombined``. They are drawn in each epoch, into ``counterfactuals``. Their rewards and ends are
    given, published by the environment, or predicted by the learned heads. Give a ``reward_fn`` where rewards are rare: a head
    does not know what has not been recorded yet.

    The model is one of ``DynamicsCallback``, with all that this has: ``policy``, ``dynamics``, ``explain``, ``imagined_env``,
    ``save``. All arguments can be written in YAML, as RL Zoo needs it.

    :param dynamics: model of the ensemble's members, a name in ``DYNAMICS``
    :param dynamics_kwargs: keyword arguments of its class; None: for ``"mlp"`` ``MLP_KWARGS``, for others the defaults
    :param n_members: models in the ensemble
    :param n_elites: those of them that are imagined with: the ones whose held-out error is smallest
    :param rollout_length: of a branch, environment steps; or ``[first, last, begin, end]``: from ``first`` to ``last``
        between two timesteps, all four at least 1
    :param gradient_steps: updates of the host for each recorded transition
    :param real_ratio: share of recorded transitions in the batches of the host, in [0, 1]
    :param counterfactual_ratio: share of counterfactual ones, at most ``1 - real_ratio``; the rest is imagined. They need a
        model with graphs, such as ``dynamics="fcdl_tree"``. In epochs in which no parts are independent, recorded transitions
        stand in
    :param n_branches: that begin in an epoch; and pairs of recorded transitions for counterfactual ones
    :param max_disagreement: where the members disagree by more a branch ends, and the transition is left out, see
        ``MixtureDistribution.disagreement``
    :param reward_fn: a function or ``"package.module:function"``, see ``FCDL``; None: published by the environment, or learned
    :param termination_fn: likewise
    :param learning_rate: of the model
    :param learning_starts: transitions recorded before the first epoch
    :param batch_size: windows in an update of the model
    :param train_freq: calls of ``env.step`` from one epoch to the next
    :param model_gradient_steps: updates of the model in an epoch, at least ``N_FIRST`` in the first
    :param log_freq: calls of ``env.step`` from one log entry to the next
    :param seed: of the model, its training and imagination; None: the host's
    :raises ValueError: if a number is out of range, the shares are more than 1, or ``dynamics`` is unknown or has no graphs
        for counterfactual transitions; and from ``learn`` if the host is no off-policy algorithm, or ``DynamicsCallback``
        refuses it
    :raises TypeError: if an argument is of a wrong type, or ``dynamics_kwargs`` has an unknown key
    """

    # Of the multi-layer perceptron, unless others are given: small, because seven of them learn, and smooth.
    MLP_KWARGS: ClassVar[dict[str, Any]] = {"hidden_dim": 64, "activation": "silu"}
    # Updates of the model before anything is imagined.
    N_FIRST = 500
    # Share of imagined actions that are drawn uniformly from the action space. The policy of DQN or TD3 takes one action in
    # each state, and a value of the others is not learned from it.
    RANDOM_SHARE = 0.25

    branches: Branches | None
    counterfactuals: ReplayBuffer | None

    @tells_where
    def __init__(
        self,
        dynamics: str = "mlp",
        dynamics_kwargs: dict[str, Any] | None = None,
        n_members: int = 7,
        n_elites: int = 5,
        rollout_length: int | Sequence[int] = 1,
        gradient_steps: int = 10,
        real_ratio: float = 0.05,
        counterfactual_ratio: float = 0.0,
        n_branches: int = 10_000,
        max_disagreement: float = 0.5,
        reward_fn: str | None = None,
        termination_fn: str | None = None,
        learning_rate: float = 1e-3,
        learning_starts: int = 200,
        batch_size: int = 256,
        train_freq: int = 50,
        model_gradient_steps: int = 50,
        log_freq: int = 1000,
        seed: int | None = None,
    ) -> None:
        check(
            n_members=(n_members, integer(1)),
            rollout_length=(rollout_length, ROLLOUT_LENGTH),
            gradient_steps=(gradient_steps, integer(1)),
            real_ratio=(real_ratio, number(at_least=0, at_most=1)),
            counterfactual_ratio=(counterfactual_ratio, number(at_least=0, at_most=1)),
            n_branches=(n_branches, integer(1)),
            max_disagreement=(max_disagreement, number(above=0)),
            model_gradient_steps=(model_gradient_steps, integer(1)),
        )
        check(n_elites=(n_elites, integer(1, n_members, "n_members")))
        # With room for rounding.
        if real_ratio + counterfactual_ratio > 1 + 1e-9:
            raise ValueError(
                f"real_ratio={real_ratio} and counterfactual_ratio={counterfactual_ratio} are shares of one batch: together "
                "they must be at most 1"
            )
        if dynamics == "mlp" and dynamics_kwargs is None:
            dynamics_kwargs = self.MLP_KWARGS
        super().__init__(
            dynamics,
            dynamics_kwargs,
            reward_fn=reward_fn,
            termination_fn=termination_fn,
            gamma=1.0,  # nothing is planned, hence no value is learned
            learning_rate=learning_rate,
            learning_starts=learning_starts,
            batch_size=batch_size,
            train_freq=train_freq,
            gradient_steps=model_gradient_steps,
            log_freq=log_freq,
            seed=seed,
        )
        model = dynamics_class(dynamics)
        if counterfactual_ratio:
            check_has_graph(model)
        check_keywords("dynamics_kwargs", model, dynamics_kwargs or {})
        self.policy_kwargs["dynamics"] = Ensemble
        self.policy_kwargs["dynamics_kwargs"] = {
            "model": model,
            "model_kwargs": dynamics_kwargs,
            "n_members": n_members,
            "n_elites": n_elites,
        }
        self.rollout_length = RolloutLength.of(rollout_length)
        self.updates_a_transition = gradient_steps
        self.real_ratio = real_ratio
        self.counterfactual_ratio = counterfactual_ratio
        self.n_branches = n_branches
        self.max_disagreement = max_disagreement
        self.branches = None
        self.counterfactuals = None
        self._is_new_epoch = False

    @property
    def _host_algorithm(self) -> OffPolicyAlgorithm:
        assert isinstance(self.model, OffPolicyAlgorithm)
        return self.model

    def _build(self) -> None:
        if not isinstance(self.model, OffPolicyAlgorithm):
            raise ValueError(
                f"{type(self.model).__name__} learns from no replay buffer, so it cannot learn from imagined transitions: "
                "use an off-policy algorithm, such as SAC, TD3, TQC or DQN"
            )
        super()._build()
        self._generator = th.Generator(self.model.device).manual_seed(int(self._rng.integers(2**63)))

    def _update_model(self) -> None:
        n_updates = self.gradient_steps if self.trainer.n_updates else max(self.gradient_steps, self.N_FIRST)
        self.trainer.train(self.experience, n_updates, self.batch_size)
        self._is_new_epoch = True

    def _on_rollout_start(self) -> None:
        self._timesteps_before = self.num_timesteps

    def _on_rollout_end(self) -> None:
        host = self._host_algorithm
        if self._is_new_epoch:
            self._is_new_epoch = False
            with self._own_random_numbers():
                self._imagine()
        source = self._source()
        if source is None or self.num_timesteps <= host.learning_starts:
            return
        recorded = self.replay_buffer
        host.replay_buffer = source  # type: ignore[assignment]
        n_updates = self.updates_a_transition * (self.num_timesteps - self._timesteps_before)
        try:
            host.train(gradient_steps=n_updates, batch_size=host.batch_size)
        finally:
            host.replay_buffer = recorded
        # These were its updates: it is about to make its own.
        skip_train(host)

    @property
    def _share_not_imagined(self) -> float:
        return min(self.real_ratio + self.counterfactual_ratio, 1.0)

    def _source(self) -> ReplayBuffer | MixedReplay | None:
        """What the host learns from. None: it learns as it does alone, as there was no epoch, or nothing came of it."""
        if not self.trainer.n_updates:
            return None
        gamma, share = self._host_algorithm.gamma, self._share_not_imagined
        recorded: ReplayBuffer | MixedReplay = self.replay_buffer
        if self.counterfactuals is not None and self.counterfactuals.size():
            recorded = MixedReplay(recorded, self.counterfactuals, self.real_ratio / share, gamma)
        if self.branches is None:
            return recorded
        if not self.branches.buffer.size():
            # All branches were cut off.
            return None if recorded is self.replay_buffer else recorded
        return MixedReplay(recorded, self.branches.buffer, share, gamma)

    def _imagine(self) -> None:
        """Draw the transitions of an epoch."""
        world = self.policy.world
        if self._share_not_imagined < 1:
            length = self.rollout_length.at(self.num_timesteps)
            starts = replayed(world, self.replay_buffer, self.n_branches, self._window_rng)
            self.branches = branch(world, starts, self._act, length, self.max_disagreement, self._generator)
            self.logger.record("imagination/transitions", self.branches.buffer.size())
            self.logger.record("imagination/cut_off", self.branches.cut_off)
            self.logger.record("imagination/rollout_length", length)
        if self.counterfactual_ratio:
            self.counterfactuals = recombined(world, self.replay_buffer, self.n_branches, self._window_rng, self._generator)
            self.logger.record("imagination/counterfactual", self.counterfactuals.size())

    def _act(self, observations: Observations) -> np.ndarray:
        """What the host's policy does, but for ``RANDOM_SHARE``; as its replay buffer has it, ``[R, action_dim]``."""
        factorization, rng = self.policy.world.factorization, self._window_rng
        actions, _ = self.model.policy.predict(given_to(self.model)(observations), deterministic=False)
        stored = factorization.buffer_actions(actions)
        if isinstance(factorization.action_space, spaces.Discrete):
            drawn = rng.integers(factorization.action_space.n, size=stored.shape).astype(stored.dtype)
        else:
            drawn = rng.uniform(-1, 1, size=stored.shape).astype(stored.dtype)
        return np.where(rng.random((len(stored), 1)) < self.RANDOM_SHARE, drawn, stored)


def skip_train(host: OffPolicyAlgorithm) -> None:
    """
    The ``train`` that follows the present rollout does nothing. Any other call, such as the first of another ``learn``, if an
    exception has ended this one, is as always.

    No attribute changes, as attributes are saved with the host, but its class, until the next call of ``train``.

    :param host: in ``on_rollout_end``
    """
    kind: Any = type(host)
    if issubclass(kind, _Skips):  # the last rollout was followed by no train
        kind = kind.__base__
    skipped = _moment(host)

    class Skips(kind, _Skips):
        def train(self, *args: Any, **kwargs: Any) -> None:
            self.__class__ = kind
            if _moment(self) != skipped:
                self.train(*args, **kwargs)

    Skips.__name__, Skips.__qualname__, Skips.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    host.__class__ = Skips


class _Skips:
    """Marks a class that ``skip_train`` has made."""


def _moment(host: OffPolicyAlgorithm) -> tuple[float, int]:
    """Differs between calls of ``learn``, and between their rollouts."""
    return host.start_time, host.num_timesteps
