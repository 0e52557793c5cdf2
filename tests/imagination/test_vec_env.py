"""The model as a VecEnv: its steps are held against environments whose dynamics are known."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from gymnasium import spaces
from known import known_world
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize
from tiny import N_ACTIONS, tiny_env, tiny_fcdl, tiny_vec_env

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics import MLPDynamics
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.imagination import ImaginedVecEnv
from sb3_fcdl.world.factorization import Factorization
from sb3_fcdl.world.world_model import WorldModel

GOAL, LIMIT, SLIP = 4, 8, 0.2


class CorridorEnv(gym.Env):
    """Five places; a step goes the other way with probability ``SLIP``, costs 1, and the last place ends it."""

    observation_space = spaces.Discrete(GOAL + 1)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(GOAL))
        return self.place, {}

    def step(self, action):
        slips = self.np_random.random() < SLIP
        self.place = max(self.place + (1 if bool(action) != slips else -1), 0)
        return self.place, -1.0, self.place == GOAL, False, {}


def one_each(state, action, next_state, goal):
    return -th.ones(len(state))


def at_goal(state, action, next_state):
    return next_state[:, GOAL] > 0.5


def recorded(env, observations):
    """A full buffer of these observations."""
    buffer = ReplayBuffer(len(observations), env.observation_space, env.action_space, "cpu")
    for observation in observations:
        buffer.add(np.array([observation]), np.array([observation]), np.array([env.action_space.sample()]), 0.0, False, [{}])
    return buffer


def corridor(slip=SLIP, starts=range(GOAL), termination_fn=at_goal, **kwargs):
    steps = np.zeros((GOAL + 1, 2, GOAL + 1))
    for place in range(GOAL + 1):
        for action in range(2):
            steps[place, action, min(place + 1, GOAL)] += (1 - slip) if action else slip
            steps[place, action, max(place - 1, 0)] += slip if action else (1 - slip)
    log_odds = th.as_tensor(steps, dtype=th.float32).log()

    def next_state(layout, state, action):
        none = state[:, :0]
        return StateDistribution(layout, log_odds[state.argmax(-1), action.argmax(-1)].unsqueeze(1), none, none)

    world = known_world(CorridorEnv(), next_state, reward_fn=one_each, termination_fn=termination_fn)
    return ImaginedVecEnv(world, recorded(CorridorEnv(), list(starts)), **kwargs)


def gated(observations, **kwargs):
    """The dynamics of ``GatedEnv``, but for a standard deviation of e^-20."""

    def next_state(layout, state, action):
        raw = world.decode(state.double())
        x = raw[:, 2:3] + world.decode_action(action) / 10
        after = th.cat([raw[:, :2], x, raw[:, 3:] + raw[:, 1:2] * raw[:, 2:3] / 10], dim=1)
        numbers = layout.numbers(world.factorization.moments.normalize(after))
        return StateDistribution(layout, raw[:, None, :2].float().log(), numbers, th.full_like(numbers, -20))

    world = known_world(GatedEnv(), next_state, reward_fn=GatedEnv.reward_fn, termination_fn=kwargs.pop("termination_fn"))
    observations = np.array(observations, dtype=np.float32)
    # Two numbers whose encoding is not the identity.
    world.factorization.observe(th.as_tensor(observations) + th.tensor([[0, 0, 0.3, 7.0]]))
    return ImaginedVecEnv(world, recorded(GatedEnv(), observations), **kwargs)


def never(state, action, next_state):
    return th.zeros(len(state))


STARTS = [[1, 0, -0.5, 5], [0, 1, 0.25, 4], [0, 1, 1.5, 3]]


def test_steps_are_those_of_the_environment_whose_model_is_exact():
    env = gated(STARTS, n_envs=6, horizon=4, termination_fn=never)
    env.seed(0)
    real, rng = [GatedEnv() for _ in range(6)], np.random.default_rng(0)
    observations = env.reset()
    assert observations.dtype == np.float32 and observations.shape == (6, 4)
    for step in range(1, 9):
        for index, observation in enumerate(observations):
            real[index].reset()
            real[index].gate, real[index].x, real[index].y = int(observation[1]), *map(float, observation[2:])
        actions = rng.uniform(-2, 2, size=(6, 1)).astype(np.float32)
        before = observations.copy()
        observations, rewards, dones, infos = env.step(actions)
        results = [single.step(action) for single, action in zip(real, actions, strict=True)]
        expected = np.array([result[0] for result in results])
        assert rewards.dtype == np.float32 and dones.dtype == bool
        np.testing.assert_allclose(rewards, [result[1] for result in results], atol=1e-5)
        assert dones.all() == dones.any() == (step % 4 == 0)
        assert infos[0].get("TimeLimit.truncated") is bool(step % 4 == 0)
        arrived = np.array([info["terminal_observation"] for info in infos]) if dones.all() else observations
        np.testing.assert_allclose(arrived, expected, atol=1e-5)
        assert not np.allclose(arrived, before, atol=1e-3)
        if dones.all():
            assert all(row.tolist() in STARTS for row in observations)


def test_episodes_end_one_by_one():
    """Where ``x`` reaches 1; at the horizon too, and then it is no truncation."""

    def far(state, action, next_state):
        return next_state[:, 2] >= 0.999

    env = gated([[1, 0, 0.6, 5], [0, 1, 0.8, 5]], n_envs=20, horizon=2, termination_fn=far)
    env.seed(1)
    starts = env.reset()
    near = np.isclose(starts[:, 2], 0.8)
    assert 0 < near.sum() < 20
    first, rewards, dones, infos = env.step(np.full((20, 1), 2.0, dtype=np.float32))
    assert np.array_equal(dones, near) and not any(info["TimeLimit.truncated"] for info in infos)
    np.testing.assert_allclose(rewards, np.where(near, 0.0, -0.2), atol=1e-5)
    assert [("terminal_observation" in info) for info in infos] == near.tolist()
    np.testing.assert_allclose(first[~near, 2], 0.8, atol=1e-5)
    _, _, dones, infos = env.step(np.full((20, 1), 2.0, dtype=np.float32))
    # The others arrive at the horizon; those that began again arrive if they began near.
    began_near = near & np.isclose(first[:, 2], 0.8)
    assert np.array_equal(dones, ~near | began_near)
    assert not any(info["TimeLimit.truncated"] for info in infos)
    _, _, dones, infos = env.step(np.full((20, 1), -2.0, dtype=np.float32))
    waits = near & ~began_near
    assert np.array_equal(dones, waits) and [info["TimeLimit.truncated"] for info in infos] == waits.tolist()


def test_next_states_have_the_probabilities_of_the_model():
    env = corridor(starts=[2], n_envs=4000, horizon=1)
    env.seed(0)
    assert set(env.reset().tolist()) == {2} and env.reset().dtype == np.int64
    actions = np.arange(4000) % 2
    _, rewards, dones, infos = env.step(actions)
    arrived = np.array([info["terminal_observation"] for info in infos])
    assert dones.all() and (rewards == -1).all() and set(arrived.tolist()) == {1, 3}
    error = 3 * np.sqrt(SLIP * (1 - SLIP) / 2000)
    assert (arrived[actions == 1] == 3).mean() == pytest.approx(1 - SLIP, abs=error)
    assert (arrived[actions == 0] == 3).mean() == pytest.approx(SLIP, abs=error)


def test_an_end_happens_with_its_probability():
    env = corridor(n_envs=4000, horizon=1, termination_fn=lambda state, action, next_state: th.full((len(state),), 0.3))
    env.seed(0)
    env.reset()
    _, _, dones, infos = env.step(np.zeros(4000, dtype=int))
    assert dones.all()
    truncated = np.mean([info["TimeLimit.truncated"] for info in infos])
    assert truncated == pytest.approx(0.7, abs=3 * np.sqrt(0.3 * 0.7 / 4000))


def test_starts_are_uniform_over_what_was_recorded():
    env = corridor(starts=[0, 1, 1, 3], n_envs=4000)
    env.seed(0)
    counts = np.bincount(env.reset(), minlength=4)
    np.testing.assert_allclose(counts / 4000, [0.25, 0.5, 0, 0.25], atol=0.025)


@pytest.mark.slow
def test_ppo_learns_in_an_exact_model_as_it_does_in_the_environment():
    """Return of the average episode in the course of training: the same for both, and another for a model that errs."""

    def returns(make_env, seed):
        settings = {"n_steps": 8, "batch_size": 64, "n_epochs": 4, "learning_rate": 3e-3, "stats_window_size": 10_000}
        model = PPO("MlpPolicy", VecMonitor(make_env()), seed=seed, policy_kwargs={"net_arch": [16]}, **settings)
        return np.mean([episode["r"] for episode in model.learn(2048).ep_info_buffer])

    def real():
        return DummyVecEnv([lambda: gym.wrappers.TimeLimit(CorridorEnv(), LIMIT)] * 32)

    def imagined(slip):
        return corridor(slip, n_envs=32, horizon=LIMIT)

    # Far apart: SB3 gives the 32 environments consecutive seeds.
    seeds = range(0, 4000, 1000)
    runs = np.array(
        [[returns(make, seed) for seed in seeds] for make in (real, lambda: imagined(SLIP), lambda: imagined(0.4))]
    )
    variances = runs.var(axis=1, ddof=1) / len(seeds)
    difference, error = np.abs(runs.mean(axis=1) - runs[0].mean()), np.sqrt(variances + variances[0])
    assert difference[1] < 2 * error[1] < 0.5
    assert difference[2] > 4 * error[2]


def test_the_same_seed_gives_the_same_rollout():
    def rollout(env):
        observations = [env.reset()]
        for _ in range(5):
            observations.append(env.step(np.ones(8, dtype=int))[0])
        return np.array(observations).tolist()

    env, runs = corridor(n_envs=8, horizon=3), []
    for seed in (5, 5, 6):
        env.seed(seed)
        runs.append(rollout(env))
    # A seed counts once.
    runs += [rollout(env), rollout(corridor(n_envs=8, horizon=3)), rollout(corridor(n_envs=8, horizon=3))]
    assert runs[0] == runs[1]
    assert len({str(run) for run in runs}) == 5


def test_arrays_are_fresh():
    env = gated(STARTS, n_envs=3, horizon=9, termination_fn=never)
    env.seed(0)
    first = env.reset()
    kept = first.copy()
    second, rewards, _, _ = env.step(np.zeros((3, 1), dtype=np.float32))
    assert np.array_equal(first, kept)
    second[:], rewards[:] = 99, 99
    third, later_rewards, _, _ = env.step(np.zeros((3, 1), dtype=np.float32))
    assert third.max() < 10 and later_rewards.max() <= 0


def test_observations_are_in_their_space():
    class BoundedEnv(GatedEnv):
        observation_space = spaces.Box(np.array([0, 0, -1, -1], np.float32), np.array([1, 1, 1, 9], np.float32))

    env = gated([[1, 0, 0.95, 5]], n_envs=2, horizon=5, termination_fn=never)
    env.world.factorization.observation_space = BoundedEnv.observation_space
    env.reset()
    observations, rewards, _, _ = env.step(np.array([[2.0], [-2.0]], dtype=np.float32))
    np.testing.assert_allclose(observations[:, 2], [1.0, 0.75], atol=1e-5)
    # What is observed is what is paid for: |1 - 1| and |0.75 - 1|.
    np.testing.assert_allclose(rewards, [0.0, -0.25], atol=1e-5)


@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN])
def test_algorithms_learn_on_dict_observations(algorithm):
    model = tiny_fcdl(tiny_vec_env(2)).learn(60)
    env = model.imagined_env(n_envs=4, horizon=3)
    assert env.observation_space is model.observation_space and env.action_space is model.action_space
    observations = env.reset()
    assert all(observations[key].dtype == space.dtype for key, space in env.observation_space.items())
    stepped, rewards, _, _ = env.step(np.zeros(4, dtype=int))
    # The task is that of the start; a colour is one of three.
    assert np.array_equal(stepped["goal"], observations["goal"])
    assert (stepped["state"].reshape(4, 4, 3).sum(-1) == 1).all()
    # Paid is the share of the objects that have the colour of the task.
    matched, wanted = ((each * stepped["goal"]).sum(-1) for each in (stepped["state"], stepped["goal"]))
    assert rewards == pytest.approx(matched / wanted)
    settings = {DQN: {"learning_starts": 8, "buffer_size": 100}, PPO: {"n_steps": 8, "batch_size": 16}, A2C: {}}[algorithm]
    agent = algorithm("MultiInputPolicy", VecMonitor(env), policy_kwargs={"net_arch": [8]}, **settings).learn(64)
    assert {episode["l"] for episode in agent.ep_info_buffer} == {3}
    if algorithm is DQN:
        assert agent.replay_buffer.timeouts[:16].sum() == agent.replay_buffer.dones[:16].sum() == 20


@pytest.mark.parametrize("wrapper", [VecMonitor, VecNormalize, lambda env: VecFrameStack(env, 3)])
def test_sac_learns_on_a_box_in_wrappers(wrapper):
    env = wrapper(gated(STARTS, n_envs=4, horizon=3, termination_fn=never))
    agent = SAC("MlpPolicy", env, learning_starts=16, buffer_size=100, policy_kwargs={"net_arch": [8]}, seed=0).learn(80)
    assert agent._n_updates == 16
    assert agent.replay_buffer.timeouts[:20].sum() == 24  # every third of 20 steps, 4 environments


def test_masks_are_a_function_of_the_observation():
    contrib = pytest.importorskip("sb3_contrib")

    def only_right_from_even(observations):
        assert observations.shape == (16,)
        return np.stack([observations % 2 == 1, np.ones(16, dtype=bool)], axis=1)

    env = corridor(n_envs=16, horizon=3, action_mask_fn=only_right_from_even)
    assert env.has_attr("action_masks") and not corridor().has_attr("action_masks")
    observations = env.reset()
    masks = np.stack(VecMonitor(env).env_method("action_masks"))
    assert np.array_equal(masks[:, 0], observations % 2 == 1)
    assert np.array_equal(env.env_method("action_masks", indices=[3]), masks[3:4])
    agent = contrib.MaskablePPO("MlpPolicy", env, n_steps=16, batch_size=64, n_epochs=1, seed=0)
    seen = {}
    agent.learn(256, callback=lambda variables, _: seen.update(variables["rollout_buffer"].__dict__) or True)
    places, actions = seen["observations"].ravel(), seen["actions"].ravel()
    assert len(places) == 256 and (actions[places % 2 == 0] == 1).all() and (actions[places % 2 == 1] == 0).any()


def test_imagining_does_not_disturb_training():
    weights = []
    for imagines in (True, False):
        model = tiny_fcdl().learn(30)
        if imagines:
            env = model.imagined_env(n_envs=3)
            env.reset()
            for _ in range(10):
                env.step(np.arange(3))
        weights.append(model.learn(20, reset_num_timesteps=False).policy.state_dict())
    assert all(th.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_steps_are_those_of_the_present_weights():
    model = tiny_fcdl(tiny_env(), dynamics="mlp", dynamics_kwargs={"hidden_dim": 8}).learn(30)
    env, steps = model.imagined_env(n_envs=200), []
    for _ in range(2):
        env.seed(0)
        env.reset()
        steps.append(env.step(np.arange(200) % N_ACTIONS)[0]["state"])
        with th.no_grad():
            for parameter in model.dynamics.parameters():
                parameter.mul_(5)
    assert not np.array_equal(*steps)


@pytest.mark.parametrize("arguments", [{"n_envs": 0}, {"horizon": 0}])
def test_numbers_below_one_are_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be an integer, at least 1"):
        corridor(**arguments)


def test_an_empty_buffer_is_refused():
    with pytest.raises(ValueError, match="at least one transition"):
        tiny_fcdl().imagined_env().reset()


def test_options_and_attributes_are_refused():
    env = corridor(n_envs=2)
    env.set_options({"start": 3})
    with pytest.raises(ValueError, match=r"options=.*'start': 3.* recorded observations"):
        env.reset()
    with pytest.raises(AttributeError, match=r"no attribute 'place', only \['render_mode'\]"):
        env.get_attr("place")
    with pytest.raises(AttributeError, match="to set, such as 'place'"):
        env.set_attr("place", 3)
    with pytest.raises(AttributeError, match="no attribute 'action_masks'"):
        env.env_method("action_masks")


def test_observations_that_vec_normalize_changed_are_refused():
    model = tiny_fcdl(VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")])), policy="MlpPolicy", learning_starts=1000)
    with pytest.raises(ValueError, match="norm_obs=False"):
        model.imagined_env()


def test_keys_that_nobody_predicts_are_refused():
    space = spaces.Dict(state=spaces.Discrete(2), clock=spaces.Box(0, 1, (1,)))
    factors = Factors({"state": (Variable("state", 2),)}, (Variable("action", 2),))
    world = WorldModel(Factorization(space, spaces.Discrete(2), factors), MLPDynamics(factors)).eval()
    buffer = DictReplayBuffer(4, space, spaces.Discrete(2), "cpu")
    first = {"state": np.array([1]), "clock": np.zeros((1, 1), np.float32)}
    buffer.add(first, first, np.array([0]), np.zeros(1), np.zeros(1), [{}])
    env = ImaginedVecEnv(world, buffer, n_envs=2)
    env.reset()
    with pytest.raises(ValueError, match=r"\['clock'\].* neither state nor goal"):
        env.step(np.zeros(2, dtype=int))
