"""What a state is worth beyond the end of a plan, and what seems best to do there."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_fcdl.dynamics.stacked import Affine, StackedLinear
from sb3_fcdl.planning import Actions, BoxActions
from sb3_fcdl.world.enumeration import Enumeration
from sb3_fcdl.world.moments import MIN_RELATIVE_STD_OF_FLOAT32, RunningMoments
from sb3_fcdl.world.rewards import Outcomes
from sb3_fcdl.world.successors import Successors


class Backups(NamedTuple):
    """
    What states are worth by Bellman's equation, see ``WorldModel.backups``.

    :param worth: with the reward alone, and with the bonus for what is new, ``[R, 2]``
    :param action: the best of those that were compared, with the reward alone, encoded, ``[R, A]``
    """

    worth: th.Tensor
    action: th.Tensor


class Values(nn.Module, ABC):
    """
    Two learned values: the discounted return from a state on, and the same with a bonus for what is new. They are told their
    targets, see ``WorldModel.backups``. Before the first reward every state is worth 0. They also learn the actor: the best
    action of those that were compared for the targets.

    :param discount: of the rewards, per environment step. With 1 a value has no bound, and is not learned
    """

    learned_for: th.Tensor
    # Whether the recorded rewards bound what can be paid. A reward that is given may pay more where nobody has been yet.
    is_bounded = True
    lowest_reward: th.Tensor
    highest_reward: th.Tensor

    # Actions that are compared to learn what a state is worth.
    n_tried = 8
    # Power of the novelty. After one visit the novelty is a half, so a sixteenth of the reward is doubted. While data are
    # collected there is no such power: a network has to see a step more often to learn it.
    CAUTION = 4
    # Largest decay of the running average that targets are computed with, per update: what is learned passes on one step back
    # in the time that it averages over.
    SLOWEST = 0.98

    def __init__(self, discount: float) -> None:
        super().__init__()
        self.discount = discount
        self.moments = RunningMoments(1, MIN_RELATIVE_STD_OF_FLOAT32)
        self.register_buffer("lowest_reward", th.full((1,), th.inf))
        self.register_buffer("highest_reward", th.full((1,), -th.inf))
        self.register_buffer("learned_for", th.tensor(discount, dtype=th.float64))
        self.register_load_state_dict_post_hook(Values._check_discount)

    def _check_discount(self, _: object) -> None:
        """A file may hold what was learned for another discount."""
        if float(self.learned_for) != self.discount:
            self.learned_for.fill_(self.discount)
            self.forget()

    def forget(self) -> None:
        """Every state is worth 0 again: what was learned is of another reward, or another discount."""
        self.moments.reset()
        self.lowest_reward.fill_(th.inf)
        self.highest_reward.fill_(-th.inf)

    def observe(self, outcomes: Outcomes) -> None:
        """
        Take in what is paid.

        :param outcomes: recorded transitions, with the rewards that are to be maximised
        """
        reward = outcomes.reward
        self.moments.update(reward.unsqueeze(-1))
        self.lowest_reward.clamp_(max=reward.min())
        self.highest_reward.clamp_(min=reward.max())

    @property
    def size_of_reward(self) -> th.Tensor:
        """Root mean square of the rewards so far; 1 if all were 0."""
        square = self.moments.mean.square() + self.moments.sum_of_squares / self.moments.count.clamp(min=1)
        return square.sqrt().where(square > 0, 1).float()

    def believed(self, reward: th.Tensor, state: th.Tensor, action: th.Tensor, novelty: th.Tensor) -> th.Tensor:
        """
        A predicted reward is believed as far as a step is known: what is new is taken for the worst that was ever paid, or for
        more than the best, by the size of a reward.

        :param reward: predicted, ``[R]``
        :param state: encoded, ``[R, D]``
        :param action: encoded, ``[R, A]``
        :param novelty: of these, ``[R]``
        :return: taken for the worst, and for more than the best, ``[R, 2]``; before the first reward as it is predicted
        """
        both = reward.unsqueeze(-1).expand(-1, 2)
        extremes = th.cat([self.lowest_reward, self.highest_reward + self.size_of_reward])
        # No branch: a device would be waited for.
        extremes = extremes.where(self.moments.count > 0, both)
        return both.lerp(extremes, self._doubt(novelty))

    def _doubt(self, novelty: th.Tensor) -> th.Tensor:
        """In evaluation and while data are collected, of a novelty ``[R]``, ``[R, 2]``."""
        return th.stack([novelty.pow(self.CAUTION), novelty], dim=-1)

    def beyond(self, state: th.Tensor, action: th.Tensor, novelty: th.Tensor, predicted: th.Tensor) -> th.Tensor:
        """
        What comes after a step is believed as it is predicted, unless it is known better.

        :param state: encoded, ``[R, D]``
        :param action: encoded, ``[R, A]``
        :param novelty: of these, ``[R]``
        :param predicted: both values of the next state in expectation, 0 where the episode ends, ``[R, 2]``
        :return: likewise, what is believed
        """
        return predicted

    @abstractmethod
    def forward(self, state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """
        :param state: encoded, ``[R, D]``
        :param goal: ``[R, G]``
        :return: both values in the environment's units, ``[R, 2]``
        """

    def lowest(self, state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """Likewise, what may be learned from: no more than the state is worth."""
        return self(state, goal)

    def learned_next(self, outcomes: Outcomes) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        :param outcomes: recorded transitions
        :return: the states that are learned next, an action that is compared in each, and their goals
        """
        return outcomes.state, outcomes.action, outcomes.goal

    @abstractmethod
    def act(self, state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """
        :param state: encoded, ``[R, D]``
        :param goal: ``[R, G]``
        :return: what seems best there without a plan, encoded, ``[R, A]``
        """

    @abstractmethod
    def losses(self, state: th.Tensor, goal: th.Tensor, target: Backups) -> dict[str, th.Tensor]:
        """
        :param state: encoded, ``[R, D]``
        :param goal: ``[R, G]``
        :param target: what each state is worth, and the action that makes it so
        :return: how far off both are, a scalar each: the mean squared difference of the values, and where it is learned by
            gradient the loss of the actor
        """

    def take_scale(self, other: "Values") -> None:
        """Answer in the unit of another, before their weights are averaged."""


class ValueTable(Values):
    """
    The value of every state, where all can be listed: what they are told is what they are worth. Value iteration, some states
    at a time. A state in which nothing was done, because every episode that came there ended, is worth nothing.

    Recorded outcomes of a pair of a state and an action count more than the prediction, the more often they were recorded: a
    rare event, such as picking up a taxi's passenger, hardly changes a likelihood.

    :param enumeration: of the states and actions
    :param discount: see ``Values``
    """

    table: th.Tensor
    best: th.Tensor
    turn: th.Tensor
    paid: th.Tensor
    n_ended: th.Tensor

    # Pairs of a state and an action that are looked at in one update.
    N_ROWS = 1024

    def __init__(self, enumeration: Enumeration, discount: float) -> None:
        super().__init__(discount)
        self.enumeration = enumeration
        self.n_tried = len(enumeration.actions)
        self.register_buffer("table", th.zeros(len(enumeration.states), 2))
        self.register_buffer("best", th.zeros(len(enumeration.states), dtype=th.int64))
        self.register_buffer("turn", th.zeros((), dtype=th.int64))
        # Sums over all that was ever drawn, which float32 would not hold.
        self.register_buffer("paid", th.zeros(enumeration.n_pairs, dtype=th.float64))
        self.register_buffer("n_ended", th.zeros(len(enumeration.states), dtype=th.float64))
        self.successors = Successors(enumeration.n_pairs)

    def forget(self) -> None:
        super().forget()
        for buffer in (self.table, self.best, self.paid, self.n_ended):
            buffer.zero_()
        self.successors.forget()

    def observe(self, outcomes: Outcomes) -> None:
        """See ``Values.observe``; what each pair pays on average, and where episodes ended."""
        super().observe(outcomes)
        pair = self.enumeration.pair_number(outcomes.state, outcomes.action)
        self.paid.index_add_(0, pair, outcomes.reward.to(self.paid))
        last = self.enumeration.state_number(outcomes.next_state)
        self.n_ended.index_add_(0, last, outcomes.terminated.to(self.n_ended))
        self.successors.add(pair, last, outcomes.terminated)

    def believed(self, reward: th.Tensor, state: th.Tensor, action: th.Tensor, novelty: th.Tensor) -> th.Tensor:
        """See ``Values.believed``. Of a known pair its average is believed; the prediction counts as one more visit."""
        pair = self.enumeration.pair_number(state, action)
        n = self.successors.n[pair]
        average = (self.paid[pair] / n).to(reward).where(n > 0, reward)
        return super().believed(average.lerp(reward, novelty), state, action, novelty)

    def beyond(self, state: th.Tensor, action: th.Tensor, novelty: th.Tensor, predicted: th.Tensor) -> th.Tensor:
        """See ``Values.beyond``: of a known pair, what comes after the states that it led to."""
        last, ended, share = self.successors.of(self.enumeration.pair_number(state, action))
        worth = self._worth(last).masked_fill(ended.unsqueeze(-1), 0)
        share = share.to(predicted).unsqueeze(-1)
        # What is not told apart is left to the prediction.
        recorded = (share * worth).sum(1) + (1 - share.sum(1)) * predicted
        return recorded.lerp(predicted, self._doubt(novelty))

    def forward(self, state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return self._worth(self.enumeration.state_number(state))

    def _worth(self, number: th.Tensor) -> th.Tensor:
        """Both values of states by number, ``[..., 2]``."""
        n_left = self.successors.n.view(len(self.table), -1).sum(1)[number]
        is_over = (self.n_ended[number] > 0) & (n_left == 0)
        return self.table[number].masked_fill(is_over.unsqueeze(-1), 0)

    def learned_next(self, outcomes: Outcomes) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """The next ones in turn."""
        states, actions = self.enumeration.states, self.enumeration.actions
        n_rows = min(len(states), max(1, self.N_ROWS // len(actions)))
        rows = (self.turn + th.arange(n_rows, device=states.device)) % len(states)
        self.turn.copy_((self.turn + n_rows) % len(states))
        return states[rows], actions[:1].expand(n_rows, -1), states.new_zeros(n_rows, 0)

    def act(self, state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return self.enumeration.actions[self.best[self.enumeration.state_number(state)]]

    @th.no_grad()
    def losses(self, state: th.Tensor, goal: th.Tensor, target: Backups) -> dict[str, th.Tensor]:
        """See ``Values.losses``; the table then holds the targets, so there is nothing to descend."""
        number = self.enumeration.state_number(state)
        change = F.mse_loss(self.table[number], target.worth)
        self.table[number] = target.worth
        self.best[number] = self.enumeration.action_number(target.action)
        return {"value": change}


class ValueHead(Values):
    """
    ``M`` networks that start differently learn both values, and another one the actor.

    What they answer is in units of the recent mean and standard deviation of their targets, which follow these without moving
    the values (van Hasselt et al., 2016): one large reward among many small ones would hide the small ones otherwise. A value
    starts as the average reward paid for ever.

    The actor is moved towards the best of the actions that were compared: whole numbers by cross-entropy, a box by the squared
    difference. It is compared itself the next time, with others near it, so it climbs without a gradient through the model.

    :param state_width: numbers of an encoded state, ``D``
    :param goal_width: numbers of the goal, ``G``
    :param actions: what an action is
    :param discount: see ``Values``
    """

    # As many as TD-MPC2 has (Hansen et al., 2024).
    N_MEMBERS = 5
    HIDDEN_DIM = 128
    # How far the scale moves towards that of the targets of one update.
    SCALE_RATE = 0.01
    # How much counts of what is beyond the best, or the worst, that can be paid for ever: it is an error, but orders states.
    LEAK = 0.01
    # The smallest unit of an answer, in sizes of a reward: values that hardly vary are not blown up.
    MIN_UNIT = 0.1

    mean: th.Tensor
    unit: th.Tensor

    def __init__(self, state_width: int, goal_width: int, actions: Actions, discount: float) -> None:
        super().__init__(discount)
        self.actions = actions
        self.goal_moments = RunningMoments(goal_width, MIN_RELATIVE_STD_OF_FLOAT32)
        self.first = StackedLinear(self.N_MEMBERS, state_width + goal_width, self.HIDDEN_DIM)
        self.middle = StackedLinear(self.N_MEMBERS, self.HIDDEN_DIM, self.HIDDEN_DIM)
        self.last = StackedLinear(self.N_MEMBERS, self.HIDDEN_DIM, 2)
        self.actor = nn.Sequential(
            nn.Linear(state_width + goal_width, self.HIDDEN_DIM),
            nn.LayerNorm(self.HIDDEN_DIM),
            nn.SiLU(),
            nn.Linear(self.HIDDEN_DIM, self.HIDDEN_DIM),
            nn.LayerNorm(self.HIDDEN_DIM),
            nn.SiLU(),
            nn.Linear(self.HIDDEN_DIM, actions.width),
        )
        self.register_buffer("mean", th.zeros(2, dtype=th.float64))
        self.register_buffer("unit", th.ones(2, dtype=th.float64))
        self.forget()

    @th.no_grad()
    def forget(self) -> None:
        super().forget()
        for parameter in (*self.last.parameters(), *self.actor[-1].parameters()):
            parameter.zero_()
        self.mean.zero_()

    def observe(self, outcomes: Outcomes) -> None:
        """See ``Values.observe``. The first rewards set the scale of the values."""
        is_first, steps = self.moments.count == 0, 1 / (1 - self.discount)
        super().observe(outcomes)
        self.goal_moments.update(outcomes.goal)
        self.mean.copy_((self.moments.mean * steps).where(is_first, self.mean))
        self.unit.copy_((self.size_of_reward * steps / 4).where(is_first, self.unit))

    def forward(self, state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """See ``Values``: the mean over the members."""
        return self._in_units(self._members(state, goal).mean(0))

    def lowest(self, state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """
        The lowest of two members drawn at random: what is learned from must not be what one of them hopes for. The lowest of
        all adds up to too little (docs/value.md).
        """
        pair = th.randperm(self.N_MEMBERS)[:2]
        return self._in_units(self._members(state, goal, pair).amin(0))

    def act(self, state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """See ``Values.act``: the likeliest value of each dimension, or the numbers of a box."""
        answer = self._actor_answer(state, goal)
        return (
            answer.tanh()
            if isinstance(self.actions, BoxActions)
            else self.actions.encode(self.actions.decode(answer), answer.dtype)
        )

    def losses(self, state: th.Tensor, goal: th.Tensor, target: Backups) -> dict[str, th.Tensor]:
        """See ``Values.losses``: of all members, in units of the scale, which moves towards that of the targets."""
        self._adapt_scale(target.worth)
        answer = ((target.worth - self.mean) / self.unit).float()
        value = F.mse_loss(self._members(state, goal), answer.expand(self.N_MEMBERS, -1, -1))
        return {"value": value, "actor": self._actor_loss(self._actor_answer(state, goal), target.action)}

    def _actor_answer(self, state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """Logits; for a box the numbers before ``tanh``; ``[R, A]``."""
        return self.actor(th.cat([state, self.goal_moments.normalize(goal)], dim=-1))

    def _actor_loss(self, answer: th.Tensor, best: th.Tensor) -> th.Tensor:
        if isinstance(self.actions, BoxActions):
            return F.mse_loss(answer.tanh(), best)
        parts = zip(answer.split(self.actions.sizes, dim=-1), best.split(self.actions.sizes, dim=-1), strict=True)
        return th.stack([F.cross_entropy(logits, one_hot) for logits, one_hot in parts]).sum()

    def take_scale(self, other: Values) -> None:
        assert isinstance(other, ValueHead)
        self._rescale(other.mean, other.unit)

    @th.no_grad()
    def _adapt_scale(self, target: th.Tensor) -> None:
        """Move the unit of an answer towards that of the targets, ``[R, 2]``."""
        target, rate = target.double(), self.SCALE_RATE
        mean = self.mean.lerp(target.mean(0), rate)
        variance = self.unit.square().lerp((target - self.mean).square().mean(0), rate) - (mean - self.mean).square()
        self._rescale(mean, variance.sqrt().maximum(self.MIN_UNIT * self.size_of_reward))

    @th.no_grad()
    def _rescale(self, mean: th.Tensor, unit: th.Tensor) -> None:
        """An answer of 0 stands for ``mean [2]`` from now on, and one unit for ``unit [2]``. No value changes."""
        weight, bias = self.last.weight, self.last.bias
        weight.mul_((self.unit / unit).to(weight))
        bias.copy_((self.mean + self.unit * bias - mean) / unit)
        self.mean.copy_(mean)
        self.unit.copy_(unit)

    def _members(self, state: th.Tensor, goal: th.Tensor, which: th.Tensor | slice = slice(None)) -> th.Tensor:
        """``[M, R, 2]``, or of some members."""
        layers = [Affine(layer.weight[which], layer.bias[which]) for layer in (self.first, self.middle, self.last)]
        hidden = th.cat([state, self.goal_moments.normalize(goal)], dim=-1).expand(len(layers[0].weight), -1, -1)
        for layer in layers[:-1]:
            hidden = layer(hidden)
            hidden = F.silu(F.layer_norm(hidden, hidden.shape[-1:]))
        return layers[-1](hidden)

    def _in_units(self, answer: th.Tensor) -> th.Tensor:
        """In the environment's units, and hardly beyond what can be paid for ever, or until an end; ``[..., 2]``."""
        value, for_ever = (self.mean + self.unit * answer).float(), 1 / (1 - self.learned_for)
        if not self.is_bounded:
            return value
        highest = th.cat([self.highest_reward, self.highest_reward + self.size_of_reward]).clamp(min=0) * for_ever
        lowest = self.lowest_reward.clamp(max=0) * for_ever
        possible = value.clamp(lowest, highest)
        return possible + self.LEAK * (value - possible)
