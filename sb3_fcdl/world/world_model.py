"""What is learned of an environment, and its running average."""

import copy

import torch as th
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sb3_fcdl.dynamics import DynamicsModel
from sb3_fcdl.world.rewards import Outcomes, RewardHead, TerminationHead


class WorldModel(nn.Module):
    """
    :param dynamics: of the state
    :param reward_head: None: the reward is not learned
    :param termination_head: None: the end of an episode is not learned
    """

    def __init__(
        self, dynamics: DynamicsModel, reward_head: RewardHead | None, termination_head: TerminationHead | None
    ) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.reward_head = reward_head
        self.termination_head = termination_head

    def outcome_losses(self, outcomes: Outcomes, ends: Outcomes | None) -> dict[str, th.Tensor]:
        """
        :param outcomes: recorded transitions
        :param ends: further ones, that ended their episode; None: there are none
        :return: the loss of each learned head by name, a scalar each
        """
        losses = {}
        if self.reward_head is not None:
            losses["reward"] = self.reward_head.loss(outcomes)
        if self.termination_head is not None:
            losses["termination"] = self.termination_head.loss(outcomes, ends)
        return losses

    def average(self) -> "WorldModel":
        """:return: a copy that ``follow`` makes the running average of the weights; in eval mode, and not trained itself"""
        return copy.deepcopy(self).requires_grad_(False).eval()

    @th.no_grad()
    def follow(self, learner: "WorldModel", n_updates: int, decay: float) -> None:
        """
        Move towards the weights of another; take over what is not learned by gradient.

        :param learner: after an update
        :param n_updates: of its updates so far. The average of the first ones is shorter
        :param decay: of the average, per update, in [0, 1); 0: take over the weights too
        """
        decay = min(decay, (1 + n_updates) / (10 + n_updates))
        get_ema_multi_avg_fn(decay)(list(self.parameters()), list(learner.parameters()), n_updates)
        for own, given in zip(self.buffers(), learner.buffers(), strict=True):
            own.copy_(given)
