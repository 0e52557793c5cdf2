"""The policy: what its planner is given, and the two worlds that it holds."""

import copy
import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from stable_baselines3 import A2C
from stable_baselines3.common.vec_env import DummyVecEnv
from tiny import tiny_env, tiny_fcdl

from sb3_fcdl import FCDL, FCDLPolicy
from sb3_fcdl.callbacks import DynamicsCallback
from sb3_fcdl.world.factorization import Factorization

SMALL: dict[str, Any] = {"dynamics": "mlp", "dynamics_kwargs": {"hidden_dim": 8}}
ICEM: dict[str, Any] = {"planner": "icem", "planner_kwargs": {"horizon": 4, "n_candidates": 16, "n_elites": 4}}


@pytest.fixture
def certain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The likeliest category is taken for certain, however likely it is."""
    monkeypatch.setattr("sb3_fcdl.dynamics.distributions.CERTAIN", 0.0)


def value_by_hand(policy: FCDLPolicy, observation: Any, gamma: float) -> tuple[float, float]:
    """
    The value of the deterministic plan, and its rewards step by step on the model, discounted, and the value at its end;
    nothing ends, and nothing is left to chance.
    """
    tensors, _ = policy.obs_to_tensor(observation)
    plan = policy.plan(tensors, deterministic=True)
    state, goal, total = policy.world.encode(tensors), policy.world.goal(tensors), 0.0
    for depth in range(plan.actions.shape[1]):
        action = policy.planner.actions.encode(plan.actions[:, depth], state.dtype)
        with th.no_grad():
            after = policy.dynamics.step(state, action).next_state.mode()
            total += gamma**depth * policy.problem().reward(state, action, after, goal).item()
        state = after
    if gamma < 1:
        with th.no_grad():
            total += gamma ** plan.actions.shape[1] * policy.world.values(state, goal)[0, 0].item()
    return plan.value.item(), total


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_plans_are_worth_their_discounted_rewards(gamma: float, tmp_path: Any, certain: None) -> None:
    observation = tiny_env().reset(seed=0)[0]
    model = tiny_fcdl(gamma=gamma, **SMALL, **ICEM).learn(40)
    assert model.gamma == model.policy.gamma == model.policy.problem().discount == gamma
    value, by_hand = value_by_hand(model.policy, observation, gamma)
    assert value == pytest.approx(by_hand) and abs(by_hand) > 0.1
    model.save(tmp_path / "model")
    model.policy.save(tmp_path / "policy")
    for policy in (FCDL.load(tmp_path / "model").policy, FCDLPolicy.load(tmp_path / "policy")):
        assert value_by_hand(policy, observation, gamma) == (value, by_hand)
    other = FCDL.load(tmp_path / "model", gamma=0.25)
    value, by_hand = value_by_hand(other.policy, observation, 0.25)
    assert other.gamma == 0.25 and value == pytest.approx(by_hand)
    # What was learned for another discount is forgotten.
    states = th.rand(5, 12)
    for head in (other.policy.world.values, other.policy.learner.values):
        assert not head(states, states).any() and float(head.learned_for) == 0.25
    assert gamma == 1 or model.policy.world.values(states, states).any()


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_plans_of_a_callback_are_worth_their_discounted_rewards(gamma: float, tmp_path: Any, certain: None) -> None:
    kwargs = {"learning_starts": 10, "batch_size": 8, "gamma": gamma} | SMALL | ICEM
    callback = DynamicsCallback(**kwargs)
    A2C("MlpPolicy", GatedEnv(), n_steps=8, device="cpu", seed=0).learn(40, callback)
    callback.save(tmp_path / "policy")
    observation = np.array([0, 1, 0.3, 5], dtype=np.float32)
    for policy in (callback.policy, callback.as_policy(), FCDLPolicy.load(tmp_path / "policy")):
        value, by_hand = value_by_hand(policy, observation, gamma)
        assert policy.gamma == gamma and value == pytest.approx(by_hand, abs=1e-5) and abs(by_hand) > 0.1


def test_default_discount() -> None:
    for model in (FCDL("MlpPolicy", "CartPole-v1"), tiny_fcdl()):
        assert model.policy.problem().discount == 0.99


@pytest.mark.parametrize("gamma", [0.0, 1.5, -1.0, math.nan])
def test_discount_must_be_one(gamma: float) -> None:
    with pytest.raises(ValueError, match=f"gamma={gamma} is not allowed; .* a finite number, above 0 and at most 1"):
        tiny_fcdl(gamma=gamma)


def test_explanation_and_prediction_reckon_with_the_same_price(certain: None) -> None:
    priced = FCDL(
        FCDLPolicy,
        GatedEnv(),
        learning_starts=50,
        train_freq=4,
        gamma=0.9,
        seed=0,
        policy_kwargs={"uncertainty_coef": 0.5},
        dynamics_kwargs={"hidden_dim": 16},
        planner_kwargs={"horizon": 2, "n_candidates": 32},
    ).learn(80)
    observation = priced.get_env().reset()[0]
    tensors, _ = priced.policy.obs_to_tensor(observation)
    plan = priced.policy.plan(tensors, deterministic=True)
    explained = priced.explain(observation).plan
    assert explained.value == pytest.approx(plan.value.item(), abs=1e-5)
    # Mixed variables: the price is that of the most uncertain one, whatever its kind. The episodes end by time limits alone.
    state, costs, paid = priced.policy.world.encode(tensors), [], []
    for step in range(2):
        action = priced.policy.planner.actions.encode(plan.actions[:, step], state.dtype)
        with th.no_grad():
            prediction = priced.dynamics.step(state, action).next_state
        doubt = [1 - prediction.logits.softmax(-1).max(), prediction.log_std.exp().max()]
        costs.append(0.5 * max(doubt).item())
        with th.no_grad():
            paid.append(priced.policy.problem().reward(state, action, prediction.mode(), th.zeros(1, 0)).item())
        state = prediction.mode()
    earned = paid[0] - costs[0] + 0.9 * (paid[1] - costs[1]) + explained.value_beyond
    assert explained.value == pytest.approx(earned, abs=1e-5) and min(costs) > 0.01


@pytest.mark.parametrize("uncertainty_coef", [0.0, 0.3])
def test_states_that_can_be_numbered_are_planned_with_a_price_by_the_memo(
    uncertainty_coef: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    observation = tiny_env().reset(seed=0)[0]
    model = tiny_fcdl(policy_kwargs={"uncertainty_coef": uncertainty_coef}).learn(40)
    tensors, _ = model.policy.obs_to_tensor(observation)
    assert model.policy.problem().key is not None
    with_memo = model.policy.plan(tensors, deterministic=True)
    monkeypatch.setattr(Factorization, "state_key", None)
    without = model.policy.plan(tensors, deterministic=True)
    # The price is in the value, and the memo in nothing but the time; a row of a batch may differ in its last bits.
    assert th.equal(with_memo.actions, without.actions) and with_memo.value.item() == pytest.approx(without.value.item())


@pytest.mark.parametrize("uncertainty_coef", [-0.1, math.nan, math.inf])
def test_price_must_be_a_finite_number(uncertainty_coef: float) -> None:
    with pytest.raises(ValueError, match="uncertainty_coef must be a finite number, at least 0"):
        FCDL("MlpPolicy", gym.make("CartPole-v1"), policy_kwargs={"uncertainty_coef": uncertainty_coef})


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_must_be_one(decay: float) -> None:
    with pytest.raises(ValueError, match="average_decay must be a finite number, at least 0 and below 1"):
        tiny_fcdl(policy_kwargs={"average_decay": decay})


def saved_and_loaded(model: FCDL, path: Any) -> FCDLPolicy:
    model.save(path / "model")
    return FCDL.load(path / "model").policy


def policy_saved_and_loaded(model: FCDL, path: Any) -> FCDLPolicy:
    model.policy.save(path / "policy")
    return FCDLPolicy.load(path / "policy")


def with_the_same_parameters(model: FCDL, path: Any) -> FCDLPolicy:
    other = tiny_fcdl(model.get_env(), **SMALL)
    other.set_parameters(model.get_parameters())
    return other.policy


COPIES: dict[str, Callable[[FCDL, Any], FCDLPolicy]] = {
    "itself": lambda model, path: model.policy,
    "FCDL.load": saved_and_loaded,
    "FCDLPolicy.load": policy_saved_and_loaded,
    "set_parameters": with_the_same_parameters,
    "deepcopy": lambda model, path: copy.deepcopy(model.policy),
    "to": lambda model, path: copy.deepcopy(model.policy).to("cpu", th.float32),
}


@pytest.mark.parametrize("name", COPIES)
def test_learner_and_world_are_two_models_of_one_factorization(name: str, tmp_path: Any) -> None:
    model = tiny_fcdl(GatedEnv(), **SMALL, learning_starts=1000).learn(60)
    model.policy.world.factorization.is_normalized.fill_(1)
    policy, row = COPIES[name](model, tmp_path), th.tensor([[0.0, 1, 0.7, 4]])
    assert policy.learner.factorization is policy.world.factorization
    assert policy.world.factorization.is_normalized
    assert policy.learner.dynamics is not policy.world.dynamics
    # What the one observes, the other encodes by.
    seen = model.replay_buffer.observations[:60, 0]
    encoded = (row.numpy() - seen.mean(0)) / np.where(np.arange(4) < 2, 1, seen.std(0))
    assert policy.world.encode(row)[0, 2:].tolist() == pytest.approx(encoded[0, 2:].tolist(), rel=1e-3)
    policy.learner.factorization.observe(th.tensor([[0.0, 1, 40, -30]] * 60))
    again = policy.world.encode(row)
    assert th.equal(again, policy.learner.encode(row)) and again[0, 2].item() == pytest.approx((0.7 - 20) / 20, abs=0.1)
    is_a_copy = name != "itself"
    assert (model.policy.world.encode(row)[0, 2].item() == pytest.approx(encoded[0, 2], rel=1e-3)) == is_a_copy


def test_copy_of_a_callbacks_policy_shares_one_factorization_of_its_own() -> None:
    callback = DynamicsCallback(learning_starts=10, batch_size=8, planner_kwargs={"horizon": 2}, **SMALL)
    host = A2C("MlpPolicy", DummyVecEnv([GatedEnv]), n_steps=8, device="cpu", seed=0).learn(40, callback)
    taken = callback.as_policy()
    assert taken.learner.factorization is taken.world.factorization is not callback.policy.world.factorization
    count = taken.world.factorization.moments.count.item()
    host.learn(16, callback, reset_num_timesteps=False)
    assert count == taken.world.factorization.moments.count.item() == 40
    assert callback.policy.learner.factorization.moments.count.item() == 56


def test_a_loaded_model_goes_on_with_one_scale(tmp_path: Any) -> None:
    tiny_fcdl(GatedEnv(), **SMALL, learning_starts=1000).learn(60).save(tmp_path / "model")
    loaded = FCDL.load(tmp_path / "model", env=GatedEnv())
    loaded.learn(30, reset_num_timesteps=False)
    assert [each.factorization.moments.count.item() for each in (loaded.policy.learner, loaded.policy.world)] == [90, 90]
    assert loaded.trainer.learner is loaded.policy.learner and loaded.trainer.average is loaded.policy.world
    assert loaded.trainer.optimizer is loaded.policy.optimizer and loaded.trainer.log is loaded.model_log


@pytest.mark.parametrize(
    ("given", "fused"),
    [(None, True), ({"weight_decay": 0.1}, True), ({"fused": False}, False), ({"foreach": True}, None)],
)
def test_the_users_arguments_of_the_optimizer_leave_it_fused(given: dict | None, fused: bool | None) -> None:
    optimizer = tiny_fcdl(policy_kwargs={"optimizer_kwargs": given}).policy.optimizer
    assert optimizer.defaults["fused"] is fused
    for name, value in (given or {}).items():
        assert optimizer.defaults[name] == value
