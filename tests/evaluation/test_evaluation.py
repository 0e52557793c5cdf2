"""Models are evaluated as they act in training."""

import random

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecNormalize
from tiny import ENV_ID, N_ACTIONS, TINY, tiny_fcdl

from fcdl_envs.chemical_episodes import ChemicalEpisodes
from sb3_fcdl.callbacks import TaskEvalCallback
from sb3_fcdl.evaluation import Task, evaluate_shift, evaluate_tasks, make_env
from sb3_fcdl.evaluation.returns import EVALUATION_SEED_OFFSET

TASK = Task("train")
FORBIDDEN = {**TINY, "forbid_root": True}


def evaluated(model):
    evaluate_tasks(model, ENV_ID, FORBIDDEN, [TASK], n_episodes=3)


def called_back(model):
    callback = TaskEvalCallback(ENV_ID, FORBIDDEN, [TASK], n_episodes=3)
    callback.init_callback(model)
    model.set_logger(Logger(None, []))
    callback.on_step()


def shifted(model):
    evaluate_shift({"model": model}, lambda: make_env(ENV_ID, 3, FORBIDDEN), {"obj1": "noise"}, n_episodes=3)


@pytest.mark.parametrize("evaluate", [evaluated, called_back, shifted])
def test_no_evaluation_takes_a_masked_action(monkeypatch, evaluate):
    taken, step = [], ChemicalEpisodes.step

    def noted_step(episodes, actions):
        taken.extend(np.ravel(actions))
        return step(episodes, actions)

    model = tiny_fcdl(make_env(ENV_ID, 1, FORBIDDEN), dynamics="mlp", dynamics_kwargs={"hidden_dim": 8})
    monkeypatch.setattr(ChemicalEpisodes, "step", noted_step)
    evaluate(model)
    assert set(taken) <= set(range(TINY["n_colors"], N_ACTIONS)) and len(taken) > 50


@pytest.mark.parametrize(("env_id", "env_kwargs"), [("CartPole-v1", {}), (ENV_ID, TINY)])
def test_an_evaluation_draws_from_no_global_generator(env_id, env_kwargs):
    """SB3's algorithms train with them."""
    model = PPO("MlpPolicy" if env_id == "CartPole-v1" else "MultiInputPolicy", make_env(env_id, 1, env_kwargs), device="cpu")
    before = np.random.get_state()[1:3], th.get_rng_state(), random.getstate()
    evaluate_tasks(model, env_id, env_kwargs, [TASK], n_episodes=2)
    after = np.random.get_state()[1:3]
    assert np.array_equal(after[0], before[0][0]) and after[1] == before[0][1]
    assert th.equal(th.get_rng_state(), before[1]) and random.getstate() == before[2]


def test_observations_are_normalized_as_in_training():
    env = VecNormalize(make_env("Pendulum-v1", 2, {}))
    model = PPO("MlpPolicy", env, n_steps=32, n_epochs=1, seed=0, device="cpu").learn(64)
    before = env.obs_rms.count
    (result,) = evaluate_tasks(model, "Pendulum-v1", {}, [TASK], n_episodes=2)
    twin = VecNormalize(make_env("Pendulum-v1", 2, {}), training=False, norm_reward=False)
    twin.obs_rms = env.obs_rms
    twin.seed(EVALUATION_SEED_OFFSET)
    assert result.mean == pytest.approx(evaluate_policy(model, twin, 2)[0]) and env.obs_rms.count == before
