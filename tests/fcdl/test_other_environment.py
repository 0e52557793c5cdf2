"""What holds when the environment, the reward, the normaliser or the buffer under a model changes."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize
from tiny import tiny_fcdl

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl import FCDL
from sb3_fcdl.callbacks import DynamicsCallback

SMALL = {
    "dynamics": "mlp",
    "learning_starts": 50,
    "train_freq": 1,
    "batch_size": 32,
    "train_horizon": 1,
    "learning_rate": 5e-3,
    # Nobody follows a plan while it learns, and so there is none.
    "exploration_rate": 1.0,
    "dynamics_kwargs": {"hidden_dim": 32},
    "planner": "icem",
    "planner_kwargs": {"horizon": 4, "n_iterations": 4},
}


def to_zero(state, action, next_state, goal):
    return -next_state[:, 0].abs()


def to_three(state, action, next_state, goal):
    return -(next_state[:, 0] - 3).abs()


def beyond_nine(state, action, next_state):
    return next_state[:, 0] > 9


class Walk(gym.Env):
    """A number that the action moves: ``x' = x + action``; pays its negative distance to a target; ends by time limits."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    target = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.n_steps = self.np_random.uniform(-4, 4, 1).astype(np.float32), 0
        return self.x.copy(), {}

    def step(self, action):
        self.x, self.n_steps = self.x + np.asarray(action, np.float32), self.n_steps + 1
        return self.x.copy(), -float(abs(self.x[0] - self.target)), False, self.n_steps == 10, {}


class WalkToZero(Walk):
    reward_fn = staticmethod(to_zero)


class WalkToThree(Walk):
    target = 3.0
    reward_fn = staticmethod(to_three)


class NamedWalk(WalkToZero):
    factorization = Factors((Variable("place"),), (Variable("push"),))


def action_at_one(model):
    return model.predict(np.ones((1, 1), np.float32), deterministic=True)[0].item()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model with the environment's reward, and one that has learned it; both walk to zero."""
    folder = tmp_path_factory.mktemp("models")
    for name, env in (("published", WalkToZero), ("learned", Walk)):
        model = tiny_fcdl(env(), policy="MlpPolicy", **SMALL).learn(200)
        assert action_at_one(model) < -0.2
        model.save(folder / name)
    return folder


def test_another_published_reward_is_planned_for(saved):
    model = FCDL.load(saved / "published", env=WalkToZero())
    model.set_env(make_vec_env(WalkToThree))
    assert action_at_one(model) > 0.2
    model.set_env(make_vec_env(WalkToZero))
    assert action_at_one(model) < -0.2
    assert action_at_one(FCDL.load(saved / "published", env=WalkToThree())) > 0.2


@pytest.mark.parametrize("name", ["published", "learned"])
def test_a_reward_of_ones_own_replaces_any_other(name, saved, tmp_path):
    model = FCDL.load(saved / name, reward_fn=to_three, termination_fn=beyond_nine)
    assert action_at_one(model) > 0.2
    model.save(tmp_path / "model")
    assert action_at_one(FCDL.load(tmp_path / "model")) > 0.2
    model = FCDL.load(saved / name, env=(WalkToZero if name == "published" else Walk)())
    model.reward_fn, model.termination_fn = to_three, beyond_nine
    assert action_at_one(model) > 0.2
    # What was given stays, whatever another environment publishes.
    model.set_env(make_vec_env(WalkToZero))
    assert action_at_one(model) > 0.2


@pytest.mark.filterwarnings("ignore:reward_fn disagrees")  # as it is meant to
def test_a_given_reward_taken_away_leaves_the_learned_one(saved):
    model = FCDL.load(saved / "learned", env=Walk())
    head = [parameter.clone() for parameter in model.policy.learner.reward_head.parameters()]
    model.reward_fn = to_three
    model.learn(60, reset_num_timesteps=False)
    # It rested meanwhile.
    assert all(th.equal(a, b) for a, b in zip(head, model.policy.learner.reward_head.parameters(), strict=True))
    model.reward_fn = None
    assert action_at_one(model) < -0.2


def test_an_environment_without_a_reward_that_the_model_needs_is_refused(saved):
    model = FCDL.load(saved / "published", env=WalkToZero())
    before = model.get_env()
    with pytest.raises(ValueError, match="the environment publishes no reward_fn, and the model has not learned one"):
        model.set_env(make_vec_env(Walk))
    assert model.get_env() is before and action_at_one(model) < -0.2
    with pytest.raises(ValueError, match="the environment publishes no reward_fn"):
        FCDL.load(saved / "published", env=Walk())


def test_other_variables_are_refused_by_name(saved):
    model = FCDL.load(saved / "published", env=WalkToZero())
    with pytest.raises(ValueError, match=r"other variables than the model: Variable\(name='place'.* instead of .*obs\[0\]"):
        model.set_env(make_vec_env(NamedWalk))
    with pytest.raises(ValueError, match="other variables than the model"):
        FCDL.load(saved / "published", env=NamedWalk())
    assert model.learn(12, reset_num_timesteps=False).num_timesteps == 212


def test_units_other_than_those_of_the_training_are_refused(saved, tmp_path):
    model = FCDL.load(saved / "learned", env=Walk())
    with pytest.raises(ValueError, match="learned from observations without VecNormalize, the environment is with it"):
        model.set_env(VecNormalize(make_vec_env(Walk)))
    with pytest.raises(ValueError, match="without VecNormalize, the environment is with it"):
        FCDL.load(saved / "learned", env=VecNormalize(make_vec_env(Walk)))
    model.set_env(VecNormalize(make_vec_env(Walk), norm_obs=False))
    normalized = tiny_fcdl(VecNormalize(make_vec_env(Walk)), policy="MlpPolicy", **SMALL).learn(60)
    normalized.save(tmp_path / "normalized")
    with pytest.raises(ValueError, match="with VecNormalize, the environment is without it"):
        FCDL.load(tmp_path / "normalized", env=Walk())


@pytest.mark.filterwarnings("ignore:reward_fn disagrees")  # the buffer holds transitions of both tasks
def test_the_callback_follows_the_environment_of_its_host():
    callback = DynamicsCallback(dynamics="mlp", dynamics_kwargs={"hidden_dim": 8}, learning_starts=20, batch_size=16)
    host = SAC("MlpPolicy", WalkToZero(), learning_starts=1000, seed=0).learn(30, callback)
    assert callback.policy.world.reward_fn is to_zero
    host.set_env(make_vec_env(WalkToThree))
    host.learn(10, callback)
    assert callback.policy.world.reward_fn is to_three
    host.set_env(make_vec_env(NamedWalk))
    with pytest.raises(ValueError, match="other variables than the model"):
        host.learn(10, callback)


def test_a_wrapper_outside_of_the_normaliser_is_refused_beside_a_host():
    env = VecFrameStack(VecNormalize(make_vec_env(Walk)), 2)
    with pytest.raises(ValueError, match="put VecNormalize outermost"):
        SAC("MlpPolicy", env, learning_starts=1000).learn(10, DynamicsCallback(dynamics="mlp"))


class Wide(Walk):
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def reset(self, **kwargs):
        return np.repeat(super().reset(**kwargs)[0], 2), {}

    def step(self, action):
        observation, *rest = super().step(action)
        return np.repeat(observation, 2), *rest


class Forward(Walk):
    action_space = spaces.Box(0, 5, (1,), np.float32)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Wide, "observation_space = "),
        (Forward, r"action_space = Box\(0.0, 5.0"),
        (Walk, "n_envs = 2, the model has n_envs = 1"),
    ],
)
def test_transitions_of_something_else_are_refused_and_the_present_ones_kept(other, message, tmp_path):
    env = make_vec_env(other, n_envs=2 if other is Walk else 1)
    SAC("MlpPolicy", env, learning_starts=1000).learn(30).save_replay_buffer(tmp_path / "other")
    model = tiny_fcdl(Walk(), policy="MlpPolicy", **SMALL).learn(30)
    present = model.replay_buffer
    with pytest.raises(ValueError, match=message):
        model.load_replay_buffer(tmp_path / "other")
    (tmp_path / "text.pkl").write_bytes(b"no pickle")
    with pytest.raises(ValueError, match="is no replay buffer, or it is damaged"):
        model.load_replay_buffer(tmp_path / "text")
    assert model.replay_buffer is present and model.learn(10, reset_num_timesteps=False).num_timesteps == 40


def test_a_deleted_buffer_is_loaded_again(tmp_path):
    model = tiny_fcdl(Walk(), policy="MlpPolicy", **SMALL).learn(30)
    model.save_replay_buffer(tmp_path / "buffer")
    del model.replay_buffer
    model.load_replay_buffer(tmp_path / "buffer")
    assert model.replay_buffer.size() == 30


def test_a_network_that_is_given_as_the_reward_stays_its_owners():
    class Paid(th.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.drop = th.nn.Linear(1, 1), th.nn.Dropout(0.5)

        def forward(self, state, action, next_state, goal):
            return self.drop(self.layer(next_state.float())).squeeze(1)

    paid = Paid().eval()
    with pytest.warns(UserWarning, match="reward_fn disagrees"):
        model = tiny_fcdl(Walk(), policy="MlpPolicy", reward_fn=paid, **SMALL).learn(60)
    assert model.policy.world.reward_fn is paid and not paid.training
    assert all(parameter.requires_grad for parameter in paid.parameters())
    assert not any("layer" in key for key in model.policy.state_dict() if "given" in key or "reward_fn" in key)


def test_what_belongs_to_the_algorithm_is_not_given_to_the_policy():
    with pytest.raises(TypeError, match="policy_kwargs has gamma: give it to FCDL itself"):
        tiny_fcdl(Walk(), policy="MlpPolicy", policy_kwargs={"gamma": 0.5})
