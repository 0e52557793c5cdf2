"""A chain of five places whose values and best actions are known by hand."""

import torch as th
from gymnasium import spaces
from known import known_world
from torch import nn

from sb3_fcdl.dynamics.distributions import StateDistribution, StateLayout
from sb3_fcdl.planning import DiscreteActions
from sb3_fcdl.world.novelty import Novelty
from sb3_fcdl.world.rewards import Outcomes
from sb3_fcdl.world.values import ValueHead
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
    """A recorded transition of each state, which stayed; nothing was paid, or ended."""
    state, action = th.eye(n), th.eye(2)[th.zeros(n, dtype=th.int64)]
    return Outcomes(state, action, state, th.zeros(n, 0), th.zeros(n), th.zeros(n, dtype=th.bool))


def rewards(*paid: float) -> Outcomes:
    """They were paid for staying in the first place."""
    n = len(paid)
    state, action = th.eye(5)[th.zeros(n, dtype=th.int64)], th.eye(2)[th.zeros(n, dtype=th.int64)]
    return Outcomes(state, action, state, th.zeros(n, 0), th.tensor(paid), th.zeros(n, dtype=th.bool))


def known_well(world: WorldModel) -> WorldModel:
    """The same; every state and action was tried so often that rewards are believed."""
    states, actions = th.eye(5).repeat(2, 1), th.eye(2).repeat_interleave(5, dim=0)
    world.novelty.fit(states, actions, 10_000)
    return world


def learned(world: WorldModel, n_updates: int) -> th.Tensor:
    """The values of all states, learned as ``Trainer`` does."""
    th.manual_seed(0)
    learner = world.train()
    average = learner.average()
    optimizer = th.optim.Adam([*learner.values.parameters(), nn.Parameter(th.zeros(1))], lr=3e-3)
    for n in range(n_updates):
        optimizer.zero_grad()
        loss = sum(learner.value_losses(every_state(), average).values())
        if loss.requires_grad:
            loss.backward()
        optimizer.step()
        average.follow(learner, n + 1, 0.95)
    with th.no_grad():
        return average.values(th.eye(5), th.zeros(5, 0))


def with_networks(world: WorldModel) -> WorldModel:
    """The same, as if it had too many states for a table."""
    world.values, world.novelty = ValueHead(5, 0, DiscreteActions(2), GAMMA), Novelty(2, 7)
    world.values.is_bounded = world.reward_fn is None
    return world
