import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from fcdl_envs.chemical import ChemicalEnv, ChemicalVectorEnv
from sb3_fcdl.vec_env import GymVectorVecEnv, unbatch_infos

ENV_ID = "FCDL/Chemical-v0"


class CountdownEnv(gym.Env):
    """Counts down from the seed, and terminates at zero."""

    observation_space = spaces.Box(-10, 10, (1,), np.float32)
    action_space = spaces.Discrete(2)
    render_mode = "rgb_array"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = (options or {}).get("start", 3 if seed is None else seed)
        return self._observe(), {"start": self.left}

    def step(self, action):
        self.left -= 1
        return self._observe(), float(action), self.left <= 0, False, {"left": self.left}

    def render(self):
        return np.full((8, 8, 3), self.left, dtype=np.uint8)

    def action_masks(self):
        return np.array([True, self.left > 1])

    def add(self, number, times=1):
        return self.left + number * times

    def _observe(self):
        return np.array([self.left], dtype=np.float32)


class KeyedEnv(gym.Env):
    """A sum of actions, observed through every kind of space, with infos of every kind."""

    observation_space = spaces.Dict(
        place=spaces.Discrete(4),
        numbers=spaces.Box(-1, 9, (2,), np.float64),
        bits=spaces.MultiBinary(2),
        digits=spaces.MultiDiscrete([3, 4]),
    )
    action_space = spaces.MultiDiscrete([2, 3])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.sum = int(self.np_random.integers(4))
        return self._observe(), {"start": self.sum, "pair": np.arange(2)}

    def step(self, action):
        self.sum += int(action[0])
        info = {"sum": self.sum, "nested": {"pair": np.full(2, self.sum)}, "text": "a"} | ({"even": 1} if self.sum % 2 else {})
        return self._observe(), action[1] / 2, self.sum > 5, False, info

    def _observe(self):
        bits, digits = np.array([self.sum % 2, 1], dtype=np.int8), np.array([self.sum % 3, 1])
        return {"place": self.sum % 4, "numbers": np.array([self.sum, 0.5]), "bits": bits, "digits": digits}


class TupleEnv(KeyedEnv):
    """The same numbers, without names."""

    observation_space = spaces.Tuple(KeyedEnv.observation_space.spaces.values())

    def _observe(self):
        observation = super()._observe()
        return tuple(observation[key] for key in KeyedEnv.observation_space.spaces)


class PairEnv(CountdownEnv):
    """Two parts of one shape, which must not be stacked."""

    observation_space = spaces.Tuple((CountdownEnv.observation_space, spaces.Box(-20, 20, (1,), np.float64)))

    def _observe(self):
        return super()._observe(), np.array([self.left / 2])


def make_countdowns(vector_class=SyncVectorEnv, n_envs=3, limit=None):
    def make():
        return CountdownEnv() if limit is None else gym.wrappers.TimeLimit(CountdownEnv(), limit)

    return GymVectorVecEnv(vector_class([make] * n_envs, autoreset_mode=AutoresetMode.SAME_STEP))


def make_chemical(n_envs=4, **kwargs):
    return GymVectorVecEnv(ChemicalVectorEnv(n_envs, **kwargs))


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused(mode):
    env = SyncVectorEnv([CountdownEnv], autoreset_mode=mode)
    with pytest.raises(ValueError, match=f"autoreset_mode={mode} .* SB3 needs AutoresetMode.SAME_STEP.*vector_kwargs"):
        GymVectorVecEnv(env)


@pytest.mark.parametrize("env", [CountdownEnv(), "CartPole-v1", None])
def test_what_is_no_vector_environment_is_refused(env):
    with pytest.raises(TypeError, match=r"venv must be a gymnasium.vector.VectorEnv, got .*DummyVecEnv"):
        GymVectorVecEnv(env)


def test_unknown_autoreset_mode_is_refused():
    env = ChemicalVectorEnv(2)
    env.metadata = {}
    with pytest.raises(ValueError, match="autoreset_mode=None"):
        GymVectorVecEnv(env)


def test_steps_are_those_of_dummy_vec_env():
    """Everything that SB3 sees: observations, rewards, ends, infos and reset infos, over several episodes."""
    kwargs = {"task": "test", "n_noisy": 4}
    reference = DummyVecEnv([lambda: gym.make(ENV_ID, **kwargs)] * 4)
    assert_same_steps(make_chemical(**kwargs), reference, np.random.default_rng(0).integers(50, size=(60, 4)))


@pytest.mark.parametrize("vector_class", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize(
    ("make", "actions"),
    [
        (KeyedEnv, np.random.default_rng(0).integers([2, 3], size=(30, 3, 2))),
        (TupleEnv, np.random.default_rng(0).integers([2, 3], size=(30, 3, 2))),
        (PairEnv, np.random.default_rng(0).integers(2, size=(30, 3))),
        (PendulumEnv, np.random.default_rng(0).uniform(-2, 2, size=(30, 3, 1)).astype(np.float32)),
    ],
)
def test_steps_of_every_space_are_those_of_dummy_vec_env(vector_class, make, actions):
    makers = [lambda: gym.wrappers.TimeLimit(make(), 7)] * 3
    env = GymVectorVecEnv(vector_class(makers, autoreset_mode=AutoresetMode.SAME_STEP))
    assert_same_steps(env, DummyVecEnv(makers), actions)
    env.close()


def assert_same_steps(env, reference, actions_of_steps):
    assert env.observation_space == reference.observation_space
    assert env.action_space == reference.action_space
    for vec_env in (env, reference):
        vec_env.seed(3)
    assert_same(env.reset(), reference.reset())
    for actions in actions_of_steps:
        observations, rewards, dones, infos = env.step(actions)
        expected_observations, expected_rewards, expected_dones, expected_infos = reference.step(actions)
        assert_same(observations, expected_observations)
        assert rewards.dtype == expected_rewards.dtype == np.float32
        assert dones.dtype == expected_dones.dtype == bool
        assert np.array_equal(rewards, expected_rewards)
        assert np.array_equal(dones, expected_dones)
        for info, expected_info in zip(infos, expected_infos, strict=True):
            assert_same(info, expected_info)
        for info, expected_info in zip(env.reset_infos, reference.reset_infos, strict=True):
            assert_same(info, expected_info)


def assert_same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, tuple):
        assert isinstance(other, tuple)
        for part, other_part in zip(one, other, strict=True):
            assert_same(part, other_part)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    else:
        assert type(one) is type(other)
        assert one == other


def test_terminal_observation_and_reset_infos_of_environments_that_end_apart():
    env = make_countdowns()
    env.seed(1)
    assert env.reset().tolist() == [[1.0], [2.0], [3.0]]
    assert env.reset_infos == [{"start": 1}, {"start": 2}, {"start": 3}]
    observations, rewards, dones, infos = env.step(np.array([1, 0, 1]))
    assert observations.tolist() == [[3.0], [1.0], [2.0]]
    assert rewards.tolist() == [1.0, 0.0, 1.0]
    assert dones.tolist() == [True, False, False]
    assert infos[0].pop("terminal_observation").tolist() == [0.0]
    assert infos == [{"left": left, "TimeLimit.truncated": False} for left in (0, 1, 2)]
    assert env.reset_infos == [{"start": 3}, {"start": 2}, {"start": 3}]


def test_truncation_is_marked_unless_the_episode_terminated():
    env = make_countdowns(n_envs=2, limit=2)
    env.seed(2)
    env.reset()
    for _ in range(2):
        _, _, dones, infos = env.step(np.zeros(2, dtype=int))
    assert dones.tolist() == [True, True]
    assert [info["TimeLimit.truncated"] for info in infos] == [False, True]
    assert [info["terminal_observation"].tolist() for info in infos] == [[0.0], [1.0]]


def test_seeds_and_options_are_used_once():
    env = make_countdowns()
    env.seed(5)
    assert env.reset().tolist() == [[5.0], [6.0], [7.0]]
    env.set_options({"start": 9})
    assert env.reset().tolist() == [[9.0]] * 3
    assert env.reset().tolist() == [[3.0]] * 3
    env.set_options([{"start": 1}, {}, {}])
    with pytest.raises(ValueError, match=r"options=\[{'start': 1}, {}, {}\] are not allowed"):
        env.reset()


def test_arrays_are_fresh():
    env = GymVectorVecEnv(SyncVectorEnv([CountdownEnv] * 2, copy=False, autoreset_mode=AutoresetMode.SAME_STEP))
    env.seed(5)
    first = env.reset()
    second, rewards, *_ = env.step(np.zeros(2, dtype=int))
    rewards[:] = 7
    third, later_rewards, *_ = env.step(np.zeros(2, dtype=int))
    assert first.ravel().tolist() == [5.0, 6.0]
    assert second.ravel().tolist() == [4.0, 5.0]
    assert third.ravel().tolist() == [3.0, 4.0]
    assert later_rewards.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("vector_class", [SyncVectorEnv, AsyncVectorEnv])
def test_sub_environments_are_asked_one_by_one(vector_class):
    env = make_countdowns(vector_class)
    env.seed(1)
    env.reset()
    assert env.render_mode == "rgb_array"
    assert env.get_attr("left") == [1, 2, 3]
    assert env.get_attr("left", indices=[2, 0]) == [3, 1]
    assert [mask.tolist() for mask in env.env_method("action_masks")] == [[True, False], [True, True], [True, True]]
    assert env.env_method("add", 10, times=2) == [21, 22, 23]
    assert env.has_attr("action_masks")
    assert not env.has_attr("nothing")
    env.set_attr("left", 8)
    assert env.get_attr("left") == [8, 8, 8]
    assert env.env_is_wrapped(gym.Wrapper, indices=0) == [False]
    assert [image.max() for image in env.get_images()] == [8, 8, 8]
    env.close()


@pytest.mark.parametrize("vector_class", [SyncVectorEnv, AsyncVectorEnv])
def test_single_sub_environments_are_acted_on(vector_class):
    env = make_countdowns(vector_class)
    env.seed(1)
    env.reset()
    env.set_attr("left", 8, indices=1)
    assert env.get_attr("left") == [1, 8, 3]
    env.set_attr("left", [4, 5], indices=[-1])
    assert env.get_attr("left") == [1, 8, [4, 5]]
    env.set_attr("left", 7, indices=[2, 0])
    assert env.env_method("add", 10, indices=[1, 0]) == [18, 17]
    assert env.env_method("add", 10, times=2, indices=2) == [27]
    assert env.env_method("add", 10, indices=[1, 2, 0]) == [18, 17, 17]
    assert env.env_method("add", 10, indices=[]) == []
    for call in (env.get_attr, env.env_method, lambda name, indices: env.set_attr(name, 1, indices)):
        with pytest.raises(IndexError):
            call("left", indices=3)
    assert env.get_attr("left") == [7, 8, 7]
    env.close()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Gymnasium logs the traceback as a warning
def test_an_error_of_one_worker_is_raised():
    env = make_countdowns(AsyncVectorEnv)
    env.reset()
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        env.env_method("add", indices=1)
    env.close()


@pytest.mark.parametrize("vector_class", [SyncVectorEnv, AsyncVectorEnv])
def test_wrappers_of_sub_environments_are_found(vector_class):
    makers = [CountdownEnv, lambda: Monitor(gym.wrappers.TimeLimit(CountdownEnv(), 5))]
    env = GymVectorVecEnv(vector_class(makers, autoreset_mode=AutoresetMode.SAME_STEP))
    assert env.env_is_wrapped(Monitor) == [False, True]
    assert env.env_is_wrapped(gym.wrappers.TimeLimit, indices=[1, 0]) == [True, False]
    assert env.env_is_wrapped(gym.wrappers.TimeAwareObservation) == [False, False]
    env.close()


def test_batched_environment_answers_for_all_its_environments():
    # as many environments as objects: a graph must not be taken for one answer per environment
    env = make_chemical(10, forbid_root=True)
    masks = env.env_method("action_masks")
    assert len(masks) == 10
    assert all(np.array_equal(mask, ChemicalEnv(forbid_root=True).action_masks()) for mask in masks)
    assert [graph.shape for graph in env.get_attr("global_graph", indices=[1, 2])] == [(10, 11)] * 2
    assert env.get_attr("factorization")[9].state_names[9] == "obj9"
    assert env.has_attr("action_masks")
    assert not env.has_attr("nothing")
    env.set_attr("max_episode_steps", 2)
    assert env.get_attr("max_episode_steps") == [2] * 10
    env.reset()
    assert len({state["steps"] for state in env.env_method("get_state")}) == 1
    env.env_method("set_state", [{**state, "steps": index} for index, state in enumerate(env.env_method("get_state"))])
    assert [state["steps"] for state in env.env_method("get_state", indices=range(9, -1, -1))] == list(range(9, -1, -1))
    assert env.env_is_wrapped(Monitor, indices=[0, 1]) == [False, False]
    assert env.env_method("close") == [None] * 10


def test_single_environments_cannot_be_singled_out():
    env = make_chemical(3)
    for call in (lambda: env.env_method("action_masks", indices=[0]), lambda: env.set_attr("name", 1, indices=1)):
        with pytest.raises(ValueError, match=r"indices=.* are not allowed: .* only acts on all of its 3 environments"):
            call()


def test_images_are_those_of_the_vector_environment():
    assert make_chemical(2).get_images() == [None, None]
    env = make_chemical(2, render_mode="rgb_array", n_objects=4)
    env.reset()
    assert [image.shape for image in env.get_images()] == [(480, 480, 3)] * 2
    assert env.render().shape == (960, 480, 3)


@pytest.mark.parametrize("mode", ["sync", "async", "vector_entry_point"])
def test_metadata_are_those_of_the_environment(mode):
    kwargs = {} if mode == "vector_entry_point" else {"vector_kwargs": {"autoreset_mode": AutoresetMode.SAME_STEP}}
    env = GymVectorVecEnv(gym.make_vec(ENV_ID, 2, vectorization_mode=mode, render_mode="rgb_array", n_objects=4, **kwargs))
    assert {key: env.metadata[key] for key in ("render_modes", "render_fps")} == {
        "render_modes": ["rgb_array", "ansi"],
        "render_fps": 4,
    }
    env.close()


def test_metadata_without_frames_per_second_have_none():
    env = make_countdowns()
    assert "render_fps" not in env.metadata
    assert env.metadata["render_modes"] is not None


def test_infos_are_given_to_those_who_have_them():
    infos = {
        "speed": np.array([1.5, 2.5]),
        "graph": np.arange(4).reshape(2, 2),
        "_graph": np.array([False, True]),
        "nested": {"name": np.array(["a", None], dtype=object), "_name": np.array([True, False])},
        "_nested": np.array([True, False]),
        "_lonely": np.array([3, 4]),
    }
    first, second = unbatch_infos(infos, 2)
    assert first == {"speed": 1.5, "nested": {"name": "a"}, "_lonely": 3}
    assert type(first["speed"]) is float
    assert second.pop("graph").tolist() == [2, 3]
    assert second == {"speed": 2.5, "_lonely": 4}


@pytest.mark.parametrize("algorithm", [A2C, DQN])
def test_sb3_learns_on_it_and_evaluates_on_it(algorithm):
    env = VecMonitor(make_chemical(4))
    kwargs = {"learning_starts": 20, "buffer_size": 200} if algorithm is DQN else {}
    model = algorithm("MultiInputPolicy", env, seed=0, policy_kwargs={"net_arch": [8]}, **kwargs).learn(200)
    assert len(model.ep_info_buffer) == 8
    env.seed(7)
    returns, lengths = evaluate_policy(model, env, n_eval_episodes=4, return_episode_rewards=True)
    assert lengths == [25] * 4
    # Environment i of a batch is the single one that is seeded with 7 + i.
    expected = []
    for seed in range(7, 11):
        single = gym.make(ENV_ID)
        observation, _ = single.reset(seed=seed)
        expected.append(0.0)
        for _ in range(25):
            action, _ = model.predict(observation, deterministic=True)
            observation, reward, *_ = single.step(action)
            expected[-1] += reward
    assert returns == pytest.approx(expected, abs=1e-4)


def test_masked_ppo_never_takes_a_forbidden_action():
    contrib = pytest.importorskip("sb3_contrib")
    env = make_chemical(4, n_objects=4, n_colors=3, forbid_root=True)
    agent = contrib.MaskablePPO("MultiInputPolicy", env, n_steps=16, batch_size=64, n_epochs=1, seed=0)
    taken = []
    agent.learn(64, callback=lambda variables, _: taken.extend(variables["actions"].tolist()) or True)
    # The root's three colours are the first actions.
    assert len(taken) == 64 and min(taken) == 3
