"""Chemical as a Gymnasium environment: its tasks, rewards and graphs."""

import copy
import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from chemicals import COLOR_TEST, NOISY_TEST, decode
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

import fcdl_envs
from fcdl_envs.chemical import ChemicalEnv, ChemicalVectorEnv, goal_match_reward
from fcdl_envs.chemical_system import ChemicalSystem

ENV_ID = "FCDL/Chemical-v0"
TASKS = [
    {},
    NOISY_TEST,
    COLOR_TEST,
    {"rule": "full_chain", "task": "test", "n_noisy": 2},
    {"rule": "none", "n_objects": 5, "n_colors": 3},
]


def mean_return(policy, n_episodes=200, seed=0, **kwargs):
    """Mean return of one episode of a batched environment under policy(colors, goals, rng) -> actions."""
    env = ChemicalVectorEnv(n_episodes, **kwargs)
    observation, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    total = 0.0
    for _ in range(25):
        observation, rewards, _, truncated, _ = env.step(policy(decode(observation), decode(observation, "goal"), rng))
        total += rewards.mean()
    assert truncated.all()
    return total


def do_nothing(colors, goals, rng):
    return 9 * 5 + colors[:, 9]


def fix_first_mismatch(colors, goals, rng):
    wrong = (colors != goals) & (goals >= 0)
    first = wrong.argmax(axis=1)
    return np.where(wrong.any(axis=1), first * 5 + goals[np.arange(len(goals)), first], do_nothing(colors, goals, rng))


def act_randomly(colors, goals, rng):
    return rng.integers(50, size=len(colors))


def act_randomly_below_root(colors, goals, rng):
    return rng.integers(5, 50, size=len(colors))


@pytest.mark.parametrize("kwargs", TASKS)
def test_checkers_pass_without_a_warning(kwargs):
    env = gym.make(ENV_ID, disable_env_checker=True, render_mode="rgb_array", **kwargs).unwrapped
    gymnasium_check_env(env)
    sb3_check_env(env)


@pytest.mark.parametrize(
    ("rule", "n_noisy", "expected"),
    [
        *[("full_fork", 2, 3.125), ("full_fork", 4, 25 / 6), ("full_fork", 6, 6.25)],
        *[("full_chain", n_noisy, 12.5) for n_noisy in (2, 4, 6)],
    ],
)
def test_doing_nothing_scores_what_the_task_gives_away(rule, n_noisy, expected):
    assert mean_return(do_nothing, rule=rule, task="test", n_noisy=n_noisy) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("rule", "n_noisy", "expected", "tolerance"),
    [
        *[("full_fork", 2, 22.375, 1e-9), ("full_fork", 4, 70 / 3, 1e-9), ("full_fork", 6, 24.25, 1e-9)],
        *[("full_chain", 2, 24.4, 0.5), ("full_chain", 4, 24.6, 0.5), ("full_chain", 6, 24.8, 0.5)],
    ],
)
def test_fixing_objects_in_order_nearly_solves_the_test_tasks(rule, n_noisy, expected, tolerance):
    assert mean_return(fix_first_mismatch, rule=rule, task="test", n_noisy=n_noisy) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    ("policy", "published"),
    [(act_randomly, {0: 8.0, 2: 4.5, 4: 5.0, 6: 5.4}), (act_randomly_below_root, {0: 9.6, 2: 6.9, 4: 8.1, 6: 9.4})],
)
def test_random_policies_score_as_in_the_reference(policy, published):
    """The reference's numbers are means of two systems and few episodes: they are near, no more."""
    for n_noisy, expected in published.items():
        task = {"task": "test", "n_noisy": n_noisy} if n_noisy else {}
        scores = [mean_return(policy, dynamics_seed=seed, **task) for seed in range(4)]
        assert np.mean(scores) == pytest.approx(expected, abs=1.5)


@pytest.mark.parametrize("n_noisy", [2, 4, 6])
def test_random_actions_below_the_root_score_their_expectation_in_fork(n_noisy):
    """Each step paints an object with chance 1/9, and then in its goal colour with chance 1/5; the root stays right."""
    painted = 1 - (8 / 9) ** np.arange(1, 26)
    expected = np.sum(1 + (9 - n_noisy) * painted / 5) / (10 - n_noisy)
    score = mean_return(act_randomly_below_root, n_episodes=2000, task="test", n_noisy=n_noisy)
    assert score == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("kwargs", TASKS)
def test_same_seed_same_episode(kwargs):
    episodes = []
    for _ in range(2):
        env = gym.make(ENV_ID, **kwargs)
        steps = [env.reset(seed=5)]
        steps += [env.step(action) for action in np.random.default_rng(1).integers(env.action_space.n, size=25)]
        episodes.append(steps)
    for one, other in zip(*episodes, strict=True):
        assert np.array_equal(one[0]["state"], other[0]["state"])
        assert np.array_equal(one[0]["goal"], other[0]["goal"])
        assert one[1:4] == other[1:4]
    assert episodes[0][-1][3] is True


def test_seeds_choose_episodes_and_not_the_dynamics():
    colors = np.ones((1, 10), dtype=np.int64)
    env = ChemicalEnv(dynamics_seed=3)
    starts = {tuple(decode(env.reset(seed=seed)[0])) for seed in range(20)}
    assert len(starts) == 20
    assert np.array_equal(env.system.conditional(9, colors), ChemicalSystem(dynamics_seed=3).conditional(9, colors))


def test_training_task_starts_ancestrally_and_aims_at_reachable_states():
    env = ChemicalVectorEnv(4000)
    observation, _ = env.reset(seed=0)
    colors, goals = decode(observation), decode(observation, "goal")
    assert np.allclose(np.bincount(colors[:, 0], minlength=5) / 4000, 0.2, atol=0.03)
    for color in range(5):
        given_root = colors[colors[:, 0] == color]
        expected = env.system.conditional(1, given_root[:1])[0]
        assert np.allclose(np.bincount(given_root[:, 1], minlength=5) / len(given_root), expected, atol=0.08)
    # interventions leave the root alone, and together move every other object
    assert np.array_equal(goals[:, 0], colors[:, 0])
    assert ((goals != colors).mean(axis=0)[1:] > 0.3).all()
    assert (goals >= 0).all()


@pytest.mark.parametrize(
    ("rule", "n_noisy", "first_to_change"),
    [
        *[("full_fork", 0, 1), ("full_fork", 4, 5), ("none", 4, 5)],
        *[("full_chain", 0, 5), ("full_chain", 2, 6), ("full_chain", 4, 7), ("full_chain", 6, 8)],
    ],
)
def test_test_task_starts_locally_and_asks_for_the_next_colors(rule, n_noisy, first_to_change):
    env = ChemicalVectorEnv(2000, rule=rule, task="test", n_noisy=n_noisy, noise_scale=1.0)
    observation, _ = env.reset(seed=0)
    colors = np.abs(observation["state"]).reshape(2000, 10, 5).argmax(axis=2)
    expected = colors.copy()
    expected[:, first_to_change:] = (colors[:, first_to_change:] + 1) % 5
    expected[:, 1 : n_noisy + 1] = -1
    assert np.array_equal(decode(observation, "goal"), expected)
    assert (colors[:, 0] == 0).all()
    for node in range(1, 10):
        assert np.allclose(np.bincount(colors[:, node], minlength=5) / 2000, 0.2, atol=0.05)


def test_training_and_test_task_share_their_spaces():
    train, test = ChemicalEnv(), ChemicalEnv(noise_scale=200.0, **NOISY_TEST)
    assert train.observation_space == test.observation_space
    assert train.action_space == test.action_space
    assert train.observation_space["state"].high.max() == 1000.0
    assert train.observation_space["goal"].high.max() == 1.0


def test_reward_is_the_share_of_matches_and_a_function_of_the_observation():
    for kwargs in ({}, NOISY_TEST):
        env = ChemicalVectorEnv(50, **kwargs)
        observation, _ = env.reset(seed=0)
        for actions in np.random.default_rng(0).integers(50, size=(10, 50)):
            observation, rewards, *_ = env.step(actions)
            state, goal = (th.as_tensor(observation[key]) for key in ("state", "goal"))
            assert np.allclose(env.reward_fn(state, None, state, goal), rewards)
            colors, goals = decode(observation), decode(observation, "goal")
            expected = [np.mean(color[goal >= 0] == goal[goal >= 0]) for color, goal in zip(colors, goals, strict=True)]
            assert np.allclose(rewards, expected)
    single = ChemicalEnv()
    single.reset(seed=0)
    assert type(single.step(3)[1]) is float
    assert pickle.loads(pickle.dumps(single.reward_fn)) is goal_match_reward


def test_success_is_remembered_until_the_episode_ends():
    env = ChemicalEnv(task="test", n_noisy=6)
    observation, info = env.reset(seed=0)
    seen = []
    for _ in range(4):
        action = fix_first_mismatch(decode(observation)[None], decode(observation, "goal")[None], None)[0]
        observation, reward, *_, info = env.step(action)
        seen.append((reward, info["is_success"]))
    assert seen == [(0.5, False), (0.75, False), (1.0, True), (1.0, True)]
    _, reward, *_, info = env.step(9 * 5 + (decode(observation)[9] + 1) % 5)
    assert (reward, info["is_success"]) == (0.75, True)
    observation, _ = env.reset()
    assert env.step(do_nothing(decode(observation)[None], None, None)[0])[-1]["is_success"] is False


@pytest.mark.parametrize("rule", ["full_fork", "full_chain", "none"])
def test_local_graph_tells_the_regime_after_the_action(rule):
    env = ChemicalEnv(rule=rule)
    env.reset(seed=0)
    everywhere = np.hstack([np.tri(10, dtype=bool), np.ones((10, 1), dtype=bool)])
    locally = np.hstack([np.eye(10, dtype=bool), np.ones((10, 1), dtype=bool)])
    assert np.array_equal(env.global_graph, everywhere)
    for action in (0, 17, 3, 17):
        observation, *_, info = env.step(action)
        is_local = rule != "none" and decode(observation)[0] == 0
        assert np.array_equal(info["local_graph"], locally if is_local else everywhere)


def test_local_graphs_are_fresh():
    env = ChemicalEnv()
    env.reset(seed=0)
    *_, info = env.step(5)
    info["local_graph"][:] = False
    env.global_graph[:] = False
    assert env.step(5)[-1]["local_graph"].any()
    assert env.global_graph.any()


@pytest.mark.parametrize("kwargs", [{}, NOISY_TEST])
def test_state_round_trip_continues_identically(kwargs):
    def run(env, actions):
        return [[*env.step(action)[:2], env.step(action)[-1]["is_success"]] for action in actions]

    rng = np.random.default_rng(0)
    actions = rng.integers(50, size=40)
    env, fresh = ChemicalEnv(**kwargs), ChemicalEnv(**kwargs)
    env.reset(seed=0)
    run(env, actions[:7])
    state, clone, pickled = env.get_state(), copy.deepcopy(env), pickle.loads(pickle.dumps(env))
    expected = [run(env, actions), env.reset(), run(env, actions)]
    fresh.set_state(state)
    for other in (clone, pickled, fresh, env):
        if other is env:
            env.set_state(state)
        again = [run(other, actions), other.reset(), run(other, actions)]
        assert str(again) == str(expected)


def test_action_masks_can_forbid_the_root():
    assert ChemicalEnv().action_masks().all()
    masks = ChemicalVectorEnv(3, forbid_root=True).action_masks()
    assert masks.shape == (3, 50)
    assert masks.dtype == bool
    assert not masks[:, :5].any()
    assert masks[:, 5:].all()
    assert np.array_equal(ChemicalEnv(forbid_root=True).action_masks(), masks[0])


@pytest.mark.parametrize(("vec_env_cls", "package"), [(None, "fcdl_envs"), (SubprocVecEnv, "sb3_fcdl")])
def test_sb3_makes_it(vec_env_cls, package):
    """Also in processes that have imported neither package."""
    vec_env = make_vec_env(f"{package}:{ENV_ID}", n_envs=2, seed=0, vec_env_cls=vec_env_cls, env_kwargs=NOISY_TEST)
    assert vec_env.get_attr("factorization")[0].parent_names == (*(f"obj{index}" for index in range(10)), "action")
    assert vec_env.get_attr("reward_fn")[1] is goal_match_reward
    assert vec_env.env_method("action_masks")[1].shape == (50,)
    vec_env.reset()
    for _ in range(25):
        _, _, dones, infos = vec_env.step(np.array([7, 8]))
    assert dones.all()
    assert infos[0]["TimeLimit.truncated"] is True
    vec_env.close()


def test_registering_again_changes_nothing():
    spec = gym.spec(ENV_ID)
    fcdl_envs.register()
    assert gym.spec(ENV_ID) is spec
    assert spec.max_episode_steps == 25


def test_the_prefix_of_a_name_takes_the_place_of_an_import():
    """Here without torch; that of ``sb3_fcdl`` in the processes of ``test_sb3_makes_it``."""
    code = f"import gymnasium; print(gymnasium.make('fcdl_envs:{ENV_ID}', n_objects=4).unwrapped.system.n_objects)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "4\n"


def test_import_needs_neither_torch_nor_sb3():
    code = "import sys, fcdl_envs.chemical; sys.exit(bool({'torch', 'stable_baselines3'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"task": "exam"}, "task='exam' is not allowed; task must be one of train, test"),
        ({"n_noisy": 2}, "n_noisy=2 is not allowed; n_noisy must be 0 with task='train'"),
        (
            {"task": "test", "n_noisy": 7},
            "n_noisy=7 is not allowed; n_noisy must be an integer, at least 0 and at most n_objects - 4 = 6",
        ),
        ({"task": "test", "n_noisy": -1}, "n_noisy=-1 is not allowed"),
        ({"noise": "colour"}, "noise='colour' is not allowed; noise must be one of scale, color, none"),
        (
            {"noise_scale": 201.0},
            "noise_scale=201.0 is not allowed; noise_scale must be a finite number, at least 0 and at most 200.0",
        ),
        ({"noise_scale": -1.0}, "noise_scale=-1.0 is not allowed"),
        ({"noise_scale": float("nan")}, "noise_scale=nan is not allowed"),
        ({"render_mode": "human"}, "render_mode='human' is not allowed; render_mode must be one of rgb_array, ansi"),
        ({"rule": "fork"}, "rule='fork' is not allowed; rule must be one of full_fork, full_chain, none"),
        ({"n_objects": 3}, "n_objects=3 is not allowed; n_objects must be an integer, at least 4"),
    ],
)
@pytest.mark.parametrize("env_class", [ChemicalEnv, ChemicalVectorEnv])
def test_bad_arguments_are_named(env_class, kwargs, message):
    with pytest.raises(ValueError) as error:
        env_class(**kwargs)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("action", [-1, 50])
def test_actions_outside_the_space_are_refused(action):
    env = ChemicalEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"must be within 0 \.\. 49"):
        env.step(action)


@pytest.mark.parametrize(
    ("make", "action"), [(ChemicalEnv, 7), (lambda: ChemicalVectorEnv(2), np.array([7, 7]))], ids=["single", "batch"]
)
def test_there_is_no_step_before_the_first_reset(make, action):
    env, other = make(), make()
    with pytest.raises(gym.error.ResetNeeded, match="call reset before step"):
        env.step(action)
    env.reset(seed=0)
    other.set_state(env.get_state())
    assert np.array_equal(other.step(action)[0]["state"], env.step(action)[0]["state"])
