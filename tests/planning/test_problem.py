"""The price of uncertainty, on models whose best plan is known."""

import math

import gymnasium as gym
import pytest
import torch as th
from gated import GatedEnv
from tiny import tiny_env, tiny_fcdl
from toy import factors

from sb3_fcdl import FCDL, FCDLPolicy
from sb3_fcdl.dynamics.base import Prediction
from sb3_fcdl.dynamics.distributions import StateLayout
from sb3_fcdl.fcdl.planning_model import PlanningModel
from sb3_fcdl.planning import ICEM, DiscreteActions

LAYOUT = StateLayout(factors([0, 0], 2).state_variables)
STD = {-1: 0.25, 1: 2.0}  # by the sign of the position that a step leads to


def stepper(state: th.Tensor, action: th.Tensor) -> Prediction:
    """A walk: action 0 goes left, action 1 goes right, where the model is unsure. The second variable is always sure."""
    change = 2 * action[:, 1] - 1
    std = th.where(state[:, 0] + change > 0, STD[1], STD[-1])
    zero, sure = th.zeros_like(change), th.full_like(change, -4)
    distribution = LAYOUT.distribution(th.stack([change, zero, zero, sure], dim=1), state)
    distribution.log_std[:, 0] = std.log()
    return Prediction(distribution)


def right_pays_more(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
    assert state.shape[1] == next_state.shape[1] == 2
    return 1 + 0.5 * next_state[:, 0].sign()


def model(uncertainty_coef: float) -> PlanningModel:
    return PlanningModel(stepper, right_pays_more, None, None, uncertainty_coef)


def test_value_is_the_reward_less_the_price_of_the_most_uncertain_variable() -> None:
    planner = ICEM(DiscreteActions(2), horizon=3, discount=0.5)
    sequences = th.tensor([[[1, 1, 1], [0, 0, 0], [1, 0, 0]]])
    values = model(0.3).values(planner, sequences, th.zeros(1, 2), th.zeros(1, 0))[0]
    # the third sequence comes back to 0, which counts as the sure side and pays 1
    right, left, back = 1.5 - 0.3 * STD[1], 0.5 - 0.3 * STD[-1], 1 - 0.3 * STD[-1]
    expected = [right * 1.75, left * 1.75, right + back / 2 + left / 4]
    assert values.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("uncertainty_coef", "best"), [(0.0, [1, 1, 1]), (0.4, [1, 0, 1]), (0.7, [0, 1, 0])])
def test_plan_keeps_off_where_the_model_is_unsure_if_the_price_is_high(uncertainty_coef: float, best: list[int]) -> None:
    # A step to the right of 0 pays 1.5 less 2 prices, to 0 it pays 1 and to the left of it 0.5, each less 0.25 prices.
    planner = ICEM(DiscreteActions(2), horizon=3)
    state = th.zeros(4, 2)
    plan = model(uncertainty_coef).plan(planner, state, state[:, :0], generators=[th.Generator()] * 4)
    assert plan.actions.tolist() == [best] * 4


def test_end_of_an_episode_is_asked_for_encoded_states() -> None:
    def beyond_one(state: th.Tensor, action: th.Tensor, next_state: th.Tensor) -> th.Tensor:
        assert state.shape[1] == next_state.shape[1] == 2
        return next_state[:, 0] > 1

    planner = ICEM(DiscreteActions(2), horizon=3)
    ends = PlanningModel(stepper, right_pays_more, beyond_one, None, 0.1)
    values = ends.values(planner, th.tensor([[[1, 1, 1], [1, 0, 1]]]), th.zeros(1, 2), th.zeros(1, 0))
    right, back = 1.5 - 0.1 * STD[1], 1 - 0.1 * STD[-1]
    assert values.flatten().tolist() == pytest.approx([2 * right, 2 * right + back], abs=1e-6)


def test_explanation_and_prediction_reckon_with_the_same_price() -> None:
    kwargs = {"dynamics_kwargs": {"hidden_dim": 16}, "planner_kwargs": {"horizon": 2, "n_candidates": 32}}
    priced = FCDL(
        FCDLPolicy, GatedEnv(), learning_starts=50, train_freq=4, seed=0, policy_kwargs={"uncertainty_coef": 0.5}, **kwargs
    ).learn(80)
    observation = priced.get_env().reset()[0]
    tensors, _ = priced.policy.obs_to_tensor(observation)
    plan = priced.policy.plan(tensors, deterministic=True)
    explained = priced.explain(observation).plan
    assert explained.value == pytest.approx(plan.value.item(), abs=1e-5)
    # Mixed variables: the price is that of the most uncertain one, whatever its kind. The episodes end by time limits alone.
    state = priced.policy.factorization.encode_state(tensors)
    costs = []
    for step in range(2):
        action = priced.policy.planner.actions.encode(plan.actions[:, step], state.dtype)
        with th.no_grad():
            prediction = priced.dynamics.step(state, action).next_state
        doubt = [1 - prediction.logits.softmax(-1).max(), prediction.log_std.exp().max()]
        costs.append(0.5 * max(doubt).item())
        state = prediction.mode()
    earned = explained.rewards[0] - costs[0] + 0.99 * (explained.rewards[1] - costs[1])
    assert explained.value == pytest.approx(earned, abs=1e-5)


def test_states_that_can_be_numbered_are_planned_with_a_price_too() -> None:
    observation = tiny_env().reset(seed=0)[0]
    values = []
    for uncertainty_coef in (0.0, 1e-9):
        tiny = tiny_fcdl(policy_kwargs={"uncertainty_coef": uncertainty_coef}).learn(40)
        values.append(tiny.explain(observation).plan.value)
    # so small a price changes nothing but the way there: without the memo
    assert values[0] == pytest.approx(values[1], abs=1e-5)


@pytest.mark.parametrize("uncertainty_coef", [-0.1, math.nan, math.inf])
def test_price_must_be_a_finite_number(uncertainty_coef: float) -> None:
    with pytest.raises(ValueError, match="uncertainty_coef must be a finite number, at least 0"):
        FCDL("MlpPolicy", gym.make("CartPole-v1"), policy_kwargs={"uncertainty_coef": uncertainty_coef})
