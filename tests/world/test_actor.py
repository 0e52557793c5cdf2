"""What the actor learns, by known models: the best action, where it is known by hand."""

import numpy as np
import pytest
import torch as th
from chain import GAMMA, chain_world, known_well, learned, with_networks
from gymnasium import spaces
from known import known_world

from sb3_fcdl.dynamics.distributions import StateDistribution, StateLayout
from sb3_fcdl.planning import BoxActions, DiscreteActions, MultiDiscreteActions
from sb3_fcdl.planning.actions import alternatives
from sb3_fcdl.world.novelty import Novelty
from sb3_fcdl.world.rewards import Outcomes, never_ends
from sb3_fcdl.world.values import ValueHead
from sb3_fcdl.world.world_model import WorldModel


@pytest.mark.parametrize("is_table", [True, False], ids=["table", "networks"])
def test_actor_does_what_value_iteration_would(is_table: bool) -> None:
    """The only thing that pays is arriving at the right end: in all places before it, to go right is best."""
    world = chain_world() if is_table else with_networks(chain_world())
    known_well(world)
    assert world.values.act(th.eye(5), th.zeros(5, 0)).tolist() == [[1, 0]] * 5
    learned(world, 300 if is_table else 1000)
    assert world.values.act(th.eye(5)[:4], th.zeros(4, 0)).tolist() == [[0, 1]] * 4


class Line:
    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Box(-2, 2, (2,))


def line_world() -> WorldModel:
    """Nothing moves. The best action is half of the state and -0.8, both scaled to [-1, 1]; it pays 0, any other less."""

    def stays(layout: StateLayout, state: th.Tensor, action: th.Tensor) -> StateDistribution:
        return StateDistribution(layout, state.new_zeros(len(state), 0, 1), state, th.full_like(state, -9))

    def paid(state: th.Tensor, action: th.Tensor, after: th.Tensor, goal: th.Tensor) -> th.Tensor:
        # Actions in the units of the environment.
        return -(action[:, 0] / 2 - state[:, 0] / 2).square() - (action[:, 1] / 2 + 0.8).square()

    world = known_world(Line(), stays, reward_fn=paid, termination_fn=never_ends, discount=GAMMA)
    world.novelty.fit(th.rand(4096, 1) * 2 - 1, th.rand(4096, 2) * 2 - 1, 10**6)
    return world


def test_actor_climbs_to_the_best_action_of_a_box() -> None:
    th.manual_seed(0)
    world = line_world().train()
    assert isinstance(world.values, ValueHead) and isinstance(world.novelty, Novelty)
    average = world.average()
    optimizer = th.optim.Adam(world.values.parameters(), lr=3e-3)
    for n in range(1000):
        state, action = th.rand(128, 1) * 2 - 1, th.rand(128, 2) * 2 - 1
        goal = th.zeros(128, 0)
        reward = world.reward(state, action, state, goal)
        losses = world.value_losses(Outcomes(state, action, state, goal, reward, th.zeros(128, dtype=th.bool)), average)
        assert losses.keys() == {"value", "actor"}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        average.follow(world, n + 1, 0.95)
    state = th.linspace(-1, 1, 9).unsqueeze(1)
    expected = th.cat([state / 2, th.full_like(state, -0.8)], dim=1)
    th.testing.assert_close(average.values.act(state, th.zeros(9, 0)), expected, rtol=0, atol=0.06)


def test_backup_names_the_best_of_the_actions_that_it_compares() -> None:
    world = line_world()
    th.manual_seed(3)
    state, taken, goal = th.rand(5, 1), th.rand(5, 2), th.zeros(5, 0)
    th.manual_seed(7)
    backups = world.backups(state, taken, goal)
    th.manual_seed(7)
    compared = alternatives(world.factorization.actions, taken, world.values.act(state, goal), world.values.n_tried)
    for row in range(5):
        paid = [world.reward(state[row : row + 1], each[row : row + 1], state[:1], goal[:1]).item() for each in compared]
        assert backups.action[row].tolist() == compared[int(np.argmax(paid)), row].tolist()


def test_taken_and_chosen_actions_are_compared_and_half_of_the_rest_lies_near_the_chosen() -> None:
    th.manual_seed(0)
    box = BoxActions((-1.0, -1.0), (1.0, 1.0))
    taken, chosen = th.zeros(400, 2), th.full((400, 2), 0.9)
    each = alternatives(box, taken, chosen, 8)
    assert each.shape == (8, 400, 2) and each.abs().max() <= 1
    assert each[0].equal(taken) and each[1].equal(chosen)
    distance = (each[2:] - chosen).abs().mean((1, 2))
    # Sizes of a hundredth to a third of the range, 2, half of it cut off by the bound for the largest.
    assert distance[:3].tolist() == sorted(distance[:3].tolist()) and distance[0] < 0.03 and distance[2] < 0.4
    # Uniform in [-1, 1]: the mean distance from 0.9 is (1.9^2 + 0.1^2) / 4.
    assert distance[3:].tolist() == pytest.approx([(1.9**2 + 0.1**2) / 4] * 3, abs=0.05)
    many = DiscreteActions(50)
    taken, chosen = (many.encode(th.full((400,), n), th.float32) for n in (3, 41))
    each = alternatives(many, taken, chosen, 8)
    assert each.shape == (8, 400, 50) and each.sum(-1).eq(1).all() and each[0].equal(taken) and each[1].equal(chosen)


@pytest.mark.parametrize("actions", [DiscreteActions(3), MultiDiscreteActions((2, 3, 4)), BoxActions((-1.0,) * 2, (1.0,) * 2)])
def test_decoding_an_action_is_the_inverse_of_encoding_it(
    actions: DiscreteActions | MultiDiscreteActions | BoxActions,
) -> None:
    if isinstance(actions, BoxActions):
        drawn = th.rand(6, 2)
    else:
        drawn = actions.numbered(th.arange(actions.n))
    encoded = actions.encode(drawn, th.float32)
    assert encoded.shape[-1] == actions.width and actions.decode(encoded).equal(drawn)
