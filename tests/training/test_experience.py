"""Recorded transitions as a model learns from them."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from gymnasium import spaces
from known import known_world
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tiny import tiny_fcdl

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics import Windows
from sb3_fcdl.training.experience import Experience
from sb3_fcdl.world.rewards import never_ends
from sb3_fcdl.world.world_model import WorldModel


class Counter(gym.Env):
    """A counter that goes up by one, and by ten with action 2; it is paid by the action, and over at 100."""

    observation_space = spaces.Box(0, 1000, (1,))
    action_space = spaces.Discrete(3)
    factorization = Factors((Variable("count"),), (Variable("action", 3),))


def counter_world(**outcomes: Any) -> WorldModel:
    return known_world(Counter(), lambda *_: pytest.fail("nobody predicts"), **outcomes)


def counted(starts: Sequence[int], n_steps: int = 5, n_envs: int = 1) -> ReplayBuffer:
    """Episodes from these counts on, one after the other, of ``n_envs`` equal environments."""
    buffer = ReplayBuffer(200 * n_envs, Counter.observation_space, Counter.action_space, "cpu", n_envs=n_envs)
    for count in starts:
        for step in range(n_steps):
            action = (count + step) % 3
            after = count + (10 if action == 2 else 1)
            is_last, ended = step == n_steps - 1, after >= 100
            infos = [{"TimeLimit.truncated": is_last and not ended}] * n_envs
            rows = (np.full((n_envs, 1), value) for value in (count, after, action))
            buffer.add(*rows, np.full(n_envs, action), np.full(n_envs, is_last or ended), infos)
            count = after
            if ended:
                break
    return buffer


def experience_of(buffer: ReplayBuffer, world: WorldModel | None = None, horizon: int = 1, **kwargs: Any) -> Experience:
    vec_normalize = kwargs.get("vec_normalize")
    return Experience(world or counter_world(), buffer, vec_normalize, horizon, np.random.default_rng(0))


@pytest.mark.parametrize("horizon", [1, 3])
def test_windows_and_their_outcomes_are_what_happened(horizon: int) -> None:
    world = counter_world()
    world.factorization.observe(th.tensor([[30.0], [50.0]]))  # mean 40, standard deviation 10
    windows, outcomes, ends = experience_of(counted([0, 50, 90]), world, horizon).draw(200)
    assert windows.state.shape == windows.next_state.shape == (200, horizon, 1)
    before, after = 40 + 10 * windows.state[..., 0], 40 + 10 * windows.next_state[..., 0]
    action = windows.action.argmax(-1)
    th.testing.assert_close(after, before + th.where(action == 2, 10, 1))
    # A window goes on as long as its episode does.
    th.testing.assert_close(before[:, 1:][windows.valid[:, 1:]], after[:, :-1][windows.valid[:, 1:]])
    assert windows.valid[:, 0].all() and windows.valid.all() == (horizon == 1)
    # Each valid transition of the windows is an outcome, in order.
    assert len(outcomes.state) == windows.valid.sum()
    for name in ("state", "action", "next_state"):
        assert th.equal(getattr(outcomes, name), getattr(windows, name)[windows.valid])
    assert th.equal(outcomes.reward, action[windows.valid].float()) and outcomes.goal.shape == (len(outcomes.state), 0)
    assert th.equal(outcomes.terminated, after[windows.valid] > 99.5)
    assert outcomes.terminated.any() and not outcomes.terminated.all()
    # Further ends are of the one episode that ended: 98 or so, and never a time limit.
    assert len(ends.state) == Experience.N_ENDS and ends.terminated.all()
    assert (40 + 10 * ends.next_state).min() > 99.5


def test_only_a_learned_end_is_given_further_ends() -> None:
    buffer = counted([90])
    assert experience_of(buffer).draw(4).ends is not None
    assert experience_of(buffer, counter_world(termination_fn=never_ends)).draw(4).ends is None
    assert experience_of(counted([0])).draw(4).ends is None


def test_a_goal_is_that_of_its_own_transition() -> None:
    space = spaces.Dict(place=spaces.Discrete(5), wish=spaces.Box(0, 9, (2,)))

    class Wishing:
        observation_space = space
        action_space = spaces.Discrete(2)
        factorization = Factors({"place": (Variable("place", 5),)}, (Variable("action", 2),), goal=("wish",))

    buffer = DictReplayBuffer(10, space, Wishing.action_space, "cpu")
    for place in range(4):
        rows = [
            {"place": np.array([place + later]), "wish": np.array([[place + later, 9.0 - place - later]])} for later in (0, 1)
        ]
        buffer.add(*rows, np.array([0]), np.array([-float(place)]), np.array([False]), [{}])
    experience = experience_of(buffer, known_world(Wishing(), lambda *_: pytest.fail("nobody predicts")), horizon=2)
    outcomes = experience.draw(50).outcomes
    place = outcomes.state.argmax(-1).float()
    assert th.equal(outcomes.goal, th.stack([place, 9 - place], dim=1)) and th.equal(outcomes.reward, -place)
    windows, goal, rewards = experience.recorded(20, length=2)
    assert th.equal(goal[:, 0], windows.state[:, 0].argmax(-1).float())
    assert np.array_equal(-rewards[:, 0], goal[:, 0].numpy())


def test_what_is_held_out_is_judged_by_and_never_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    world, buffer = counter_world(), ReplayBuffer(1000, Counter.observation_space, Counter.action_space, "cpu", n_envs=10)
    for row in range(100):
        serial = 10.0 * row + np.arange(10)[:, None]
        buffer.add(serial, serial + 10, np.zeros((10, 1)), np.zeros(10), np.zeros(10), [{}] * 10)
    experience = experience_of(buffer, world)

    def serials(windows: Windows) -> list[float]:
        return windows.state[windows.valid].flatten().tolist()

    # Without anything held out every transition is learned from and judged by, the latter once.
    assert set(serials(experience.draw(20_000).windows)) == set(range(1000))
    assert sorted(serials(experience.judged(10_000))) == list(range(1000))
    monkeypatch.setattr(world.dynamics, "holds_out", 10)
    drawn, judged = experience.draw(20_000), serials(experience.judged(10_000))
    learned = set(serials(drawn.windows))
    assert learned == set(drawn.outcomes.state.flatten().tolist())
    assert learned | set(judged) == set(range(1000)) and not learned & set(judged)
    assert len(judged) == len(set(judged)) and 40 < len(judged) < 160


def test_it_is_a_view_of_the_buffer_that_the_model_has_now() -> None:
    model = tiny_fcdl(Counter(), policy="MlpPolicy", dynamics="mlp", dynamics_kwargs={"hidden_dim": 8}, train_horizon=1)
    assert model.experience.is_empty
    for starts in ([0], [60]):
        model.replay_buffer = counted(starts)
        assert model.experience.replay_buffer is model.replay_buffer and not model.experience.is_empty
        for windows in (model.experience.draw(50).windows, model.experience.recorded(50).windows):
            met = set(model.policy.world.decode(windows.state).flatten().tolist())
            assert met == set(model.replay_buffer.observations[:5, 0, 0].tolist())
    held = model.experience
    assert len(held.judged(100).state) == 5
    counted_on = model.replay_buffer
    counted_on.add(np.array([[500]]), np.array([[501]]), np.array([[0]]), np.zeros(1), np.zeros(1), [{}])
    assert len(held.judged(100).state) == 6
    model.replay_buffer = None
    with pytest.raises(ValueError, match="no replay buffer"):
        _ = model.experience


def test_looking_is_repeatable_and_leaves_training_alone() -> None:
    experience = experience_of(counted([0, 30, 60]))
    before = experience.rng.bit_generator.state
    first, again, other = (experience.recorded(40, length=2, seed=seed) for seed in (5, 5, 6))
    assert th.equal(first.windows.state, again.windows.state) and np.array_equal(first.rewards, again.rewards)
    assert not th.equal(first.windows.state, other.windows.state)
    # The reward is the number of the action.
    assert np.array_equal(first.rewards, first.windows.action.argmax(-1).numpy())
    experience.take_scale()
    assert experience.disagreements() == [] and experience.rng.bit_generator.state == before
    with pytest.raises(ValueError, match="the replay buffer is empty: learn"):
        experience_of(counted([])).recorded(3)


def test_scale_is_taken_once_from_a_buffer_that_was_filled_without_the_model() -> None:
    experience = experience_of(counted([]))
    experience.take_scale()
    moments = experience.world.factorization.moments
    assert moments.count.item() == 0
    experience = experience_of(counted([10, 70]), experience.world)
    experience.take_scale()
    held = experience.replay_buffer.observations[:10].ravel()
    assert moments.count.item() == Experience.N_SCALED
    # Of 4096 drawn with replacement: three standard errors.
    assert moments.mean.item() == pytest.approx(float(held.mean()), abs=3 * float(held.std()) / 64)
    assert moments.std.item() == pytest.approx(float(held.std()), rel=0.05)
    experience_of(counted([500]), experience.world).take_scale()
    assert moments.count.item() == Experience.N_SCALED


def test_disagreements_are_those_of_the_recorded_transitions() -> None:
    """A reward that is twice as much is wrong wherever the action is not 0."""

    def doubled(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return 2 * action.argmax(-1)

    buffer = counted([0], n_steps=9)
    (sentence,) = experience_of(buffer, counter_world(reward_fn=doubled, termination_fn=never_ends)).disagreements()
    n_wrong = int((experience_of(buffer).recorded(Experience.N_CHECKED).rewards > 0).sum())
    assert 0 < n_wrong < 256
    assert f"reward_fn disagrees with the environment in {n_wrong} of 256 recorded transitions" in sentence


def test_observations_are_those_that_vec_normalize_hands_out() -> None:
    env = VecNormalize(DummyVecEnv([GatedEnv]), clip_obs=1e6)
    env.reset()
    for _ in range(30):
        env.step(np.array([[1.5]], dtype=np.float32))
    buffer = ReplayBuffer(20, env.observation_space, env.action_space, "cpu")
    rows = np.random.default_rng(0).normal(3, 2, (20, 4)).astype(np.float32)
    for row in rows:
        buffer.add(row[None], row[None] + 1, np.zeros((1, 1)), np.zeros(1), np.zeros(1), [{}])
    world = known_world(GatedEnv(), lambda *_: pytest.fail("nobody predicts"))
    for norm_obs in (True, False):
        env.norm_obs = norm_obs
        experience = experience_of(buffer, world, vec_normalize=env)
        assert experience.is_normalized == norm_obs
        mean, deviation = (env.obs_rms.mean, np.sqrt(env.obs_rms.var + env.epsilon)) if norm_obs else (0, 1)
        state = experience.judged(100).state[:, 0].numpy()
        expected = (rows - mean) / deviation
        np.testing.assert_allclose(np.sort(state, axis=0), np.sort(expected, axis=0), rtol=1e-4, atol=1e-4)
    # Who has learned from the one cannot go on with the other.
    experience.check_units()
    world.factorization.is_normalized.fill_(1)
    for look in (experience.check_units, lambda: experience.recorded(3)):
        with pytest.raises(ValueError, match=r"load it with the environment in VecNormalize\.load\(\)"):
            look()
