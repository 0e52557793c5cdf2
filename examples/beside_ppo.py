"""
Train PPO, and beside it a causal model of its environment: the graph, and how well one can plan on what the model learned.
Writes graph.png and policy.pt, for FCDLPolicy.load.
"""

import argparse
from pathlib import Path

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import sb3_fcdl  # noqa: F401 (its environments)
from sb3_fcdl.callbacks import DynamicsCallback
from sb3_fcdl.dynamics import DEFAULT_DYNAMICS


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="Pendulum-v1", help="registered name (default: %(default)s)")
    parser.add_argument("--dynamics", default=DEFAULT_DYNAMICS, help="see docs/dynamics.md (default: %(default)s)")
    parser.add_argument("--timesteps", type=int, default=20_000, help="of PPO (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=5, help="of each evaluation (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("beside"), help="folder of the files (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    callback = DynamicsCallback(arguments.dynamics, train_freq=2)
    model = PPO("MlpPolicy", make_vec_env(arguments.env, n_envs=4, seed=0), n_steps=256, seed=0, device="cpu")
    model.learn(arguments.timesteps, callback)

    graph = callback.causal_graph()
    print(graph)
    graph.plot().savefig(arguments.output / "graph.png", dpi=80)
    callback.save(arguments.output / "policy.pt")

    env = make_vec_env(arguments.env, seed=1)
    for name, policy in (("PPO", model), ("planning on the model", callback.as_policy())):
        mean, std = evaluate_policy(policy, env, n_eval_episodes=arguments.episodes)
        print(f"{name}: mean return {mean:.1f} +- {std:.1f} over {arguments.episodes} episodes")


if __name__ == "__main__":
    main()
