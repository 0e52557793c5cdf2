"""Recombined transitions: the true system could have made every one of them, and connected parts stay together."""

from itertools import product

import gymnasium as gym
import networkx as nx
import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from gymnasium import spaces
from known import KnownGraphs
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics import DYNAMICS, ContextTreeDynamics, NCDDynamics
from sb3_fcdl.dynamics.ensemble import Ensemble
from sb3_fcdl.imagination import check_has_graph, recombined
from sb3_fcdl.imagination.counterfactual import believed, components
from sb3_fcdl.world.factorization import Factorization
from sb3_fcdl.world.world_model import WorldModel

N_PLACES = 5


class RingEnv(gym.Env):
    """Two tokens on a ring of five places, each moved by an action of its own; where they meet, each by that of the other."""

    observation_space = spaces.MultiDiscrete([N_PLACES] * 2)
    action_space = spaces.MultiDiscrete([3, 3])
    factorization = Factors((Variable("x", N_PLACES), Variable("y", N_PLACES)), (Variable("u", 3), Variable("v", 3)))


def ring_step(x, y, u, v):
    return ((x + v) % N_PLACES, (y + u) % N_PLACES) if x == y else ((x + u) % N_PLACES, (y + v) % N_PLACES)


APART, ALL = th.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1]]), th.ones(2, 4)


def ring_graph(has_contexts):
    """Of the context: whether the tokens are at one place."""

    def graph(state, action):
        meets = state[:, :N_PLACES].argmax(1) == state[:, N_PLACES:].argmax(1)
        return th.where(meets.view(-1, 1, 1), ALL, APART), meets.long() if has_contexts else None

    return graph


def world_of(env, graph_fn, **outcomes):
    factorization = Factorization(env.observation_space, env.action_space, getattr(env, "factorization", None))
    return WorldModel(factorization, KnownGraphs(factorization.factors, graph_fn), **outcomes).eval()


def mean_of_places(state, action, next_state):
    return next_state[:, :N_PLACES].argmax(1) + 10.0 * next_state[:, N_PLACES:].argmax(1)


def meeting(state, action, next_state):
    return (next_state[:, :N_PLACES] * next_state[:, N_PLACES:]).sum(1)


OUTCOMES = {"reward_fn": mean_of_places, "termination_fn": meeting}


def filled(env, transitions):
    buffer = ReplayBuffer(len(transitions), env.observation_space, env.action_space, "cpu")
    for before, action, after in transitions:
        buffer.add(np.array([before]), np.array([after]), np.array([action]), np.zeros(1), np.zeros(1), [{}])
    return buffer


def swap(world, buffer, n=1000, seed=0):
    return recombined(world, buffer, n, np.random.default_rng(seed), th.Generator().manual_seed(seed))


@pytest.mark.parametrize("has_contexts", [True, False])
def test_swapped_transitions_are_all_those_of_the_true_system_and_no_others(has_contexts):
    """By brute force: of any two recorded transitions apart, the halves of both, unless they meet."""
    rng = np.random.default_rng(0)
    every = list(product(range(N_PLACES), range(N_PLACES), range(3), range(3)))
    recorded = [every[index] for index in rng.choice(len(every), 14, replace=False)]
    buffer = filled(RingEnv(), [(each[:2], each[2:], ring_step(*each)) for each in recorded])
    swapped = swap(world_of(RingEnv(), ring_graph(has_contexts), **OUTCOMES), buffer, 6000)
    made = np.concatenate([swapped.observations, swapped.actions, swapped.next_observations], axis=2)[:, 0].astype(int)
    assert all(tuple(row[4:]) == ring_step(*row[:4]) for row in made)
    apart = [each for each in recorded if each[0] != each[1]]
    expected = {(x, y, u, v) for x, _, u, _ in apart for _, y, _, v in apart if x != y}
    # The whole of a buffer can be drawn as a pair with itself.
    assert {tuple(row[:4].tolist()) for row in made} == expected > set(apart)
    after = swapped.next_observations[:, 0]
    np.testing.assert_array_equal(swapped.rewards[:, 0], after @ [1, 10])
    np.testing.assert_array_equal(swapped.dones[:, 0], after[:, 0] == after[:, 1])
    assert swapped.full and not swapped.timeouts.any() and swapped.actions.dtype == buffer.actions.dtype


def test_nothing_is_swapped_where_the_graph_is_connected():
    recorded = [(x, y, u, v) for x, y, u, v in product(range(N_PLACES), range(N_PLACES), range(3), range(3)) if x == y]
    buffer = filled(RingEnv(), [(each[:2], each[2:], ring_step(*each)) for each in recorded])
    assert swap(world_of(RingEnv(), ring_graph(True), **OUTCOMES), buffer).size() == 0


@pytest.mark.parametrize("has_contexts", [True, False])
def test_what_only_chooses_the_context_is_no_part_of_its_own(has_contexts):
    """The gate is constant in either context, so their graphs connect it with nothing; it decides whether x moves y."""

    def graph(state, action):
        is_open = state[:, 1] > 0.5
        shut = th.tensor([[1.0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]])
        opened = th.tensor([[1.0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 0]])
        return th.where(is_open.view(-1, 1, 1), opened, shut), is_open.long() if has_contexts else None

    env, transitions = GatedEnv(), []
    rng = np.random.default_rng(0)
    for _ in range(10):
        env.reset(seed=int(rng.integers(1000)))
        env.y = rng.uniform(0, 5)
        before, *_ = env.step(np.zeros(1))
        for _ in range(6):
            action = rng.uniform(-2, 2, 1).astype(np.float32)
            after, *_ = env.step(action)
            transitions.append((before, action / 2, after))
            before = after
    swapped = swap(world_of(env, graph, termination_fn=lambda *_: th.zeros(len(_[0]))), filled(env, transitions))
    before, after, push = swapped.observations[:, 0], swapped.next_observations[:, 0], 2 * swapped.actions[:, 0, 0]
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    np.testing.assert_allclose(after[:, 2], before[:, 2] + push / 10, atol=1e-6)
    np.testing.assert_allclose(after[:, 3], before[:, 3] + before[:, 1] * before[:, 2] / 10, atol=1e-6)
    recorded = {tuple(before) for before, _, _ in transitions}
    shut = before[:, 0] == 1
    assert sum(tuple(row) not in recorded for row in before[shut]) > 300
    assert all(tuple(row) in recorded for row in before[~shut])


def test_contexts_with_the_same_graph_do_not_mix():
    """The context decides how fast y grows; nothing in the graphs shows it."""

    def graph(state, action):
        return th.tensor([[1.0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]]).expand(len(state), -1, -1), (state[:, 1] > 0.5).long()

    rng, transitions = np.random.default_rng(0), []
    for gate in rng.integers(2, size=40):
        x, y, push = rng.uniform(1, 2, 3)
        transitions.append(([1 - gate, gate, x, y], [push / 2], [1 - gate, gate, x + push / 10, y + gate]))
    world = world_of(GatedEnv(), graph, termination_fn=lambda *_: th.zeros(len(_[0])))
    swapped = swap(world, filled(GatedEnv(), transitions))
    before, after = swapped.observations[:, 0], swapped.next_observations[:, 0]
    np.testing.assert_allclose(after[:, 3] - before[:, 3], before[:, 1], atol=1e-6)
    np.testing.assert_allclose(after[:, 2] - before[:, 2], swapped.actions[:, 0, 0] / 5, atol=1e-6)
    assert len(before) == 1000 and 0.2 < before[:, 1].mean() < 0.8


def test_what_is_in_another_context_than_both_is_left_out():
    """Where the tokens meet they move twice as far, each still by its own action: one graph, but other mechanisms."""

    def step(x, y, u, v):
        speed = 2 if x == y else 1
        return (x + speed * u) % N_PLACES, (y + speed * v) % N_PLACES

    def graph(state, action):
        meets = (state[:, :N_PLACES] * state[:, N_PLACES:]).sum(1)
        return APART.expand(len(state), -1, -1), meets.long()

    recorded = product(range(N_PLACES), range(N_PLACES), range(3), range(3))
    buffer = filled(RingEnv(), [(each[:2], each[2:], step(*each)) for each in recorded])
    swapped = swap(world_of(RingEnv(), graph, **OUTCOMES), buffer)
    made = np.concatenate([swapped.observations, swapped.actions, swapped.next_observations], axis=2)[:, 0].astype(int)
    assert all(tuple(row[4:]) == step(*row[:4]) for row in made)
    # Of 1000 pairs a fifth meets; of those of the same place a fifth meets again, of the others four of five are apart again.
    assert len(made) == pytest.approx(1000 * (0.2 * 0.2 + 0.8 * 0.8), abs=60)


def test_components_are_those_of_networkx():
    rng = np.random.default_rng(0)
    edges = rng.random((60, 5, 8)) < rng.choice([0.02, 0.1, 0.2], (60, 1, 1))
    found = components(th.tensor(edges))
    for row, labels in zip(edges, found.tolist(), strict=True):
        graph = nx.Graph()
        graph.add_nodes_from(range(8))
        graph.add_edges_from(np.argwhere(row))
        expected = {min(part): part for part in nx.connected_components(graph)}
        assert all(node in expected[label] for node, label in enumerate(labels))


class TaggedEnv(gym.Env):
    """Two numbers and a task."""

    observation_space = spaces.Dict(state=spaces.Box(-np.inf, np.inf, (2,)), task=spaces.Box(-np.inf, np.inf, (1,)))
    action_space = spaces.Discrete(4)
    factorization = Factors({"state": (Variable("x"), Variable("y"))}, (Variable("u", 4),), ("task",))


def test_the_task_stays_with_what_stays_and_rewards_and_ends_are_those_of_the_whole():
    """The i-th recorded transition has i everywhere: x moves by the action, y by itself."""

    def graph(state, action):
        return th.tensor([[1.0, 0, 1], [0, 1, 0]]).expand(len(state), -1, -1), None

    def reward_fn(state, action, next_state, goal):
        return next_state[:, 0] + 100 * next_state[:, 1] + 10_000 * goal[:, 0]

    world = world_of(TaggedEnv(), graph, reward_fn=reward_fn, termination_fn=lambda state, action, after: after[:, 0] > 5)
    buffer = DictReplayBuffer(10, TaggedEnv.observation_space, TaggedEnv.action_space, "cpu")
    for index in range(10):
        before = {"state": np.full((1, 2), index), "task": np.full((1, 1), index)}
        after = before | {"state": np.full((1, 2), index + 0.5)}
        buffer.add(before, after, np.array([index % 4]), np.zeros(1), np.zeros(1), [{}])
    swapped = swap(world, buffer)
    x, y = swapped.observations["state"][:, 0].T
    task = swapped.observations["task"][:, 0, 0]
    np.testing.assert_array_equal(swapped.actions[:, 0, 0], x % 4)
    np.testing.assert_array_equal(swapped.next_observations["state"][:, 0], np.stack([x, y], 1) + 0.5)
    np.testing.assert_array_equal(swapped.next_observations["task"], swapped.observations["task"])
    np.testing.assert_allclose(swapped.rewards[:, 0], x + 0.5 + 100 * (y + 0.5) + 10_000 * task)
    np.testing.assert_array_equal(swapped.dones[:, 0], x + 0.5 > 5)
    is_x = task == x
    assert np.all(is_x | (task == y)) and 0.4 < is_x[x != y].mean() < 0.6


FACTORS = Factors((Variable("x"), Variable("y")), (Variable("u"),))


def test_all_edges_are_believed_until_they_are_tested_and_of_an_ensemble_those_of_any_elite():
    model = Ensemble(FACTORS, ContextTreeDynamics, {"hidden_dim": 4, "n_codes": 2}, n_members=3, n_elites=2).eval()
    rows = th.randn(4, 2), th.randn(4, 1)
    graphs = [th.tensor([[1.0, 0, 0], [0, 1, 0]]), th.tensor([[1.0, 0, 1], [0, 1, 0]]), th.ones(2, 3)]
    for member, graph in zip(model.models, graphs, strict=True):
        member.graphs.copy_(graph.expand(2, -1, -1))
    edges, context = believed(model, *rows)
    assert edges.all() and context.shape == (4, 2)
    for member in model.models:
        member.evidence.is_tested[:, 0, 1] = True
    assert (believed(model, *rows).edges == (graphs[0] + graphs[1] > 0)).all()
    model.elites.copy_(th.tensor([0, 0]))
    assert (believed(model, *rows).edges == (graphs[0] > 0)).all()
    graph_a_sample = NCDDynamics(FACTORS, hidden_dim=4).eval()
    assert believed(graph_a_sample, *rows).edges.all()
    graph_a_sample.evidence.is_tested[:] = True
    edges, context = believed(graph_a_sample, *rows)
    assert (edges == (graph_a_sample.local_graph(*rows) > 0)).all() and context.shape == (4, 0)


def test_models_without_graphs_are_refused_by_name():
    for model in DYNAMICS.values():
        if model.has_graph:
            check_has_graph(model)
            continue
        with pytest.raises(ValueError, match=rf"{model.__name__} has no graph.* pass dynamics='fcdl' or 'fcdl_tree'"):
            check_has_graph(model)
    assert not DYNAMICS["mlp"].has_graph
