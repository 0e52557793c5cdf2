"""The cross-entropy method over sequences of actions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch as th

from sb3_fcdl.planning.actions import Actions
from sb3_fcdl.planning.base import KeyFn, Plan, RewardFn, StepFn
from sb3_fcdl.planning.distributions import initial_distribution
from sb3_fcdl.planning.noise import Noise
from sb3_fcdl.planning.rollout import make_rollout


@dataclass(frozen=True)
class CEM:
    """
    Cross-entropy method with one independent distribution per environment and step. It starts anew at every call and is
    refitted to the elites of each iteration, without smoothing. All returns are undiscounted, ties are broken at random.

    Discrete actions: a categorical distribution, at first uniform, then the frequencies of the actions among the elites.
    Box actions: a normal distribution for each dimension, clipped to the bounds; at first with the middle of the box as mean
    and half its range as standard deviation, then with the elites' mean and biased standard deviation.

    :param actions: what an action is
    :param horizon: length of a plan, in env steps
    :param n_iterations: number of times that the distribution is sampled and refitted
    :param n_candidates: sequences sampled per iteration and environment
    :param n_elites: sequences kept per iteration and environment
    :param select: ``"elites"`` takes at each step what the elites of the last iteration agree on, the action that most of
        them take or the mean of a box, with their mean return as value (as published); ``"best"`` takes the best sequence of
        all iterations
    :raises ValueError: if a number is below 1, ``n_elites`` above ``n_candidates`` or ``select`` unknown
    """

    actions: Actions
    horizon: int = 3
    n_iterations: int = 5
    n_candidates: int = 64
    n_elites: int = 32
    select: Literal["elites", "best"] = "elites"

    def __post_init__(self) -> None:
        for name in ("horizon", "n_iterations", "n_candidates", "n_elites"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.n_elites > self.n_candidates:
            raise ValueError(f"n_elites must be at most n_candidates = {self.n_candidates}, got {self.n_elites}")
        if self.select not in ("elites", "best"):
            raise ValueError(f"select must be 'elites' or 'best', got {self.select!r}")

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
        :param action_mask: the discrete actions allowed at the first step, ``[B, n_actions]``, bool
        :param key: code of a state that ``step`` returned; only makes planning faster
        :return: the plan; a sequence whose return is not finite counts as ``-inf`` and is an elite only if all are
        :raises ValueError: if there is not one generator for each environment, or ``action_mask`` has another shape, allows
            an environment no action, or is given for actions that are not discrete
        """
        noise = Noise(len(state), state.device, generators)
        rollout = make_rollout(step, reward, state, goal, self.actions, key)
        distribution = initial_distribution(self.actions, self.horizon, state, action_mask)
        winners = []
        for _ in range(self.n_iterations):
            candidates = distribution.sample(noise, self.n_candidates)
            elites, returns = self._elites(candidates, rollout.evaluate(candidates))
            kept = returns.isfinite() | (returns[:, :1] == -th.inf)
            distribution = distribution.fitted(elites, kept)
            winners.append(Plan(elites[:, 0], returns[:, 0]))
        if self.select == "best":
            return reduce(_better, winners)
        return Plan(distribution.chosen(noise), returns.where(kept, 0).sum(dim=1) / kept.sum(dim=1))

    def _elites(self, candidates: th.Tensor, returns: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        The best sequences, best first.

        :param candidates: ``[B, N, H]`` or ``[B, N, H, A]``
        :param returns: ``[B, N]``
        :return: elites, ``[B, n_elites, H]`` or ``[B, n_elites, H, A]``, and their returns, ``[B, n_elites]``
        """
        # equal returns keep the order in which their sequences were drawn, which is random: no action is favoured
        returns, ranking = returns.sort(dim=1, descending=True, stable=True)
        env = th.arange(len(returns), device=returns.device)[:, None]
        return candidates[env, ranking[:, : self.n_elites]], returns[:, : self.n_elites]


def _better(old: Plan, new: Plan) -> Plan:
    """The plan with the higher value in each environment, the new one if they are equal."""
    improved = new.value >= old.value
    actions = new.actions.where(improved.view(-1, *(1,) * (new.actions.dim() - 1)), old.actions)
    return Plan(actions, new.value.where(improved, old.value))
