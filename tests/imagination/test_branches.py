"""Branches of models that are known: every transition is one that the system could have made, and no other is kept."""

import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from gymnasium import spaces
from known import known_world
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from tiny import tiny_fcdl

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.dynamics.ensemble import MixtureDistribution
from sb3_fcdl.imagination import MixedReplay, RolloutLength, branch

DISCOUNT = 0.8


class DecayEnv(GatedEnv):
    """One number, ``x' = (x + u) / 2`` with u of -1 or 1, which is paid: the best action is always 1."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)
    factorization = Factors(state=(Variable("x"),), action=(Variable("u", 2),))


def halfway(layout, state, action):
    mean = (state + action[:, 1:] - action[:, :1]) / 2
    return StateDistribution(layout, state.new_zeros(len(state), 0, 1), mean, th.full_like(mean, -20))


def paid(state, action, next_state):
    return next_state[:, 0]


def never(state, action, next_state):
    return th.zeros(len(state))


def decay_world(next_state=halfway, termination_fn=never):
    return known_world(DecayEnv(), next_state, reward_fn=paid, termination_fn=termination_fn)


def random_actions(seed=0):
    rng = np.random.default_rng(seed)
    return lambda observations: rng.integers(2, size=(len(observations), 1))


def branches(starts, length, world=None, max_disagreement=0.5):
    starts = np.asarray(starts, dtype=np.float32).reshape(-1, 1)
    return branch(world or decay_world(), starts, random_actions(), length, max_disagreement, th.Generator().manual_seed(0))


def test_transitions_are_those_of_the_model_one_step_after_the_other():
    starts = np.linspace(-3, 3, 50)
    buffer, cut_off = branches(starts, length=3)
    assert buffer.size() == 150 and buffer.full and cut_off == 0
    before, after, actions = buffer.observations[:, 0, 0], buffer.next_observations[:, 0, 0], buffer.actions[:, 0, 0]
    np.testing.assert_allclose(after, (before + 2 * actions - 1) / 2, atol=1e-5)
    np.testing.assert_allclose(buffer.rewards[:, 0], after, atol=1e-6)
    np.testing.assert_array_equal(before[:50], starts.astype(np.float32))
    np.testing.assert_array_equal(before[50:], after[:100])
    assert not buffer.dones.any() and not buffer.timeouts.any()


def test_a_branch_ends_with_its_episode():
    """Above 0.5: half of the actions lead there."""
    buffer, _ = branches(np.full(40, 0.5), 2, decay_world(termination_fn=lambda state, action, after: after[:, 0] > 0.5))
    ended = buffer.next_observations[:, 0, 0] > 0.5
    np.testing.assert_array_equal(buffer.dones[:, 0], ended)
    assert buffer.size() == 40 + 40 - ended[:40].sum() and 0 < ended[:40].sum() < 40


def test_what_members_disagree_about_is_left_out_and_ends_the_branch():
    """The second member is off by ``|x|``: the disagreement is half of that."""

    def two(layout, state, action):
        one = halfway(layout, state, action)
        members = (th.stack([one.logits] * 2), th.stack([one.mean, one.mean + state.abs()]), th.stack([one.log_std] * 2))
        return MixtureDistribution.of(StateDistribution(layout, *members))

    starts = np.repeat([0.0, 0.3, 1.9, 2.1], 10)
    buffer, cut_off = branches(starts, 2, decay_world(two), max_disagreement=1)
    kept = buffer.observations[:30, 0, 0]
    np.testing.assert_array_equal(kept, starts[:30].astype(np.float32))
    second = np.abs(buffer.observations[30:, 0, 0])
    continued = np.abs(buffer.next_observations[:30, 0, 0])
    np.testing.assert_array_equal(second, continued[continued <= 2])
    assert cut_off == pytest.approx(1 - buffer.size() / (40 + 30)) and (continued > 2).any()
    # Of each row one member is drawn.
    expected = (kept + 2 * buffer.actions[:30, 0, 0] - 1) / 2
    error = buffer.next_observations[:30, 0, 0] - expected
    assert np.all(np.isclose(error, 0, atol=1e-5) | np.isclose(error, np.abs(kept), atol=1e-5))
    assert 0 < np.isclose(error[10:], 0, atol=1e-5).sum() < 20
    nothing, cut_off = branches([3.0], 2, decay_world(two), max_disagreement=1)
    assert nothing.size() == 0 and cut_off == 1


def test_dict_observations_keep_their_task():
    model = tiny_fcdl().learn(30)
    starts = model.imagined_env(n_envs=20).reset()
    act = lambda observations: np.zeros((len(observations["goal"]), 1), dtype=int)  # noqa: E731
    buffer, _ = branch(model.policy.world, starts, act, 2, 1, th.Generator().manual_seed(0))
    assert buffer.size() == 40
    for key in ("observations", "next_observations"):
        np.testing.assert_array_equal(getattr(buffer, key)["goal"][:20, 0], starts["goal"])
    np.testing.assert_array_equal(buffer.observations["state"][20:], buffer.next_observations["state"][:20])


@pytest.mark.parametrize(("timestep", "length"), [(0, 1), (20, 1), (48, 2), (49, 3), (84, 5), (150, 10), (999, 10)])
def test_rollout_length_grows_between_two_timesteps(timestep, length):
    """Nine steps longer in 130: one in 14.4."""
    assert RolloutLength.of([1, 10, 20, 150]).at(timestep) == length
    assert RolloutLength.of(4).at(timestep) == 4


def buffer_of(value, n, buffer_class=ReplayBuffer, **kwargs):
    buffer = buffer_class(n, DecayEnv.observation_space, DecayEnv.action_space, "cpu", **kwargs)
    for _ in range(n):
        buffer.add(np.full((1, 1), value), np.full((1, 1), value), np.array([1]), np.array([value]), np.array([False]), [{}])
    return buffer


@pytest.mark.parametrize(("ratio", "n_recorded"), [(0, 0), (0.05, 1), (0.3, 6), (0.5, 10), (1, 20)])
def test_batches_have_their_share_of_recorded_transitions(ratio, n_recorded):
    batch = MixedReplay(buffer_of(1.0, 9), buffer_of(2.0, 9), ratio, 0.9).sample(20)
    expected = [1.0] * n_recorded + [2.0] * (20 - n_recorded)
    for part in (batch.observations, batch.next_observations, batch.rewards):
        assert part.ravel().tolist() == expected
    assert batch.actions.shape == batch.dones.shape == (20, 1) and batch.discounts is None


def test_an_imagined_transition_is_one_step_beside_several_recorded_ones():
    recorded = buffer_of(1.0, 9, NStepReplayBuffer, n_steps=3, gamma=0.5)
    recorded.pos, recorded.full = 3, False
    batch = MixedReplay(recorded, buffer_of(2.0, 9), 0.5, 0.5).sample(400)
    # From the first, second and third of three transitions; a window ends at the newest.
    assert set(batch.discounts[:200].ravel().tolist()) == {0.5, 0.25, 0.125}
    assert batch.discounts[200:].ravel().tolist() == [0.5] * 200


def test_values_that_are_learned_in_an_exact_linear_model_are_the_closed_form():
    """
    With action 1 for ever ``x_t = 1 - (1 - x) / 2^t``, so ``V(x) = 1 / (1 - g) - (1 - x) / (2 - g)``, and
    ``Q(x, u) = x' + g V(x')`` is linear in x.
    """
    kwargs = {"gamma": DISCOUNT, "learning_rate": 0.02, "batch_size": 256, "tau": 0.1, "target_update_interval": 1}
    env = DecayEnv()
    env.reset = lambda **_: (np.zeros(1, dtype=np.float32), {})
    agent = DQN("MlpPolicy", env, policy_kwargs={"net_arch": []}, seed=0, device="cpu", **kwargs)
    agent._setup_learn(1)
    imagined, _ = branches(np.linspace(-2, 2, 500), 1)
    agent.replay_buffer = MixedReplay(agent.replay_buffer, imagined, 0, DISCOUNT)
    for _ in range(900):
        agent.train(gradient_steps=1, batch_size=256)
        agent._on_step()  # the target network follows
    x = np.linspace(-2, 2, 9)
    after = np.stack([(x - 1) / 2, (x + 1) / 2], axis=1)
    expected = after + DISCOUNT * (1 / (1 - DISCOUNT) - (1 - after) / (2 - DISCOUNT))
    with th.no_grad():
        learned = agent.q_net(th.tensor(x[:, None], dtype=th.float32)).numpy()
    np.testing.assert_allclose(learned, expected, atol=0.05)
