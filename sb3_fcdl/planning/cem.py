"""The cross-entropy method over sequences of discrete actions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch as th

from sb3_fcdl.planning.base import KeyFn, Plan, RewardFn, StepFn
from sb3_fcdl.planning.rollout import MemoRollout, PlainRollout, Rollout


@dataclass(frozen=True)
class CEM:
    """
    Cross-entropy method with one independent categorical distribution per environment and step. It starts uniform at every
    call; after each iteration the new probabilities are the frequencies of the actions among the elites. All returns are
    undiscounted, ties are broken at random.

    :param n_actions: number of actions
    :param horizon: length of a plan, in env steps
    :param n_iterations: number of times that the distribution is sampled and refitted
    :param n_candidates: sequences sampled per iteration and environment
    :param n_elites: sequences kept per iteration and environment
    :param select: ``"frequency"`` takes at each step the action that most elites of the last iteration take there, with their
        mean return as value (as published); ``"best"`` takes the best sequence of all iterations
    :raises ValueError: if a number is below 1, ``n_elites`` above ``n_candidates`` or ``select`` unknown
    """

    n_actions: int
    horizon: int = 3
    n_iterations: int = 5
    n_candidates: int = 64
    n_elites: int = 32
    select: Literal["frequency", "best"] = "frequency"

    def __post_init__(self) -> None:
        for name in ("n_actions", "horizon", "n_iterations", "n_candidates", "n_elites"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.n_elites > self.n_candidates:
            raise ValueError(f"n_elites must be at most n_candidates = {self.n_candidates}, got {self.n_elites}")
        if self.select not in ("frequency", "best"):
            raise ValueError(f"select must be 'frequency' or 'best', got {self.select!r}")

    @th.no_grad()
    def plan(
        self,
        step: StepFn,
        reward: RewardFn,
        state: th.Tensor,
        goal: th.Tensor,
        *,
        generators: Sequence[th.Generator] | None = None,
        action_mask: th.Tensor | None = None,
        key: KeyFn | None = None,
    ) -> Plan:
        """
        Plan for B environments at once, see :class:`~sb3_fcdl.planning.base.Planner`.

        :param step: the model
        :param reward: reward of one modelled step
        :param state: encoded current state, ``[B, D]``
        :param goal: encoded task of each environment, ``[B, G]``
        :param generators: a CPU generator for each environment; without them the noise comes from torch's global generator
        :param action_mask: the actions allowed at the first step, ``[B, n_actions]``, bool
        :param key: code of a state that ``step`` returned; only makes planning faster
        :return: the plan; a sequence whose return is not finite counts as ``-inf`` and is an elite only if all are
        :raises ValueError: if there is not one generator for each environment, or ``action_mask`` has another shape or
            allows an environment no action
        """
        noise = _Noise(len(state), state.device, generators)
        rollout = self._rollout(step, reward, state, goal, key)
        distribution = self._uniform(state, action_mask)
        best = Plan(distribution.actions[:, 0], state.new_full((len(state),), -th.inf))
        for _ in range(self.n_iterations):
            actions = distribution.sample(noise(self.n_candidates, self.horizon))
            elites, returns = self._elites(actions, rollout.evaluate(actions))
            kept = returns.isfinite() | (returns[:, :1] == -th.inf)
            distribution = self._fitted(elites, kept)
            best = _better(best, Plan(elites[:, 0], returns[:, 0]))
        if self.select == "best":
            return best
        # counts are whole numbers: noise below one half only decides between equal ones
        favourite = (distribution.counts(self.n_actions) + noise(self.horizon, self.n_actions) / 2).argmax(dim=2)
        return Plan(favourite, returns.where(kept, 0).sum(dim=1) / kept.sum(dim=1))

    def _rollout(self, step: StepFn, reward: RewardFn, state: th.Tensor, goal: th.Tensor, key: KeyFn | None) -> Rollout:
        # the memo asks what it knows at every depth, for which the host would have to wait for any other device
        if state.device.type == "cpu":
            return MemoRollout(step, reward, state, goal, self.n_actions, key)
        return PlainRollout(step, reward, state, goal, self.n_actions)

    def _uniform(self, state: th.Tensor, action_mask: th.Tensor | None) -> "_Distribution":
        """Every allowed action equally likely."""
        n_envs = len(state)
        every_action = th.arange(self.n_actions, device=state.device)
        actions = every_action[:, None].repeat(n_envs, 1, self.horizon)
        n_used = th.full((n_envs, self.horizon), self.n_actions, device=state.device)
        if action_mask is not None:
            if action_mask.shape != (n_envs, self.n_actions):
                raise ValueError(f"action_mask must have shape {(n_envs, self.n_actions)}, got {tuple(action_mask.shape)}")
            if not action_mask.any(dim=1).all():
                raise ValueError(f"action_mask must allow every environment at least one action, got {action_mask}")
            actions[:, :, 0] = every_action.where(action_mask, self.n_actions).sort(dim=1).values
            n_used[:, 0] = action_mask.sum(dim=1)
        return _Distribution(actions, n_used)

    def _fitted(self, elites: th.Tensor, kept: th.Tensor) -> "_Distribution":
        """
        The frequencies of the actions among the elites.

        :param elites: ``[B, n_elites, H]``
        :param kept: which elites count, ``[B, n_elites]``, bool
        """
        actions = elites.where(kept[:, :, None], self.n_actions).sort(dim=1).values
        return _Distribution(actions, kept.sum(dim=1, keepdim=True).expand(-1, self.horizon))

    def _elites(self, actions: th.Tensor, returns: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        The best sequences, best first.

        :param actions: ``[B, N, H]``
        :param returns: ``[B, N]``
        :return: elites, ``[B, n_elites, H]``, and their returns, ``[B, n_elites]``
        """
        # equal returns keep the order in which their sequences were drawn, which is random: no action is favoured
        returns, ranking = returns.sort(dim=1, descending=True, stable=True)
        index = ranking[:, : self.n_elites, None].expand(-1, -1, self.horizon)
        return actions.gather(1, index), returns[:, : self.n_elites]


class _Distribution(NamedTuple):
    """
    One categorical distribution for each environment and step, as a list of equally likely actions. Whole numbers in place of
    probabilities: there is no rounding error, and an action that is not listed is never drawn.

    :param actions: in ascending order, then unused entries that hold ``n_actions``, ``[B, L, H]``
    :param n_used: length of each list, ``[B, H]``
    """

    actions: th.Tensor
    n_used: th.Tensor

    def sample(self, noise: th.Tensor) -> th.Tensor:
        """
        Inverse of the cumulative distribution.

        :param noise: uniform in [0, 1), ``[B, N, H]``
        :return: actions, ``[B, N, H]``
        """
        return self.actions.gather(1, (noise * self.n_used[:, None]).long())

    def counts(self, n_actions: int) -> th.Tensor:
        """:return: how often each action is listed, ``[B, H, n_actions]``, float"""
        n_envs, _, horizon = self.actions.shape
        counts = th.zeros(n_envs, horizon, n_actions + 1, device=self.actions.device)
        ones = th.ones_like(self.actions, dtype=counts.dtype)
        return counts.scatter_add_(2, self.actions.mT, ones.mT)[:, :, :n_actions]


class _Noise:
    """Uniform numbers in [0, 1) for B environments: for each from its own generator, or for all from the global one."""

    def __init__(self, n_envs: int, device: th.device, generators: Sequence[th.Generator] | None) -> None:
        if generators is not None and len(generators) != n_envs:
            raise ValueError(f"there must be one generator for each of {n_envs} environments, got {len(generators)}")
        self.n_envs = n_envs
        self.device = device
        self.generators = generators

    def __call__(self, *shape: int) -> th.Tensor:
        """:return: ``[B, *shape]``, drawn on the CPU, hence equal on every device"""
        if self.generators is None:
            return th.rand(self.n_envs, *shape).to(self.device)
        return th.stack([th.rand(*shape, generator=generator) for generator in self.generators]).to(self.device)


def _better(old: Plan, new: Plan) -> Plan:
    """The plan with the higher value in each environment, the new one if they are equal."""
    improved = new.value >= old.value
    return Plan(new.actions.where(improved[:, None], old.actions), new.value.where(improved, old.value))
