"""Workshop by value: the rules of its documentation, its masks, rewards and the returns of policies that learn nothing."""

import gymnasium as gym
import numpy as np
import pytest
from factored import mean_return, random_action

from fcdl_envs.workshop import WorkshopEnv, workshop_script
from fcdl_envs.workshop_system import BROKEN, GOOD, WORN, WorkshopSystem
from sb3_fcdl.world.declared import checked_mask

ENV_ID = "FCDL/Workshop-v0"
DAY, NIGHT = 0, 1


def conditional(state, action):
    """Probabilities of each next value of a workshop with two machines."""
    system = WorkshopSystem(n_machines=2)
    distributions = system.conditional(np.array([state], dtype=float), np.array([action], dtype=float))
    return {name: each[0].round(12).tolist() for name, each in zip(system.factors.state_names, distributions, strict=True)}


def test_distributions_by_hand_of_machines_that_work():
    assert conditional([1, GOOD, 2, WORN, 0, DAY], [2, 0]) == {
        "queue1": [0.01, 0.18, 0.81, 0, 0],
        "machine1": [0.75, 0.25, 0],
        "queue2": [0, 0.1, 0.9, 0, 0],
        "machine2": [0, 0.65, 0.35],
        "finished": [0.4, 0.6],
        "shift": [0.8, 0.2],
    }


def test_distributions_by_hand_with_the_crew_at_a_worn_machine():
    found = conditional([4, WORN, 4, BROKEN, 1, NIGHT], [1, 1])
    assert found == {
        "queue1": [0, 0, 0, 0.1, 0.9],
        "machine1": [0.9, 0.1, 0],
        # full, and nothing is taken
        "queue2": [0, 0, 0, 0, 1],
        "machine2": [0, 0, 1],
        "finished": [1, 0],
        "shift": [0.2, 0.8],
    }


def test_distributions_by_hand_of_machines_without_parts():
    found = conditional([0, GOOD, 0, BROKEN, 0, DAY], [0, 2])
    assert found["queue1"] == found["queue2"] == [1, 0, 0, 0, 0]
    assert (found["machine1"], found["machine2"], found["finished"]) == ([1, 0, 0], [0.7, 0, 0.3], [1, 0])


def parents(state, action, child, is_local=False):
    system = WorkshopSystem(n_machines=2)
    states, actions = np.array([state], dtype=float), np.array([action], dtype=float)
    graph = system.local_graph(states) if is_local else system.transition_graph(states, actions)
    row = graph[0, system.factors.state_index_of(child)]
    return {name for name, is_parent in zip(system.factors.parent_names, row, strict=True) if is_parent}


def test_graphs_by_hand():
    works, broken = [1, GOOD, 2, WORN, 0, DAY], [4, BROKEN, 4, BROKEN, 0, DAY]
    assert parents(works, [0, 0], "queue1") == {"queue1", "machine1", "order"}
    assert parents(works, [0, 0], "queue2") == {"queue1", "machine1", "queue2", "machine2"}
    assert parents(works, [0, 0], "machine1") == {"queue1", "machine1"}
    assert parents(works, [0, 0], "machine2") == {"queue2", "machine2", "crew"}
    assert parents(works, [0, 2], "machine2") == {"machine2", "crew"}
    assert parents(works, [0, 0], "finished") == {"queue2", "machine2"}
    assert parents(broken, [0, 0], "queue1") == {"queue1", "machine1"}
    assert parents(broken, [0, 0], "queue2") == {"queue2", "machine2"}
    assert parents(broken, [0, 0], "machine1") == {"machine1", "crew"}
    assert parents(broken, [0, 0], "finished") == {"machine2"}
    assert parents(broken, [0, 0], "queue1", is_local=True) == {"queue1", "machine1", "order"}
    assert parents(broken, [0, 0], "queue2", is_local=True) == {"machine1", "queue2", "machine2"}
    assert parents([0, GOOD, 0, GOOD, 0, DAY], [0, 0], "finished", is_local=True) == {"queue2", "machine2"}


def test_the_shift_is_noise_and_nothing_depends_on_what_was_finished():
    env = WorkshopEnv()
    graph, factors = env.global_graph, env.factorization
    assert np.flatnonzero(graph[factors.state_index_of("shift")]).tolist() == [factors.index_of("shift")]
    assert np.flatnonzero(graph[:, factors.index_of("shift")]).tolist() == [factors.state_index_of("shift")]
    assert not graph[:, factors.index_of("finished")].any()


def test_contexts_in_words():
    env = gym.make(ENV_ID).unwrapped
    env.reset(seed=0, options={"machine1": GOOD, "machine2": BROKEN, "machine3": WORN})
    assert env.context == "machine1 good, machine2 broken, machine3 worn"
    assert env.context_variables == ("machine1", "machine2", "machine3")


def test_masks_forbid_what_has_no_use():
    env = gym.make(ENV_ID)
    machines = {"machine1": GOOD, "machine2": BROKEN, "machine3": WORN}
    for queue, fits in ((1, [1, 1, 1]), (3, [1, 1, 0]), (4, [1, 0, 0])):
        env.reset(seed=0, options={**machines, "queue1": queue})
        mask = env.unwrapped.action_masks()
        assert mask.tolist() == [*map(bool, fits), True, False, True, True]
        assert checked_mask(mask, env.action_space, 0).tolist() == mask.tolist()
    env.step(np.array([2, 1]))  # accepted all the same


def test_reward_by_hand():
    env = WorkshopEnv()
    for action, cost in (([0, 0], 0.0), ([2, 0], 0.6), ([1, 3], 0.5)):
        env.reset(seed=0, options={"queue3": 0})
        assert env.step(np.array(action))[1] == pytest.approx(-cost)
    outcomes = set()
    for seed in range(20):
        env.reset(seed=seed, options={"queue3": 1, "machine3": GOOD})
        observation, reward, *_ = env.step(np.array([0, 0]))
        outcomes.add((int(observation[-2]), reward))
    assert outcomes == {(0, 0.0), (1, 1.0)}


def test_episodes_start_as_documented_and_end_after_50_steps():
    env = gym.make(ENV_ID)
    starts = np.array([env.reset(seed=seed)[0] for seed in range(600)])
    assert starts.min(axis=0).tolist() == [0] * 8
    assert starts.max(axis=0).tolist() == [2, 2, 2, 2, 2, 2, 0, 1]
    assert starts[:, :6].mean(axis=0) == pytest.approx(np.ones(6), abs=0.12)
    assert [env.step(np.array([0, 0]))[3] for _ in range(50)] == [False] * 49 + [True]


def test_policies_that_learn_nothing_score_as_documented_and_in_this_order():
    """Within three standard errors of 20 episodes; docs/workshop.md has a hundred."""
    random = mean_return(ENV_ID, lambda env, observation, rng: random_action(env.action_space, rng))
    nothing = mean_return(ENV_ID, lambda env, observation, rng: np.zeros(2, dtype=int))
    script = mean_return(ENV_ID, lambda env, observation, rng: workshop_script(observation))
    assert random + 5 < nothing < script - 3
    assert random == pytest.approx(-8.2, abs=3)
    assert nothing == pytest.approx(0.8, abs=0.7)
    assert script == pytest.approx(6.1, abs=2.4)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        (
            {"n_machines": 0},
            ValueError,
            "n_machines=0 is not allowed; n_machines must be an integer, at least 1 and at most 6",
        ),
        ({"n_machines": 2.5}, TypeError, "n_machines=2.5 is not allowed"),
        ({"capacity": 1}, ValueError, "capacity=1 is not allowed; capacity must be an integer, at least 2 and at most 20"),
        ({"capacity": float("nan")}, TypeError, "capacity=nan is not allowed"),
    ],
)
def test_bad_arguments_are_named(kwargs, error, message):
    with pytest.raises(error) as raised:
        WorkshopEnv(**kwargs)
    assert str(raised.value).startswith(message)
