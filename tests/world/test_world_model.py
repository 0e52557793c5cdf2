"""The running average of the weights, which is planned with."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from tiny import tiny_env, tiny_fcdl

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl import FCDL
from sb3_fcdl.dynamics import DYNAMICS, FCDLDynamics
from sb3_fcdl.world.world_model import WorldModel


def test_average_by_hand():
    """The decay is 2/11 after the first update, 3/12 after the second, and 0.99 from the 890th on."""
    learner = WorldModel(FCDLDynamics(Factors((Variable("x"),), (Variable("a", 2),))), None, None)
    average = learner.average()
    for parameter in average.parameters():
        parameter.zero_()
    followed = []
    for n_updates, value in ((1, 11.0), (2, 10.0), (889, 2.0), (5000, 2.0)):
        for parameter in learner.parameters():
            parameter.data.fill_(value)
        average.follow(learner, n_updates, 0.99)
        values = th.cat([parameter.flatten() for parameter in average.parameters()])
        assert values.min() == values.max()
        followed.append(values[0].item())
    third = 9.75 * 890 / 899 + 2 * 9 / 899
    assert followed == pytest.approx([9, 9.75, third, 0.99 * third + 0.02])


def test_what_is_not_learned_by_gradient_is_taken_over_at_once():
    learner = WorldModel(FCDLDynamics(Factors((Variable("x"),), (Variable("a", 2),))), None, None)
    average = learner.average()
    learner.dynamics.quantizer.codebook.embedding = learner.dynamics.quantizer.codebook.embedding + 1
    learner.dynamics.context_inputs[0] = 0
    average.follow(learner, 1000, 0.99)
    for (name, own), given in zip(average.named_buffers(), learner.buffers(), strict=True):
        assert th.equal(own, given), name


def test_optimizer_moves_the_learner_alone_and_the_average_follows():
    model = tiny_fcdl(learning_starts=1000).learn(40)
    policy = model.policy
    optimized = {id(parameter) for group in policy.optimizer.param_groups for parameter in group["params"]}
    assert optimized == {id(parameter) for parameter in policy.learner.parameters()}
    expected = [parameter.clone() for parameter in policy.world_model.parameters()]
    for n_updates in (1, 2, 3):
        model._update(1, 16)
        decay = (1 + n_updates) / (10 + n_updates)
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, policy.learner.parameters(), strict=True)]
    assert model._n_updates == 3
    for parameter, value in zip(policy.world_model.parameters(), expected, strict=True):
        assert parameter.detach().numpy() == pytest.approx(value.detach().numpy(), abs=1e-6)


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_without_a_decay_it_predicts_as_the_learner_does(dynamics):
    """Which it could not, if anything that a model learns were neither a parameter nor a buffer."""
    model = tiny_fcdl(dynamics=dynamics, dynamics_kwargs={}, policy_kwargs={"average_decay": 0.0}).learn(60)
    state, action = th.eye(12)[:5], th.eye(12)[5:10]
    with th.no_grad():
        own, given = (each.step(state, action) for each in (model.dynamics, model.policy.learner.dynamics.eval()))
    assert model._n_updates > 0 and th.allclose(own.next_state.logits, given.next_state.logits, rtol=0, atol=1e-6)
    assert own.graph is None or th.equal(own.graph, given.graph)


def test_it_can_be_asked_at_any_time_without_eval(tmp_path):
    """The average is never trained: it is in eval mode when it is made, after ``learn`` and after ``load``."""
    model = tiny_fcdl()
    state, action = th.eye(12)[:5], th.eye(12)[5:10]
    untrained = model.dynamics.step(state, action).next_state.logits
    trained = model.learn(60).dynamics.step(state, action).next_state.logits
    assert not th.equal(trained, untrained)
    model.save(tmp_path / "model")
    assert th.equal(FCDL.load(tmp_path / "model").dynamics.step(state, action).next_state.logits, trained)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_must_be_one(decay):
    with pytest.raises(ValueError, match=r"average_decay must be in \[0, 1\), got"):
        tiny_fcdl(policy_kwargs={"average_decay": decay})


def test_everything_a_user_sees_comes_from_the_average(tmp_path):
    model = tiny_fcdl(learning_starts=20).learn(60)
    observation = tiny_env().reset(seed=0)[0]
    action, graph = model.predict(observation, deterministic=True)[0], model.local_graph(observation, 0)
    with th.no_grad():
        for parameter in model.policy.learner.parameters():
            parameter.fill_(np.nan)
    model.save(tmp_path / "model")
    for each in (model, FCDL.load(tmp_path / "model")):
        assert each.predict(observation, deterministic=True)[0] == action
        assert np.array_equal(each.local_graph(observation, 0).edges, graph.edges)


def test_average_of_a_learned_reward_has_its_units():
    """Moments are taken over, not averaged: else a reward of 700 would come in slowly."""
    model = FCDL("MlpPolicy", gym.make("Pendulum-v1"), dynamics="mlp", learning_starts=100, device="cpu").learn(110)
    heads = model.policy.world_model.reward_head, model.policy.learner.reward_head
    assert th.equal(heads[0].moments.mean, heads[1].moments.mean) and heads[0].moments.mean.item() < -1
