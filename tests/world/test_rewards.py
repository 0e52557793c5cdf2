"""Rewards and ends of episodes: learned heads, given functions, and what is said if they disagree with the environment."""

import threading

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gated import GatedEnv, reward_fn
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit, TransformReward
from tiny import tiny_fcdl

from fcdl_envs.variables import Variable
from sb3_fcdl import FCDL
from sb3_fcdl.world.rewards import Outcomes, RewardHead, TerminationHead, disagreements, function_named, never_ends

SMALL = {"dynamics": "mlp", "dynamics_kwargs": {"hidden_dim": 16, "n_layers": 1}}


def outcomes(state: th.Tensor, reward: th.Tensor | None = None, terminated: th.Tensor | None = None) -> Outcomes:
    """Transitions that stay where they are, with one action and no goal."""
    n_rows = len(state)
    reward = th.zeros(n_rows) if reward is None else reward
    terminated = th.zeros(n_rows, dtype=th.bool) if terminated is None else terminated
    return Outcomes(state, th.zeros(n_rows, 1), state, state[:, :0], reward, terminated)


def fit(head, draw, n_updates: int = 200, learning_rate: float = 1e-2) -> None:
    optimizer = th.optim.Adam(head.train().parameters(), lr=learning_rate)
    for _ in range(n_updates):
        optimizer.zero_grad()
        head.loss(draw()).backward()
        optimizer.step()
    head.eval()


def one_number_head() -> TerminationHead:
    return TerminationHead((Variable("x"),), 1 + 1 + 1)


def test_reward_is_learned_in_the_environments_units():
    th.manual_seed(0)

    def draw() -> Outcomes:
        state = th.randn(128, 2)
        return outcomes(state, reward=-700 + 30 * state[:, 0] * state[:, 1])

    head = RewardHead(2 + 1 + 2)
    fit(head, draw, n_updates=200)
    test = draw()
    errors = head(*test[:4]) - test.reward
    # The spread of the reward is 30.
    assert errors.abs().mean() < 3


def test_constant_reward_is_the_same_everywhere_bit_for_bit():
    """Also where nobody has been: a planner follows the smallest promise."""
    th.manual_seed(0)
    head = RewardHead(2 + 1 + 2)
    fit(head, lambda: outcomes(th.randn(64, 2), reward=th.ones(64)), n_updates=50)
    state = 100 * th.randn(500, 2)
    assert head(*outcomes(state)[:4]).tolist() == [1] * 500


def test_end_that_comes_once_in_two_hundred_transitions_is_learned():
    th.manual_seed(0)
    edge = 2.5758  # beyond which a standard normal number lies once in two hundred, on one side

    def draw() -> Outcomes:
        state = th.randn(256, 1)
        return outcomes(state, terminated=state[:, 0] > edge)

    head = one_number_head()
    fit(head, draw)
    inside, outside = th.linspace(-3, edge - 0.3, 50), th.linspace(edge + 0.3, 4, 50)
    probability = [head(state[:, None], th.zeros(50, 1), state[:, None]) for state in (inside, outside)]
    assert probability[0].max() < 0.5 < probability[1].min()


def test_probability_of_a_random_end_is_not_that_of_the_balanced_loss():
    """Where nothing tells when an episode ends the answer is how often it does, not one half."""
    th.manual_seed(0)
    head = one_number_head()
    fit(head, lambda: outcomes(th.randn(512, 1), terminated=th.rand(512) < 0.05))
    state = th.linspace(-1, 1, 20)[:, None]
    assert head(state, th.zeros(20, 1), state).mean().item() == pytest.approx(0.05, abs=0.03)


def test_end_that_was_never_seen_is_not_expected():
    head = one_number_head()
    fit(head, lambda: outcomes(th.randn(64, 1)), n_updates=3)
    assert head(th.randn(9, 1), th.zeros(9, 1), th.randn(9, 1)).tolist() == [0] * 9


def test_end_that_always_comes_is_expected():
    th.manual_seed(0)
    head = one_number_head()
    fit(head, lambda: outcomes(th.randn(64, 1), terminated=th.ones(64, dtype=th.bool)), n_updates=20)
    assert head(th.randn(9, 1), th.zeros(9, 1), th.randn(9, 1)).min() > 0.99


def test_ends_and_others_weigh_alike_by_hand():
    """
    Every transition costs log 2 at first. With odds of 3 an end costs log 4/3, and another transition log 4. A tenth of what
    they cost the variable alone is added.
    """
    head = one_number_head().eval()
    # Two causes, each of which lets the episode go on with probability 1 / sqrt(2), and 1e-4 for the square of each logarithm.
    first = np.log(np.expm1(np.log(2) / 2))
    rare = outcomes(th.zeros(100, 1), terminated=th.arange(100) == 0)
    alone = 0.1 * (-np.log(1 - 1 / np.sqrt(2)) + np.log(2) / 2) / 2
    assert head.loss(rare).item() == pytest.approx(np.log(2) + alone + 2e-4 * first**2)
    # Now with probability 1/2 each: then the logarithm is that of expm1(log 2) = 1.
    for last, speed in ((head.by_variable[-1], 1), (head.together[-1], head.JOINT_SPEED)):
        last.bias.data.fill_(-first / speed)
    by_hand = (np.log(4 / 3) + np.log(4)) / 2 + 0.1 * np.log(2)
    assert head.loss(rare).item() == pytest.approx(by_hand)
    more = outcomes(th.zeros(7, 1), terminated=th.ones(7, dtype=th.bool))
    assert head.loss(rare, more).item() == pytest.approx(by_hand)
    # Further ends say nothing about how often they come: the odds of 3 are divided by 99.
    head.train().loss(rare, more)
    assert (head.n_ended.item(), head.n_others.item()) == (1, 99)
    assert head(*rare[:3])[0].item() == pytest.approx(3 / 99 / (1 + 3 / 99))


def test_what_ended_an_episode_twice_ends_it_again_whatever_else_is_so():
    """Two ends beyond 2 with different numbers beside them; a network of all numbers cannot know which ones did it."""
    th.manual_seed(0)
    ended = th.tensor([[2.3, 1.5, 0.4], [2.5, -0.3, 1.6]])

    def draw() -> Outcomes:
        state = th.cat([th.randn(256, 3).clamp(-1.9, 1.9), ended])
        return outcomes(state, terminated=th.arange(258) >= 256)

    head = TerminationHead((Variable("x"), Variable("y"), Variable("z")), 3 + 1 + 3)
    fit(head, draw, n_updates=350, learning_rate=1e-3)
    beyond, inside = th.randn(200, 3).clamp(-1.9, 1.9), th.randn(200, 3).clamp(-1.5, 1.5)
    beyond[:, 0] = 2.6
    assert head(beyond, th.zeros(200, 1), beyond).min() > 0.5
    assert head(inside, th.zeros(200, 1), inside).max() < 0.01


def test_a_probability_that_nobody_can_have_learned_is_none():
    """Odds of 3 against 2996 others are a probability of 1/1000 and a bit, against 2998 others less; see the test by hand."""
    head = one_number_head().eval()
    for last, speed in ((head.by_variable[-1], 1), (head.together[-1], head.JOINT_SPEED)):
        last.bias.data.fill_(-head.first_log_hazard / speed)
    head.n_ended += 1
    state = th.zeros(1, 1)
    head.n_others += 2996
    assert head(state, state, state).item() == pytest.approx(3 / 2999)
    head.n_others += 2
    assert head(state, state, state).item() == 0


def test_variables_are_asked_to_explain_an_end_that_all_together_explain_already():
    """At a log-hazard of 0 the slope of -log(1 - exp(-softplus)) is -1/2; a tenth counts, and half of that for ends."""
    head = one_number_head()
    head.by_variable[-1].bias.data.fill_(-head.first_log_hazard)
    head.together[-1].bias.data.fill_(20 / head.JOINT_SPEED)
    head.loss(outcomes(th.zeros(1, 1), terminated=th.tensor([True]))).backward()
    assert head.by_variable[-1].bias.grad.item() == pytest.approx(-0.1 / 2 / 2, abs=1e-6)


def test_a_variable_that_never_ends_an_episode_stays_within_reach():
    """
    Only y ends episodes. The log-hazard l of x costs others exp(l) / 2 and everybody 1e-4 l**2, least at l = -6.01.
    Without the price it is below -13 at the end of this test, where the first end by x would find hardly any gradient.
    """
    th.manual_seed(0)
    head = TerminationHead((Variable("x"), Variable("y")), 2 + 1 + 2)

    def draw() -> Outcomes:
        state = th.randn(128, 2).clamp(-1.9, 1.9)
        state[:16, 1] = 2.5
        return outcomes(state, terminated=th.arange(128) < 16)

    fit(head, draw, learning_rate=3e-3)
    state = th.linspace(-1.5, 1.5, 20)[:, None].repeat(1, 2)
    of_x = head._log_hazards(state, th.zeros(20, 1), state)[0]
    assert of_x.tolist() == pytest.approx([-6.01] * 20, abs=1)


def test_an_end_that_takes_two_variables_is_learned():
    th.manual_seed(0)

    def draw() -> Outcomes:
        state = th.randn(256, 2)
        return outcomes(state, terminated=(state > 0.5).all(dim=1))

    head = TerminationHead((Variable("x"), Variable("y")), 2 + 1 + 2)
    fit(head, draw)
    corners = th.tensor([[1.2, 1.2], [1.2, -0.2], [-0.2, 1.2], [-0.2, -0.2]])
    assert [round(p) for p in head(corners, th.zeros(4, 1), corners).tolist()] == [1, 0, 0, 0]


def test_categories_may_end_an_episode_and_widths_may_differ():
    th.manual_seed(0)

    def draw() -> Outcomes:
        category = th.randint(3, (256,))
        state = th.cat([th.randn(256, 1), th.nn.functional.one_hot(category, 3), th.randn(256, 1)], dim=1)
        return outcomes(state, terminated=category == 1)

    head = TerminationHead((Variable("x"), Variable("c", 3), Variable("y")), 5 + 1 + 5)
    fit(head, draw)
    state = th.cat([th.randn(3, 1), th.eye(3), th.randn(3, 1)], dim=1)
    assert head(state, th.zeros(3, 1), state).round().tolist() == [0, 1, 0]


class Cliff(gym.Env):
    """A walk from 0, by +-1: paid by the place, and over at 3."""

    observation_space = spaces.Box(-100, 100, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return self._observe(), {}

    def step(self, action):
        self.place += 2 * int(action) - 1
        return self._observe(), float(self.place), self.place == 3, False, {}

    def _observe(self) -> np.ndarray:
        return np.array([self.place], dtype=np.float32)


def place_reward(state, action, next_state, goal):
    return next_state[:, 0]


def fell(state, action, next_state):
    return next_state[:, 0] > 2.5


def wrong_end(state, action, next_state):
    return next_state[:, 0] > 1.5


def cliff(**kwargs) -> FCDL:
    return tiny_fcdl(TimeLimit(Cliff(), 20), policy="MlpPolicy", **(SMALL | kwargs))


def test_time_limits_are_no_ends():
    model = cliff(learning_starts=1000).learn(200)
    outcomes = model.experience.draw(1000).outcomes
    places = model.policy.world.decode(outcomes.next_state)[:, 0]
    assert th.equal(outcomes.terminated, places > 2.5)
    assert outcomes.reward.tolist() == pytest.approx(places.tolist(), abs=1e-5)
    buffer = model.replay_buffer
    assert buffer.timeouts[:200].sum() > 0 and outcomes.terminated.any()


def test_both_are_learned_by_default_and_logged(monkeypatch):
    model = cliff(learning_starts=1000).learn(60)
    learner, losses = model.policy.learner, {"reward": [], "termination": []}
    outcome_losses = learner.outcome_losses

    def spy(*args):
        found = outcome_losses(*args)
        for name, each in losses.items():
            each.append(found[name].item())
        return found

    monkeypatch.setattr(learner, "outcome_losses", spy)
    heads = learner.reward_head, learner.termination_head
    before = [parameter.clone() for head in heads for parameter in head.parameters()]
    model.trainer.train(model.experience, 5, 16)
    after = [parameter for head in heads for parameter in head.parameters()]
    assert not any(map(th.equal, before, after))
    summary = model.model_log.summary()
    for name, each in losses.items():
        assert len(each) == 5 and summary[f"train/{name}_loss"] == pytest.approx(np.mean(each))


def test_who_publishes_a_reward_alone_has_no_ends():
    policy = tiny_fcdl(GatedEnv(), **SMALL).policy
    for world in (policy.world, policy.learner):
        assert world.reward_fn is reward_fn and world.termination_fn is never_ends and not world.heads
    assert policy.problem().termination is None


@pytest.mark.parametrize("given", [place_reward, f"{__name__}:place_reward"], ids=["function", "name"])
def test_given_functions_replace_the_heads_and_are_saved(given, tmp_path):
    model = cliff(reward_fn=given, termination_fn=fell).learn(40)
    model.save(tmp_path / "model")
    policy = FCDL.load(tmp_path / "model").policy
    for world in (policy.world, policy.learner):
        assert world.reward_fn is place_reward and world.termination_fn is fell and not world.heads
        state = world.encode(th.tensor([[2.0], [3.0]]))
        assert world.reward(state, th.zeros(2, 2), state, state[:, :0]).tolist() == pytest.approx([2, 3], abs=1e-5)
        assert world.termination(state, th.zeros(2, 2), state, th.zeros(2, 0)).tolist() == [False, True]


def test_function_that_disagrees_is_reported_with_an_example():
    with pytest.warns(
        UserWarning, match=r"termination_fn disagrees .* for example: state obs\[0\]=\S+, action action=\d, next"
    ):
        cliff(reward_fn=place_reward, termination_fn=wrong_end).learn(40)


def test_published_reward_that_a_wrapper_has_changed_is_reported():
    with pytest.warns(UserWarning, match=r"reward_fn disagrees .* 256 recorded"):
        tiny_fcdl(TransformReward(GatedEnv(), lambda reward: 2 * reward), **SMALL).learn(40)


def test_a_function_that_could_not_be_saved_is_refused_before_the_training(tmp_path):
    class LockedEnv(GatedEnv):
        lock = None

        def reward_fn(self, state, action, next_state, goal):
            return reward_fn(state, action, next_state, goal)

    env = LockedEnv()
    tiny_fcdl(env, **SMALL).save(tmp_path / "model")
    env.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"reward_fn cannot be saved .*LockedEnv.* \(cannot pickle .*lock.* a staticmethod"):
        tiny_fcdl(env, **SMALL)
    with pytest.raises(ValueError, match="termination_fn cannot be saved"):
        tiny_fcdl(GatedEnv(), termination_fn=env.reward_fn, **SMALL)


def test_given_functions_are_checked_again_in_another_environment(tmp_path):
    model = tiny_fcdl(GatedEnv(), **SMALL).learn(40)
    model.save(tmp_path / "model")
    other = TransformReward(GatedEnv(), lambda reward: 2 * reward)
    model.set_env(other)
    for changed in (model, FCDL.load(tmp_path / "model", env=other)):
        with pytest.warns(UserWarning, match="reward_fn disagrees"):
            changed.learn(40, reset_num_timesteps=False)


def test_a_buffer_without_ends_is_refused_where_they_are_to_be_learned():
    saving = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}
    with pytest.raises(
        ValueError, match=r"optimize_memory_usage=False, or a termination_fn \(sb3_fcdl.world.rewards.never_ends"
    ):
        cliff(reward_fn=place_reward, **saving)
    cliff(reward_fn=place_reward, termination_fn=fell, **saving).learn(40)


def test_disagreements_are_counted_and_shown():
    recorded = outcomes(th.zeros(4, 1), reward=th.tensor([1.0, 2.0, 3.0, 1000.0]))
    given = th.tensor([1.0, 2.5, float("nan"), 1000.5])
    assert disagreements(recorded, given, None, str) == [
        "reward_fn disagrees with the environment in 2 of 4 recorded transitions, for example: 1; reward_fn gives 2.5, the "
        "environment gave 2"
    ]
    with pytest.raises(
        ValueError, match=r"termination_fn must return one number for each of 4 rows, \[R\], got shape \(4, 1\)"
    ):
        disagreements(recorded, None, th.zeros(4, 1), str)


UNITS = [1e-30, 1e-6, 3e-4, 1.0, 1e7]
COSTS = th.tensor([0.0, -0.3, -1.1, -0.6, -8.0])


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("constant", [0.0, 1.0, -20.0])
def test_the_unit_of_a_reward_and_a_constant_in_it_do_not_matter(unit, constant):
    recorded = outcomes(th.zeros(5, 1), reward=unit * (constant + COSTS))
    rounded = unit * (constant + COSTS * 1.0005)
    assert disagreements(recorded, rounded, None, str) == []
    (sentence,) = disagreements(recorded, unit * (constant - COSTS), None, str)
    assert "reward_fn disagrees with the environment in 4 of 5" in sentence
    (sentence,) = disagreements(recorded, unit * (constant + COSTS * 1.02), None, str)
    assert "reward_fn disagrees with the environment in 4 of 5" in sentence
    (sentence,) = disagreements(recorded, unit * (constant + 0.1 + COSTS), None, str)
    assert "reward_fn disagrees with the environment in 5 of 5" in sentence


@pytest.mark.parametrize("unit", UNITS)
def test_the_same_reward_everywhere_is_known_but_for_its_rounding(unit):
    recorded = outcomes(th.zeros(3, 1), reward=th.full((3,), unit))
    assert disagreements(recorded, th.full((3,), unit * (1 + 5e-7)), None, str) == []
    for wrong in (0.0, -unit, 1.0001 * unit, th.inf):
        assert "in 3 of 3" in disagreements(recorded, th.full((3,), wrong), None, str)[0]


def test_rare_rewards_and_none_at_all_are_compared():
    rare = outcomes(th.zeros(100, 1), reward=th.tensor([*[0.0] * 99, 1.0]))
    assert disagreements(rare, rare.reward, None, str) == []
    assert "in 1 of 100" in disagreements(rare, th.zeros(100), None, str)[0]
    assert "in 99 of 100" in disagreements(rare, rare.reward.where(rare.reward > 0, 3e-4), None, str)[0]
    never = outcomes(th.zeros(3, 1), reward=th.zeros(3))
    assert disagreements(never, th.zeros(3), None, str) == []
    assert "in 1 of 3" in disagreements(never, th.tensor([0.0, 1e-7, 0.0]), None, str)[0]


def test_a_chance_of_an_end_contradicts_no_transition():
    recorded = outcomes(th.zeros(5, 1), terminated=th.tensor([True, False, True, False, False]))
    assert disagreements(recorded, None, th.tensor([0.3, 0.3, 1.0, 0.0, 0.999]), str) == []
    for wrong in ([0, 0, 1, 0, 0], [1, 1, 1, 0, 0], [1, 0, 1, 0, 1.5], [1, 0, 1, 0, float("nan")]):
        (sentence,) = disagreements(recorded, None, th.tensor(wrong), str)
        assert "termination_fn disagrees with the environment in 1 of 5" in sentence


@pytest.mark.parametrize("name", ["nowhere", "nowhere:reward", "math:nothing", "math:pi", 3])
def test_what_is_no_function_is_refused(name):
    with pytest.raises(ValueError, match=r"package.module:function|is no function"):
        function_named(name)


@pytest.mark.parametrize(("unit", "offset"), [(1e-3, 0.0), (1000.0, 0.0), (1.0, 300.0)])
def test_the_unit_of_the_goal_does_not_matter(unit, offset):
    def losses(unit, offset):
        th.manual_seed(0)
        head = RewardHead(3, goal_width=1)
        optimizer = th.optim.Adam(head.parameters(), lr=3e-3)
        state, goal = th.rand(256, 1), th.rand(256, 1)
        for _ in range(20):
            reward = -(state - goal).abs().squeeze(1)
            given = Outcomes(state, state, state, unit * goal + offset, reward, th.zeros(256, dtype=th.bool))
            loss = head.loss(given)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item(), head(*given[:4])

    (loss, reward), (expected_loss, expected) = losses(unit, offset), losses(1.0, 0.0)
    assert loss == pytest.approx(expected_loss, abs=1e-5 if not offset else 1e-3)
    th.testing.assert_close(reward, expected, atol=1e-4 if not offset else 1e-2, rtol=0)
