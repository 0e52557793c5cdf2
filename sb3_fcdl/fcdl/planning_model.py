"""The learned model as a planner is given it."""

from dataclasses import dataclass
from typing import Any

import torch as th
from torch.nn import functional as F

from sb3_fcdl.dynamics.base import StepFn
from sb3_fcdl.planning import KeyFn, PlainRollout, Plan, Planner, RewardFn, TerminationFn


@dataclass(frozen=True)
class PlanningModel:
    """
    What is most likely to happen and what it pays, less a price for what the model is unsure of; for as long as the weights
    stay as they are.

    A step costs the largest uncertainty of a variable, see ``StateDistribution.uncertainty``, times ``uncertainty_coef``; MOPO
    (Yu et al., 2020) has a price of the predicted deviation, too. A state then has one column more in the planner: the
    uncertainty of the step that led there.

    :param stepper: the dynamics
    :param reward_fn: reward of encoded steps
    :param termination_fn: whether, or how likely, encoded steps ended their episodes; None: episodes never end
    :param key: numbers encoded states; None: there are too many
    :param uncertainty_coef: the price, in units of the reward; 0: none
    """

    stepper: StepFn
    reward_fn: RewardFn
    termination_fn: TerminationFn | None
    key: KeyFn | None
    uncertainty_coef: float

    def plan(self, planner: Planner, state: th.Tensor, goal: th.Tensor, **kwargs: Any) -> Plan:
        """
        :param planner: of the encoded actions
        :param state: encoded, ``[B, D]``
        :param goal: ``[B, G]``
        :param kwargs: see ``Planner.plan``
        """
        # Equal states that were reached in other ways differ in their last column.
        key = None if self.uncertainty_coef else self.key
        start = self._start(state)
        return planner.plan(self._step, self._reward, start, goal, termination=self._termination, key=key, **kwargs)

    def values(self, planner: Planner, sequences: th.Tensor, state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """
        What the planner makes of sequences of actions.

        :param planner: of the encoded actions
        :param sequences: ``[B, N, H, *]``, see ``Rollout.evaluate``
        :param state: encoded, ``[B, D]``
        :param goal: ``[B, G]``
        :return: ``[B, N]``
        """
        functions = self._step, self._reward, self._start(state), goal, planner.actions, self._termination, planner.discount
        return PlainRollout(*functions).evaluate(sequences)

    def _start(self, state: th.Tensor) -> th.Tensor:
        return F.pad(state, (0, 1)) if self.uncertainty_coef else state

    def _encoded(self, state: th.Tensor) -> th.Tensor:
        return state[..., :-1] if self.uncertainty_coef else state

    def _step(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        prediction = self.stepper(self._encoded(state), action).next_state
        if not self.uncertainty_coef:
            return prediction.mode()
        return th.cat([prediction.mode(), prediction.uncertainty().amax(-1, keepdim=True)], dim=-1)

    def _reward(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        reward = self.reward_fn(self._encoded(state), action, self._encoded(next_state), goal)
        return reward - self.uncertainty_coef * next_state[..., -1] if self.uncertainty_coef else reward

    @property
    def _termination(self) -> TerminationFn | None:
        termination_fn = self.termination_fn
        if termination_fn is None:
            return None
        return lambda state, action, next_state: termination_fn(self._encoded(state), action, self._encoded(next_state))
