"""What is learned or known of an environment."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch as th
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics import DynamicsModel, Prediction
from sb3_fcdl.dynamics.base import StepFn
from sb3_fcdl.planning import Problem, RewardFn, Step, TerminationFn, ValueFn, with_goal
from sb3_fcdl.planning.actions import alternatives
from sb3_fcdl.world.enumeration import enumeration_of
from sb3_fcdl.world.factorization import Factorization, in_words, values_of
from sb3_fcdl.world.novelty import Novelty, Visits
from sb3_fcdl.world.rewards import Outcomes, RewardHead, TerminationHead, disagreements, function_named, never_ends
from sb3_fcdl.world.values import Backups, ValueHead, Values, ValueTable

# Outcomes of a step that chance decides.
N_OUTCOMES = 32


class Given(NamedTuple):
    """
    Functions that go before what is learned. In a tuple, because a function may be a network, which is its owner's: it is
    neither trained nor saved with the model's weights.

    :param reward_fn: None: the reward is learned
    :param termination_fn: None: the end of an episode is learned
    """

    reward_fn: RewardFn | None
    termination_fn: TerminationFn | None


class WorldModel(nn.Module):
    """
    An environment as far as it is known: what its numbers mean, where a step leads, what it pays, whether it ends the episode.

    States, actions and goals are encoded, see :class:`~sb3_fcdl.world.factorization.Factorization`, unless something else is
    said. Reward and end are given as functions, or learned by heads. A function goes before a head, which then rests: so
    that a model which has learned its reward can be planned with for another one.

    :param factorization: from observations to encoded tensors; shared by all copies of the model
    :param dynamics: of the encoded state
    :param reward_fn: a function in the environment's units, or ``"package.module:function"``; None: learned
    :param termination_fn: likewise
    :param heads: which heads there are, of ``"reward"`` and ``"termination"``; None: those that no function is given for
    :param discount: of the rewards, per environment step, in (0, 1]; below 1 what a state is worth is learned too
    :raises ValueError: if there is no function of that name, or neither a function nor a head
    """

    def __init__(
        self,
        factorization: Factorization,
        dynamics: DynamicsModel,
        reward_fn: RewardFn | str | None = None,
        termination_fn: TerminationFn | str | None = None,
        heads: Sequence[str] | None = None,
        discount: float = 1.0,
    ) -> None:
        super().__init__()
        self.factorization = factorization
        self.dynamics = dynamics
        self.discount = discount
        if heads is None:
            given = {"reward": reward_fn, "termination": termination_fn}
            heads = [name for name, function in given.items() if function is None]
        factors = factorization.factors
        n_inputs = 2 * factors.state_width + factors.action_width
        self.reward_head = RewardHead(n_inputs, factorization.goal_width) if "reward" in heads else None
        self.termination_head = TerminationHead(factors.state_variables, n_inputs) if "termination" in heads else None
        enumeration = enumeration_of(factorization)
        self.values: Values
        self.novelty: Novelty | Visits
        if enumeration is None:
            self.values = ValueHead(factors.state_width, factorization.goal_width, factorization.actions, discount)
            self.novelty = Novelty(len(factors.parents), factors.state_width + factors.action_width)
        else:
            self.values, self.novelty = ValueTable(enumeration, discount), Visits(enumeration)
        self.given = Given(*map(function_named, (reward_fn, termination_fn)))
        self.give(reward_fn, termination_fn)

    @property
    def factors(self) -> Factors:
        """The variables."""
        return self.factorization.factors

    @property
    def device(self) -> th.device:
        return self.factorization.moments.count.device

    @property
    def heads(self) -> dict[str, nn.Module]:
        """What is learned of the environment beside the dynamics, by name."""
        heads = {"reward": self.reward_head, "termination": self.termination_head}
        return {name: head for name, head in heads.items() if head is not None}

    @property
    def has_value(self) -> bool:
        """Whether what a state is worth is learned, and counts at the end of a plan."""
        return self.discount < 1

    @property
    def learns_ends(self) -> bool:
        """Whether the end of an episode is learned, and no function is given for it."""
        return self.termination_head is not None and self.termination_fn is None

    def give(self, reward_fn: RewardFn | str | None, termination_fn: TerminationFn | str | None) -> None:
        """
        Say what goes before the heads from now on. What states are worth is learned anew if that is another function.

        :param reward_fn: a function, or ``"package.module:function"``; None: what the head has learned
        :param termination_fn: likewise
        :raises ValueError: if there is no function of that name, or None is given for what has no head
        :raises TypeError: if a function does not take what it is given, see ``planning.with_goal``
        """
        reward, termination = function_named(reward_fn), function_named(termination_fn)
        for name, function in (("reward", reward), ("termination", termination)):
            if function is None and name not in self.heads:
                raise ValueError(f"the model has no learned {name}: give it a {name}_fn")
        if Given(reward, termination) != self.given:
            self.values.forget()
        self.given = Given(reward, termination)
        self.values.is_bounded = reward is None
        self._of_four = Given(
            None if reward is None else with_goal("reward_fn", reward),
            None if termination is None else with_goal("termination_fn", termination),
        )

    @property
    def reward_fn(self) -> RewardFn | None:
        """The given reward, in the environment's units; None: the learned one."""
        return self.given.reward_fn

    @property
    def termination_fn(self) -> TerminationFn | None:
        """The given end of an episode, likewise."""
        return self.given.termination_fn

    def encode(self, observation: th.Tensor | Mapping[str, th.Tensor]) -> th.Tensor:
        """
        :param observation: a batch, as ``predict`` or SB3's buffers have it
        :return: states, ``[..., D]``
        """
        return self.factorization.encode_state(observation)

    def encode_action(self, action: th.Tensor) -> th.Tensor:
        """
        :param action: as SB3's buffers hold it, ``[..., action_dim]``
        :return: ``[..., A]``
        """
        return self.factorization.encode_action(action)

    def goal(self, observation: th.Tensor | Mapping[str, th.Tensor]) -> th.Tensor:
        """
        :param observation: a batch
        :return: task descriptions, ``[..., G]``
        """
        return self.factorization.encode_goal(observation)

    def decode(self, state: th.Tensor) -> th.Tensor:
        """``[..., D]`` to the environment's units, ``[..., D]``."""
        return self.factorization.decode_state(state)

    def decode_action(self, action: th.Tensor) -> th.Tensor:
        """``[..., A]`` to the environment's units, ``[..., A]``."""
        return self.factorization.decode_action(action)

    def stepper(self) -> StepFn:
        """See ``DynamicsModel.stepper``."""
        return self.dynamics.stepper()

    def step(self, state: th.Tensor, action: th.Tensor) -> Prediction:
        """See ``DynamicsModel.step``."""
        return self.dynamics.step(state, action)

    def reward(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """
        :param state: ``[R, D]``
        :param action: ``[R, A]``
        :param next_state: ``[R, D]``
        :param goal: ``[R, G]``
        :return: rewards in the environment's units, ``[R]``
        """
        function = self._of_four.reward_fn
        if function is not None:
            return function(self.decode(state), self.decode_action(action), self.decode(next_state), goal)
        assert self.reward_head is not None
        return self.reward_head(state, action, next_state, goal)

    def termination(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """
        :param state: ``[R, D]``
        :param action: ``[R, A]``
        :param next_state: ``[R, D]``
        :param goal: ``[R, G]``
        :return: whether, or how likely, each step ended its episode, ``[R]``
        """
        function = self._of_four.termination_fn
        if function is not None:
            return function(self.decode(state), self.decode_action(action), self.decode(next_state), goal)
        assert self.termination_head is not None
        return self.termination_head(state, action, next_state)

    def problem(self, uncertainty_coef: float = 0.0, explores: bool = False) -> Problem:
        """
        What a planner is given, for as long as the weights stay as they are: every step is taken to lead to its most likely
        state, unless there is a value and chance decides. With a table of values every step counts by its expectation, so a
        plan counts its first step alone.

        :param uncertainty_coef: price of the largest uncertainty of a variable, see ``StateDistribution.uncertainty``
        :param explores: whether a bonus is paid for what is new; no effect without a value
        """
        stepper, column = self.stepper(), int(explores)
        has_table = self.has_value and isinstance(self.values, ValueTable)
        has_chance = self.has_value and any(variable.is_categorical for variable in self.factors.state_variables)

        def step(state: th.Tensor, action: th.Tensor) -> Step:
            predicted = stepper(state, action).next_state
            doubt = predicted.uncertainty().amax(-1) if uncertainty_coef else None
            is_chance = None
            if has_table:
                # What was recorded of a step is in its expectation.
                is_chance = state.new_ones(len(state), dtype=th.bool)
            elif has_chance:
                is_chance = predicted.is_chance()
            return Step(predicted.mode(), doubt, is_chance)

        def paid(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
            predicted = self.reward(state, action, next_state, goal)
            return self.values.believed(predicted, state, action, self.novelty(state, action))[:, column]

        return Problem(
            step,
            paid if self.has_value else self.reward,
            None if self.termination_fn is never_ends else self.termination,
            value=(lambda state, goal: self.values(state, goal)[:, column]) if self.has_value else None,
            is_value_exact=has_table,
            policy=self.values.act if self.has_value else None,
            expected=self._expected(stepper, self.values, column) if has_chance else None,
            key=self.factorization.state_key,
            discount=self.discount,
            uncertainty_coef=uncertainty_coef,
        )

    @th.no_grad()
    def backups(self, state: th.Tensor, action: th.Tensor, goal: th.Tensor) -> Backups:
        """
        What states are worth by Bellman's equation: the best of some actions, each of which pays a reward and leads to a state
        whose value is known, both by the model.

        :param state: encoded, ``[R, D]``
        :param action: one of those that are tried in each, encoded, ``[R, A]``
        :param goal: ``[R, G]``
        """
        actions = alternatives(self.factorization.actions, action, self.values.act(state, goal), self.values.n_tried)
        state, goal = (each.repeat(len(actions), 1) for each in (state, goal))
        worth = self._expected(self.stepper(), self.values.lowest)(state, actions.flatten(0, 1), goal)
        worth = worth.view(len(actions), -1, 2)
        best = worth[..., 0].argmax(0)
        return Backups(worth.amax(0), actions[best, th.arange(len(best), device=best.device)])

    def _expected(
        self, stepper: StepFn, value: ValueFn, column: int | slice = slice(None)
    ) -> Callable[[th.Tensor, th.Tensor, th.Tensor], th.Tensor]:
        """
        What an action is worth in a state by the model: what it pays, and what the state that it leads to is worth, in
        expectation where chance decides.

        :param column: 0: with the reward alone; 1: with the bonus for what is new
        :return: of ``(state [R, D], action [R, A], goal [R, G])``, ``[R]``, or both ``[R, 2]``
        """

        def expected(state: th.Tensor, action: th.Tensor, goal: th.Tensor) -> th.Tensor:
            states, weights = stepper(state, action).next_state.outcomes(N_OUTCOMES)
            # Most outcomes of most rows do not happen.
            outcome, row = (weights > 0).nonzero(as_tuple=True)
            step = state[row], action[row], states[outcome, row], goal[row]
            goes_on = 1 - self.termination(*step).to(state.dtype).unsqueeze(-1)
            novelty = self.novelty(state, action)
            believed = self.values.believed(self.reward(*step), step[0], step[1], novelty[row])
            each = th.cat([believed, goes_on * value(step[2], step[3])], dim=-1)
            mean = state.new_zeros(len(state), 4).index_add(0, row, weights[outcome, row].unsqueeze(-1) * each)
            paid, predicted = mean.split(2, dim=-1)
            beyond = self.values.beyond(state, action, novelty, predicted)
            return (paid + self.discount * beyond)[:, column]

        return expected

    @th.no_grad()
    def check_outcomes(self, outcomes: Outcomes) -> list[str]:
        """
        :param outcomes: recorded transitions
        :return: a sentence for each given function that disagrees with them
        :raises ValueError: if a function has not returned one number for each row
        """
        steps = outcomes.state, outcomes.action, outcomes.next_state
        in_units = self.decode(steps[0]), self.decode_action(steps[1]), self.decode(steps[2])
        variables = self.factors.state_variables, self.factors.action, self.factors.state_variables

        def describe(row: int) -> str:
            rows = (values_of(of, each[row : row + 1])[0] for of, each in zip(variables, in_units, strict=True))
            state, action, next_state = map(in_words, variables, rows)
            return f"state {state}, action {action}, next state {next_state}"

        return disagreements(
            outcomes,
            None if self.reward_fn is None else self.reward(*steps, outcomes.goal),
            None if self.termination_fn is None else self.termination(*steps, outcomes.goal),
            describe,
        )

    def outcome_losses(self, outcomes: Outcomes, ends: Outcomes | None) -> dict[str, th.Tensor]:
        """
        :param outcomes: recorded transitions
        :param ends: further ones, that ended their episode; None: there are none
        :return: the loss of each head by name, a scalar each
        """
        losses = {}
        if self.reward_head is not None and self.reward_fn is None:
            losses["reward"] = self.reward_head.loss(outcomes)
        if self.termination_head is not None and self.termination_fn is None:
            losses["termination"] = self.termination_head.loss(outcomes, ends)
        return losses

    def value_losses(self, outcomes: Outcomes, average: "WorldModel") -> dict[str, th.Tensor]:
        """
        :param outcomes: recorded transitions
        :param average: says what states are worth
        :return: the losses of the values and the actor by name, a scalar each
        """
        if not len(outcomes.reward):
            # A small batch may have drawn nothing that is a window.
            return {}
        with th.no_grad():
            paid = outcomes.reward if self.reward_fn is None else self.reward(*outcomes[:4])
            self.values.observe(outcomes._replace(reward=paid))
        state, action, goal = self.values.learned_next(outcomes)
        return self.values.losses(state, goal, average.backups(state, action, goal))

    def average(self) -> "WorldModel":
        """:return: a copy that ``follow`` makes the running average of the weights; in eval mode, and not trained itself"""
        # What is given, or has been observed, has no average: both have the same.
        shared = (self.factorization, *self.novelty.modules(), *self.given, *self._of_four)
        copied = copy.deepcopy(self, {id(each): each for each in shared})
        return copied.requires_grad_(False).eval()

    @th.no_grad()
    def follow(self, learner: "WorldModel", n_updates: int, decay: float) -> None:
        """
        Move towards the weights of another; take over what is not learned by gradient.

        :param learner: after an update
        :param n_updates: of its updates so far. The average of the first ones is shorter
        :param decay: of the average, per update, in [0, 1); 0: take over the weights too
        """
        decay = min(decay, (1 + n_updates) / (10 + n_updates))
        # Weights in one unit have an average.
        self.values.take_scale(learner.values)
        for name, part in self.named_children():
            slowest = self.values.SLOWEST if part is self.values else decay
            if parameters := list(part.parameters()):
                get_ema_multi_avg_fn(min(decay, slowest))(parameters, list(getattr(learner, name).parameters()), n_updates)
        for own, given in zip(self.buffers(), learner.buffers(), strict=True):
            own.copy_(given)
