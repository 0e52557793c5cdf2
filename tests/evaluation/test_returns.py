"""What FCDL reaches with its defaults on environments that nobody here wrote."""

import gymnasium as gym
import pytest
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_fcdl import FCDL


@pytest.mark.slow
@pytest.mark.parametrize(("env_id", "threshold"), [("CartPole-v1", 450), ("Pendulum-v1", -250)])
def test_classic_control_is_learned_in_ten_thousand_steps(env_id, threshold):
    model = FCDL("MlpPolicy", env_id, dynamics="mlp", dynamics_kwargs={"hidden_dim": 128, "n_layers": 2}, seed=0)
    model.learn(10_000)
    mean, _ = evaluate_policy(model, gym.make(env_id), n_eval_episodes=20, warn=False)
    assert mean > threshold
