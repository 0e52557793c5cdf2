"""
MBPO: SAC or DQN learn from what an ensemble of models imagines, with ten updates a step.

``python examples/mbpo.py --env Pendulum-v1 --timesteps 2000``, and with ``--no-imagination`` the same algorithm alone.
"""

import argparse

from gymnasium import spaces
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_fcdl.callbacks import MBPOCallback

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--env", default="Pendulum-v1", help="(default: %(default)s)")
parser.add_argument("--timesteps", type=int, default=2000, help="real transitions (default: %(default)s)")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--no-imagination", action="store_true", help="the algorithm alone")
args = parser.parse_args()

env = make_vec_env(args.env, seed=args.seed)
algorithm = SAC if isinstance(env.action_space, spaces.Box) else DQN
agent = algorithm("MlpPolicy", env, learning_rate=1e-3, learning_starts=200, train_freq=1, tau=0.02, seed=args.seed)
mbpo = [] if args.no_imagination else [MBPOCallback(gradient_steps=10, real_ratio=0.05)]
agent.learn(args.timesteps, [EvalCallback(make_vec_env(args.env, seed=1000), eval_freq=500, n_eval_episodes=5), *mbpo])
