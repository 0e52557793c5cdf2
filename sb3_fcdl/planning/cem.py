"""The cross-entropy method over sequences of actions."""

from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch as th

from fcdl_envs.arguments import OrNone, check, integer, one_of
from sb3_fcdl.planning.distributions import SequenceDistribution
from sb3_fcdl.planning.noise import Noise
from sb3_fcdl.planning.planner import Planner, best_of
from sb3_fcdl.planning.problem import Plan
from sb3_fcdl.planning.rollout import Rollout


@dataclass(frozen=True)
class CEM(Planner):
    """
    Cross-entropy method with one independent distribution per environment and step. It starts anew at every call and is
    refitted to the elites of each iteration, without smoothing. Ties are broken at random.

    Whole numbers: a categorical distribution for each dimension, at first uniform, then the frequencies of the values among
    the elites. Box actions: a normal distribution for each dimension, clipped to the bounds; at first with the middle of the
    box as mean and half its range as standard deviation, then with the elites' mean and biased standard deviation.

    :param n_elites: sequences kept per iteration and environment; None: 32, but at most half of the candidates
    :param select: ``"elites"`` takes at each step what the elites of the last iteration agree on, the value that most of
        them take or the mean of a box, with their mean return as value (as published); ``"best"`` takes the best sequence of
        all iterations
    :raises ValueError: if ``n_elites`` is below 1 or above ``n_candidates``, or ``select`` unknown
    :raises TypeError: if one of them is of a wrong type

    The other parameters are those of :class:`~sb3_fcdl.planning.planner.Planner`.
    """

    n_elites: int = None  # type: ignore[assignment]  # a number once the planner is made
    select: Literal["elites", "best"] = "elites"

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            n_elites=(self.n_elites, OrNone(integer(1, self.n_candidates, "n_candidates"))),
            select=(self.select, one_of("elites", "best")),
        )
        if self.n_elites is None:
            object.__setattr__(self, "n_elites", min(32, max(1, self.n_candidates // 2)))

    def _search(self, rollout: Rollout, noise: Noise, distribution: SequenceDistribution, known: th.Tensor) -> Plan:
        winners = []
        for iteration in self._iterations(rollout):
            candidates = distribution.sample(noise, self.n_candidates)
            elites, returns = best_of(candidates, rollout.evaluate(candidates, iteration == 0), self.n_elites)
            kept = returns.isfinite() | (returns[:, :1] == -th.inf)
            distribution = distribution.fitted(elites, kept)
            winners.append(Plan(elites[:, 0], returns[:, 0], None))
        if self.select == "best":
            return reduce(_better, winners)
        return Plan(distribution.chosen(noise), returns.where(kept, 0).sum(dim=1) / kept.sum(dim=1), None)


def _better(old: Plan, new: Plan) -> Plan:
    """The plan with the higher value in each environment, the new one if they are equal."""
    improved = new.value >= old.value
    actions = new.actions.where(improved.view(-1, *(1,) * (new.actions.dim() - 1)), old.actions)
    return Plan(actions, new.value.where(improved, old.value), None)
