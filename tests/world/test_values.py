"""What a state is worth, by a known model: against value iteration, by hand, and in expectation where chance decides."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from known import known_world

from sb3_fcdl.dynamics.distributions import StateDistribution, StateLayout
from sb3_fcdl.planning import CEM, DiscreteActions
from sb3_fcdl.world.novelty import Novelty
from sb3_fcdl.world.rewards import Outcomes, never_ends
from sb3_fcdl.world.world_model import WorldModel

GAMMA = 0.9


class Chain:
    """Five places in a row. Action 1 goes right, action 0 stays; arriving at the last one pays 1 and ends the episode."""

    observation_space = spaces.Discrete(5)
    action_space = spaces.Discrete(2)


def chain_world(success: float = 1.0) -> WorldModel:
    """:param success: probability that action 1 goes right; else it stays"""

    def next_state(layout: StateLayout, state: th.Tensor, action: th.Tensor) -> StateDistribution:
        right = state.roll(1, dims=1)
        right[:, -1], right[:, 0] = right[:, -1] + state[:, -1], 0
        moved = success * action[:, 1:]
        probabilities = moved * right + (1 - moved) * state
        numbers = state.new_zeros(len(state), 0)
        return StateDistribution(layout, probabilities.clamp(min=1e-9).log().unsqueeze(1), numbers, numbers)

    def arrives(state: th.Tensor, action: th.Tensor, after: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return after[:, -1] * (1 - state[:, -1])

    return known_world(Chain(), next_state, reward_fn=arrives, termination_fn=arrives, discount=GAMMA)


def every_state(n: int = 5) -> Outcomes:
    state, action = th.eye(n), th.eye(2)[th.zeros(n, dtype=th.int64)]
    return Outcomes(state, action, state, th.zeros(n, 0), th.zeros(n), th.zeros(n, dtype=th.bool))


def learned(world: WorldModel, n_updates: int = 1500) -> th.Tensor:
    """The values of all states, learned as ``Trainer`` does."""
    th.manual_seed(0)
    learner = world.train()
    average = learner.average()
    optimizer = th.optim.Adam(learner.value_head.parameters(), lr=3e-3)
    for n in range(n_updates):
        optimizer.zero_grad()
        learner.value_loss(every_state(), average).backward()
        optimizer.step()
        average.follow(learner, n + 1, 0.95)
    with th.no_grad():
        return average.value_head(th.eye(5), th.zeros(5, 0))


@pytest.mark.parametrize("success", [1.0, 0.5])
def test_value_is_that_of_value_iteration(success: float) -> None:
    # One step to the right is worth d = p (gamma V' or 1) + (1 - p) gamma V, solved for V.
    expected = [1.0]
    for _ in range(4):
        reached = 1.0 if len(expected) == 1 else GAMMA * expected[-1]
        expected.append(success * reached / (1 - GAMMA * (1 - success)))
    values = learned(chain_world(success))
    assert values[:4, 0].tolist() == pytest.approx(expected[:0:-1], abs=0.02)
    # Nothing is to be had in the last place; and what is new is worth more than what is paid.
    assert values[4, 0].item() == pytest.approx(0, abs=0.02) and (values[:, 1] >= values[:, 0]).all()


def test_backup_is_the_best_of_all_actions_and_an_end_cuts_the_value() -> None:
    world = chain_world().eval()
    world.value_head.observe(th.ones(1), th.zeros(1, 0))
    with th.no_grad():
        for parameter in world.value_head.last.parameters():
            parameter.zero_()
    # The mean reward, 1, for ever: every state is worth 10. Its novelty is 1 everywhere, the size of the reward is sqrt(2).
    constant = world.value_head(th.eye(5), th.zeros(5, 0))
    assert constant[:, 0].tolist() == pytest.approx([10] * 5)
    backups = world.backups(every_state())
    # Staying before the end is worth 9, arriving 1 and no more.
    assert backups[:, 0].tolist() == pytest.approx([9, 9, 9, 9, 9])
    assert backups[:, 1].tolist() == pytest.approx([9 + world.value_head.size_of_reward.item()] * 5, abs=0.25)


def test_another_reward_makes_it_forget() -> None:
    world = chain_world()
    world.value_head.observe(th.ones(4), th.zeros(4, 0))
    world.give(world.reward_fn, world.termination_fn)
    assert world.value_head(th.eye(5), th.zeros(5, 0)).any()
    world.give(world.reward_fn, never_ends)
    assert not world.value_head(th.eye(5), th.zeros(5, 0)).any()


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
    world.value_head.forward = lambda state, goal: (state @ of_state).unsqueeze(-1).expand(-1, 2)  # type: ignore[method-assign]
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
