"""Reward and end of an episode: functions that somebody gives, and heads that are learned where nobody does."""

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

from fcdl_envs.variables import Variable, consecutive_slices
from sb3_fcdl.dynamics.stacked import StackedLinear
from sb3_fcdl.world.moments import MIN_RELATIVE_STD_OF_FLOAT32, RunningMoments

# Width of the hidden layers of a head. A reward or an end is a simpler function than the dynamics.
HIDDEN_DIM = 128

# What may be the rounding of states and actions in a buffer: share of a typical deviation of the reward, and of a probability.
TOLERANCE = 1e-3
# What may be the rounding of the reward itself, which buffers hold as float32: share of the reward.
ROUNDING = 1e-6


class Outcomes(NamedTuple):
    """
    What recorded transitions paid and whether they ended the episode, ``R`` of them.

    :param state: encoded, ``[R, D]``
    :param action: encoded, ``[R, A]``
    :param next_state: encoded, ``[R, D]``
    :param goal: ``[R, G]``
    :param reward: ``[R]``
    :param terminated: whether the episode ended other than by a time limit, ``[R]``, bool
    """

    state: th.Tensor
    action: th.Tensor
    next_state: th.Tensor
    goal: th.Tensor
    reward: th.Tensor
    terminated: th.Tensor


class RewardHead(nn.Module):
    """
    A learned reward: a regression on state, action, next state and goal; target and goal have mean 0 and standard deviation 1.

    :param n_inputs: numbers that it is given besides the goal, ``2 D + A``
    :param goal_width: numbers of the goal, ``G``
    """

    def __init__(self, n_inputs: int, goal_width: int = 0) -> None:
        super().__init__()
        self.network = _network(n_inputs + goal_width)
        self.goal_moments = RunningMoments(goal_width, MIN_RELATIVE_STD_OF_FLOAT32)
        self.moments = RunningMoments(1, MIN_RELATIVE_STD_OF_FLOAT32)  # as SB3's buffers hold rewards

    def forward(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """
        :param state: encoded, ``[R, D]``
        :param action: encoded, ``[R, A]``
        :param next_state: encoded, ``[R, D]``
        :param goal: ``[R, G]``
        :return: rewards in the environment's units, ``[R]``
        """
        inputs = th.cat([state, action, next_state, self.goal_moments.normalize(goal)], dim=-1)
        return self.moments.denormalize(self.network(inputs)).squeeze(-1)

    def loss(self, outcomes: Outcomes) -> th.Tensor:
        """
        In train mode the running moments of reward and goal move.

        :return: mean squared error, in variances of the reward, a scalar
        """
        if self.training:
            self.moments.update(outcomes.reward.unsqueeze(-1))
            self.goal_moments.update(outcomes.goal)
        target = self.moments.normalize(outcomes.reward.unsqueeze(-1))
        goal = self.goal_moments.normalize(outcomes.goal)
        inputs = th.cat([outcomes.state, outcomes.action, outcomes.next_state, goal], dim=-1)
        return F.mse_loss(self.network(inputs), target)


class TerminationHead(nn.Module):
    """
    A learned end of the episode: every variable of the next state may end it by itself, and so may all numbers together. Their
    hazards add up: the episode goes on with the probability that none of them ends it.

    Ends are few, and mostly caused by one variable. A network that is given all variables together takes any of them for the
    cause. Hence the variables are also asked to explain the ends without it, see ``ALONE_WEIGHT``.

    Ends and other transitions weigh alike, however rare ends are; the odds are then set right for that, so that the answer is
    a probability under the data (King and Zeng, 2001).

    :param variables: of the state
    :param n_inputs: numbers that it is given, ``2 D + A``
    """

    columns: th.Tensor
    n_ended: th.Tensor
    n_others: th.Tensor

    # The figures behind these four: benchmarks/results/README.md, "Learned heads".
    # What one variable explains is left to it: the variables learn faster than all together, and have a loss of their own.
    JOINT_SPEED = 0.1
    # Of that loss. With more of it an end that takes two variables is overestimated.
    ALONE_WEIGHT = 0.1
    # What is less likely is 0. Where nothing else tells plans apart, a planner follows the smallest hazard, even 1e-5.
    MIN_PROBABILITY = 1e-3
    # Price of the square of a log-hazard, nats. What never ends an episode would sink to where no gradient reaches it, and the
    # first end that it causes would be attributed to another variable.
    LOG_HAZARD_PRICE = 1e-4

    def __init__(self, variables: Sequence[Variable], n_inputs: int) -> None:
        super().__init__()
        n_variables, width = len(variables), max(variable.width for variable in variables)
        first, last = StackedLinear(n_variables, width, HIDDEN_DIM), StackedLinear(n_variables, HIDDEN_DIM, 1)
        with th.no_grad():
            # Bends all over the numbers that a variable takes, which have mean 0 and standard deviation 1.
            first.bias.uniform_(-2, 2)
            last.weight.zero_()
        middle = StackedLinear(n_variables, HIDDEN_DIM, HIDDEN_DIM)
        self.by_variable = nn.Sequential(first, nn.SiLU(), middle, nn.SiLU(), last)
        self.together = _network(n_inputs)
        # At first the odds are even, whatever the number of variables.
        self.first_log_hazard = math.log(math.expm1(math.log(2) / (n_variables + 1)))
        # Behind the last column is one of zeros, for variables that are less wide than others.
        slices = consecutive_slices(variable.width for variable in variables)
        last_column = slices[-1].stop
        columns = [[*range(each.start, each.stop), *[last_column] * (width - each.stop + each.start)] for each in slices]
        self.register_buffer("columns", th.tensor(columns), persistent=False)
        self.register_buffer("n_ended", th.zeros((), dtype=th.float64))
        self.register_buffer("n_others", th.zeros((), dtype=th.float64))

    def forward(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor) -> th.Tensor:
        """
        :param state: encoded, ``[R, D]``
        :param action: encoded, ``[R, A]``
        :param next_state: encoded, ``[R, D]``
        :return: probability that the episode ended with this step, ``[R]``; 0 if no end was ever seen, or below
            ``MIN_PROBABILITY``
        """
        odds_against = (self.n_others.clamp(min=1) / self.n_ended.clamp(min=1)).float()
        odds = _total(self._log_hazards(state, action, next_state)).expm1() / odds_against
        probability = (self.n_ended > 0) / (1 + 1 / odds)
        return probability.where(probability >= self.MIN_PROBABILITY, 0)

    def loss(self, outcomes: Outcomes, ends: Outcomes | None = None) -> th.Tensor:
        """
        In train mode the counts of ends and other transitions move.

        :param outcomes: as they come
        :param ends: further transitions that ended their episode: as ends are rare, these are what they are learned from
        :return: negative log-likelihood of what happened, nats, mean over ends and others by themselves, the same by
            the variables alone, weighted, and the price of the log-hazards; a scalar
        """
        if self.training:
            self.n_ended += outcomes.terminated.sum()
            self.n_others += (~outcomes.terminated).sum()
        if ends is not None:
            outcomes = Outcomes(*(th.cat(both) for both in zip(outcomes, ends, strict=True)))
        log_hazards = self._log_hazards(outcomes.state, outcomes.action, outcomes.next_state)
        together, alone = (_balanced_nll(_total(each), outcomes.terminated) for each in (log_hazards, log_hazards[:-1]))
        return together + self.ALONE_WEIGHT * alone + self.LOG_HAZARD_PRICE * log_hazards.square().sum(dim=0).mean()

    def _log_hazards(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor) -> th.Tensor:
        """Of each variable and of all together, ``[V + 1, R]``; were ends as frequent as other transitions."""
        by_variable = self.by_variable(F.pad(next_state, (0, 1))[:, self.columns].transpose(0, 1)).squeeze(-1)
        together = self.JOINT_SPEED * self.together(th.cat([state, action, next_state], dim=-1))
        return th.cat([by_variable, together.T]) + self.first_log_hazard


def never_ends(state: th.Tensor, action: th.Tensor, next_state: th.Tensor) -> th.Tensor:
    """The termination function of an environment whose episodes end by time limits alone: 0, ``[R]``."""
    return state.new_zeros(len(state))


def function_named(function: Callable[..., Any] | str | None) -> Callable[..., Any] | None:
    """
    :param function: a function, or where it is: ``"package.module:function"``
    :return: the function; None if None was given
    :raises ValueError: if there is no function of that name
    """
    if function is None or callable(function):
        return function
    module, _, name = function.partition(":") if isinstance(function, str) else ("", "", "")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        message = f"expected a function or 'package.module:function', got {function!r} ({error})"
        raise ValueError(message) from error
    if not callable(found):
        raise ValueError(f"{function} is no function, it is {found!r}")
    return found


def disagreements(
    outcomes: Outcomes, reward: th.Tensor | None, ended: th.Tensor | None, describe: Callable[[int], str]
) -> list[str]:
    """
    Holds functions that somebody gave against what was recorded.

    :param outcomes: recorded transitions
    :param reward: what ``reward_fn`` says of each, ``[R]``; None: nothing to compare
    :param ended: what ``termination_fn`` says of each, ``[R]``; None: nothing to compare
    :param describe: shows the transition of a row, to the user
    :return: a sentence for each function that disagrees, with an example
    :raises ValueError: if a function has not returned one number for each row
    """
    found = []
    for name, given, recorded in (
        ("reward_fn", reward, outcomes.reward),
        ("termination_fn", ended, outcomes.terminated.to(outcomes.reward)),
    ):
        if given is None:
            continue
        if given.shape != recorded.shape:
            raise ValueError(
                f"{name} must return one number for each of {len(recorded)} rows, [R], got shape {tuple(given.shape)}"
            )
        given = given.to(recorded)
        tolerance = _tolerance(recorded) if name == "reward_fn" else TOLERANCE
        agrees = (given - recorded).abs() <= tolerance
        if name == "termination_fn":  # a chance contradicts nothing
            agrees |= (given > 0) & (given < 1)
        differs = ~agrees
        if differs.any():
            row = int(differs.nonzero()[0])
            found.append(
                f"{name} disagrees with the environment in {int(differs.sum())} of {len(recorded)} recorded transitions, "
                f"for example: {describe(row)}; {name} gives {given[row]:g}, the environment gave {recorded[row]:g}"
            )
    return found


def _tolerance(recorded: th.Tensor) -> th.Tensor:
    """
    By how much a reward function may be off: relative to how rewards vary, so that neither their unit nor a constant in them
    matters.

    :param recorded: rewards, ``[R]``
    :return: ``[R]``, float64
    """
    recorded = recorded.double()
    deviation = (recorded - recorded.median()).abs()
    return TOLERANCE * (deviation.mean() + deviation) + ROUNDING * recorded.abs()


def _balanced_nll(hazard: th.Tensor, ended: th.Tensor) -> th.Tensor:
    """
    Of ends and other transitions as if they were as frequent.

    :param hazard: of each transition, ``[R]``
    :param ended: whether it ended its episode, ``[R]``, bool
    :return: nats, a scalar
    """
    nll = hazard.where(~ended, -(-(-hazard).expm1()).log())
    return th.stack([(nll * rows).sum() / rows.sum().clamp(min=1) for rows in (ended, ~ended)]).mean()


def _total(log_hazards: th.Tensor) -> th.Tensor:
    """Minus the log-probability that the episode goes on, ``[R]``. Never quite 0, of which the loss would have no gradient."""
    return F.softplus(log_hazards).sum(dim=0).clamp(min=1e-30)


def _network(n_inputs: int) -> nn.Sequential:
    network = nn.Sequential(
        nn.Linear(n_inputs, HIDDEN_DIM), nn.SiLU(), nn.Linear(HIDDEN_DIM, HIDDEN_DIM), nn.SiLU(), nn.Linear(HIDDEN_DIM, 1)
    )
    # At first it says 0 everywhere, and for ever where there is nothing to learn: a planner follows the smallest promise.
    for parameter in network[-1].parameters():
        nn.init.zeros_(parameter)
    return network
