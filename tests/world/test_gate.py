"""What a model cannot learn from is refused where it enters, by name."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from random_env import RandomEnv
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tiny import tiny_fcdl

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.callbacks import DynamicsCallback
from sb3_fcdl.world.factorization import Factorization
from sb3_fcdl.world.gate import check_buffer, check_observations, is_usable

SMALL = {
    "learning_starts": 20,
    "train_freq": 8,
    "batch_size": 16,
    "train_horizon": 1,
    # Plans are no part of what is recorded.
    "exploration_rate": 1.0,
    "dynamics_kwargs": {"hidden_dim": 8},
    "planner_kwargs": {"horizon": 2, "n_iterations": 1, "n_candidates": 4, "n_elites": 2},
}
FACTORS = Factors(
    {"room": (Variable("lamp", 2), Variable("heat")), "own": (Variable("battery"),)}, (Variable("switch", 2),), ("wanted",)
)


class Broken(gym.Env):
    """
    A walk whose numbers are given wrongly once.

    :param what: ``"observation"``, ``"last"`` (the last observation of an episode), ``"reward"``, ``"goal"``; or nothing
    :param value: what is given
    :param at: the step, counted over episodes of ten
    """

    observation_space = spaces.Dict(x=spaces.Box(-np.inf, np.inf, (2,)), goal=spaces.Box(-np.inf, np.inf, (1,)))
    action_space = spaces.Box(-1, 1, (1,))
    factorization = Factors({"x": (Variable("place"), Variable("speed"))}, (Variable("push"),), ("goal",))

    def __init__(self, what="", value=np.nan, at=37):
        self.what, self.value, self.at, self.n_steps = what, value, at, 0

    def _observe(self):
        seen = {"x": self.np_random.normal(size=2).astype(np.float32), "goal": np.ones(1, np.float32)}
        if self.n_steps == self.at and self.what in ("observation", "last"):
            seen["x"][1] = self.value
        if self.n_steps == self.at and self.what == "goal":
            seen["goal"][0] = self.value
        return seen

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        self.n_steps += 1
        reward = self.value if self.what == "reward" and self.n_steps == self.at else float(self.np_random.normal())
        return self._observe(), reward, False, self.n_steps % 10 == 0, {}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("what", "at", "name"),
    [("observation", 37, "speed"), ("last", 40, "speed"), ("reward", 37, "reward"), ("goal", 37, "goal")],
)
def test_a_number_that_is_none_is_named_and_nothing_is_learned_from_it(what, at, name, value, tmp_path):
    model = tiny_fcdl(Broken(what, value, at), policy="MultiInputPolicy", **SMALL)
    with pytest.raises(ValueError, match=rf"at timestep {at} .* {name} = {value} in environment 0"):
        model.learn(100)
    assert model._n_updates == 2 and model.replay_buffer.size() == at - 1
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    # Nothing is lost: the model is saved, loaded, planned with and trained on.
    model.save(tmp_path / "model")
    model.set_env(make_vec_env(Broken))
    assert model.learn(16, reset_num_timesteps=False)._n_updates > 2


def test_the_environment_of_several_is_named():
    model = tiny_fcdl(DummyVecEnv([Broken, lambda: Broken("reward", at=3)]), policy="MultiInputPolicy", **SMALL)
    with pytest.raises(ValueError, match="reward = nan in environment 1"):
        model.learn(20)


@pytest.mark.parametrize("host", [PPO, SAC])
@pytest.mark.parametrize("what", ["observation", "last", "reward"])
def test_the_callback_refuses_what_it_taps(host, what):
    callback = DynamicsCallback(
        dynamics="mlp", dynamics_kwargs={"hidden_dim": 8}, learning_starts=20, batch_size=16, planner_kwargs={"horizon": 2}
    )
    settings = {"n_steps": 32, "batch_size": 32} if host is PPO else {"learning_starts": 200}
    model = host("MultiInputPolicy", Broken(what, at=40), seed=0, **settings)
    with pytest.raises(ValueError, match=r"at timestep 40 the environment .* = nan in environment 0"):
        model.learn(100, callback)
    assert all(parameter.isfinite().all() for parameter in callback.policy.parameters())


@pytest.mark.filterwarnings("ignore:invalid value")  # of SB3's own statistics
def test_what_vec_normalize_would_clip_is_seen():
    env = VecNormalize(make_vec_env(lambda: Broken("observation", np.inf)), norm_obs_keys=["x"])
    model = tiny_fcdl(env, policy="MultiInputPolicy", **SMALL)
    with pytest.raises(ValueError, match="speed = inf"):
        model.learn(100)


def test_a_buffer_that_somebody_has_filled_is_refused_before_any_update(tmp_path):
    model = tiny_fcdl(Broken(), policy="MultiInputPolicy", **SMALL).learn(60)
    model.replay_buffer.next_observations["x"][30, 0, 0] = np.nan
    with pytest.raises(ValueError, match="next observation place = nan in row 30 of environment 0"):
        model.train(gradient_steps=50, batch_size=64)
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    model.save_replay_buffer(tmp_path / "buffer")
    other = tiny_fcdl(Broken(), policy="MultiInputPolicy", **SMALL)
    present = other.replay_buffer
    with pytest.raises(ValueError, match="next observation place = nan in row 30"):
        other.load_replay_buffer(tmp_path / "buffer")
    assert other.replay_buffer is present


def test_prediction_from_a_number_that_is_none_is_refused():
    model = tiny_fcdl(Broken(), policy="MultiInputPolicy", **SMALL)
    good = {"x": np.zeros((2, 2), np.float32), "goal": np.zeros((2, 1), np.float32)}
    model.predict(good)
    bad = {"x": np.array([[0, 0], [0, np.nan]], np.float32), "goal": good["goal"]}
    with pytest.raises(ValueError, match=r"predict\(\) was given speed = nan in environment 1"):
        model.predict(bad)
    with pytest.raises(ValueError, match=r"predict\(\) was given goal = inf in environment 0"):
        model.predict({"x": np.zeros(2, np.float32), "goal": np.full(1, np.inf, np.float32)})


def test_names_of_columns():
    rooms = {"room": np.zeros((2, 3)), "own": np.zeros((2, 1)), "wanted": np.zeros((2, 4))}
    boxes = {key: spaces.Box(-np.inf, np.inf, array.shape[1:]) for key, array in rooms.items()}
    factorization = Factorization(spaces.Dict(boxes), spaces.Discrete(2), FACTORS)
    for key, column, name in (("room", 1, "lamp"), ("room", 2, "heat"), ("own", 0, "battery"), ("wanted", 3, "wanted")):
        seen = {each: array.copy() for each, array in rooms.items()}
        seen[key][1, column] = np.nan
        assert not is_usable(factorization, seen)
        with pytest.raises(ValueError, match=f"it saw {name} = nan in environment 1"):
            check_observations(factorization, seen, "it saw")
    assert is_usable(factorization, rooms)
    check_observations(factorization, rooms, "it saw")


@pytest.mark.parametrize(
    ("space", "good", "bad", "name"),
    [
        (spaces.Discrete(3, start=-1), [[-1], [1]], [[0], [2]], "obs = 2"),
        (spaces.Discrete(3), [0, 2], [0, 3], "obs = 3"),
        (spaces.MultiDiscrete([3, 4]), [[2, 3], [0, 0]], [[2, 3], [3, 0]], r"obs\[0\] = 3"),
        (spaces.MultiDiscrete([3, 4]), [[2, 3], [0, 0]], [[0, 0], [0, -1]], r"obs\[1\] = -1"),
        (spaces.MultiBinary(2), [[0, 1], [1, 1]], [[0, 1], [1, 2]], r"obs\[1\] = 2"),
    ],
)
def test_categories_outside_their_space_are_named(space, good, bad, name):
    factorization = Factorization(space, spaces.Discrete(2))
    check_observations(factorization, np.array(good), "it saw")
    with pytest.raises(ValueError, match=f"it saw {name} in environment 1"):
        check_observations(factorization, np.array(bad), "it saw")


def test_a_category_outside_its_space_is_not_stored():
    class Wrong(RandomEnv):
        def step(self, action):
            observation, *rest = super().step(action)
            self.n = getattr(self, "n", 0) + 1
            return (np.array([3, 0]) if self.n == 15 else observation), *rest

    model = tiny_fcdl(Wrong(spaces.MultiDiscrete([3, 4]), spaces.Discrete(2)), policy="MlpPolicy", **SMALL)
    with pytest.raises(ValueError, match=r"at timestep 15 the environment observed obs\[0\] = 3 in environment 0"):
        model.learn(40)
    assert model.replay_buffer.size() == 14


def test_time_limits_that_look_like_ends_are_not_learned():
    kwargs = {"replay_buffer_kwargs": {"handle_timeout_termination": False}, **SMALL}
    with pytest.raises(ValueError, match="handle_timeout_termination=False the buffer does not tell time limits from ends"):
        tiny_fcdl("Pendulum-v1", policy="MlpPolicy", **kwargs)
    never = "sb3_fcdl.world.rewards:never_ends"
    assert tiny_fcdl("Pendulum-v1", policy="MlpPolicy", termination_fn=never, **kwargs).learn(30)._n_updates
    host = SAC("MlpPolicy", "Pendulum-v1", replay_buffer_kwargs={"handle_timeout_termination": False}, learning_starts=100)
    with pytest.raises(ValueError, match="handle_timeout_termination=False"):
        host.learn(10, DynamicsCallback(dynamics="mlp"))


def test_rows_behind_the_last_one_do_not_count():
    space = spaces.Box(-np.inf, np.inf, (1,))
    buffer = ReplayBuffer(10, space, spaces.Discrete(2))
    buffer.add(np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1)), np.ones(1), np.zeros(1), [{}])
    buffer.observations[5] = np.nan
    check_buffer(Factorization(space, spaces.Discrete(2)), buffer)


def test_the_newest_observation_of_a_buffer_that_saves_memory_counts():
    space = spaces.Box(-np.inf, np.inf, (1,))
    buffer = ReplayBuffer(10, space, spaces.Discrete(2), optimize_memory_usage=True, handle_timeout_termination=False)
    buffer.add(np.zeros((1, 1)), np.full((1, 1), np.nan), np.zeros((1, 1)), np.ones(1), np.zeros(1), [{}])
    with pytest.raises(ValueError, match=r"observation obs\[0\] = nan in row 1"):
        check_buffer(Factorization(space, spaces.Discrete(2)), buffer)


def test_looking_at_a_number_that_is_none_is_refused():
    model = tiny_fcdl(Broken(), policy="MultiInputPolicy", **{**SMALL, "dynamics": "fcdl"})
    bad = {"x": np.array([0, np.nan], np.float32), "goal": np.zeros(1, np.float32)}
    for look in (lambda: model.explain(bad), lambda: model.local_graph(bad, np.zeros(1, np.float32))):
        with pytest.raises(ValueError, match=r"\(\) was given speed = nan"):
            look()


def test_what_is_imagined_from_or_with_must_be_finite():
    model = tiny_fcdl(Broken(), policy="MultiInputPolicy", **SMALL).learn(40)
    env = model.imagined_env(2)
    env.reset()
    with pytest.raises(ValueError, match="must be finite numbers"):
        env.step(np.full((2, 1), np.nan, np.float32))
    model.replay_buffer.observations["x"][:] = np.nan
    with pytest.raises(ValueError, match="the replay buffer holds observation place = nan in row 0"):
        env.reset()
