"""Contact by value: the equations of its documentation, its rewards and the returns of policies that learn nothing."""

import gymnasium as gym
import numpy as np
import pytest
from factored import brute_force_graph, mean_return, random_action

from fcdl_envs.contact import ContactEnv, contact_script
from fcdl_envs.contact_system import ContactSystem

ENV_ID = "FCDL/Contact-v0"
# Of two bodies 0.3 m apart, which touch, and 0.4 m apart, which do not: x, y, vx, vy of a, then of b.
TOUCH = [0, 0, 1, 0, 0.3, 0, 0, 2]
APART = [0, 0, 1, 0, 0.4, 0, 0, 2]


def means(state, action):
    distributions = ContactSystem(n_bodies=2).conditional(np.array([state], dtype=float), np.array([action], dtype=float))
    assert [each[0, 1] for each in distributions] == pytest.approx([0.01, 0.01, 0.03, 0.03] * 2)
    return [each[0, 0] for each in distributions]


def parents(state, child, system=None):
    system = ContactSystem(n_bodies=2) if system is None else system
    graph = system.transition_graph(np.array([state], dtype=float), np.zeros((1, 2)))[0]
    row = graph[system.factors.state_index_of(child)]
    return {name for name, is_parent in zip(system.factors.parent_names, row, strict=True) if is_parent}


def test_means_by_hand_of_bodies_that_touch():
    """a: -0.3 drag, 1.5 force, -1 push, -3 rubbing in x; -3 force, 6 rubbing in y. b: the opposite, its bowl and its drag."""
    a = [0.1, 0, 1 + 0.1 * (-0.3 + 1.5 - 1 - 3), 0.1 * (-3 + 6)]
    b = [0.3, 0.2, 0.1 * (-0.3 + 1 + 3), 2 + 0.1 * (-0.6 - 6)]
    assert means(TOUCH, [0.5, -1]) == pytest.approx([*a, *b])


def test_means_by_hand_of_bodies_apart():
    a = [0.1, 0, 1 + 0.1 * (-0.3 + 1.5), -0.3]
    b = [0.4, 0.2, -0.04, 2 - 0.06]
    assert means(APART, [0.5, -1]) == pytest.approx([*a, *b])


def test_mean_by_hand_of_a_slanted_contact():
    """0.15 m apart in x and 0.2 m in y are 0.25 m: a push of 20 * 0.1, of which 3/5 and 4/5."""
    vx, vy = means([0.15, 0.2, 0, 0, 0, 0, 0, 0], [0, 0])[2:4]
    assert (vx, vy) == pytest.approx((0.1 * (-0.15 + 1.2), 0.1 * (-0.2 + 1.6)))


def test_graphs_by_hand():
    own = {"a_x", "a_vx", "force_x"}
    assert parents(TOUCH, "a_x") == {"a_x", "a_vx"}
    assert parents(TOUCH, "b_vy") == {"a_x", "a_y", "a_vy", "b_x", "b_y", "b_vy"}
    # in a row: some other x of b would touch, no other y
    assert parents(APART, "a_vx") == own | {"b_x"}
    assert parents([0.0, 0.4, 0, 0, 0.1, 0, 0, 0], "a_vx") == own | {"b_y", "a_y"}
    assert parents([1, 1, 0, 0, 0, 0, 0, 0], "a_vx") == own
    close = [0.3, 0.3, 0, 0, 0, 0, 0, 0]
    assert parents(close, "a_vx") == own | {"a_y", "b_x", "b_y"}


@pytest.mark.parametrize("vy", [0, 0.5])
def test_bodies_of_exactly_one_height_push_each_other_along_x_alone(vy):
    """Such states have probability zero; the transition graph is exact there, too."""
    state = np.array([[0, 0, 1, vy, 0.3, 0, 0, 0], [0, 0, 1, vy, 0.9, 0, 0, 0]], dtype=float)
    system, actions = ContactSystem(n_bodies=2), np.zeros((2, 2))
    expected = brute_force_graph(system, state, actions, np.linspace(-2, 2, 81))
    assert np.array_equal(system.transition_graph(state, actions), expected)
    assert ("b_x" in parents(state[0], "a_vy")) == (vy != 0)


def test_contexts_in_words():
    env = gym.make(ENV_ID).unwrapped
    env.reset(seed=0, options={"a_x": 0.0, "a_y": 0.0, "b_x": 0.3, "b_y": 0.0, "c_x": 0.2, "c_y": 0.9})
    assert env.context == "a and b touch, a and c in a column, b and c in a column"
    assert env.step(np.zeros(2, dtype=np.float32))[-1]["context"] == "a and b touch, a and c in a column, b and c in a column"
    env.reset(seed=0, options={"a_x": 0.0, "a_y": 0.0, "b_x": 0.3, "b_y": 0.3, "c_x": -0.9, "c_y": 0.2})
    assert env.context == "a and b close, a and c in a row, b and c in a row"
    assert env.context_variables == ("a_x", "a_y", "b_x", "b_y", "c_x", "c_y")


def test_reward_by_hand_and_actions_are_clipped():
    env = ContactEnv(noise_scale=0)
    start = {"a_x": 0.0, "a_y": 0.0, "b_x": 0.5, "b_y": 0.3, "b_vx": 0.0, "b_vy": 0.0, "c_x": -1.0}
    rewards = []
    for action in ([0.5, -0.5], [7, 0], [1, 0]):
        env.reset(seed=0, options=start)
        rewards.append(env.step(np.array(action))[1])
    # b stays for one step, 0.18 m² from (0.8, 0)
    assert rewards == pytest.approx([np.exp(-1) - 0.05, np.exp(-1) - 0.1, np.exp(-1) - 0.1], abs=1e-6)


def test_bodies_start_around_the_centre_and_episodes_end_after_100_steps():
    env = gym.make(ENV_ID)
    starts = np.array([(env.reset(seed=seed), env.unwrapped.get_state()["state"])[1] for seed in range(500)]).reshape(
        500, 3, 4
    )
    assert np.abs(starts[..., :2]).max() <= 1
    assert starts[..., :2].std() == pytest.approx(1 / np.sqrt(3), rel=0.05)
    assert starts[..., 2:].std() == pytest.approx(0.3, rel=0.05)
    assert [env.step(np.zeros(2, dtype=np.float32))[3] for _ in range(100)] == [False] * 99 + [True]


def test_policies_that_learn_nothing_score_as_documented_and_in_this_order():
    """Within three standard errors of 20 episodes; docs/contact.md has a hundred."""
    random = mean_return(ENV_ID, lambda env, observation, rng: random_action(env.action_space, rng))
    nothing = mean_return(ENV_ID, lambda env, observation, rng: np.zeros(2, dtype=np.float32))
    script = mean_return(ENV_ID, lambda env, observation, rng: contact_script(observation))
    assert random + 1 < nothing < script - 10
    assert random == pytest.approx(1.4, abs=4.5)
    assert nothing == pytest.approx(6.5, abs=4.2)
    assert script == pytest.approx(22.9, abs=9)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"n_bodies": 1}, ValueError, "n_bodies=1 is not allowed; n_bodies must be an integer, at least 2 and at most 5"),
        ({"n_bodies": 3.0}, TypeError, "n_bodies=3.0 is not allowed"),
        (
            {"noise_scale": -0.1},
            ValueError,
            "noise_scale=-0.1 is not allowed; noise_scale must be a finite number, at least 0",
        ),
        ({"noise_scale": float("nan")}, ValueError, "noise_scale=nan is not allowed"),
    ],
)
def test_bad_arguments_are_named(kwargs, error, message):
    with pytest.raises(error) as raised:
        ContactEnv(**kwargs)
    assert str(raised.value).startswith(message)
