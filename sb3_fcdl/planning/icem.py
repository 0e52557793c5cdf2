"""The improved cross-entropy method."""

from dataclasses import dataclass, field

import torch as th

from fcdl_envs.arguments import OrNone, check, integer, number
from sb3_fcdl.planning.distributions import SequenceDistribution
from sb3_fcdl.planning.noise import Noise
from sb3_fcdl.planning.planner import Planner, best_of, one_step_on
from sb3_fcdl.planning.problem import Plan
from sb3_fcdl.planning.rollout import Rollout


@dataclass(frozen=True)
class ICEM(Planner):
    """
    Cross-entropy method that wastes no candidate (Pinneri et al., "Sample-efficient Cross-Entropy Method for Real-time
    Planning", CoRL 2020). In addition to :class:`~sb3_fcdl.planning.cem.CEM`: the best sequences stay candidates, also of the
    next call, one step on; the distribution starts around the best of them; each iteration draws fewer sequences; the centre
    of the distribution is a candidate; the noise of box actions is correlated in time; the best sequence ever seen is chosen.

    Unlike in the paper the distribution is refitted without momentum, the centre is a candidate of every iteration but the
    first, the sequences that stay are counted among the candidates, and in the first iteration the noise of box actions has
    every size from half the range of the box down to a hundredth of that: some sequences explore, others refine the last plan.
    Where there is no last plan, one sequence holds the action at a corner of the box, and one at the opposite corner.

    :param n_elites: sequences that the distribution is refitted to; None: 10, but at most half of the candidates
    :param noise_exponent: the power of the noise of box actions falls with this power of the frequency: 0 is white noise, 2 a
        random walk. The larger, the longer an action is held
    :raises ValueError: if ``n_elites`` is below 1 or above ``n_candidates``, or ``noise_exponent`` negative
    :raises TypeError: if one of them is of a wrong type

    The other parameters are those of :class:`~sb3_fcdl.planning.planner.Planner`.
    """

    # of the paper: each iteration draws this many times fewer sequences, and keeps this share of the elites
    DECAY = 1.25
    KEPT_SHARE = 0.3

    # Most of a plan is the last one, one step on: more rounds gain little (the figures: benchmarks/results/README.md, "Horizon
    # and discount").
    n_iterations: int = field(default=1, kw_only=True)
    n_elites: int = None  # type: ignore[assignment]  # a number once the planner is made
    noise_exponent: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            n_elites=(self.n_elites, OrNone(integer(1, self.n_candidates, "n_candidates"))),
            noise_exponent=(self.noise_exponent, number(at_least=0)),
        )
        if self.n_elites is None:
            object.__setattr__(self, "n_elites", min(10, max(1, self.n_candidates // 2)))

    @property
    def n_kept(self) -> int:
        return max(1, int(self.KEPT_SHARE * self.n_elites))

    def _search(self, rollout: Rollout, noise: Noise, distribution: SequenceDistribution, known: th.Tensor) -> Plan:
        noise = noise.correlated(self.noise_exponent)
        distribution = distribution.graded()
        for iteration in self._iterations(rollout):
            candidates = distribution.sample(noise, max(self.n_elites, int(self.n_candidates * self.DECAY**-iteration)))
            # the first of equal candidates is preferred: the centre, which is far from what is worse just after the horizon
            if iteration > 0:
                candidates[:, 0] = distribution.chosen(noise)
            samples = candidates[:, -self.n_kept :]
            if iteration == 0:
                is_cold = known.isnan().flatten(1).all(dim=1).view(-1, *(1,) * (known.dim() - 1))
                samples = distribution.held(samples).where(is_cold, samples)
            candidates[:, -self.n_kept :] = distribution.completed(known, samples)
            elites, returns = best_of(candidates, rollout.evaluate(candidates, iteration == 0), self.n_elites)
            distribution = distribution.fitted(elites, returns.isfinite() | (returns[:, :1] == -th.inf))
            known = elites[:, : self.n_kept].to(known)
        return Plan(elites[:, 0], returns[:, 0], one_step_on(known))
