"""What a state is worth beyond the end of a plan."""

from collections.abc import Sequence

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_fcdl.dynamics.stacked import Affine, StackedLinear
from sb3_fcdl.world.moments import MIN_RELATIVE_STD_OF_FLOAT32, RunningMoments


class ValueHead(nn.Module):
    """
    Two learned values: the discounted return from a state on, and the same with a bonus for what is new. ``M`` networks that
    start differently learn both.

    It is told its targets, see ``WorldModel.backups``. Rewards set its scale: a network that answers 0 says that the average
    reward is paid for ever. Before the first reward every state is worth 0.

    :param state_width: numbers of an encoded state, ``D``
    :param goal_width: numbers of the goal, ``G``
    :param discount: of the rewards, per environment step. With 1 a value has no bound, and is not learned
    """

    # As many as TD-MPC2 has (Hansen et al., 2024).
    N_MEMBERS = 5
    HIDDEN_DIM = 128

    learned_for: th.Tensor

    def __init__(self, state_width: int, goal_width: int, discount: float) -> None:
        super().__init__()
        self.discount = discount
        self.first = StackedLinear(self.N_MEMBERS, state_width + goal_width, self.HIDDEN_DIM)
        self.middle = StackedLinear(self.N_MEMBERS, self.HIDDEN_DIM, self.HIDDEN_DIM)
        self.last = StackedLinear(self.N_MEMBERS, self.HIDDEN_DIM, 2)
        self.goal_moments = RunningMoments(goal_width, MIN_RELATIVE_STD_OF_FLOAT32)
        self.moments = RunningMoments(1, MIN_RELATIVE_STD_OF_FLOAT32)
        self.register_buffer("learned_for", th.tensor(discount, dtype=th.float64))
        self.register_load_state_dict_post_hook(ValueHead._check_discount)
        self.forget()

    def _check_discount(self, _: object) -> None:
        """A file may hold what was learned for another discount."""
        if float(self.learned_for) != self.discount:
            self.learned_for.fill_(self.discount)
            self.forget()

    @th.no_grad()
    def forget(self) -> None:
        """Every state is worth 0 again: what was learned is of another reward, or another discount."""
        for parameter in self.last.parameters():
            parameter.zero_()
        self.moments.reset()

    def forward(self, state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """
        :param state: encoded, ``[R, D]``
        :param goal: ``[R, G]``
        :return: both values in the environment's units, the mean over the members, ``[R, 2]``
        """
        return self._in_units(self._members(state, goal).mean(0))

    def lowest(self, state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """Likewise, the lowest of two members drawn at random: what is learned from must not be what one of them hopes for."""
        pair = th.randperm(self.N_MEMBERS)[:2].tolist()
        return self._in_units(self._members(state, goal, pair).amin(0))

    def loss(self, state: th.Tensor, goal: th.Tensor, target: th.Tensor) -> th.Tensor:
        """
        :param state: encoded, ``[R, D]``
        :param goal: ``[R, G]``
        :param target: what each state is worth, ``[R, 2]``
        :return: squared error of all members, in units of the scale, a scalar
        """
        mean, unit = self._scale
        return F.mse_loss(self._members(state, goal), ((target - mean) / unit).expand(self.N_MEMBERS, -1, -1))

    def observe(self, reward: th.Tensor, goal: th.Tensor) -> None:
        """
        Take in the scale of what is paid.

        :param reward: ``[R]``
        :param goal: ``[R, G]``
        """
        self.moments.update(reward.unsqueeze(-1))
        self.goal_moments.update(goal)

    @property
    def size_of_reward(self) -> th.Tensor:
        """Root mean square of the rewards so far; 1 if all were 0."""
        return (self.moments.mean.square() + self.moments.std.square()).sqrt().float()

    def _members(self, state: th.Tensor, goal: th.Tensor, which: Sequence[int] = range(N_MEMBERS)) -> th.Tensor:
        """``[M, R, 2]``, or of some members."""
        hidden = th.cat([state, self.goal_moments.normalize(goal)], dim=-1).expand(len(which), -1, -1)
        for layer in (self.first, self.middle):
            hidden = _some(layer, which)(hidden)
            hidden = F.silu(F.layer_norm(hidden, hidden.shape[-1:]))
        return _some(self.last, which)(hidden)

    @property
    def _scale(self) -> tuple[th.Tensor, th.Tensor]:
        """What the average reward is worth if it is paid for ever; and what one unit of a network's answer stands for."""
        steps = 1 / (1 - self.discount)
        return (self.moments.mean * steps).float(), self.size_of_reward * steps / 4

    def _in_units(self, answer: th.Tensor) -> th.Tensor:
        mean, unit = self._scale
        return mean + unit * answer


def _some(layer: StackedLinear, which: Sequence[int]) -> Affine:
    """The layers of some members."""
    if len(which) == len(layer.weight):
        return Affine(layer.weight, layer.bias)
    return Affine(layer.weight[which], layer.bias[which])
