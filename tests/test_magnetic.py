import copy
import itertools
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from fcdl_envs import Variable
from fcdl_envs.magnetic import MagneticEnv, reach_reward
from fcdl_envs.magnetic_simulator import BLACK, RED, MagneticSimulator

ENV_ID = "FCDL/Magnetic-v0"
EXAMPLE = Path(__file__).parent.parent / "examples" / "magnetic_gif.py"
ROLLING = {"ball_speed": (0.1, 0.3)}
VARIANTS = [{}, {"task": "test"}, {"task": "test", "observe_velocity": True, **ROLLING}]
BOTH_RED = {"ball_color": RED, "box_color": RED}
STILL = np.zeros(3)


def why_not_renderable():
    simulator = MagneticSimulator()
    try:
        simulator.render("front")
    except RuntimeError as error:
        return str(error)
    simulator.close()
    return ""


NO_EGL = why_not_renderable()
needs_rendering = pytest.mark.skipif(bool(NO_EGL), reason=NO_EGL)


def go_to(observation, xy):
    """Action that takes the end effector to a point in the ball's plane."""
    return np.clip((np.array([*xy, 0.8]) - observation[-3:]) / 0.05, -1, 1)


def act_randomly(observation, rng):
    return rng.uniform(-1, 1, 3)


def chase_the_ball(observation, rng):
    return go_to(observation, observation[2:4])


def go_to_the_box(observation, rng):
    return go_to(observation, observation[-5:-3])


def mean_score(policy, n_episodes=100, **kwargs):
    """Mean return, and share of episodes that end with success."""
    env, rng = MagneticEnv(**kwargs), np.random.default_rng(0)
    total, successes = 0.0, 0
    for seed in range(n_episodes):
        observation, _ = env.reset(seed=seed)
        for _ in range(25):
            observation, reward, _, _, info = env.step(policy(observation, rng))
            total += reward
        successes += info["is_success"]
    return total / n_episodes, successes / n_episodes


def ball_path(n_steps, policy=None, seed=0, **options):
    """Where the ball is after each step, [n_steps, 2]."""
    env, rng, path = MagneticEnv(), np.random.default_rng(seed), []
    env.reset(seed=seed, options=options)
    for _ in range(n_steps):
        env.step(STILL if policy is None else policy(None, rng))
        path.append(env.simulator.ball_position)
    return np.array(path)


def closed_form_path(distance, n_steps):
    """
    How far a pulled ball at rest is from the box, [n_steps]: the law of docs/magnetic.md as a differential equation of one
    dimension, in steps of 10 microseconds. A rolling sphere has 7/5 of its mass; damping acts on its speed and its spin.
    """
    speed, path, dt = 0.0, [], 1e-5
    drag = 0.5 + 1.2e-5 * (1 + 1 / 0.03**2)
    for _ in range(n_steps):
        for _ in range(5000):
            length = np.sqrt(distance**2 + 0.1**2)
            speed += dt * (-0.3 * (1 - length) * distance / length - drag * speed) / (0.05 * 7 / 5)
            distance += dt * speed
        path.append(distance)
    return np.array(path)


@pytest.mark.filterwarnings("ignore:.*A Box observation space m..imum value is -?infinity:UserWarning")
@pytest.mark.parametrize("kwargs", VARIANTS)
def test_checkers_pass(kwargs):
    """Gymnasium warns that the observation has no bounds: a box from a normal distribution has none."""
    env = gym.make(ENV_ID, disable_env_checker=True, **kwargs).unwrapped
    gymnasium_check_env(env, skip_render_check=True)
    sb3_check_env(env, skip_render_check=True)


@pytest.mark.parametrize(
    ("policy", "kwargs", "expected", "success", "tolerance"),
    [
        # specified, for a ball that rolls; the standard error of 100 episodes is 0.2, 0.1 and 0.7, 0.2 in the test task
        (act_randomly, ROLLING, 1.7, 0.0, 0.4),
        (act_randomly, {"task": "test", **ROLLING}, 1.3, 0.0, 0.4),
        (chase_the_ball, ROLLING, 21.0, 1.0, 0.3),
        (chase_the_ball, {"task": "test", **ROLLING}, 21.1, 1.0, 0.3),
        (go_to_the_box, ROLLING, 5.6, 0.29, 0.56),
        (go_to_the_box, {"task": "test", **ROLLING}, 1.2, 0.03, 0.4),
        # docs/magnetic.md, for a ball at rest: the same episodes
        (act_randomly, {}, 1.6, 0.01, 0.1),
        (act_randomly, {"task": "test"}, 1.5, 0.0, 0.1),
        (chase_the_ball, {}, 22.1, 1.0, 0.1),
        (chase_the_ball, {"task": "test"}, 22.6, 1.0, 0.1),
        (go_to_the_box, {}, 6.2, 0.29, 0.1),
        (go_to_the_box, {"task": "test"}, 1.1, 0.0, 0.1),
    ],
)
def test_scripted_policies_score_as_documented(policy, kwargs, expected, success, tolerance):
    score, success_rate = mean_score(policy, **kwargs)
    assert score == pytest.approx(expected, abs=tolerance)
    assert success_rate == pytest.approx(success, abs=0.05)


@pytest.mark.parametrize(("distance", "n_steps"), [(0.2, 11), (0.3, 16), (0.5, 29)])
def test_pulled_ball_follows_the_documented_force_law(distance, n_steps):
    """The specification's median number of steps until the ball is within 5 cm, and the law as a differential equation."""
    options = {**BOTH_RED, "ball_position": (-0.1, 0.35 - distance), "box_position": (-0.1, 0.35)}
    path = ball_path(35, **options)
    distances = np.linalg.norm(path - options["box_position"], axis=1)
    assert abs((distances < 0.05).argmax() + 1 - n_steps) <= 1
    assert np.allclose(distances, np.abs(closed_form_path(distance, 35)), atol=2e-3)
    assert np.allclose(path[:, 0], -0.1, atol=1e-12)
    assert distances[-1] < 0.03


def test_black_ball_does_not_depend_on_the_box():
    still = [ball_path(25, ball_color=ball, box_color=box) for ball, box in ((BLACK, RED), (RED, BLACK), (BLACK, BLACK))]
    for path in still:
        assert np.array_equal(path, np.tile(path[0], (25, 1)))
    rolls = {"ball_color": BLACK, "box_color": RED, "ball_velocity": (0.2, -0.1)}
    places = [(0.0, 0.0), (0.1, 0.2), (120.0, -40.0)]
    paths = [ball_path(25, act_randomly, box_position=place, **rolls) for place in places]
    assert np.linalg.norm(paths[0][-1] - paths[0][0]) > 0.1
    assert np.array_equal(paths[0], paths[1])
    assert np.array_equal(paths[0], paths[2])


def test_rolling_ball_slows_down_as_its_damping_says():
    """A torque of 1.2e-5 N m s on the spin, and a force of 1.2e-5 N s/m, against 7/5 of 50 g."""
    env = MagneticEnv()
    env.reset(seed=0, options={"ball_color": BLACK, "ball_position": (0.0, -0.3), "ball_velocity": (0.0, 0.2)})
    for _ in range(25):
        env.step(STILL)
    rate = 1.2e-5 * (1 + 1 / 0.03**2) / 0.07
    assert env.simulator.ball_velocity == pytest.approx([0.0, 0.2 * np.exp(-rate * 1.25)], abs=1e-3)
    assert env.simulator.ball_position == pytest.approx([0.0, -0.3 + 0.2 * -np.expm1(-rate * 1.25) / rate], abs=2e-3)


def test_ball_never_leaves_the_table():
    """The rims are 0.28 m and 0.43 m from the centre, and stop a centre 0.03 m earlier; a contact gives by 2 mm."""
    env = MagneticEnv(**ROLLING)
    simulator = env.simulator
    furthest = np.zeros(2)
    for seed in range(300):
        env.reset(seed=seed)
        for _ in range(25):
            simulator.step(STILL)
            furthest = np.maximum(furthest, np.abs(simulator.ball_position))
            assert 0.799 < simulator.data.joint("ball").qpos[2] <= 0.8
    assert (furthest < [0.252, 0.402]).all()
    assert (furthest > [0.25, 0.40]).all()


def test_arm_reaches_every_corner_of_its_workspace_from_every_other():
    corners = np.array(list(itertools.product((-0.27, 0.27), (-0.42, 0.42), (0.80, 1.05))))
    simulator = MagneticSimulator()
    for start, end in itertools.permutations(corners, 2):
        for goal in (start, end):
            for _ in range(21):
                simulator.step((goal - simulator.eef_position) / 0.05)
            assert np.abs(simulator.eef_position - goal).max() < 0.01
        tilt = np.degrees(np.arccos(simulator.data.site("eef").xmat[8]))
        assert tilt < 2


def test_actions_are_clipped_and_so_is_the_workspace():
    ends = []
    for scale in (1, 100):
        env = MagneticEnv()
        env.reset(seed=0)
        for _ in range(30):
            env.step(scale * np.array([1.0, -1.0, -1.0]))
        ends.append(env.simulator.eef_position)
    assert np.array_equal(*ends)
    assert ends[0] == pytest.approx([0.27, -0.42, 0.80], abs=2e-3)


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


def test_arm_moves_neither_ball_nor_box():
    paths = [ball_path(25, policy, **BOTH_RED) for policy in (None, act_randomly)]
    assert np.allclose(*paths, atol=1e-12)
    assert np.ptp(paths[0], axis=0).max() > 0.05


def test_end_effector_persists_but_for_the_action():
    """Small changes of the joints at the start shift it now and after the step by the same."""
    simulator = MagneticSimulator()
    shifts = []
    for offset in 1e-3 * np.vstack([np.zeros(6), np.eye(6)]):
        simulator.reset(BLACK, BLACK, np.zeros(2), np.zeros(2), np.zeros(2), offset)
        before = simulator.eef_position
        simulator.step(np.array([0.3, -0.2, -0.4]))
        shifts.append([before, simulator.eef_position])
    now, after = np.swapaxes(np.array(shifts[1:]) - shifts[0], 0, 1)
    assert np.abs(now).max() > 3e-4
    assert np.allclose(after, now, atol=0.1 * np.abs(now).max())


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
        Variable("ball_color", 2),
        Variable("box_color", 2),
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


@pytest.mark.parametrize("kwargs", VARIANTS)
def test_observation_shows_the_simulator(kwargs):
    env = MagneticEnv(**kwargs)
    for seed in range(5):
        env.reset(seed=seed)
        observation, *_, info = env.step(np.full(3, 0.5))
        simulator = env.simulator
        ball = [simulator.ball_color == BLACK, simulator.ball_color == RED, *simulator.ball_position]
        ball += [*info["ball_velocity"]] if env.observe_velocity else []
        box = [simulator.box_color == BLACK, simulator.box_color == RED, *simulator.box_position]
        assert observation.dtype == np.float32
        assert np.array_equal(observation, np.array([*ball, *box, *simulator.eef_position], dtype=np.float32))
        assert len(observation) == env.factorization.state_width


@pytest.mark.parametrize("kwargs", VARIANTS)
def test_reward_is_a_function_of_the_observation(kwargs):
    env, rng = MagneticEnv(**kwargs), np.random.default_rng(0)
    observations, rewards = [], []
    for seed in range(4):
        env.reset(seed=seed)
        for _ in range(10):
            observation, reward, terminated, truncated, info = env.step(rng.uniform(-1, 1, 3))
            ball, eef = env.simulator.ball_position, env.simulator.eef_position
            distance = np.abs(eef - [*ball, 0.8]).sum()
            assert reward == pytest.approx(1 - np.tanh(5 * distance), abs=1e-6)
            assert info["distance"] == pytest.approx(distance, abs=1e-6)
            assert info["is_success"] is bool(distance < 0.05)
            assert (type(reward), terminated, truncated) == (float, False, False)
            observations.append(observation)
            rewards.append(reward)
    batch = np.array(observations)
    assert np.allclose(env.reward_fn(batch, None, batch, batch[:, :0]), rewards, atol=1e-6)
    tensor = env.reward_fn(None, None, th.as_tensor(batch), None)
    assert tensor.shape == (40,)
    assert tensor.dtype == th.float32
    assert np.allclose(tensor.numpy(), rewards, atol=1e-6)
    assert pickle.loads(pickle.dumps(env.reward_fn)) is reach_reward


def test_reward_of_predictions_far_away_is_zero():
    far = np.full((2, 11), 1e4, dtype=np.float32)
    far[:, 2:4] = -1e4
    assert reach_reward(None, None, far, None).tolist() == [0, 0]
    assert reach_reward(None, None, th.as_tensor(far), None).tolist() == [0, 0]


def test_training_and_test_task_start_as_specified():
    train, test = (np.array([env.reset(seed=seed)[0] for seed in range(2000)]) for env in map(MagneticEnv, ("train", "test")))
    both_red = {"train": train[:, 1] * train[:, 5], "test": test[:, 1] * test[:, 5]}
    assert both_red["train"].mean() == pytest.approx(0.25, abs=0.03)
    assert not both_red["test"].any()
    assert test[:, 1].mean() == pytest.approx(1 / 3, abs=0.03)
    for columns in (train[:, 2:4], train[:, 6:8], test[:, 2:4]):
        assert np.abs(columns).max(axis=0) == pytest.approx([0.20, 0.35], abs=1e-3)
        assert columns.std(axis=0) == pytest.approx(np.array([0.20, 0.35]) / np.sqrt(3), rel=0.05)
    assert test[:, 6:8].std(axis=0) == pytest.approx([100, 100], rel=0.05)
    assert np.median(np.linalg.norm(test[:, 6:8], axis=1)) == pytest.approx(100 * np.sqrt(2 * np.log(2)), rel=0.05)
    assert train[:, 8:].mean(axis=0) == pytest.approx([0, 0, 0.95], abs=2e-3)
    speeds = []
    env = MagneticEnv(observe_velocity=True, **ROLLING)
    for seed in range(500):
        speeds.append(np.linalg.norm(env.reset(seed=seed)[0][4:6]))
    assert (min(speeds), np.mean(speeds), max(speeds)) == pytest.approx((0.1, 0.2, 0.3), abs=0.01)


def test_options_override_what_is_drawn_and_nothing_else():
    env = MagneticEnv(observe_velocity=True, **ROLLING)
    drawn, _ = env.reset(seed=3)
    options = {"ball_color": RED, "box_color": BLACK, "ball_position": (0.1, 0.2), "box_position": [3, 4]}
    given, _ = env.reset(seed=3, options={**options, "ball_velocity": (0.5, 0.0)})
    assert given[:10].tolist() == pytest.approx([0, 1, 0.1, 0.2, 0.5, 0, 1, 0, 3, 4])
    assert np.array_equal(given[10:], drawn[10:])
    assert np.array_equal(env.reset(seed=3, options={"box_position": (3, 4)})[0][:8], drawn[:8])


@pytest.mark.parametrize("kwargs", VARIANTS)
def test_same_seed_same_trajectory_whatever_was_before(kwargs):
    def run(env):
        steps = [env.reset(seed=5)[0]]
        steps += [env.step(action)[0] for action in np.random.default_rng(1).uniform(-1, 1, (25, 3))]
        return np.array(steps)

    env = gym.make(ENV_ID, **kwargs)
    first = run(env)
    env.reset(seed=8)
    env.step(STILL)
    assert np.array_equal(run(env), first)
    assert np.array_equal(run(gym.make(ENV_ID, **kwargs)), first)
    env.reset(seed=5)
    assert [env.step(STILL)[3] for _ in range(25)] == [False] * 24 + [True]


@pytest.mark.parametrize("kwargs", VARIANTS)
def test_state_round_trip_continues_identically(kwargs):
    def run(env):
        first = [env.step(action)[:2] for action in actions]
        start = env.reset(options=BOTH_RED)
        return str([first, start, [env.step(action)[:2] for action in actions], env.reset()])

    actions = np.random.default_rng(0).uniform(-1, 1, (12, 3))
    env, fresh = MagneticEnv(**kwargs), MagneticEnv(**kwargs)
    env.reset(seed=0, options=BOTH_RED)
    for action in actions:
        env.step(action)
    state, clone, pickled = env.get_state(), copy.deepcopy(env), pickle.loads(pickle.dumps(env))
    assert str(clone.get_state()) == str(state)
    expected = run(env)
    fresh.set_state(state)
    env.set_state(pickle.loads(pickle.dumps(state)))
    for other in (clone, pickled, fresh, env):
        assert run(other) == expected


def test_simulator_is_its_own_perfect_model():
    """Candidates tried from a state leave no trace in what follows it."""
    env, model = MagneticEnv(), MagneticSimulator()
    env.reset(seed=1, options=BOTH_RED)
    actions = np.random.default_rng(0).uniform(-1, 1, (25, 3))
    for action in actions:
        state = env.simulator.get_state()
        tried = []
        for candidate in (-action, STILL, action):
            model.set_state(state)
            assert np.array_equal(model.eef_position, env.simulator.eef_position)
            model.step(candidate)
            tried.append(model.get_state())
        env.step(action)
        assert np.array_equal(tried[-1], env.simulator.get_state())
        assert not np.array_equal(tried[0], tried[-1])


def test_at_least_2500_steps_a_second():
    """Alone on a core it is three times as fast; a neighbour on the same core takes its share."""
    env, simulator = MagneticEnv(), MagneticSimulator()
    env.reset(seed=0)
    action, state = np.full(3, 0.1), simulator.get_state()
    start = time.process_time()
    for _ in range(1000):
        env.step(action)
    stepped = time.process_time()
    for _ in range(1000):
        simulator.set_state(state)
        simulator.step(action)
    assert stepped - start < 0.4
    assert time.process_time() - stepped < 0.4


@pytest.mark.parametrize("vec_env_cls", [None, SubprocVecEnv])
def test_sb3_makes_it(vec_env_cls):
    kwargs = {"task": "test", "box_std": 2.0}
    vec_env = make_vec_env(f"fcdl_envs:{ENV_ID}", n_envs=2, seed=0, vec_env_cls=vec_env_cls, env_kwargs=kwargs)
    assert vec_env.get_attr("factorization")[1] == MagneticEnv().factorization
    assert vec_env.get_attr("reward_fn")[1] is reach_reward
    vec_env.reset()
    for _ in range(25):
        _, _, dones, infos = vec_env.step(np.zeros((2, 3)))
    assert dones.all()
    assert infos[0]["TimeLimit.truncated"] is True
    assert infos[1]["local_graph"].shape == (9, 12)
    vec_env.close()


def run_python(code, **environment):
    kept = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env={**kept, **environment}, check=False, capture_output=True, text=True)


def test_importing_the_package_imports_no_mujoco_and_magnetic_no_torch():
    code = "import sys, fcdl_envs; first = 'mujoco' in sys.modules; import fcdl_envs.magnetic; "
    code += "sys.exit(first or bool({'torch', 'stable_baselines3'} & set(sys.modules)))"
    assert run_python(code).returncode == 0


def test_without_mujoco_the_error_names_the_extra():
    result = run_python("import sys; sys.modules['mujoco'] = None; import fcdl_envs.magnetic")
    assert result.returncode == 1
    assert 'ImportError: FCDL/Magnetic-v0 needs MuJoCo: pip install "sb3_fcdl[magnetic]"' in result.stderr


def test_users_who_never_render_need_no_opengl():
    code = "from fcdl_envs.magnetic import MagneticEnv; env = MagneticEnv(render_mode='rgb_array'); "
    code += "env.reset(seed=0); env.render()"
    result = run_python(code, MUJOCO_GL="off")
    assert result.returncode == 1
    assert "RuntimeError: MuJoCo cannot render with MUJOCO_GL='off'" in result.stderr
    assert "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri" in result.stderr
    assert run_python(code.replace("env.render()", "env.step(env.action_space.sample())"), MUJOCO_GL="off").returncode == 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"task": "exam"}, "task='exam' is not allowed; task must be one of train, test"),
        ({"box_std": -1.0}, "box_std=-1.0 is not allowed; box_std must be a number, at least 0"),
        ({"box_std": float("nan")}, "box_std=nan is not allowed"),
        ({"ball_speed": (0.3, 0.1)}, "ball_speed=(0.3, 0.1) is not allowed; ball_speed must be two numbers"),
        ({"render_mode": "human"}, "render_mode='human' is not allowed; render_mode must be one of rgb_array, or None"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError) as error:
        MagneticEnv(**kwargs)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_colour": 1}, "option='box_colour' is not allowed; option must be one of ball_color, box_color, ball_position"),
        ({"ball_color": 2}, "ball_color=2 is not allowed; ball_color must be 0 (black) or 1 (red)"),
        ({"box_position": (1.0, 2.0, 3.0)}, "box_position=(1.0, 2.0, 3.0) is not allowed; box_position must be two numbers"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError) as error:
        MagneticEnv().reset(options=options)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("action", [np.zeros(2), np.array([0.0, np.nan, 0.0]), np.zeros((1, 3))])
def test_actions_that_are_not_three_numbers_are_refused(action):
    env = MagneticEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="it must be three finite numbers"):
        env.step(action)


@needs_rendering
def test_picture_shows_the_colors():
    env = MagneticEnv(render_mode="rgb_array")
    camera, focal_length = np.array([1.2, -0.8, 1.75]), 240 / np.tan(np.radians(24))  # [m], [pixels]
    to_ball, to_box = np.array([0.15, 0.3, 0.8]) - camera, np.array([0.15, -0.3, 0.77]) - camera
    ball_pixels = np.pi * (focal_length * 0.03) ** 2 / (to_ball @ to_ball)
    box_pixels = (focal_length * 0.08) ** 2 * -to_box[2] / np.linalg.norm(to_box) ** 3
    reddish = {}
    for colors in itertools.product((BLACK, RED), repeat=2):
        places = {"ball_position": (0.15, 0.3), "box_position": (0.15, -0.3)}
        env.reset(seed=0, options={**dict(zip(("ball_color", "box_color"), colors, strict=True)), **places})
        picture = env.render()
        assert picture.shape == (480, 480, 3)
        assert picture.dtype == np.uint8
        red, green = picture[..., 0].astype(int), picture[..., 1].astype(int)
        reddish[colors] = int(((red > 100) & (red > 3 * green)).sum())
    env.close()
    assert reddish[BLACK, BLACK] == 0
    assert reddish[RED, BLACK] == pytest.approx(ball_pixels, rel=0.15)
    assert reddish[BLACK, RED] == pytest.approx(box_pixels, rel=0.15)
    assert reddish[RED, RED] == pytest.approx(reddish[RED, BLACK] + reddish[BLACK, RED], abs=5)


def test_without_a_render_mode_there_is_no_picture():
    assert MagneticEnv().render() is None


@needs_rendering
def test_example_writes_an_animation(tmp_path):
    from PIL import Image

    output = tmp_path / "magnetic.gif"
    command = [sys.executable, str(EXAMPLE), "--episodes", "1", "--output", str(output)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert output.stat().st_size < 2_000_000
    with Image.open(output) as animation:
        assert animation.n_frames > 10
