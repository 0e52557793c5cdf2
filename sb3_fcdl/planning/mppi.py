"""Model-predictive path integral control."""

from dataclasses import dataclass

import torch as th

from fcdl_envs.arguments import check, number
from sb3_fcdl.planning.distributions import SequenceDistribution
from sb3_fcdl.planning.noise import Noise
from sb3_fcdl.planning.planner import Planner, one_step_on
from sb3_fcdl.planning.problem import Plan
from sb3_fcdl.planning.rollout import Rollout


@dataclass(frozen=True)
class MPPI(Planner):
    """
    Model-predictive path integral control (Williams et al., "Information Theoretic MPC for Model-Based Reinforcement
    Learning", ICRA 2017): all candidates count, with weights that are exponential in their returns. The distribution starts
    around the last plan, one step on, and ends as the plan: the weighted mean of box actions, or of other actions the values
    of the greatest weight.

    Unlike in the paper the standard deviation is refitted together with the mean, so that a plan becomes as fine as the
    iterations allow; and so that no task needs a temperature of its own, returns are measured in units of their spread.

    :param temperature: a sequence whose return is this many spreads below the best weighs ``1 / e`` of it. The spread is the
        distance between the best return and the median
    :raises ValueError: if ``temperature`` is not positive
    :raises TypeError: if it is no number

    The other parameters are those of :class:`~sb3_fcdl.planning.planner.Planner`.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check(temperature=(self.temperature, number(above=0)))

    @property
    def n_kept(self) -> int:
        return 1

    def _search(self, rollout: Rollout, noise: Noise, distribution: SequenceDistribution, known: th.Tensor) -> Plan:
        for iteration in self._iterations(rollout):
            candidates = distribution.sample(noise, self.n_candidates)
            candidates[:, -1:] = distribution.completed(known, candidates[:, -1:])
            distribution = distribution.fitted(candidates, self._weights(rollout.evaluate(candidates, iteration == 0)))
        chosen = distribution.chosen(noise)[:, None]
        return Plan(chosen[:, 0], rollout.evaluate(chosen)[:, 0], one_step_on(chosen.to(known)))

    def _weights(self, returns: th.Tensor) -> th.Tensor:
        """
        :param returns: ``[B, N]``, finite or ``-inf``
        :return: whole numbers, of which a float32 can hold the sum, ``[B, N]``; 0 for ``-inf``, unless there is nothing else
        """
        is_finite = returns.isfinite()
        best = returns.amax(dim=1, keepdim=True)
        median = returns.where(is_finite, th.nan).nanmedian(dim=1, keepdim=True).values
        spread = (best - median).clamp(min=th.finfo(returns.dtype).tiny)
        largest = 2**24 // self.n_candidates
        # one after the other: their product can be too small for a float
        weights = (largest * ((returns - best) / spread / self.temperature).exp()).round()
        # no number comes of two infinite ones: where no return is finite, or where the spread is too large for a float
        return weights.nan_to_num(0).where(is_finite.any(dim=1, keepdim=True), 1)
