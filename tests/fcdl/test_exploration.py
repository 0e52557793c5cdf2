"""What is new is sought: a lock that random actions do not open. What was recorded is believed."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.envs import IdentityEnvMultiDiscrete
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_fcdl import FCDL


class Lock(gym.Env):
    """In each of eight places one of four actions leads on, and the others back to the first place. Arriving is paid 1."""

    observation_space = gym.spaces.Discrete(9)
    action_space = gym.spaces.Discrete(4)
    KEY = np.array([2, 0, 3, 1, 1, 3, 0, 2])

    def __init__(self) -> None:
        self.place = self.n_steps = self.farthest = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.n_steps = 0
        return 0, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        self.place = self.place + 1 if action == self.KEY[self.place] else 0
        self.farthest = max(self.farthest, self.place)
        is_open = self.place == 8
        return self.place, float(is_open), is_open, self.n_steps >= 30, {}


@pytest.mark.slow
def test_a_bonus_leads_where_random_actions_get_once_in_four_thousand_times() -> None:
    small = {"dynamics": "mlp", "dynamics_kwargs": {"hidden_dim": 32, "n_layers": 1}, "planner_kwargs": {"horizon": 4}}
    farthest = []
    for exploration_rate in (0.0, 1.0):
        lock = Lock()
        FCDL(
            "MlpPolicy",
            lock,
            learning_starts=50,
            train_freq=1,
            learning_rate=1e-3,
            exploration_rate=exploration_rate,
            seed=0,
            **small,
        ).learn(800)
        farthest.append(lock.farthest)
    assert farthest[0] >= 6 and farthest[1] <= 5


@pytest.mark.slow
def test_a_reward_of_several_variables_at_once_is_learned() -> None:
    """PPO reaches 93 of 100 after as many steps."""
    model = FCDL("MlpPolicy", IdentityEnvMultiDiscrete(4), seed=0).learn(1200)
    assert evaluate_policy(model, IdentityEnvMultiDiscrete(4), n_eval_episodes=2, warn=False)[0] >= 90
