"""SB3's identity environments, whose best return is known: with a learned reward a horizon of 1 suffices."""

import pytest
from stable_baselines3.common.envs import IdentityEnv, IdentityEnvBox, IdentityEnvMultiBinary, IdentityEnvMultiDiscrete
from stable_baselines3.common.evaluation import evaluate_policy
from tiny import tiny_fcdl

EPISODE = 20
PLANNER = {"horizon": 1, "n_iterations": 3, "n_candidates": 32, "n_elites": 4}


@pytest.mark.parametrize(
    ("env", "share"),
    [
        (IdentityEnv(2, ep_length=EPISODE), 0.95),
        (IdentityEnvMultiDiscrete(2, ep_length=EPISODE), 0.95),
        (IdentityEnvMultiBinary(2, ep_length=EPISODE), 0.95),
        # Paid if the action is this near to the observation, in a range of 2.
        (IdentityEnvBox(eps=0.2, ep_length=EPISODE), 0.9),
    ],
)
def test_reaches_the_reward(env, share):
    model = tiny_fcdl(
        env,
        policy="MlpPolicy",
        learning_rate=5e-3,
        learning_starts=300,
        train_freq=400,
        gradient_steps=120,
        batch_size=64,
        train_horizon=1,
        dynamics="mlp",
        dynamics_kwargs={"hidden_dim": 16, "n_layers": 1},
        planner_kwargs=PLANNER,
    ).learn(400)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=1, warn=False)
    assert mean >= share * EPISODE
