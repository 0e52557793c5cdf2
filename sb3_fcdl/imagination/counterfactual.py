"""
Counterfactual transitions: parts that do not depend on each other change places between two recorded transitions.

After CoDA (Pitis et al., 2020), with graphs that a model has learned instead of given ones or attention.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.utils import obs_as_tensor

from fcdl_envs.variables import Variable
from sb3_fcdl.buffers import sample_windows
from sb3_fcdl.dynamics import DYNAMICS, DynamicsModel
from sb3_fcdl.dynamics.ensemble import Ensemble
from sb3_fcdl.imagination.branches import as_buffer
from sb3_fcdl.imagination.step import Imagined, outcome
from sb3_fcdl.world.gate import check_buffer, is_finite, is_usable
from sb3_fcdl.world.world_model import WorldModel


class Believed(NamedTuple):
    """
    What a model believes of ``R`` states and actions.

    :param edges: which parents each child may depend on, ``[R, V, P]``, bool
    :param context: the contexts, one column for each model that has contexts, ``[R, n]``, int64
    """

    edges: th.Tensor
    context: th.Tensor


class _Transitions(NamedTuple):
    """
    :param before: states in the environment's units, ``[R, D]``
    :param action: as SB3's buffers hold them, ``[R, action_dim]``
    :param after: next states, ``[R, D]``
    :param goal: ``[R, G]``
    """

    before: th.Tensor
    action: th.Tensor
    after: th.Tensor
    goal: th.Tensor

    def at(self, rows: th.Tensor) -> "_Transitions":
        return _Transitions(*(part[rows] for part in self))


def check_has_graph(dynamics: type[DynamicsModel]) -> None:
    """:raises ValueError: if the model has no graphs"""
    if not dynamics.has_graph:
        able = " or ".join(repr(name) for name, model in DYNAMICS.items() if model.has_graph)
        raise ValueError(
            f"{dynamics.__name__} has no graph, which says what may change places: for counterfactual transitions pass "
            f"dynamics={able}"
        )


@th.no_grad()
def recombined(
    world: WorldModel, replay_buffer: ReplayBuffer, n: int, rng: np.random.Generator, generator: th.Generator
) -> ReplayBuffer:
    """
    Pairs of recorded transitions in which independent parts have changed places.

    A part is a set of variables that no edge connects with others in the graphs of either transition, see ``believed``. A
    state variable changes places together with its next value. Of two parts or more some are drawn; they come from the second
    transition, the rest and the goal from the first. What comes out is kept if the model believes that it is possible: all
    three are in the same context, and each variable has the parents that it had where its values were recorded, so that the
    parts are independent here, too. Where the graph is connected, nothing is kept.

    States and actions are recorded ones, bit for bit, so the model's predictions do not matter, but its graphs do. Rewards and
    ends are those of the whole new transition, by the functions that the world was given, or by its heads, whose errors are in
    them: what was recorded of the two transitions is of other states.

    :param world: a model with graphs
    :param replay_buffer: in the units that the model is given
    :param n: pairs to draw
    :param rng: draws the transitions, uniformly and with replacement
    :param generator: draws pairs, parts and ends, on the device of the model
    :return: at most ``n`` transitions
    :raises ValueError: if the buffer is empty, or holds what no model can be given; or the observation has a key that is
        neither state nor goal
    """
    own = _drawn(world, replay_buffer, n, rng)
    here = believed(world.dynamics, *_encoded(world, own)[:2])
    partner = _partners(here.context, generator)
    moves = _parts(components(here.edges | here.edges[partner]), generator)
    rows = moves.any(1).nonzero()[:, 0]
    moves, partner = moves[rows], partner[rows]
    swapped = _swapped(world, own.at(rows), own.at(partner), moves)
    state, action, next_state = _encoded(world, swapped)
    there = believed(world.dynamics, state, action)
    moved = moves[:, : there.edges.shape[1]].unsqueeze(-1)
    has_other_parents = (there.edges != here.edges[partner].where(moved, here.edges[rows])).any((1, 2))
    is_elsewhere = (there.context != here.context[rows]).any(1)
    kept = (~(has_other_parents | is_elsewhere)).nonzero()[:, 0]
    swapped = swapped.at(kept)
    paid = outcome(world, state[kept], action[kept], next_state[kept], swapped.goal, generator)
    observations, after = (world.factorization.observation_of(part, swapped.goal) for part in (swapped.before, swapped.after))
    step = Imagined(after, *paid, np.zeros(len(kept)))
    return as_buffer(world, [(observations, swapped.action.cpu().numpy(), step)] if len(kept) else [])


def believed(model: DynamicsModel, state: th.Tensor, action: th.Tensor) -> Believed:
    """
    The edges that the model predicts with; of an ensemble, those of any elite. Of ``fcdl_tree`` these are the edges that the
    evidence supports (``CausalGraph.significant``). Where a model tests its edges and has tested nothing yet, all.

    :param model: has graphs
    :param state: ``[R, D]``
    :param action: ``[R, A]``
    """
    models = [model.models[index] for index in model.elites.tolist()] if isinstance(model, Ensemble) else [model]
    edges, contexts = th.zeros((), dtype=th.bool, device=state.device), []
    for each in models:
        prediction = each.step(state, action)
        assert prediction.graph is not None
        evidence = [graph.evidence for graph in each.context_graphs()]
        untested = th.tensor([of is not None and not of.is_tested.any() for of in evidence], device=state.device)
        if prediction.code is None:
            is_untested = untested.any().expand(len(state))
        else:
            contexts.append(prediction.code)
            is_untested = untested[prediction.code]
        edges = edges | (prediction.graph > 0) | is_untested.view(-1, 1, 1)
    context = th.stack(contexts, dim=1) if contexts else th.zeros(len(state), 0, dtype=th.int64, device=state.device)
    return Believed(edges, context)


def components(edges: th.Tensor) -> th.Tensor:
    """
    Which variables are connected, whatever the direction of the edges. A state variable and its next value are one.

    :param edges: ``[R, V, P]``, bool
    :return: for each variable the first one that it is connected with, ``[R, P]``, int64
    """
    distinct, which = edges.flatten(1).unique(dim=0, return_inverse=True)
    n_children, n_parents = edges.shape[1:]
    reach = th.eye(n_parents, device=edges.device).repeat(len(distinct), 1, 1)
    reach[:, :n_children] += distinct.view(-1, n_children, n_parents)
    reach += reach.mT.clone()
    for _ in range(max(n_parents - 1, 1).bit_length()):  # paths twice as long each time
        reach = (reach @ reach > 0).float()
    index = th.arange(n_parents, device=edges.device)
    return index.where(reach > 0, n_parents).amin(-1)[which]


def _drawn(world: WorldModel, replay_buffer: ReplayBuffer, n: int, rng: np.random.Generator) -> _Transitions:
    batch = sample_windows(replay_buffer, n, 1, rng)
    factorization, device = world.factorization, world.device
    if not (is_usable(factorization, batch.observations, batch.next_observations) and is_finite(batch.actions)):
        check_buffer(factorization, replay_buffer)
    before, after = (obs_as_tensor(each, device) for each in (batch.observations, batch.next_observations))
    parts = (
        factorization.raw_state(before),
        th.as_tensor(batch.actions, device=device),
        factorization.raw_state(after),
        factorization.encode_goal(before),
    )
    rows = th.as_tensor(np.flatnonzero(batch.valid), device=device)
    return _Transitions(*(part.flatten(0, 1)[rows] for part in parts))


def _encoded(world: WorldModel, transitions: _Transitions) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """State, action and next state."""
    before, after = (
        world.encode(obs_as_tensor(world.factorization.observation_of(part, transitions.goal), world.device))
        for part in (transitions.before, transitions.after)
    )
    return before, world.encode_action(transitions.action), after


def _partners(context: th.Tensor, generator: th.Generator) -> th.Tensor:
    """
    For each row another one of the same context, or itself, ``[R]``, int64. A variable that only chooses the context is
    connected with none in the graph of the context, and still decides what all of them do.

    :param context: ``[R, n]``
    """
    which = context.unique(dim=0, return_inverse=True)[1] if context.shape[1] else th.zeros_like(context.sum(1))
    draws = (th.randperm(len(which), generator=generator, device=which.device) for _ in range(2))
    first, second = (draw[which[draw].argsort(stable=True)] for draw in draws)
    return th.empty_like(first).scatter_(0, first, second)


def _parts(labels: th.Tensor, generator: th.Generator) -> th.Tensor:
    """
    Draw components: of several at least one, and never all of them; of a single one none.

    :param labels: see ``components``, ``[R, P]``
    :return: their variables, ``[R, P]``, bool
    """
    draw = th.rand(labels.shape, generator=generator, device=labels.device)
    is_first = labels == th.arange(labels.shape[1], device=labels.device)
    lowest = draw.masked_fill(~is_first, th.inf).amin(1, keepdim=True)
    highest = draw.masked_fill(~is_first, -th.inf).amax(1, keepdim=True)
    of_component = draw.gather(1, labels)
    return ((of_component < 0.5) | (of_component == lowest)) & (of_component != highest)


def _swapped(world: WorldModel, own: _Transitions, other: _Transitions, moves: th.Tensor) -> _Transitions:
    """
    :param moves: the variables that come from the other transition, ``[R, P]``, bool
    """
    factors = world.factors
    of_state, of_action = moves.split([len(factors.state_variables), len(factors.action)], dim=1)
    of_state = _by_column(of_state, factors.state_variables)
    # SB3's buffers hold a category as one number.
    if isinstance(world.factorization.action_space, spaces.Box):
        of_action = _by_column(of_action, factors.action)
    return _Transitions(
        other.before.where(of_state, own.before),
        other.action.where(of_action, own.action),
        other.after.where(of_state, own.after),
        own.goal,
    )


def _by_column(of_variables: th.Tensor, variables: Sequence[Variable]) -> th.Tensor:
    """``[R, n]`` of variables to ``[R, D]`` of their columns."""
    widths = th.tensor([variable.width for variable in variables], device=of_variables.device)
    return of_variables.repeat_interleave(widths, dim=1)
