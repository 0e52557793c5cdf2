"""Magnetic as a Gymnasium environment: scores, observations, rewards, seeds and mistakes."""

import copy
import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from magnets import BOTH_RED, ROLLING, STILL, act_randomly
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from fcdl_envs.magnetic import MagneticEnv, reach_reward
from fcdl_envs.magnetic_simulator import BLACK, RED, MagneticSimulator

ENV_ID = "FCDL/Magnetic-v0"
EXAMPLE = Path(__file__).parents[2] / "examples" / "magnetic_gif.py"
VARIANTS = [{}, {"task": "test"}, {"task": "test", "observe_velocity": True, **ROLLING}]


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
@pytest.mark.parametrize("box_color", [BLACK, RED])
def test_no_truth_is_finer_than_the_local_graph(kwargs, box_color):
    env = MagneticEnv(**kwargs)
    env.reset(seed=0, options={"ball_color": RED, "box_color": box_color})
    info = env.step(STILL)[-1]
    assert np.array_equal(info["transition_graph"], info["local_graph"])
    info["transition_graph"][:] = False
    info = env.step(STILL)[-1]
    assert info["transition_graph"].any() and np.array_equal(info["transition_graph"], info["local_graph"])


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
        ({"box_std": -1.0}, "box_std=-1.0 is not allowed; box_std must be a finite number, at least 0"),
        ({"box_std": float("nan")}, "box_std=nan is not allowed"),
        (
            {"ball_speed": (0.3, 0.1)},
            "ball_speed=(0.3, 0.1) is not allowed; ball_speed must be 2 values",
        ),
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
        ({"ball_color": 2}, "ball_color=2 is not allowed; ball_color must be an integer, at least 0 and at most 1"),
        (
            {"box_position": (1.0, 2.0, 3.0)},
            "box_position=(1.0, 2.0, 3.0) is not allowed; box_position must be",
        ),
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


def test_there_is_no_step_before_the_first_reset():
    env, other = MagneticEnv(), MagneticEnv()
    with pytest.raises(gym.error.ResetNeeded, match="call reset before step"):
        env.step(np.zeros(3))
    env.reset(seed=0)
    other.set_state(env.get_state())
    assert np.array_equal(other.step(np.ones(3))[0], env.step(np.ones(3))[0])


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
