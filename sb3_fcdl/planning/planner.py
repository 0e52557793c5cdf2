"""What all planners have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from time import perf_counter

import torch as th

from fcdl_envs.arguments import OrNone, check, integer, number
from sb3_fcdl.planning.actions import Actions, BoxActions
from sb3_fcdl.planning.distributions import SequenceDistribution, initial_distribution
from sb3_fcdl.planning.noise import Noise
from sb3_fcdl.planning.problem import Plan, Problem
from sb3_fcdl.planning.rollout import Rollout, make_rollout


@dataclass(frozen=True)
class Planner(ABC):
    """
    Chooses actions by looking ahead with a model: draws sequences of actions, looks at their returns, and draws better ones.
    It keeps nothing between two calls.

    :param actions: what an action is
    :param horizon: length of a plan, in env steps
    :param n_iterations: how many times sequences are drawn
    :param n_candidates: sequences drawn at a time for each environment
    :param time_budget_ms: no iteration starts later than this, in ms of a call; the first always does. None: all take place.
        With it a plan depends on the speed of the machine
    :raises ValueError: if a number is below 1, or ``time_budget_ms`` not positive
    :raises TypeError: if one of them is of a wrong type
    """

    actions: Actions
    horizon: int = 3
    _: KW_ONLY
    n_iterations: int = 5
    n_candidates: int = 64
    time_budget_ms: float | None = None

    def __post_init__(self) -> None:
        check(
            horizon=(self.horizon, integer(1)),
            n_iterations=(self.n_iterations, integer(1)),
            n_candidates=(self.n_candidates, integer(1)),
            time_budget_ms=(self.time_budget_ms, OrNone(number(above=0, or_infinite=True))),
        )

    @property
    def n_kept(self) -> int:
        """Number of sequences in a warm start, L; 0 for a planner that always starts anew."""
        return 0

    @th.no_grad()
    def plan(
        self,
        problem: Problem,
        state: th.Tensor,
        goal: th.Tensor,
        *,
        generators: Sequence[th.Generator] | None = None,
        action_mask: th.Tensor | None = None,
        warm_start: th.Tensor | None = None,
    ) -> Plan:
        """
        Plan for B environments at once.

        :param problem: what to maximise
        :param state: encoded current state, ``[B, D]``
        :param goal: encoded task of each environment, ``[B, G]``
        :param generators: a CPU generator for each environment. With them the plan of an environment is a function of its own
            row and generator alone, on every device; without them the noise comes from torch's global generator
        :param action_mask: the values allowed at the first step, ``[B, n_actions]``, bool; for multi-discrete actions those of
            the first dimension, then those of the second and so on, ``[B, sum(sizes)]``. Later steps are not restricted
        :param warm_start: of the last plan, see :class:`~sb3_fcdl.planning.problem.Plan`; None: every environment starts anew
        :return: the plan; a sequence whose return is not finite counts as ``-inf``, and for nothing unless all do
        :raises ValueError: if there is not one generator for each environment, ``action_mask`` has another shape, allows an
            environment no action, or is given for a box, or ``warm_start`` has another shape
        """
        noise = Noise(len(state), state.device, generators)
        rollout = make_rollout(problem, state, goal, self.actions, action_mask)
        known = self._known(warm_start, state)
        distribution = initial_distribution(self.actions, self.horizon, state, action_mask, known)
        if problem.is_value_exact and self.horizon == 1 and not isinstance(self.actions, BoxActions):
            return self._best_of_all(rollout, noise)
        return self._search(rollout, noise, distribution, known)

    def _best_of_all(self, rollout: Rollout, noise: Noise) -> Plan:
        """The best action for one step; of several equally good ones any."""
        assert not isinstance(self.actions, BoxActions)
        # In random order: the first of equal ones is taken.
        numbers = noise.uniform(self.actions.n).argsort(dim=1)
        actions = self.actions.numbered(numbers.flatten()).view(*numbers.shape, 1, *self.actions.shape)
        is_allowed = rollout.allows(self.actions.encode(actions[:, :, 0], rollout.state.dtype))
        returns = rollout.evaluate(actions).masked_fill(~is_allowed, -th.inf)
        best, values = best_of(actions, returns, 1)
        left = values.new_full((len(values), self.n_kept, 1, *self.actions.shape), th.nan) if self.n_kept else None
        return Plan(best[:, 0], values[:, 0], left)

    @abstractmethod
    def _search(self, rollout: Rollout, noise: Noise, distribution: SequenceDistribution, known: th.Tensor) -> Plan:
        """
        :param rollout: tells the return of a sequence
        :param noise: where randomness comes from
        :param distribution: to begin with
        :param known: the warm start, ``[B, L, H, *]``, NaN where there is none
        """

    def _iterations(self, rollout: Rollout) -> Iterator[int]:
        """Numbers the iterations, until there are enough or the time is over."""
        deadline = None if self.time_budget_ms is None else perf_counter() + self.time_budget_ms / 1000
        for iteration in range(self.n_iterations):
            yield iteration
            if deadline is not None:
                # a device works off a queue: whoever reads a number waits for all that was asked for before
                rollout.state.new_zeros(()).item()
                if perf_counter() >= deadline:
                    return

    def _known(self, warm_start: th.Tensor | None, state: th.Tensor) -> th.Tensor:
        """The warm start as ``[B, L, H, *]`` on the device of the state, also if there is none."""
        shape = (len(state), self.n_kept, self.horizon, *self.actions.shape)
        if warm_start is None:
            return state.new_full(shape, th.nan)
        if not self.n_kept:
            raise ValueError(f"{type(self).__name__} always starts anew: warm_start must be None")
        if warm_start.shape != shape:
            raise ValueError(f"warm_start must have shape {shape}, got {tuple(warm_start.shape)}")
        # to a device the host need not wait; from one it would read what is not there yet
        return warm_start.to(state, non_blocking=warm_start.device.type == "cpu")


def best_of(sequences: th.Tensor, returns: th.Tensor, n_best: int) -> tuple[th.Tensor, th.Tensor]:
    """
    The best sequences, best first.

    :param sequences: ``[B, N, H, *]``
    :param returns: ``[B, N]``
    :param n_best: how many are wanted
    :return: sequences, ``[B, n_best, H, *]``, and their returns, ``[B, n_best]``
    """
    # equal returns keep the order in which their sequences were drawn, which is random: no action is favoured
    returns, ranking = returns.sort(dim=1, descending=True, stable=True)
    env = th.arange(len(returns), device=returns.device)[:, None]
    return sequences[env, ranking[:, :n_best]], returns[:, :n_best]


def one_step_on(sequences: th.Tensor) -> th.Tensor:
    """
    A warm start: what is left of sequences when their first action was taken.

    :param sequences: best first, ``[B, L, H, *]``, float
    :return: ``[B, L, H, *]``; nothing is known of the last step
    """
    return th.cat([sequences[:, :, 1:], th.full_like(sequences[:, :, :1], th.nan)], dim=2)
