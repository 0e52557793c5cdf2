"""What is logged of the test tasks while a run is training."""

import gymnasium as gym
import torch as th
from stable_baselines3.common.callbacks import EveryNTimesteps
from stable_baselines3.common.logger import KVWriter, Logger
from tiny import ENV_ID, tiny_fcdl

from sb3_fcdl.callbacks import TaskEvalCallback
from sb3_fcdl.evaluation import Task, evaluate_graphs, evaluate_tasks

SIX, CLEAN = {"n_objects": 6, "n_colors": 3}, {"noise": "none"}
TASKS = (Task("n=2", {"task": "test", "n_noisy": 2}),)
RUN, KNOWN = (ENV_ID, SIX, TASKS), {"clean_kwargs": CLEAN, "tells_graphs": True}
GIVEN = 6 + 6  # self and action
N_FREE = 15  # the order is given: what is below the diagonal is free, and all of it true in the global regime


class Written(KVWriter):
    """The latest values of every dump."""

    def __init__(self):
        self.values = {}

    def write(self, key_values, key_excluded, step=0):
        self.values |= key_values


def logged(model, *run, **known):
    written = Written()
    model.set_logger(Logger(None, [written]))
    callback = TaskEvalCallback(*run, **known, n_episodes=2, seed=3)
    callback.init_callback(model)
    callback.on_step()
    return written.values


def test_returns_and_graphs_of_each_test_task_are_logged(monkeypatch):
    """All edges in each code, and a code that a corrupted variable chooses: graphs are steady, codes are not."""
    model = tiny_fcdl(gym.make(ENV_ID, **SIX))
    stepper = model.policy.dynamics.stepper

    def reads_a_corrupted_variable(state, action):
        code = state.unflatten(-1, (6, 3))[:, 1].argmax(-1)
        return stepper()(state, action)._replace(graph=th.ones(len(state), 6, 7), code=code)

    monkeypatch.setattr(model.policy.dynamics, "stepper", lambda: reads_a_corrupted_variable)
    values = logged(model, *RUN, **KNOWN)
    (returns,), (clean_returns,) = (
        evaluate_tasks(model, ENV_ID, made_with, TASKS, n_episodes=2, seed=3) for made_with in (SIX, SIX | CLEAN)
    )
    assert returns.mean != clean_returns.mean
    contexts = evaluate_graphs(model.policy, ENV_ID, SIX, TASKS, CLEAN, n_steps=20, seed=3)
    assert len(contexts) == 2 and max(context.same_code for context in contexts) < 1
    expected = {"eval/return_n=2": returns.mean, "eval/return_n=2_not_corrupted": clean_returns.mean}
    for context in contexts:
        name = f"n=2_edges={context.n_true_edges}"
        expected[f"eval_shd/{name}"] = GIVEN + N_FREE - context.n_true_edges
        expected |= {f"eval_same_code/{name}": context.same_code, f"eval_same_graph/{name}": 1}
    assert values == expected


def test_only_returns_are_logged_where_there_are_no_graphs():
    without_graph = tiny_fcdl(gym.make(ENV_ID, **SIX), dynamics="mlp", dynamics_kwargs={})
    assert logged(without_graph, *RUN, **KNOWN).keys() == {"eval/return_n=2", "eval/return_n=2_not_corrupted"}
    without_truth = tiny_fcdl("CartPole-v1", dynamics_kwargs={})
    assert logged(without_truth, "CartPole-v1", {}, [Task("test")]).keys() == {"eval/return_test"}


def test_nothing_is_compared_without_a_clean_twin():
    names = logged(tiny_fcdl(gym.make(ENV_ID, **SIX)), *RUN, tells_graphs=True).keys()
    assert names and {name.partition("/")[0] for name in names} == {"eval", "eval_shd"}


def test_the_callback_does_not_disturb_training():
    weights = []
    for callback in (None, EveryNTimesteps(30, TaskEvalCallback(*RUN, **KNOWN, n_episodes=1))):
        model = tiny_fcdl(gym.make(ENV_ID, **SIX)).learn(60, callback)
        weights.append(th.cat([parameter.detach().flatten() for parameter in model.policy.parameters()]))
    assert th.equal(*weights)
