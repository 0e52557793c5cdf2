"""
Dyna: SAC or DQN learn from real transitions and from imagined ones, half of each batch.

``python examples/dyna.py --env CartPole-v1``, and with ``--no-imagination`` the same algorithm without the model.
"""

import argparse

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from sb3_fcdl import FCDL

N_IMAGINED, HORIZON = 64, 5  # environments, and steps in each from a recorded observation on
N_FIRST_UPDATES, MODEL_FREQ, IMAGINATION_FREQ = 500, 2, 8  # of the model; then real steps between updates, imagined steps


class MixedBuffer(ReplayBuffer):
    """Half of each batch is imagined, as soon as anything is."""

    imagined: ReplayBuffer | None = None

    def sample(self, batch_size, env=None):
        if self.imagined is None or not self.imagined.size():
            return super().sample(batch_size, env)
        halves = super().sample(batch_size // 2, env), self.imagined.sample(batch_size - batch_size // 2, env)
        return ReplayBufferSamples(*(th.cat(both) for both in zip(*(half[:5] for half in halves), strict=True)))


class Dyna(BaseCallback):
    """The model learns from the agent's transitions; the agent acts in the model too, and keeps what happens there."""

    def __init__(self, world: FCDL) -> None:
        super().__init__()
        self.world = world

    def _on_training_start(self) -> None:
        self.world.replay_buffer = self.model.replay_buffer
        self.world.set_logger(Logger(None, []))
        self.env, self.observations = self.world.imagined_env(N_IMAGINED, HORIZON), None
        self.imagined = ReplayBuffer(10_000, self.env.observation_space, self.env.action_space, self.model.device, N_IMAGINED)
        self.model.replay_buffer.imagined = self.imagined

    def _on_step(self) -> bool:
        self.world.policy.world.factorization.observe(th.as_tensor(self.locals["new_obs"]))
        now, start = self.num_timesteps, 2 * self.model.learning_starts
        if now == start or (now > start and now % MODEL_FREQ == 0):
            self.world.train(gradient_steps=N_FIRST_UPDATES if now == start else 1, batch_size=256)
        if now > start and now % IMAGINATION_FREQ == 0:
            before = self.env.reset() if self.observations is None else self.observations
            actions, _ = self.model.predict(before)
            self.observations, rewards, dones, infos = self.env.step(actions)
            arrived = [info.get("terminal_observation", row) for info, row in zip(infos, self.observations, strict=True)]
            if isinstance(self.env.action_space, spaces.Box):
                actions = self.model.policy.scale_action(actions)
            self.imagined.add(before, np.stack(arrived), actions, rewards, dones, infos)
        return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1", help="with a Box observation (default: %(default)s)")
    parser.add_argument("--timesteps", type=int, default=5000, help="real transitions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-imagination", action="store_true", help="the algorithm alone")
    args = parser.parse_args()
    env, settings = make_vec_env(args.env, seed=args.seed), {"learning_starts": 200, "learning_rate": 1e-3, "train_freq": 1}
    algorithm = SAC if isinstance(env.action_space, spaces.Box) else DQN
    settings |= {} if algorithm is SAC else {"batch_size": 128, "target_update_interval": 100, "exploration_fraction": 0.2}
    agent = algorithm("MlpPolicy", env, replay_buffer_class=MixedBuffer, seed=args.seed, **settings)
    dyna = [] if args.no_imagination else [Dyna(FCDL("MlpPolicy", args.env, dynamics="mlp", buffer_size=1, seed=args.seed))]
    agent.learn(args.timesteps, [EvalCallback(make_vec_env(args.env, seed=1000), eval_freq=1000, n_eval_episodes=5), *dyna])
