"""Recorded transitions, as a world model learns from them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecNormalize

from sb3_fcdl.buffers import Part, WindowBatch, sample_distinct_windows, sample_ends, sample_windows
from sb3_fcdl.dynamics import Windows
from sb3_fcdl.observations import Observations
from sb3_fcdl.world.gate import check_buffer, is_finite, is_usable
from sb3_fcdl.world.rewards import Outcomes
from sb3_fcdl.world.world_model import WorldModel


class Draw(NamedTuple):
    """
    What one update learns from.

    :param windows: for the dynamics
    :param outcomes: the transitions of these windows, for reward and termination
    :param ends: further transitions that ended their episode; None: there are none, or nothing learns from them
    """

    windows: Windows
    outcomes: Outcomes
    ends: Outcomes | None


class Recorded(NamedTuple):
    """
    Recorded windows for looking at a model.

    :param windows: encoded
    :param goal: of the first state of each window, ``[B, G]``
    :param rewards: ``[B, T]``
    """

    windows: Windows
    goal: th.Tensor
    rewards: np.ndarray


def check_keeps_ends(replay_buffer: ReplayBuffer | None, learner: WorldModel) -> None:
    """
    :param replay_buffer: to learn from
    :param learner: what learns from it
    :raises ValueError: if the end of an episode is learned, and the buffer does not keep it
    """
    if replay_buffer is None or not learner.learns_ends:
        return
    if not replay_buffer.handle_timeout_termination and not replay_buffer.optimize_memory_usage:
        raise ValueError(
            "with handle_timeout_termination=False the buffer does not tell time limits from ends, so ends cannot be learned: "
            "pass handle_timeout_termination=True, or a termination_fn (sb3_fcdl.world.rewards.never_ends: there are none)"
        )
    if replay_buffer.optimize_memory_usage:
        raise ValueError(
            "with optimize_memory_usage the buffer does not keep the state that an episode ended in, so ends cannot be "
            "learned: pass optimize_memory_usage=False, or a termination_fn "
            "(sb3_fcdl.world.rewards.never_ends: there are none)"
        )


@dataclass(frozen=True)
class Experience:
    """
    A view of a replay buffer: encoded windows and outcomes out of recorded transitions. It keeps nothing.

    :param world: what encodes them, and what they are for
    :param replay_buffer: in the environment's units
    :param vec_normalize: makes of recorded observations what the model is given; None: the model is given them as they are
    :param train_horizon: length of a training window, environment steps
    :param rng: draws what is trained on
    """

    world: WorldModel
    replay_buffer: ReplayBuffer
    vec_normalize: VecNormalize | None
    train_horizon: int
    rng: np.random.Generator

    # Ends of episodes in an update of a learned termination. By chance a batch of 256 has one or two, and an end that was seen
    # once is then not learned in a thousand updates.
    N_ENDS = 64
    # Transitions that a given reward or termination is compared with.
    N_CHECKED = 256
    # Transitions that set the scale of the variables, where the buffer was filled without us.
    N_SCALED = 4096
    # Transitions by which it is told what is new: all of a short run.
    N_TRIED = 8192

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been recorded."""
        return not self.replay_buffer.size()

    @property
    def n_recorded(self) -> int:
        """Transitions in the buffer."""
        return self.replay_buffer.size() * self.replay_buffer.n_envs

    @property
    def is_normalized(self) -> bool:
        """Whether ``VecNormalize`` changes what the model is given."""
        return self.vec_normalize is not None and self.vec_normalize.norm_obs

    def draw(self, batch_size: int) -> Draw:
        """
        :param batch_size: windows
        :return: what an update learns from, drawn with replacement; nothing that is held out for ``judged``
        """
        part = self._part(is_held_out=False)
        windows, outcomes = self._encoded(sample_windows(self.replay_buffer, batch_size, self.train_horizon, self.rng, part))
        return Draw(windows, outcomes, self._ends())

    def judged(self, n_windows: int) -> Windows:
        """
        :param n_windows: at most so many
        :return: different windows that the dynamics may be judged by after an update, see ``DynamicsModel.after_update``
        """
        part = self._part(is_held_out=True)
        batch = sample_distinct_windows(self.replay_buffer, n_windows, self.train_horizon, self.rng, part)
        return self._encoded(batch)[0]

    def recorded(self, n_windows: int, length: int = 1, seed: int = 0) -> Recorded:
        """
        Windows for looking at the model: the same ones for the same buffer and seed, whatever training draws.

        :param n_windows: how many
        :param length: of each, environment steps
        :param seed: of the choice
        :raises ValueError: if nothing has been recorded
        """
        if self.is_empty:
            raise ValueError("the replay buffer is empty: learn() first, or load_replay_buffer()")
        self.check_units()
        batch = sample_windows(self.replay_buffer, n_windows, length, np.random.default_rng(seed))
        goal = self.world.goal(self._given(batch.observations))
        return Recorded(self._encoded(batch)[0], goal[:, 0], batch.rewards)

    def tried(self) -> tuple[th.Tensor, th.Tensor, int]:
        """Encoded states and actions of recorded transitions, ``[R, D]`` and ``[R, A]``, and how many they stand for."""
        batch = sample_distinct_windows(self.replay_buffer, self.N_TRIED, 1, self.rng)
        windows = self._encoded(batch)[0]
        return windows.state[:, 0], windows.action[:, 0], self.n_recorded

    def take_scale(self) -> None:
        """The scale of the variables, of a buffer that was filled without us."""
        if not (self.is_empty or self.world.factorization.moments.count):
            batch = sample_windows(self.replay_buffer, self.N_SCALED, 1, np.random.default_rng(0))
            self.world.factorization.observe(self._given(batch.observations))

    def disagreements(self) -> list[str]:
        """A sentence for each given reward or termination that is not the environment's, see ``WorldModel.check_outcomes``."""
        # Of its own generator: who gives nothing to check gets the same windows.
        batch = sample_windows(self.replay_buffer, self.N_CHECKED, 1, np.random.default_rng(0))
        return self.world.check_outcomes(self._encoded(batch)[1])

    def _part(self, is_held_out: bool) -> Part | None:
        """None: all transitions, where the dynamics do not ask for two parts."""
        n_blocks = self.world.dynamics.holds_out
        return Part(n_blocks, is_held_out) if n_blocks else None

    def _ends(self) -> Outcomes | None:
        if not self.world.learns_ends:
            return None
        batch = sample_ends(self.replay_buffer, self.N_ENDS, self.rng)
        return None if batch is None else self._encoded(batch)[1]

    def _encoded(self, batch: WindowBatch) -> tuple[Windows, Outcomes]:
        factorization = self.world.factorization
        is_good = is_usable(factorization, batch.observations, batch.next_observations)
        if not (is_good and is_finite(batch.actions, batch.rewards)):
            # Somebody has filled the buffer without us: say what is wrong with it.
            check_buffer(factorization, self.replay_buffer)
            raise ValueError("the replay buffer holds numbers that nothing can be learned from")
        world, device = self.world, self.world.device
        before, after = self._given(batch.observations), self._given(batch.next_observations)
        action = world.encode_action(th.as_tensor(batch.actions, device=device))
        valid = th.as_tensor(batch.valid, device=device)
        windows = Windows(world.encode(before), action, world.encode(after), valid)
        # Which rows are valid is known on the host, so that no device is waited for.
        rows = th.as_tensor(np.flatnonzero(batch.valid), device=device)
        outcomes = Outcomes(
            state=windows.state.flatten(0, 1)[rows],
            action=action.flatten(0, 1)[rows],
            next_state=windows.next_state.flatten(0, 1)[rows],
            goal=world.goal(before).flatten(0, 1)[rows],
            reward=th.as_tensor(batch.rewards, device=device).flatten()[rows],
            terminated=th.as_tensor(batch.terminated, device=device).flatten()[rows],
        )
        return windows, outcomes

    def check_units(self) -> None:
        """:raises ValueError: if the model learned in other units than those of the recorded observations"""
        if self.world.factorization.is_normalized and not self.is_normalized:
            raise ValueError(
                "the model learned from observations as VecNormalize had made them, and the recorded ones are those of the "
                "environment: load it with the environment in VecNormalize.load(), FCDL.load(path, env=...)"
            )

    def _given(self, observations: Observations) -> PyTorchObs:
        """Recorded observations as the model is given them."""
        if self.vec_normalize is not None:
            observations = self.vec_normalize.normalize_obs(observations)
        return obs_as_tensor(observations, self.world.device)
