"""What a state is worth, by a known model: against value iteration, by hand, and in expectation where chance decides."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from chain import GAMMA, Chain, chain_world, every_state, known_well, learned, rewards, with_networks
from gymnasium import spaces
from known import known_world

from sb3_fcdl import FCDLPolicy
from sb3_fcdl.dynamics.distributions import StateDistribution, StateLayout
from sb3_fcdl.planning import CEM, DiscreteActions
from sb3_fcdl.world.enumeration import Enumeration
from sb3_fcdl.world.novelty import Novelty, Visits
from sb3_fcdl.world.rewards import Outcomes, never_ends
from sb3_fcdl.world.values import Backups, ValueHead, ValueTable
from sb3_fcdl.world.world_model import WorldModel


@pytest.mark.parametrize("success", [1.0, 0.5])
@pytest.mark.parametrize("is_table", [True, False], ids=["table", "networks"])
def test_value_is_that_of_value_iteration(success: float, is_table: bool) -> None:
    # One step to the right is worth d = p (gamma V' or 1) + (1 - p) gamma V, solved for V.
    expected = [1.0]
    for _ in range(4):
        reached = 1.0 if len(expected) == 1 else GAMMA * expected[-1]
        expected.append(success * reached / (1 - GAMMA * (1 - success)))
    world = chain_world(success)
    values = learned(known_well(world if is_table else with_networks(world)), 300 if is_table else 1500)
    exact = {"abs": 1e-3 if is_table else 0.02}
    assert values[:4, 0].tolist() == pytest.approx(expected[:0:-1], **exact)
    # Nothing is to be had in the last place; and what is new is worth more than what is paid.
    assert values[4, 0].item() == pytest.approx(0, **exact) and (values[:, 1] >= values[:, 0] - 0.02).all()


@pytest.mark.parametrize("is_table", [True, False], ids=["table", "networks"])
def test_backup_is_the_best_of_all_actions_and_an_end_cuts_the_value(is_table: bool) -> None:
    world = known_well(chain_world() if is_table else with_networks(chain_world())).eval()
    world.values.observe(rewards(1.0))
    if isinstance(world.values, ValueTable):
        world.values.table.fill_(10)
    # The mean reward, 1, for ever: every state is worth 10.
    constant = world.values(th.eye(5), th.zeros(5, 0))
    assert constant[:, 0].tolist() == pytest.approx([10] * 5)
    backups = world.backups(*every_state()[:2], th.zeros(5, 0))
    # Staying before the end is worth 9, arriving 1 and no more; a table believes what was paid in the first place.
    assert backups.worth[:, 0].tolist() == pytest.approx([10 if is_table else 9, 9, 9, 9, 9], abs=2e-3)


def test_what_is_new_is_taken_for_the_worst_or_for_more_than_the_best() -> None:
    world = chain_world().eval()
    world.values.observe(rewards(-3.0, 1.0))
    # Root mean square of the rewards: sqrt((9 + 1) / 2). Nothing pays here but the last step, which pays 1.
    size = 5**0.5
    stays, arrives = (th.eye(5)[3:4], th.eye(2)[:1]), (th.eye(5)[3:4], th.eye(2)[1:])
    problems = [world.problem(explores=explores) for explores in (False, True)]

    def paid(step: tuple[th.Tensor, th.Tensor], is_last: bool) -> list[float]:
        after = th.eye(5)[4:] if is_last else step[0]
        return [problem.reward(*step, after, th.zeros(1, 0)).item() for problem in problems]

    assert paid(stays, False) == pytest.approx([-3, 1 + size])
    world.novelty.add(*stays)
    # After one visit a novelty of 1/2, whose fourth power is 1/16.
    assert paid(stays, False) == pytest.approx([-3 / 16, (1 + size) / 2])
    assert paid(arrives, True) == pytest.approx([-3, 1 + size])
    world.novelty.fit(*arrives, 3)
    assert paid(stays, False) == pytest.approx([-3, 1 + size])
    assert paid(arrives, True) == pytest.approx([1 - 4 / 4**4, 1 + size / 4])


def test_recorded_rewards_of_a_pair_are_believed_more_with_each_visit() -> None:
    world = chain_world().eval()
    stays = th.eye(5)[:1], th.eye(2)[:1]
    world.values.observe(rewards(0.0, 6.0, 6.0, -8.0))
    world.novelty.fit(*stays, 4)
    # One part of five is the prediction, 0; the average is 1. The worst was -8, more than the best is 6 + sqrt(34).
    believed = 1 - 1 / 5
    expected = [believed + (-8 - believed) / 5**4, believed + (6 + 34**0.5 - believed) / 5]
    of_both = [world.problem(explores=explores).reward(*stays, stays[0], th.zeros(1, 0)).item() for explores in (False, True)]
    assert of_both == pytest.approx(expected, abs=1e-5)
    world.values.forget()
    assert world.problem().reward(*stays, stays[0], th.zeros(1, 0)).item() == 0


def test_a_state_that_only_ends_episodes_is_worth_nothing() -> None:
    table = ValueTable(Enumeration((5,), (2,)), GAMMA)
    table.table.fill_(7)
    # An episode ended in each of the last two places; in the last but one something was done at another time.
    state, after = th.eye(5)[[2, 3, 3]], th.eye(5)[[3, 4, 3]]
    ended = th.tensor([True, True, False])
    table.observe(Outcomes(state, th.eye(2)[[1, 1, 0]], after, th.zeros(3, 0), th.zeros(3), ended))
    assert table(th.eye(5), th.zeros(5, 0)).tolist() == [[7, 7]] * 4 + [[0, 0]]
    table.forget()
    assert not table.n_ended.any()


def test_constant_rewards_have_their_own_size() -> None:
    for paid, size in ((-0.01, 0.01), (1.0, 1.0), (0.0, 1.0)):
        table = ValueTable(Enumeration((5,), (2,)), GAMMA)
        table.observe(rewards(paid, paid))
        assert table.size_of_reward.item() == pytest.approx(size)


def test_a_plan_of_one_step_with_a_table_compares_all_actions() -> None:
    """Of 200 actions one leads on; of 64 that are drawn it would be missed in three plans of four."""

    class Wide(Chain):
        action_space = spaces.Discrete(200)

    def next_state(layout: StateLayout, state: th.Tensor, action: th.Tensor) -> StateDistribution:
        probabilities = action[:, 137:138] * state.roll(1, dims=1) + (1 - action[:, 137:138]) * state
        numbers = state.new_zeros(len(state), 0)
        return StateDistribution(layout, probabilities.clamp(min=1e-9).log().unsqueeze(1), numbers, numbers)

    world = known_world(
        Wide(), next_state, reward_fn=lambda *_: th.zeros(len(_[0])), termination_fn=never_ends, discount=GAMMA
    )
    assert isinstance(world.values, ValueTable)
    world.values.table.copy_(th.arange(5.0).unsqueeze(1).expand(-1, 2))
    planner, goal = CEM(DiscreteActions(200), horizon=1), th.zeros(4, 0)
    plan = planner.plan(world.problem(), th.eye(5)[:4], goal)
    assert plan.actions[:, 0].tolist() == [137] * 4
    assert plan.value.tolist() == pytest.approx([GAMMA * n for n in (1, 2, 3, 4)], abs=1e-3)
    is_allowed = th.ones(4, 200, dtype=th.bool)
    is_allowed[0, 137] = False
    masked = planner.plan(world.problem(), th.eye(5)[:4], goal, action_mask=is_allowed).actions[:, 0].tolist()
    assert masked[0] != 137 and masked[1:] == [137] * 3


def test_unit_of_the_networks_follows_their_targets_and_moves_no_value() -> None:
    th.manual_seed(0)
    head = ValueHead(3, 0, DiscreteActions(2), 0.99)
    state, goal = th.randn(64, 3), th.zeros(64, 0)
    head.observe(rewards(-1.0, -1.0, -100.0))
    with th.no_grad():
        head.last.weight.normal_()
    # One unit is a quarter of the size of a reward, paid for ever.
    assert head.unit.tolist() == pytest.approx([(10_002 / 3) ** 0.5 * 100 / 4] * 2)
    before = head(state, goal)
    target = th.stack([state[:, 0] - 13, 5 * state[:, 0]], dim=1)
    for _ in range(2000):
        head.losses(state, goal, Backups(target, th.eye(2)[th.zeros(64, dtype=th.int64)]))
    th.testing.assert_close(head(state, goal), before, rtol=1e-4, atol=1e-2)
    assert head.mean.tolist() == pytest.approx(target.mean(0).tolist(), abs=1e-3)
    # No less than a tenth of the size of a reward.
    assert head.unit.tolist() == pytest.approx(
        [max(0.1 * (10_002 / 3) ** 0.5, spread) for spread in target.std(0, correction=0)]
    )
    other = ValueHead(3, 0, DiscreteActions(2), 0.99)
    other.observe(rewards(1.0))
    value = other(state, goal)
    other.take_scale(head)
    th.testing.assert_close(other(state, goal), value, rtol=1e-4, atol=1e-3)
    assert other.unit.equal(head.unit)


def test_another_reward_makes_it_forget() -> None:
    for world in (chain_world(), with_networks(chain_world())):
        world.values.observe(rewards(*[1.0] * 4))
        world.values.losses(th.eye(5), th.zeros(5, 0), Backups(th.ones(5, 2), th.eye(2)[[0, 1, 0, 1, 0]]))
        world.give(world.reward_fn, world.termination_fn)
        assert world.values(th.eye(5), th.zeros(5, 0)).any()
        world.give(world.reward_fn, never_ends)
        assert not world.values(th.eye(5), th.zeros(5, 0)).any()


def test_all_states_and_actions_have_numbers_of_their_own() -> None:
    enumeration = Enumeration((2, 3), (4, 2))
    assert len(enumeration.states) == 6 and len(enumeration.actions) == 8 and enumeration.n_pairs == 48
    assert enumeration.state_number(enumeration.states).tolist() == list(range(6))
    # The first variable counts 1, the second 2: category 1 of the first and 2 of the second.
    assert enumeration.states[5].tolist() == [0, 1, 0, 0, 1]
    # A corrupted one-hot has the number of its largest column.
    assert enumeration.state_number(th.tensor([[-3.0, 250.0, 0.1, 0.2, 90.0]])).tolist() == [5]
    states = enumeration.states.repeat_interleave(8, dim=0)
    assert enumeration.pair_number(states, enumeration.actions.repeat(6, 1)).tolist() == list(range(48))


@pytest.mark.parametrize(
    ("observation", "action", "is_small"),
    [
        (spaces.Discrete(512), spaces.Discrete(32), True),
        (spaces.Discrete(513), spaces.Discrete(32), False),
        (spaces.MultiDiscrete([5, 5, 5, 4]), spaces.MultiDiscrete([3, 2]), True),
        (spaces.Box(0, 1, (1,)), spaces.Discrete(2), False),
        (spaces.Discrete(3), spaces.Box(-1, 1, (1,)), False),
    ],
)
def test_small_systems_have_a_table(observation: spaces.Space, action: spaces.Space, is_small: bool) -> None:
    policy = FCDLPolicy(observation, action, lambda _: 1e-3, dynamics="mlp")
    world, planner = policy.world, policy.planner
    assert isinstance(world.values, ValueTable if is_small else ValueHead)
    assert isinstance(world.novelty, Visits if is_small else Novelty)
    assert planner.horizon == (1 if is_small else 15)


def frozen_lake() -> tuple[WorldModel, np.ndarray]:
    """The true dynamics of FrozenLake, and the optimal values by value iteration on its table."""
    env: Any = gym.make("FrozenLake-v1").unwrapped
    table = np.zeros((16, 4, 16))
    ends, pays = np.zeros(16), np.zeros(16)
    for state, actions in env.P.items():
        for action, outcomes in actions.items():
            for probability, after, reward, ended in outcomes:
                table[state, action, after] += probability
                ends[after], pays[after] = max(ends[after], ended), max(pays[after], reward)
    values = np.zeros(16)
    for _ in range(2000):
        values = (table @ (pays + 0.99 * (1 - ends) * values)).max(axis=1)
    probabilities, ended, paid = (th.tensor(each, dtype=th.float32) for each in (table, ends, pays))

    def next_state(layout: StateLayout, state: th.Tensor, action: th.Tensor) -> StateDistribution:
        numbers = state.new_zeros(len(state), 0)
        each = probabilities[state.argmax(1), action.argmax(1)].clamp(min=1e-9)
        return StateDistribution(layout, each.log().unsqueeze(1), numbers, numbers)

    world = known_world(
        env,
        next_state,
        reward_fn=lambda state, action, after, goal: after @ paid,
        termination_fn=lambda state, action, after, goal: after @ ended,
        discount=0.99,
    )
    return world, values


def test_plans_where_chance_decides_look_at_every_outcome() -> None:
    """With the optimal values FrozenLake's true dynamics are planned as value iteration does, whatever the horizon."""
    world, values = frozen_lake()
    of_state = th.tensor(values, dtype=th.float32)
    assert isinstance(world.values, ValueTable)
    world.values.table.copy_(of_state.unsqueeze(-1).expand(-1, 2))
    world.novelty.counts.fill_(1e6)
    problem, goal = world.problem(), th.zeros(16, 0)
    for horizon in (1, 4):
        planner = CEM(DiscreteActions(4), horizon=horizon, n_candidates=128, n_iterations=2, select="best")
        plan = planner.plan(problem, th.eye(16), goal)
        starts = values > 0
        assert plan.value[starts].tolist() == pytest.approx(values[starts].tolist(), abs=1e-4)
    env = gym.make("FrozenLake-v1")
    planner = CEM(DiscreteActions(4), horizon=4, n_candidates=64, n_iterations=1, select="best")
    first = planner.plan(problem, th.eye(16), goal).actions[:, 0].numpy()
    arrived = 0
    for seed in range(300):
        state, _ = env.reset(seed=seed)
        done = False
        while not done:
            state, reward, terminated, truncated, _ = env.step(int(first[state]))
            done = terminated or truncated
        arrived += reward
    assert arrived / 300 > 0.68  # 0.74 is the optimum without a limit of 100 steps


def test_outcomes_of_one_uncertain_variable_are_exact() -> None:
    layout = known_world(Chain(), lambda *_: None, reward_fn=lambda *_: None).dynamics.layout
    logits = th.tensor([[[0.5, 0.3, 0.2, 0, 0]], [[0.95, 0.05, 0, 0, 0]]]).clamp(min=1e-9).log()
    distribution = StateDistribution(layout, logits, th.zeros(2, 0), th.zeros(2, 0))
    assert distribution.is_chance().tolist() == [True, False]
    states, weights = distribution.outcomes(4)
    mean = (weights.unsqueeze(-1) * states).sum(0)
    # The second row is certain enough: its likeliest state alone.
    assert mean[0].tolist() == pytest.approx([0.5, 0.3, 0.2, 0, 0]) and mean[1].tolist() == [1, 0, 0, 0, 0]
    assert weights.sum(0).tolist() == pytest.approx([1, 1]) and (weights[:, 1] > 0).sum() == 1


def test_novelty_goes_with_the_number_of_visits_and_the_distance() -> None:
    th.manual_seed(0)
    novelty = Novelty(3, 3)
    here, action = th.tensor([[0.2, -0.3]]), th.tensor([[0.5]])
    assert novelty(here, action).item() == pytest.approx(1, abs=0.15)
    for n in (1, 4, 100):
        novelty.fit(here, action, n)
        # A Gaussian process with noise 1 that was told n times: 1 / (1 + n), times the prior variance.
        assert novelty(here, action).item() == pytest.approx(1 / (1 + n), abs=0.02)
        again = Novelty(3, 3)
        again.load_state_dict(novelty.state_dict())
        again.left.copy_(th.eye(len(again.left)))
        again.add(here.expand(n, -1), action.expand(n, -1))
        th.testing.assert_close(again.left, novelty.left, atol=1e-4, rtol=0)
    assert novelty(here + 5, action).item() > 0.6
    assert novelty(here + 0.05, action).item() < 0.1


def test_visits_are_counted_also_those_that_somebody_else_recorded() -> None:
    visits = Visits(Enumeration((3,), (2,)))
    states, actions = th.eye(3), th.eye(2)
    assert visits(states[:1], actions[:1]).item() == 1 and visits.is_stale(1)
    for _ in range(3):
        visits.add(states[[0, 2]], actions[[1, 1]])
    assert visits(states, actions[[1, 1, 1]]).tolist() == pytest.approx([1 / 4, 1, 1 / 4])
    assert visits(states, actions[[0, 0, 0]]).tolist() == [1, 1, 1]
    # Six were told one by one; of twenty others a sample of four.
    assert not visits.is_stale(6) and visits.is_stale(20) and visits.is_stale(5)
    visits.fit(states[[1, 1, 1, 0]], actions[[0, 0, 0, 0]], 20)
    assert visits(states, actions[[0, 0, 0]]).tolist() == pytest.approx([1 / 6, 1 / 16, 1])


@pytest.mark.parametrize(
    ("paid", "said", "expected"),
    [
        # Each step costs 1 until an episode ends: between -100 and 0.
        (-1.0, 85.0, (0.85, 0.85)),
        (-1.0, -150.0, (-100.5, -100.5)),
        (-1.0, -40.0, (-40.0, -40.0)),
        # With the bonus, new steps are paid twice as much: up to 200.
        (1.0, 103.0, (100.03, 103.0)),
        (1.0, 210.0, (101.1, 200.1)),
        (1.0, -5.0, (-0.05, -0.05)),
    ],
)
def test_networks_hardly_leave_what_can_be_paid(paid: float, said: float, expected: tuple[float, float]) -> None:
    head = ValueHead(3, 0, DiscreteActions(2), 0.99)
    head.observe(rewards(paid, paid))
    with th.no_grad():
        head.last.bias[:] = ((said - head.mean) / head.unit).float()
        for value in (head(th.zeros(1, 3), th.zeros(1, 0)), head.lowest(th.zeros(1, 3), th.zeros(1, 0))):
            assert value[0].tolist() == pytest.approx(expected, abs=1e-3)
        # A given reward may pay where nobody has been yet.
        head.is_bounded = False
        assert head(th.zeros(1, 3), th.zeros(1, 0))[0].tolist() == pytest.approx([said] * 2, abs=1e-3)


def test_only_a_learned_reward_bounds_values() -> None:
    world = chain_world()
    assert not world.values.is_bounded and not world.average().values.is_bounded
