"""What holds for every environment of a factored system: its graphs, its randomness, its spaces and its mistakes."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from factored import brute_force_graph, effects, random_action, random_transitions
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from fcdl_envs.factored_system import one_hot
from sb3_fcdl import FCDL
from sb3_fcdl.world.factorization import default_factors

DOCS = Path(__file__).parents[2] / "docs"
CASES = [
    ("FCDL/Thermostat-v0", {}),
    ("FCDL/Thermostat-v0", {"outside_mean": 30, "price_mean": 5.5, "noise_scale": 3}),
    ("FCDL/Contact-v0", {}),
    ("FCDL/Contact-v0", {"n_bodies": 2, "noise_scale": 0}),
    ("FCDL/Workshop-v0", {}),
    ("FCDL/Workshop-v0", {"n_machines": 1, "capacity": 2}),
    ("FCDL/Workshop-v0", {"n_machines": 2, "capacity": 3}),
]
DEFAULTS = [env_id for env_id, kwargs in CASES if not kwargs]
# Values to try of parents that are numbers.
NUMBERS = {"FCDL/Thermostat-v0": np.linspace(-30, 60, 25), "FCDL/Contact-v0": np.linspace(-3, 3, 61)}
every_case = pytest.mark.parametrize(("env_id", "kwargs"), CASES)
every_env = pytest.mark.parametrize("env_id", DEFAULTS)


def make(env_id, **kwargs):
    return gym.make(env_id, **kwargs).unwrapped


def policy_of(env):
    return "MultiInputPolicy" if isinstance(env.observation_space, gym.spaces.Dict) else "MlpPolicy"


@pytest.mark.filterwarnings("ignore:.*A Box observation space m..imum value is -?infinity:UserWarning")
@every_case
def test_checkers_pass(env_id, kwargs):
    """Gymnasium warns that numbers have no bounds: a normal distribution has none."""
    env = gym.make(env_id, disable_env_checker=True, **kwargs).unwrapped
    gymnasium_check_env(env, skip_render_check=True)
    sb3_check_env(env, skip_render_check=True)


@every_case
def test_transition_graph_has_exactly_the_edges_that_move_a_distribution(env_id, kwargs):
    states, actions = random_transitions(env_id, 400, seed=1, **kwargs)
    system = make(env_id, **kwargs).system
    expected = brute_force_graph(system, states, actions, NUMBERS.get(env_id, ()))
    assert np.array_equal(system.transition_graph(states, actions), expected)


@every_case
def test_local_graph_is_the_union_of_its_contexts_transition_graphs(env_id, kwargs):
    """Of all contexts that random actions meet often enough to show each edge."""
    states, actions = random_transitions(env_id, 4000, seed=2, **kwargs)
    system = make(env_id, **kwargs).system
    transition, local, contexts = system.transition_graph(states, actions), system.local_graph(states), system.context(states)
    assert not (transition & ~local).any()
    n_complete = 0
    for context in set(contexts):
        rows = [row for row, each in enumerate(contexts) if each == context]
        assert (local[rows] == local[rows[0]]).all()
        if len(rows) >= 100:
            assert np.array_equal(transition[rows].any(axis=0), local[rows[0]]), context
            n_complete += 1
    assert n_complete >= 3
    assert np.array_equal(local.any(axis=0), system.global_graph)


@every_case
def test_context_variables_choose_the_context(env_id, kwargs):
    """With these as they are, whatever the others are, the local graph is the same."""
    states, _ = random_transitions(env_id, 200, seed=3, **kwargs)
    env = make(env_id, **kwargs)
    system, rng = env.system, np.random.default_rng(0)
    choosing = [system.factors.state_index_of(name) for name in env.context_variables]
    mixed = rng.permuted(states, axis=0)
    mixed[:, choosing] = states[:, choosing]
    assert np.array_equal(system.local_graph(mixed), system.local_graph(states))
    assert system.context(mixed) == system.context(states)


@every_case
def test_steps_are_drawn_from_the_conditional_distributions(env_id, kwargs):
    states, actions = random_transitions(env_id, 3, seed=4, **kwargs)
    system, rng = make(env_id, **kwargs).system, np.random.default_rng(0)
    n = 4000
    noise = np.stack([system.draw_noise(rng) for _ in range(n)])
    for state, action in zip(states, actions, strict=True):
        nexts = system.step(np.tile(state, (n, 1)), np.tile(action, (n, 1)), noise)
        distributions = system.conditional(state[None], action[None])
        for variable, values, (distribution,) in zip(system.factors.state_variables, nexts.T, distributions, strict=True):
            if variable.is_categorical:
                shares = np.bincount(values.astype(int), minlength=variable.n_categories) / n
                assert distribution.sum() == pytest.approx(1)
                assert shares == pytest.approx(distribution, abs=0.035)
            else:
                assert values.mean() == pytest.approx(distribution[0], abs=4 * distribution[1] / np.sqrt(n) + 1e-12)
                assert values.std() == pytest.approx(distribution[1], rel=0.05)


@every_case
def test_a_step_of_the_environment_is_one_of_its_system(env_id, kwargs):
    """With the noise that its generator draws; the other tests, and the returns of simple policies, are of the system."""
    env, rng = make(env_id, **kwargs), np.random.default_rng(0)
    env.reset(seed=6)
    for _ in range(20):
        before, action = env.get_state(), random_action(env.action_space, rng)
        env.step(action)
        twin = np.random.default_rng()
        twin.bit_generator.state = before["generator"]
        row = np.array(action, dtype=np.float64)[None]
        expected = env.system.step(before["state"][None], row, env.system.draw_noise(twin)[None])
        assert np.array_equal(env.get_state()["state"], expected[0])


@every_case
def test_a_batch_gives_what_its_rows_give_alone(env_id, kwargs):
    states, actions = random_transitions(env_id, 20, seed=5, **kwargs)
    system, rng = make(env_id, **kwargs).system, np.random.default_rng(0)
    noise = np.stack([system.draw_noise(rng) for _ in states])
    together = system.step(states, actions, noise)
    alone = [system.step(*(each[None] for each in row))[0] for row in zip(states, actions, noise, strict=True)]
    assert np.array_equal(together, alone)


@every_env
def test_every_edge_shows_as_documented(env_id):
    """At least 0.3 standard deviations of the noise, or a total variation of 0.1, in at least 5 % of the transitions."""
    system = make(env_id).system
    share, size = effects(system, *random_transitions(env_id, 20_000))
    is_there = system.global_graph
    floors = np.array([0.1 if variable.is_categorical else 0.3 for variable in system.factors.state_variables])
    assert (share[is_there] >= 0.05).all()
    assert (size >= floors[:, None])[is_there].all()
    documented = effects_in_docs(env_id, system.factors)
    for child in {row for row, _ in documented}:
        assert {column for row, column in documented if row == child} == set(np.flatnonzero(is_there[child]))
    assert {row for row, _ in documented} == set(range(len(is_there))) or "the others are alike" in page_of(env_id)
    for edge, figures in documented.items():
        assert (share[edge], size[edge]) == pytest.approx(figures, rel=0.1, abs=0.05), edge


def page_of(env_id):
    return (DOCS / f"{env_id.removeprefix('FCDL/').removesuffix('-v0').lower()}.md").read_text()


def effects_in_docs(env_id, factors):
    """Share and effect of each edge, by row and column of the graph, as the page of the environment lists them."""
    found, child = {}, ""
    for name, parent, share, effect in re.findall(
        r"^\| (?:`(\w+)`)? ?\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|$", page_of(env_id), flags=re.MULTILINE
    ):
        child = name or child
        found[factors.state_index_of(child), factors.index_of(parent)] = float(share), float(effect)
    return found


@every_case
def test_same_seed_same_trajectory_whatever_was_before(env_id, kwargs):
    def run(env):
        rng = np.random.default_rng(0)
        steps = [env.reset(seed=5), *(env.step(random_action(env.action_space, rng)) for _ in range(20))]
        return str(steps)

    env = gym.make(env_id, **kwargs)
    first = run(env)
    env.reset(seed=8)
    assert run(env) == first
    assert run(gym.make(env_id, **kwargs)) == first


@every_case
def test_state_round_trip_continues_identically(env_id, kwargs):
    def run(env):
        rng = np.random.default_rng(0)
        steps = [env.step(random_action(env.action_space, rng)) for _ in range(10)]
        return str([steps, env.reset(), env.step(random_action(env.action_space, rng)), env.get_state()])

    env, fresh = make(env_id, **kwargs), make(env_id, **kwargs)
    with pytest.raises(gym.error.ResetNeeded, match="call reset before step"):
        fresh.step(fresh.action_space.sample())
    env.reset(seed=0)
    env.step(random_action(env.action_space, np.random.default_rng(1)))
    state, pickled = pickle.loads(pickle.dumps(env.get_state())), pickle.loads(pickle.dumps(env))
    expected = run(env)
    fresh.set_state(state)
    env.set_state(state)
    for other in (pickled, fresh, env):
        assert run(other) == expected


@every_case
def test_what_is_published_adds_names_alone(env_id, kwargs):
    env = make(env_id, **kwargs)
    by_spaces = default_factors(env.observation_space, env.action_space)
    assert [each.n_categories for each in env.factorization.parents] == [each.n_categories for each in by_spaces.parents]
    assert isinstance(by_spaces.state, tuple) or list(by_spaces.state) == list(env.factorization.state)
    assert len(set(env.factorization.parent_names)) == len(by_spaces.parents)


@every_case
def test_reward_is_a_function_of_the_columns(env_id, kwargs):
    env, rng = make(env_id, **kwargs), np.random.default_rng(0)
    env.reset(seed=0)
    values, rewards = [], []
    for _ in range(30):
        before, action = env.get_state()["state"], random_action(env.action_space, rng)
        rewards.append(env.step(action)[1])
        values.append((before, np.array(action, dtype=np.float64), env.get_state()["state"]))
    factors = env.factorization
    variables = (factors.state_variables, factors.action, factors.state_variables)
    columns = [one_hot(names, np.array(each)) for names, each in zip(variables, zip(*values, strict=True), strict=True)]
    assert env.reward_fn(*columns, columns[0][:, :0]) == pytest.approx(rewards, abs=1e-5)
    tensor = env.reward_fn(*map(th.as_tensor, columns), None)
    assert tensor.dtype == th.float32
    assert tensor.numpy() == pytest.approx(rewards, abs=1e-5)
    assert pickle.loads(pickle.dumps(env.reward_fn)) is type(env).reward_fn


@every_env
def test_options_set_variables_by_name_and_leave_the_other_draws(env_id):
    env = make(env_id)
    env.reset(seed=3)
    drawn, names = env.get_state()["state"], env.factorization.state_names
    env.reset(seed=3, options={names[0]: 1, names[-1]: 0})
    assert env.get_state()["state"].tolist() == [1, *drawn[1:-1], 0]
    with pytest.raises(ValueError, match=rf"option='rain' is not allowed; option must be one of {names[0]}, {names[1]}"):
        env.reset(options={"rain": 1})
    for value, error in ((float("nan"), (ValueError, TypeError)), ("warm", TypeError), (-1e30, (ValueError, TypeError))):
        with pytest.raises(error, match=re.escape(f"{names[0]}={value!r} is not allowed")):
            env.reset(options={names[0]: value})


@every_env
def test_actions_outside_of_the_space_are_refused(env_id):
    env = make(env_id)
    env.reset(seed=0)
    shape = env.action_space.shape
    for action in (np.full(shape, np.nan), np.zeros((*shape, 1), dtype=int), np.full(shape, "none")):
        with pytest.raises(ValueError, match="is not allowed; action must be"):
            env.step(action)
    if isinstance(env.action_space, gym.spaces.MultiDiscrete):
        for action in (env.action_space.nvec, np.full(shape, -1), np.zeros(shape, dtype=bool)):
            with pytest.raises(ValueError, match="is not allowed; action must be integers of shape"):
                env.step(action)


@every_env
def test_picture_and_text_show_the_state(env_id):
    env, words = make(env_id, render_mode="rgb_array"), make(env_id, render_mode="ansi")
    variable = env.factorization.state_variables[0]
    low, high = (0, variable.n_categories - 1) if variable.is_categorical else env.system.ranges[variable.name]
    pictures = []
    for value in (low, high):
        for each in (env, words):
            each.reset(seed=0, options={variable.name: value})
        pictures.append(env.render())
        assert f"{variable.name}={variable.in_words(value, 3)}" in words.render()
        assert env.context in words.render()
    assert pictures[0].shape == (480, 480, 3) and pictures[0].dtype == np.uint8
    has_changed = (pictures[0] != pictures[1]).any(axis=(1, 2))
    band = 480 // len(env.factorization.state_variables)
    assert has_changed[: band - 8].any() and not has_changed[band:].any()


@every_env
def test_render_modes_are_checked(env_id):
    assert make(env_id).render() is None
    message = "render_mode='human' is not allowed; render_mode must be one of rgb_array, ansi, or None"
    with pytest.raises(ValueError, match=message):
        load_env_creator(gym.spec(env_id).entry_point)(render_mode="human")


@every_env
def test_sb3_makes_it_in_other_processes(env_id):
    vec_env = make_vec_env(f"fcdl_envs:{env_id}", n_envs=2, seed=0, vec_env_cls=SubprocVecEnv)
    env = make(env_id)
    assert vec_env.get_attr("factorization")[1] == env.factorization
    vec_env.reset()
    _, _, _, infos = vec_env.step([vec_env.action_space.sample()] * 2)
    assert infos[1]["local_graph"].shape == env.global_graph.shape
    vec_env.close()


@every_env
@pytest.mark.filterwarnings("ignore:predict.* was given no action_masks")
def test_fcdl_learns_it(env_id):
    env = gym.make(env_id)
    settings = {"learning_starts": 40, "train_freq": 20, "dynamics_kwargs": {"hidden_dim": 8}}
    model = FCDL(policy_of(env), env, planner_kwargs={"horizon": 2, "n_candidates": 4}, seed=0, **settings)
    model.learn(100)
    assert model.policy.world.factors == env.unwrapped.factorization
    assert model.policy.world.reward_fn is env.unwrapped.reward_fn
    observation, _ = env.reset(seed=0)
    action, _ = model.predict(observation, deterministic=True)
    assert env.action_space.contains(action)


def test_importing_them_imports_neither_torch_nor_sb3():
    modules = "import fcdl_envs.contact, fcdl_envs.thermostat, fcdl_envs.workshop"
    code = f"import sys; {modules}; sys.exit(bool({{'torch', 'stable_baselines3', 'mujoco'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
