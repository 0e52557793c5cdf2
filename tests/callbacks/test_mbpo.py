"""Hosts that learn from imagined transitions: how many, which, and that nothing else changes."""

import inspect
import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from gymnasium import spaces
from stable_baselines3 import DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize
from tiny import tiny_env

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl import FCDLPolicy
from sb3_fcdl.callbacks import MBPOCallback
from sb3_fcdl.dynamics import DenseDynamics
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.dynamics.ensemble import Ensemble
from sb3_fcdl.imagination import MixedReplay

QUICK: dict[str, Any] = {
    "dynamics_kwargs": {"hidden_dim": 8},
    "n_members": 3,
    "n_elites": 2,
    "n_branches": 30,
    "learning_starts": 16,
    "train_freq": 8,
    "model_gradient_steps": 2,
    "batch_size": 8,
    "max_disagreement": 1e9,
}
OPTIONS: dict[str, Any] = {"learning_starts": 10, "batch_size": 20, "buffer_size": 200, "train_freq": 1}
HOSTS: dict[str, type[BaseAlgorithm]] = {"DQN": DQN, "SAC": SAC, "TD3": TD3, "DDPG": DDPG}


@pytest.fixture(autouse=True)
def few_first_updates(monkeypatch):
    monkeypatch.setattr(MBPOCallback, "N_FIRST", 4)


class ButtonsEnv(GatedEnv):
    """GatedEnv with three buttons: left, nothing, right."""

    action_space = spaces.Discrete(3)
    factorization = Factors(state=GatedEnv.factorization.state, action=(Variable("push", 3),))

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return super().step(np.array([2.0 * (int(action) - 1)]))


def make_host(name: str, env: gym.Env | VecEnv | None = None, **options: Any) -> BaseAlgorithm:
    host = HOSTS[name] if name in HOSTS else getattr(pytest.importorskip("sb3_contrib"), name)
    env = env or (ButtonsEnv() if name in ("DQN", "QRDQN") else GatedEnv())
    common = {"seed": 0, "device": "cpu", "policy_kwargs": {"net_arch": [8]}, "gradient_steps": 1}
    return host("MlpPolicy", env, **common | OPTIONS | options)


def weights(host: BaseAlgorithm) -> th.Tensor:
    return th.cat([parameter.detach().flatten() for parameter in host.policy.parameters()])


class Watch(BaseCallback):
    """What the host has while transitions are collected, and the buffers of the epochs."""

    def __init__(self, mbpo: MBPOCallback) -> None:
        super().__init__()
        self.mbpo = mbpo
        self.seen: list[tuple] = []
        self.epochs: dict[int, Any] = {}

    def _on_step(self) -> bool:
        self.seen.append((self.model.gradient_steps, type(self.model.replay_buffer).__name__))
        if self.mbpo.branches is not None:
            self.epochs.setdefault(id(self.mbpo.branches), (self.num_timesteps, self.mbpo.branches))
        return True


@pytest.mark.parametrize("name", ["SAC", "DQN"])
@pytest.mark.parametrize("real_ratio", [0.99, 1.0])  # of 20 transitions both are all; with 1 nothing is imagined
def test_one_update_on_recorded_transitions_is_what_the_host_does_alone_bit_for_bit(name, real_ratio):
    alone = make_host(name).learn(60)
    mbpo = MBPOCallback(gradient_steps=1, real_ratio=real_ratio, **QUICK)
    beside, *others = make_host(name).learn(60, mbpo), make_host(name).learn(60, MBPOCallback(gradient_steps=1, **QUICK))
    assert mbpo.trainer.n_updates > 0
    assert mbpo.branches is None if real_ratio == 1 else mbpo.branches.buffer.size() == 30
    assert th.equal(weights(alone), weights(beside)) and alone._n_updates == beside._n_updates
    assert not th.equal(weights(alone), weights(others[0]))


@pytest.mark.parametrize("name", ["SAC", "TD3", "TQC", "DDPG", "DQN", "QRDQN"])
def test_every_off_policy_host_makes_as_many_updates_as_asked_with_the_ratio_asked(name, monkeypatch):
    batches = []
    sample = MixedReplay.sample

    def spied(self, batch_size, env=None):
        n = {}
        for part in ("recorded", "imagined"):
            draw = getattr(self, part).sample
            monkeypatch.setattr(
                getattr(self, part), "sample", lambda k, env=None, p=part, f=draw: n.update({p: k}) or f(k, env=env)
            )
        batch = sample(self, batch_size, env)
        monkeypatch.undo()
        batches.append((n, len(batch.rewards)))
        monkeypatch.setattr(MixedReplay, "sample", spied)
        return batch

    monkeypatch.setattr(MixedReplay, "sample", spied)
    env = make_vec_env(ButtonsEnv if name in ("DQN", "QRDQN") else GatedEnv, n_envs=2)
    host = make_host(name, env, train_freq=3)
    mbpo = MBPOCallback(gradient_steps=2, real_ratio=0.25, **QUICK | {"train_freq": 6})
    watch = Watch(mbpo)
    host.learn(60, [watch, mbpo])
    # Two environments, three steps a rollout. The buffer holds 16 transitions in the ninth step, and an epoch begins in every
    # sixth: from the fourth rollout on 12 updates each. Alone, the second and third made one each.
    assert host._n_updates == 2 + 7 * 12
    assert batches == [({"recorded": 5, "imagined": 15}, 20)] * (7 * 12)
    assert watch.seen == [(1, "ReplayBuffer")] * 30 and host.gradient_steps == 1
    assert host.replay_buffer is mbpo.replay_buffer and host.replay_buffer.pos == 30


def test_the_second_buffer_holds_exactly_the_last_epoch():
    """Of thirty branches; in the 16th step the buffer holds 15 transitions, so the first epoch begins in the 24th."""
    mbpo = MBPOCallback(**QUICK)
    watch = Watch(mbpo)
    host = make_host("SAC").learn(48, [watch, mbpo])
    assert mbpo.trainer.n_updates == 4 + 3 * 2
    epochs = [branches.buffer for _, branches in watch.epochs.values()]
    assert [timestep for timestep, _ in watch.epochs.values()] == [25, 33, 41]
    assert all(buffer.size() == 30 for buffer in [*epochs, mbpo.branches.buffer])
    assert mbpo.branches.buffer not in epochs
    recorded = host.replay_buffer.observations[:48, 0]
    starts = mbpo.branches.buffer.observations[:, 0]
    assert all((recorded == start).all(1).any() for start in starts)
    # Paid is where x is, by the published function.
    arrived = mbpo.branches.buffer.next_observations[:, 0]
    np.testing.assert_allclose(mbpo.branches.buffer.rewards[:, 0], -np.abs(arrived[:, 2] - 1), atol=1e-5)


def test_actions_are_those_of_the_policy_but_for_the_share_at_random(monkeypatch):
    mbpo = MBPOCallback(**QUICK | {"n_branches": 4000})
    host = make_host("TD3").learn(24, mbpo)
    buffer = mbpo.branches.buffer
    n_updates = host._n_updates
    assert n_updates == 13 + 10  # from the eleventh step on one each, then ten
    observations = np.zeros((4000, 4), dtype=np.float32)
    actions = mbpo._act(observations)
    greedy = host.policy.scale_action(host.policy.predict(observations[:1], deterministic=True)[0])
    share = (actions != greedy).mean()
    assert share == pytest.approx(0.25, abs=3 * np.sqrt(0.1875 / 4000)) and np.abs(actions).max() <= 1
    monkeypatch.setattr(MBPOCallback, "RANDOM_SHARE", 1.0)
    drawn = mbpo._act(observations)
    np.testing.assert_allclose(np.histogram(drawn, 4, (-1, 1))[0] / 4000, 0.25, atol=0.03)
    assert buffer.actions.dtype == host.replay_buffer.actions.dtype


class LinearDynamics(DenseDynamics):
    """The change of the numbers is linear in state and action, its standard deviation is the same everywhere."""

    def __init__(self, factors: Factors) -> None:
        super().__init__(factors)
        self.change = th.nn.Linear(factors.state_width + factors.action_width, factors.state_width)
        self.log_std = th.nn.Parameter(th.zeros(factors.state_width))

    def distribution(self, state: th.Tensor, action: th.Tensor) -> StateDistribution:
        change = self.change(th.cat([state, action], dim=-1))
        return self.layout.distribution(th.stack([change, self.log_std.expand_as(change)], dim=-1).flatten(1), state)


def test_what_is_imagined_is_what_the_environment_would_have_done(monkeypatch):
    """A linear system, two environments, in its own units whatever VecNormalize makes of them."""
    monkeypatch.setattr(MBPOCallback, "N_FIRST", 300)
    env = VecNormalize(VecMonitor(DummyVecEnv([SlideEnv] * 2)))
    mbpo = MBPOCallback(LinearDynamics, **QUICK | {"dynamics_kwargs": None, "learning_rate": 0.03, "learning_starts": 80})
    host = make_host("SAC", env).learn(100, mbpo)
    buffer = mbpo.branches.buffer
    before, actions = buffer.observations[:, 0], 2 * buffer.actions[:, 0]
    expected = before @ SlideEnv.matrix.T + actions @ SlideEnv.push.T
    recorded = host.replay_buffer.observations[:50].reshape(-1, 2)
    assert all((recorded == start).all(1).any() for start in before)
    error = (buffer.next_observations[:, 0] - expected) / recorded.std(0)
    assert np.abs(error).max() < 0.1 and np.abs(error.mean(0)).max() < 0.03  # its steps have a standard deviation of 0.02


class SlideEnv(gym.Env):
    """Two numbers, in units far from 1."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-2, 2, (1,), np.float32)
    matrix, push = np.array([[0.9, 0.001], [0, 0.8]]), np.array([[0.05], [100.0]])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.state, self.n_steps = self.np_random.normal(size=2) * [0.3, 200], 0
        return self.state.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.state = self.matrix @ self.state + self.push @ action
        self.n_steps += 1
        return self.state.astype(np.float32), float(self.state[0]), False, self.n_steps == 20, {}


def test_dict_observations():
    mbpo = MBPOCallback("fcdl_tree", **QUICK)
    env = tiny_env()
    host = DQN("MultiInputPolicy", env, seed=0, policy_kwargs={"net_arch": [8]}, **OPTIONS).learn(40, mbpo)
    buffer = mbpo.branches.buffer
    assert buffer.size() == 30 and host._n_updates == 13 + 10 * 17
    np.testing.assert_array_equal(buffer.observations["goal"], buffer.next_observations["goal"])


def test_a_host_is_saved_as_it_is_and_a_model_as_a_policy(tmp_path):
    mbpo = MBPOCallback(**QUICK)
    host = make_host("SAC").learn(40, [mbpo, CheckpointCallback(20, str(tmp_path), save_replay_buffer=True)])
    loaded = SAC.load(tmp_path / "rl_model_40_steps.zip", env=GatedEnv())
    assert loaded.gradient_steps == 1 and loaded.replay_buffer is not None
    loaded.load_replay_buffer(tmp_path / "rl_model_replay_buffer_40_steps.pkl")
    again = MBPOCallback(**QUICK)
    loaded.learn(16, again, reset_num_timesteps=False)
    assert again.trainer.n_updates == 4 + 2 and again.branches.buffer.size() == 30
    mbpo.save(tmp_path / "model.pt")
    policy = FCDLPolicy.load(tmp_path / "model.pt")
    assert isinstance(policy.dynamics, Ensemble)
    windows = mbpo.experience.recorded(20).windows
    with th.no_grad():
        one, other = (each.world.step(windows.state[:, 0], windows.action[:, 0]).next_state for each in (mbpo.policy, policy))
    assert th.equal(one.mode(), other.mode()) and th.equal(one.log_std, other.log_std)
    n_updates = mbpo.trainer.n_updates
    host.learn(8, mbpo, reset_num_timesteps=False)
    assert mbpo.trainer.n_updates == n_updates + 2


def test_the_host_is_given_back_when_training_fails(monkeypatch):
    host, mbpo = make_host("SAC"), MBPOCallback(**QUICK)
    host.learn(30, mbpo)
    monkeypatch.setattr(type(host), "train", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        host.learn(10, mbpo, reset_num_timesteps=False)
    assert host.replay_buffer is mbpo.replay_buffer and host.gradient_steps == 1


# What the gate opens is not in it: the gate, x with the push, and y are independent.
INDEPENDENT = [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]]
COUNTERFACTUAL: dict[str, Any] = QUICK | {
    "dynamics": "oracle",
    "dynamics_kwargs": {"graph": INDEPENDENT, "hidden_dim": 8},
    "real_ratio": 0.25,
    "counterfactual_ratio": 0.5,
}


def sources(mbpo: MBPOCallback, host: BaseAlgorithm, monkeypatch, n: int = 8) -> list[dict[str, int]]:
    """From where the batches of ``n`` further steps came."""
    batches: list[dict[str, int]] = []
    buffers = {
        "recorded": lambda: mbpo.replay_buffer,
        "imagined": lambda: mbpo.branches and mbpo.branches.buffer,
        "counterfactual": lambda: mbpo.counterfactuals,
    }
    sample = ReplayBuffer.sample

    def spied(self, batch_size, env=None):
        (name,) = (name for name, buffer in buffers.items() if self is buffer())
        batches[-1][name] = batch_size
        return sample(self, batch_size, env)

    def counted(self, batch_size, env=None, of=MixedReplay.sample):
        if host.replay_buffer is self:
            batches.append({})
        return of(self, batch_size, env)

    monkeypatch.setattr(ReplayBuffer, "sample", spied)
    monkeypatch.setattr(MixedReplay, "sample", counted)
    host.learn(n, mbpo, reset_num_timesteps=False)
    monkeypatch.undo()
    return batches


def test_batches_have_their_share_of_counterfactual_transitions(monkeypatch):
    mbpo = MBPOCallback(**COUNTERFACTUAL)
    host = make_host("SAC").learn(32, mbpo)
    swapped, recorded = mbpo.counterfactuals, host.replay_buffer
    assert 0 < swapped.size() <= 30
    assert sources(mbpo, host, monkeypatch) == [{"imagined": 5, "recorded": 5, "counterfactual": 10}] * 80
    before = [recorded.observations[:32, 0, columns] for columns in (slice(0, 2), slice(2, 3), slice(3, 4))]
    for part, columns in zip(before, (slice(0, 2), slice(2, 3), slice(3, 4)), strict=True):
        assert all((part == row[columns]).all(1).any() for row in swapped.observations[:, 0])
    whole = {tuple(row) for row in recorded.observations[:32, 0]}
    assert any(tuple(row) not in whole for row in swapped.observations[:, 0])
    np.testing.assert_allclose(swapped.rewards[:, 0], -np.abs(swapped.next_observations[:, 0, 2] - 1), atol=1e-6)
    # Two epochs later there are others.
    assert mbpo.counterfactuals is not swapped


def test_recorded_transitions_stand_in_where_all_parts_are_connected(monkeypatch):
    connected = {"dynamics_kwargs": {"graph": np.ones((3, 4)).tolist(), "hidden_dim": 8}}
    mbpo = MBPOCallback(**COUNTERFACTUAL | connected)
    host = make_host("SAC").learn(32, mbpo)
    assert mbpo.counterfactuals.size() == 0
    assert sources(mbpo, host, monkeypatch) == [{"imagined": 5, "recorded": 15}] * 80


def test_shares_that_are_a_whole_batch_leave_nothing_to_imagination(monkeypatch):
    mbpo = MBPOCallback(**COUNTERFACTUAL | {"real_ratio": 0.3, "counterfactual_ratio": 0.7})
    host = make_host("TD3").learn(32, mbpo)
    assert sources(mbpo, host, monkeypatch) == [{"recorded": 6, "counterfactual": 14}] * 80
    assert mbpo.branches is None


def test_all_of_a_batch_may_be_recorded():
    alone = make_host("SAC", gradient_steps=3).learn(40)
    mbpo = MBPOCallback(gradient_steps=3, real_ratio=1.0, **QUICK)
    host = make_host("SAC").learn(40, mbpo)
    assert mbpo.branches is None and mbpo.trainer.n_updates > 0
    # Thirteen updates before the first epoch, then as many as alone.
    assert host._n_updates == 13 + 3 * 17 == alone._n_updates - 2 * 13


class Leave(BaseCallback):
    """Keeps the host's numbers of updates at both ends of rollouts, and interrupts after the callbacks before it."""

    def __init__(self, at: int | None = None) -> None:
        super().__init__()
        self.at = at
        self.seen: set[int] = set()

    def _on_rollout_start(self) -> None:
        self.seen.add(self.model.gradient_steps)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.seen.add(self.model.gradient_steps)
        if self.num_timesteps == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("reset", [True, False])
def test_an_interrupted_host_learns_alone_as_always_and_is_saved_as_it_is(reset, tmp_path):
    mbpo, first, last = MBPOCallback(**QUICK), Leave(), Leave(at=30)
    host = make_host("SAC")
    with pytest.raises(KeyboardInterrupt):
        host.learn(40, [first, mbpo, last])
    assert first.seen == last.seen == {1}
    # From the eleventh step one update each; from the 24th, where the first epoch begins, ten.
    assert host._n_updates == 13 + 10 * 7
    assert vars(host).keys() == vars(make_host("SAC").learn(0)).keys()
    host.save(tmp_path / "host.zip")
    loaded = SAC.load(tmp_path / "host.zip", env=GatedEnv())
    loaded.replay_buffer = host.replay_buffer
    for each in (host, loaded):
        n_updates = each._n_updates
        each.learn(40 if reset else 10, reset_num_timesteps=reset)
        assert type(each) is SAC and each._n_updates == n_updates + (30 if reset else 10)


def test_a_host_that_makes_no_updates_of_its_own_makes_the_imagined_ones():
    host = make_host("SAC", gradient_steps=0)
    host.learn(30, MBPOCallback(**QUICK))
    assert host._n_updates == 10 * 7 and type(host).__base__ is SAC  # no class upon class
    host.gradient_steps = 1
    host.learn(4, reset_num_timesteps=False)
    assert type(host) is SAC and host._n_updates == 10 * 7 + 4


def test_arguments_can_be_written_in_yaml():
    defaults = {name: parameter.default for name, parameter in inspect.signature(MBPOCallback).parameters.items()}
    assert json.loads(json.dumps(defaults)) == defaults
    MBPOCallback(**defaults | {"rollout_length": [1, 15, 1, 1000]})


def test_mistakes_are_told():
    with pytest.raises(ValueError, match=r"PPO learns from no replay buffer.*off-policy algorithm"):
        PPO("MlpPolicy", GatedEnv(), device="cpu").learn(10, MBPOCallback(**QUICK))
    with pytest.raises(TypeError, match="dynamics_kwargs has an unknown key 'n_cods'"):
        MBPOCallback(dynamics_kwargs={"n_cods": 3})
    with pytest.raises(ValueError, match="n_elites must be an integer, at least 1 and at most n_members = 7"):
        MBPOCallback(n_elites=8)
    with pytest.raises(ValueError, match="rollout_length"):
        MBPOCallback(rollout_length=[1, 2, 3])
    with pytest.raises(ValueError, match=r"real_ratio=0.6 and counterfactual_ratio=0.5 .* at most 1"):
        MBPOCallback("fcdl_tree", real_ratio=0.6, counterfactual_ratio=0.5)
    with pytest.raises(ValueError, match=r"MLPDynamics has no graph.* dynamics='fcdl' or 'fcdl_tree'"):
        MBPOCallback(counterfactual_ratio=0.5)
