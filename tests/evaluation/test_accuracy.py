"""One-step accuracy beside chance and the true dynamics."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from tiny import ENV_ID, tiny_fcdl

from sb3_fcdl.benchmark import CHEMICAL
from sb3_fcdl.dynamics import Prediction
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.evaluation import Task, evaluate_accuracy, format_accuracy, paired
from sb3_fcdl.evaluation.accuracy import BAYES, CHANCE, NO_CHANGE
from sb3_fcdl.evaluation.paired import joined, paired_envs, random_steps
from sb3_fcdl.evaluation.returns import EVALUATION_SEED_OFFSET

SIX = {"n_objects": 6, "n_colors": 3}
TASKS = (Task("train"), Task("n=2", {"task": "test", "n_noisy": 2}))
CLEAN = {"noise": "none"}


@pytest.fixture(scope="module")
def policy():
    return tiny_fcdl(gym.make(ENV_ID, **SIX)).policy


def accuracies(policy, noise="scale", tasks=TASKS, **kwargs):
    made_with = SIX | {"noise": noise}
    bayes_step = CHEMICAL.bayes_step(ENV_ID, made_with)
    results = evaluate_accuracy({"model": policy}, ENV_ID, made_with, tasks, CLEAN, bayes_step, n_steps=50, **kwargs)
    return {name: [result.accuracy for result in row] for name, row in results.items()}


def colors_of(observations):
    return observations["state"].reshape(-1, 6, 3)


def test_predictors_by_hand(policy):
    """What changes and what does not, counted again from the observations themselves."""
    found = accuracies(policy)
    assert list(found) == [CHANCE, NO_CHANGE, "model", BAYES]
    assert found[CHANCE] == pytest.approx([1 / 3, 1 / 3])
    bayes_step = CHEMICAL.bayes_step(ENV_ID, SIX)
    for index, task in enumerate(TASKS):
        same, likely, counts = [], [], []
        for step in random_steps(paired_envs(ENV_ID, SIX, task, CLEAN, 10), 50, 0):
            seen, now = map(colors_of, step.observations)
            counts.append((seen == now).all(-1))
            now, after = now.argmax(-1), colors_of(step.next_observations[1]).argmax(-1)
            same.append(now == after)
            likely.append(bayes_step(now, step.actions) == after)
        counts = np.stack(counts)
        assert counts.mean() == pytest.approx((1, 4 / 6)[index])  # two of six are shown with noise
        assert found[NO_CHANGE][index] == np.stack(same)[counts].mean()
        # Drawn anew for each task here, so that a tie may be broken otherwise.
        assert found[BAYES][index] == pytest.approx(np.stack(likely)[counts].mean(), abs=0.02)
        assert 1 / 3 < found[NO_CHANGE][index] < found[BAYES][index] < 1


def test_joined_steps_are_the_same_transitions(monkeypatch):
    monkeypatch.setattr(paired, "N_TRANSITIONS", 6)

    def steps():
        return random_steps(paired_envs(ENV_ID, SIX, TASKS[1], CLEAN, 3), 30, 0)

    def rows(steps):
        by_step = [
            (
                step.actions,
                *map(colors_of, step.observations + step.next_observations),
                *([info["local_graph"] for info in step.infos[way]] for way in range(2)),
            )
            for step in steps
        ]
        return [np.concatenate(parts) for parts in zip(*by_step, strict=True)]

    one_by_one, together = list(steps()), list(joined(steps()))
    assert len(one_by_one) == 30 and [len(step.actions) for step in together] == [6] * 15
    for apart, as_one in zip(rows(one_by_one), rows(together), strict=True):
        assert len(apart) == 90 and np.array_equal(apart, as_one)


def test_a_model_that_knows_the_dynamics_is_as_good_as_they_are_where_nothing_is_corrupted(policy, monkeypatch):
    bayes_step = CHEMICAL.bayes_step(ENV_ID, SIX)

    def step(state, action):
        colors = bayes_step(state.view(-1, 6, 3).argmax(-1).numpy(), action.argmax(-1).numpy())
        logits = th.nn.functional.one_hot(th.as_tensor(colors), 3).float()
        return Prediction(StateDistribution(policy.dynamics.layout, logits, logits[..., :0, 0], logits[..., :0, 0]))

    monkeypatch.setattr(policy.dynamics, "stepper", lambda: step)
    found = accuracies(policy, tasks=TASKS[:1])
    assert found["model"] == pytest.approx(found[BAYES], abs=0.02)


def test_table_and_mistakes(policy):
    results = evaluate_accuracy({"model": policy}, ENV_ID, SIX, TASKS, CLEAN, n_steps=3)
    lines = format_accuracy(results).splitlines()
    assert lines[0].split() == "| one-step accuracy | train | n=2 |".split()
    assert lines[2].split() == "| chance | 33.3 % | 33.3 % |".split() and len(lines) == 5
    numbers = tiny_fcdl("Pendulum-v1", policy="MlpPolicy", dynamics_kwargs={"hidden_dim": 8}).policy
    with pytest.raises(ValueError, match="Pendulum-v1 has no categorical variable"):
        evaluate_accuracy({"model": numbers}, "Pendulum-v1", {}, TASKS[:1])


def test_last_observations_of_an_episode_are_not_those_of_the_next():
    env_kwargs = SIX | {"noise": "none"}
    reference = gym.make(ENV_ID, **env_kwargs)
    observed, _ = reference.reset(seed=EVALUATION_SEED_OFFSET)
    for number, step in enumerate(random_steps(paired_envs(ENV_ID, env_kwargs, TASKS[0], None, 1), 25, 0)):
        assert np.array_equal(step.observations[0]["state"][0], observed["state"])
        observed, _, _, truncated, _ = reference.step(step.actions[0])
        assert np.array_equal(step.next_observations[0]["state"][0], observed["state"]) and truncated == (number == 24)


def test_bayes_by_hand():
    step = CHEMICAL.bayes_step(ENV_ID, SIX | {"rule": "full_fork"})
    colors = np.array([[0, 1, 2, 0, 1, 2]])
    # While the root has colour 0, painting the last object moves nothing else.
    assert step(colors, np.array([5 * 3 + 1])).tolist() == [[0, 1, 2, 0, 1, 1]]
    # Painting the root redraws object 1 from its conditional distribution.
    assert step(colors, np.array([0]))[0, :2].tolist() == [0, step.system.conditional(1, colors)[0].argmax()]
