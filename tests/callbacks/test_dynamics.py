import inspect
import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO, SAC, HerReplayBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl import FCDLPolicy
from sb3_fcdl.callbacks import DynamicsCallback
from sb3_fcdl.callbacks.dynamics import _Recorder

QUICK: dict[str, Any] = {
    "learning_starts": 10,
    "batch_size": 8,
    "dynamics_kwargs": {"hidden_dim": 8},
    "planner_kwargs": {"horizon": 2},
}
OFF_POLICY: dict[str, Any] = {"learning_starts": 10, "batch_size": 8, "buffer_size": 200}
# Of a host by name.
OPTIONS: dict[str, dict[str, Any]] = {
    "A2C": {"n_steps": 8},
    "PPO": {"n_steps": 32, "batch_size": 16},
    "TRPO": {"n_steps": 8, "batch_size": 8},
    "MaskablePPO": {"n_steps": 8, "batch_size": 8},
    "RecurrentPPO": {"n_steps": 8, "batch_size": 8},
    "DQN": OFF_POLICY,
    "SAC": OFF_POLICY,
}


class ButtonsEnv(GatedEnv):
    """GatedEnv with three buttons: left, nothing, right."""

    action_space = spaces.Discrete(3)
    factorization = Factors(state=GatedEnv.factorization.state, action=(Variable("push", 3),))

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return super().step(np.array([2.0 * (action - 1)]))


class ShiftEnv(gym.Env):
    """Three registers of three values: the first takes the action, the second the first, the third adds the second."""

    observation_space = spaces.MultiDiscrete([3, 3, 3])
    action_space = spaces.Discrete(3)
    # Rows: registers at the next step; columns: registers, action.
    graph = np.array([[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 1, 0]], dtype=bool)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.registers, self.n_steps = self.np_random.integers(3, size=3), 0
        return self.registers.copy(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        first, second, third = self.registers
        self.registers, self.n_steps = np.array([action, first, (third + second) % 3]), self.n_steps + 1
        return self.registers.copy(), float(first == 2), False, self.n_steps == 10, {}


class DiaryEnv(gym.Env):
    """Draws numbers, ends where one is large or after five steps, and keeps a diary of all transitions as they were."""

    def __init__(self, action_space: spaces.Space, is_dict: bool) -> None:
        box = spaces.Box(-100, 100, (2,), np.float32)
        self.is_dict = is_dict
        self.observation_space = spaces.Dict({"kind": spaces.Discrete(3), "numbers": box}) if is_dict else box
        self.action_space = action_space
        self.diary: list[tuple] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        before, after = self.numbers, self.observe()
        terminated = bool(self.numbers[1] > 70)
        truncated = self.n_steps == 5 and not terminated
        reward = float(np.float32(self.numbers[0]))
        self.diary.append((before, np.array(action), reward, self.numbers, terminated, truncated))
        return after, reward, terminated, truncated, {}

    def action_masks(self) -> np.ndarray:
        return np.ones(3, dtype=bool)

    def observe(self) -> Any:
        self.numbers = self.np_random.uniform(-100, 100, 2).astype(np.float32)
        return {"kind": int(self.numbers[0] > 0), "numbers": self.numbers.copy()} if self.is_dict else self.numbers.copy()


def diary_vec_env(action_space: spaces.Space, is_dict: bool, normalizes: bool) -> VecEnv:
    # Clipped nowhere, so that an ended episode's last observation comes back from VecNormalize.
    env = VecMonitor(DummyVecEnv([lambda: DiaryEnv(action_space, is_dict)] * 2))
    keys = ["numbers"] if is_dict else None
    return VecNormalize(env, clip_obs=1e6, norm_obs_keys=keys) if normalizes else env


def numbers_of(observations: Any) -> np.ndarray:
    return observations["numbers"] if isinstance(observations, dict) else observations


def make_host(name: str, env: gym.Env | VecEnv, policy: str = "MlpPolicy", **options: Any) -> BaseAlgorithm:
    hosts: dict[str, type[BaseAlgorithm]] = {"PPO": PPO, "A2C": A2C, "DQN": DQN, "SAC": SAC}
    host = hosts[name] if name in hosts else getattr(pytest.importorskip("sb3_contrib"), name)
    common = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [8]}}
    return host(policy, env, **common | OPTIONS[name] | options)


@pytest.mark.parametrize(
    ("host", "policy", "action_space", "normalizes"),
    [
        ("PPO", "MlpPolicy", spaces.Box(-2, 6, (1,), np.float32), True),
        ("PPO", "MultiInputPolicy", spaces.Discrete(3), False),
        ("A2C", "MultiInputPolicy", spaces.MultiDiscrete([2, 3]), True),
        ("TRPO", "MlpPolicy", spaces.Box(-2, 6, (1,), np.float32), False),
        ("MaskablePPO", "MlpPolicy", spaces.Discrete(3), True),
        ("RecurrentPPO", "MlpLstmPolicy", spaces.Discrete(3), False),
    ],
)
def test_buffer_beside_an_on_policy_host_holds_what_happened(host, policy, action_space, normalizes):
    env = diary_vec_env(action_space, policy == "MultiInputPolicy", normalizes)
    model = make_host(host, env, policy, n_steps=8, **({"batch_size": 8} if host == "PPO" else {}))
    callback = DynamicsCallback("mlp", **QUICK | {"learning_starts": 1000})
    model.learn(16, callback).learn(32, callback)  # the second one begins with a reset
    buffer = callback.replay_buffer
    diaries = env.get_attr("diary")
    assert buffer.pos == len(diaries[0]) == 24 and callback.trainer.n_updates == 0
    for index, diary in enumerate(diaries):
        before, action, reward, after, terminated, truncated = map(np.array, zip(*diary, strict=True))
        assert 0 < terminated.sum() and 0 < truncated.sum()
        np.testing.assert_array_equal(numbers_of(buffer.observations)[:24, index], before)
        # VecNormalize hands out the last observation of an episode normalized only.
        np.testing.assert_allclose(numbers_of(buffer.next_observations)[:24, index], after, atol=1e-4 if normalizes else 0)
        np.testing.assert_array_equal(buffer.rewards[:24, index], reward.astype(np.float32))
        np.testing.assert_array_equal(buffer.dones[:24, index], terminated | truncated)
        np.testing.assert_array_equal(buffer.timeouts[:24, index], truncated)
        taken = action.reshape(24, -1)
        expected = (taken + 2) / 4 - 1 if isinstance(action_space, spaces.Box) else taken
        np.testing.assert_allclose(buffer.actions[:24, index], expected, atol=1e-6)
    seen = np.concatenate([[entry[0] for entry in diary] for diary in diaries]).astype(np.float64)
    np.testing.assert_allclose(callback.policy.world.factorization.moments.std[-2:], seen.std(0), rtol=1e-9)


class RecorderBesideBuffer(BaseCallback):
    """What an on-policy host is given, at an off-policy one."""

    def _on_training_start(self) -> None:
        self.recorder = _Recorder(self.model, 200)
        self.recorder.start(self.model)

    def _on_step(self) -> bool:
        self.recorder.store(self.locals["buffer_actions"], self.locals)
        return True


@pytest.mark.parametrize(
    ("host", "policy", "action_space"),
    [("SAC", "MlpPolicy", spaces.Box(-2, 6, (1,), np.float32)), ("DQN", "MultiInputPolicy", spaces.Discrete(3))],
)
@pytest.mark.parametrize("normalizes", [False, True])
def test_recorder_stores_bit_for_bit_what_an_off_policy_host_stores(host, policy, action_space, normalizes):
    env = diary_vec_env(action_space, policy == "MultiInputPolicy", normalizes)
    beside = RecorderBesideBuffer()
    model = make_host(host, env, policy).learn(80, beside)
    assert beside.recorder.replay_buffer.pos == model.replay_buffer.pos == 40
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        recorded, stored = (getattr(buffer, name) for buffer in (beside.recorder.replay_buffer, model.replay_buffer))
        for key in stored if isinstance(stored, dict) else [None]:
            np.testing.assert_array_equal(recorded if key is None else recorded[key], stored if key is None else stored[key])


@pytest.mark.parametrize(("host", "env"), [("PPO", GatedEnv), ("DQN", ButtonsEnv)])
def test_host_learns_the_same_bit_for_bit(host, env):
    def learn(seed: int, callback: BaseCallback | None) -> BaseAlgorithm:
        return make_host(host, make_vec_env(env, n_envs=2), seed=seed).learn(96, callback)

    def weights(policy: th.nn.Module) -> th.Tensor:
        return th.cat([parameter.detach().flatten() for parameter in policy.parameters()])

    callbacks = [DynamicsCallback(log_freq=10, seed=seed, **QUICK) for seed in (None, None, 1)]
    alone, *others, another = learn(0, None), *(learn(0, callback) for callback in callbacks), learn(1, None)
    for beside in others:
        assert th.equal(weights(alone.policy), weights(beside.policy))
        assert [episode["r"] for episode in alone.ep_info_buffer] == [episode["r"] for episode in beside.ep_info_buffer]
    assert not th.equal(weights(alone.policy), weights(another.policy))
    first, again, reseeded = callbacks
    # The model has ten transitions after the fifth step of two environments, or one later where the host stores after it.
    assert first.trainer.n_updates == {"PPO": 64 - 4, "DQN": 48 - 4}[host] // 2
    assert th.equal(weights(first.policy), weights(again.policy)) and not th.equal(
        weights(first.policy), weights(reseeded.policy)
    )


@pytest.mark.parametrize(
    ("host", "options"),
    [
        pytest.param("PPO", {}, marks=pytest.mark.slow),
        ("DQN", {"buffer_size": 2000, "exploration_final_eps": 1.0, "train_freq": 500}),
    ],
)
def test_learns_the_true_graph_and_plans(host, options, tmp_path):
    callback = DynamicsCallback(
        dynamics_kwargs={"hidden_dim": 32, "n_codes": 4},
        learning_rate=3e-3,
        learning_starts=300,
        batch_size=64,
        train_freq=60,
        gradient_steps=10,
        planner_kwargs={"horizon": 3, "n_candidates": 64},
    )
    make_host(host, ShiftEnv(), **options).learn(1500, callback)
    assert callback.dynamics.free_entries.all() and callback.dynamics.context_variables == ()
    assert np.array_equal(callback.causal_graph().edges, ShiftEnv.graph)
    assert np.array_equal(callback.local_graph(np.array([2, 0, 1]), 1).edges, ShiftEnv.graph)

    # Paid wherever the second register is 2: from the second step on, if the action is always 2.
    policy = callback.as_policy()
    env = ShiftEnv()
    env.reset(seed=0)
    firsts = [env.reset()[0][0] for _ in range(4)]
    vec_env = DummyVecEnv([ShiftEnv])
    vec_env.seed(0)
    vec_env.reset()
    returns, _ = evaluate_policy(policy, vec_env, n_eval_episodes=3, return_episode_rewards=True, warn=False)
    assert returns == [9 + (first == 2) for first in firsts[:3]]
    callback.save(tmp_path / "policy.pt")
    loaded = FCDLPolicy.load(tmp_path / "policy.pt")
    observations = np.array([[2, 0, 1], [0, 1, 2]])
    assert np.array_equal(loaded.predict(observations, deterministic=True)[0], [2, 2])


def test_buffer_of_an_off_policy_host_is_read_in_place_with_what_it_held_before():
    env = VecNormalize(make_vec_env(GatedEnv, n_envs=2))
    model = make_host("SAC", env).learn(60)
    held = model.replay_buffer.observations[:30, :, 2:].reshape(60, 2).astype(np.float64)
    callback = DynamicsCallback("mlp", **QUICK)
    model.learn(2, callback)
    assert callback.replay_buffer is model.replay_buffer
    # A sample of 4096, with replacement.
    moments = callback.policy.world.factorization.moments
    np.testing.assert_allclose(moments.mean[2:], held.mean(0), atol=0.1 * held.std(0).max())
    np.testing.assert_allclose(moments.std[2:], held.std(0), rtol=0.1)


def test_goals_of_hindsight_are_left_alone():
    env = BitFlippingEnv(n_bits=3, continuous=False)
    model = make_host("DQN", env, "MultiInputPolicy", replay_buffer_class=HerReplayBuffer)
    callback = DynamicsCallback("mlp", **QUICK)
    model.learn(40, callback)
    outcomes = callback.experience.draw(100).outcomes
    # The environment's goal is all ones, those of hindsight are what was reached; the last columns are the observation.
    names = callback.policy.world.factors.state_names
    goal = [index for index, name in enumerate(names) if name.startswith("desired_goal")]
    values = callback.dynamics.layout.categories(outcomes.state)
    assert len(goal) == 3 and callback.trainer.n_updates > 0 and (values[:, goal] == 1).all()


@pytest.mark.parametrize("host", ["PPO", "DQN"])
def test_logs_stand_beside_those_of_the_host(host, tmp_path):
    pytest.importorskip("matplotlib")
    callback = DynamicsCallback(log_freq=8, **QUICK)
    make_host(host, ButtonsEnv(), tensorboard_log=str(tmp_path)).learn(100, callback)
    events = EventAccumulator(str(tmp_path / f"{host}_1"))
    events.Reload()
    tags = events.Tags()
    assert {"dynamics/dynamics_loss", "dynamics/update_ms", "causal/shd", "model/error_1", "train/loss"} <= set(
        tags["scalars"]
    )
    assert {"causal/union", "causal/codes"} <= set(tags["images"])
    # The reward is published: nothing of it is learned. The host's own entries are its own.
    assert not {"dynamics/reward_loss", "train/dynamics_loss", "time/update_ms"} & set(tags["scalars"])


def test_policy_is_a_copy_and_a_further_learn_goes_on():
    callback = DynamicsCallback("mlp", **QUICK)
    model = make_host("A2C", GatedEnv()).learn(40, callback)
    taken, n_updates = callback.as_policy(), callback.trainer.n_updates
    before = [parameter.clone() for parameter in callback.policy.parameters()]
    model.learn(40, callback)
    assert callback.trainer.n_updates == n_updates + 20 and callback.replay_buffer.pos == 80
    assert all(map(th.equal, before, taken.parameters()))
    assert not all(map(th.equal, before, callback.policy.parameters()))


@pytest.mark.parametrize("host", ["PPO", "DQN"])
def test_others_learn_in_the_imagination_of_the_model(host):
    """Also beside a host that sees normalised numbers: the imagined ones are the environment's."""
    env = DummyVecEnv([ButtonsEnv])
    callback = DynamicsCallback("mlp", **QUICK)
    make_host(host, VecNormalize(env) if host == "PPO" else env).learn(64, callback)
    recorded = callback.replay_buffer.observations[: callback.replay_buffer.size()].reshape(-1, *env.observation_space.shape)
    imagined = callback.imagined_env(n_envs=4, horizon=3)
    starts = imagined.reset()
    assert all((recorded == start).all(-1).any() for start in starts)
    observations, rewards, _, _ = imagined.step(np.array([0, 1, 2, 2]))
    # Paid is where x is, by the published function.
    np.testing.assert_allclose(rewards, -np.abs(observations[:, 2] - 1), atol=1e-5)
    agent = A2C("MlpPolicy", VecMonitor(imagined), n_steps=4, device="cpu").learn(64)
    assert {episode["l"] for episode in agent.ep_info_buffer} == {3}


def test_arguments_can_be_written_in_yaml():
    defaults = {name: parameter.default for name, parameter in inspect.signature(DynamicsCallback).parameters.items()}
    assert json.loads(json.dumps(defaults)) == defaults
    assert DynamicsCallback(**defaults).policy_kwargs["dynamics"] == "fcdl_tree"


@pytest.mark.parametrize(
    "nest",
    [
        lambda callback: EvalCallback(GatedEnv(), callback_after_eval=callback),
        lambda callback: EvalCallback(GatedEnv(), callback_on_new_best=callback),
        lambda callback: EveryNTimesteps(10, CallbackList([callback])),
    ],
)
@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
def test_a_nested_callback_is_refused(nest):
    with pytest.raises(ValueError, match=r"nested in (EvalCallback|EveryNTimesteps).*give it to learn\(\) itself"):
        make_host("A2C", GatedEnv()).learn(10, nest(DynamicsCallback(**QUICK)))


def test_mistakes_are_told():
    def learn(callback: DynamicsCallback, env: gym.Env | None = None, policy: str = "MlpPolicy") -> BaseAlgorithm:
        return A2C(policy, env or GatedEnv(), device="cpu").learn(10, callback)

    with pytest.raises(ValueError, match="learning_starts=500 transitions never fit the replay buffer, which holds 400"):
        learn(DynamicsCallback(**(QUICK | {"buffer_size": 400, "learning_starts": 500})))
    for name in ("buffer_size", "learning_starts", "batch_size", "train_freq", "gradient_steps", "train_horizon", "log_freq"):
        with pytest.raises(ValueError, match=f"{name}=0 is not allowed; {name} must be an integer, at least "):
            DynamicsCallback(**{name: 0})
    with pytest.raises(ValueError, match=r"is an image.*ObservationWrapper"):
        learn(DynamicsCallback(), FakeImageEnv(), "CnnPolicy")
    with pytest.raises(TypeError, match="dynamics_kwargs has an unknown key 'n_cods'"):
        learn(DynamicsCallback(dynamics_kwargs={"n_cods": 3}))
    callback = DynamicsCallback("mlp", **QUICK)
    learn(callback)
    with pytest.raises(ValueError, match="beside another model"):
        learn(callback)
    ars = pytest.importorskip("sb3_contrib").ARS("LinearPolicy", GatedEnv(), n_delta=1)
    with pytest.raises(ValueError, match="ARS is neither"):
        ars.learn(10, DynamicsCallback())
