"""The graphs that Magnetic tells are those of its physics."""

import itertools

import numpy as np
import pytest
from magnets import BOTH_RED, STILL

from fcdl_envs import Variable
from fcdl_envs.magnetic import MagneticEnv
from fcdl_envs.magnetic_simulator import BLACK, RED


@pytest.mark.parametrize("observe_velocity", [False, True])
@pytest.mark.parametrize("colors", [BOTH_RED, {"ball_color": RED, "box_color": BLACK}])
def test_local_graph_agrees_with_finite_differences(colors, observe_velocity):
    """Exact for ball and box; the end effector moves 1 % across the direction of an action."""
    env = MagneticEnv(observe_velocity=observe_velocity)
    names = env.factorization.state_names
    continuous = [row for row, name in enumerate(names) if "color" not in name]
    of_ball = [row for row in continuous if names[row].startswith("ball")]
    largest = np.zeros((len(names), len(names) + 3))
    for seed in range(10):
        rng = np.random.default_rng(seed)
        ball, box = rng.uniform(-0.2, 0.2, (2, 2))
        inputs = np.concatenate([ball, rng.uniform(-0.2, 0.2, 2), box, rng.uniform(-0.5, 0.5, 3)])
        columns = [names.index(name) if name in names else None for name in ("ball_x", "ball_y", "ball_vx", "ball_vy")]
        columns += [names.index("box_x"), names.index("box_y"), *range(len(names), len(names) + 3)]
        for index, column in enumerate(columns):
            if column is None:
                continue
            ends = [next_values(env, seed, colors, inputs + sign * 1e-4 * np.eye(9)[index]) for sign in (1, -1)]
            slope = np.abs(ends[0] - ends[1]) / 2e-4
            largest[continuous, column] = np.maximum(largest[continuous, column], slope)
    graph = env.step(STILL)[-1]["local_graph"]
    of_eef = [names.index(f"eef_{axis}") for axis in "xyz"]
    checked = np.ix_([*of_ball, names.index("box_x"), names.index("box_y")], range(len(names) + 3))
    varied = np.ones(len(names) + 3, dtype=bool)
    varied[[names.index("ball_color"), names.index("box_color"), *of_eef]] = False
    assert np.array_equal((largest[checked] > 1e-9)[:, varied], graph[checked][:, varied])
    to_eef = largest[np.ix_(of_eef, range(len(names), len(names) + 3))]
    assert np.allclose(np.diag(to_eef), 0.0425, atol=2e-3)
    assert np.abs(to_eef - np.diag(np.diag(to_eef))).max() < 0.01 * 0.05
    assert not largest[of_eef, : len(names)].any()


def next_values(env, seed, colors, inputs):
    """Continuous variables after a step from ball place and velocity, box place, and action; the seed places the arm."""
    options = {"ball_position": inputs[:2], "ball_velocity": inputs[2:4], "box_position": inputs[4:6]}
    env.reset(seed=seed, options={**colors, **options})
    env.step(inputs[6:])
    simulator = env.simulator
    ball = [simulator.ball_position, *([simulator.ball_velocity] if env.observe_velocity else [])]
    return np.concatenate([*ball, simulator.box_position, simulator.eef_position])


def test_graphs_by_name():
    env = MagneticEnv(observe_velocity=True)
    factors = env.factorization
    assert factors.state_names == (
        *("ball_color", "ball_x", "ball_y", "ball_vx", "ball_vy", "box_color", "box_x", "box_y"),
        *("eef_x", "eef_y", "eef_z"),
    )
    assert MagneticEnv().factorization.parent_names == (
        *("ball_color", "ball_x", "ball_y", "box_color", "box_x", "box_y", "eef_x", "eef_y", "eef_z"),
        *("move_x", "move_y", "move_z"),
    )
    assert [variable for variable in factors.parents if variable.is_categorical] == [
        Variable("ball_color", 2, ("black", "red")),
        Variable("box_color", 2, ("black", "red")),
    ]

    def parents(graph, child):
        return {factors.parent_names[column] for column in np.flatnonzero(graph[factors.state_names.index(child)])}

    pull = {"ball_x", "ball_y", "ball_vx", "ball_vy", "box_x", "box_y"}
    env.reset(seed=0, options={"ball_color": RED, "box_color": BLACK})
    graph = env.step(STILL)[-1]["local_graph"]
    assert parents(graph, "ball_x") == {"ball_x", "ball_vx"}
    assert parents(graph, "ball_vy") == {"ball_vy"}
    assert parents(graph, "eef_z") == {"eef_z", "move_z"}
    env.reset(seed=0, options=BOTH_RED)
    graph = env.step(STILL)[-1]["local_graph"]
    assert parents(graph, "ball_vy") == pull
    assert parents(graph, "box_x") == {"box_x"}
    assert parents(env.global_graph, "ball_y") == pull | {"ball_color", "box_color"}
    assert parents(env.global_graph, "ball_color") == {"ball_color"}


def test_graph_follows_the_colors_and_differs_in_four_edges_and_colors():
    """Of the six edges that the paper counts, those of the colours are in the global graph alone."""
    env = MagneticEnv()
    graphs = {}
    for colors in itertools.product((BLACK, RED), repeat=2):
        env.reset(seed=0, options=dict(zip(("ball_color", "box_color"), colors, strict=True)))
        info = env.step(STILL)[-1]
        assert info["magnetic"] is (colors == (RED, RED))
        graphs[colors] = info["local_graph"]
        info["local_graph"] = None
    identity = np.hstack([np.eye(9), np.vstack([np.zeros((6, 3)), np.eye(3)])]).astype(bool)
    for colors in graphs.keys() - {(RED, RED)}:
        assert np.array_equal(graphs[colors], identity)
    added = np.argwhere(graphs[RED, RED] & ~identity).tolist()
    assert added == [[1, 2], [1, 4], [1, 5], [2, 1], [2, 4], [2, 5]]
    assert np.argwhere(env.global_graph & ~graphs[RED, RED]).tolist() == [[1, 0], [1, 3], [2, 0], [2, 3]]
    env.global_graph[:] = False
    assert env.global_graph.any()
