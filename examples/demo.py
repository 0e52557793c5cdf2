"""
Train FCDL on Chemical for some ten minutes, then compare it with policies that learn nothing.

Run it with ``make demo``, or ``python examples/demo.py --help``.
"""

import argparse
import time

import gymnasium as gym
from stable_baselines3.common.vec_env import VecMonitor

from sb3_fcdl import FCDL, FCDLPolicy, GymVectorVecEnv
from sb3_fcdl.benchmark import CHEMICAL
from sb3_fcdl.evaluation import evaluate_tasks
from sb3_fcdl.presets import preset
from sb3_fcdl.runs import format_table

ENV_ID = "FCDL/Chemical-v0"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train FCDL on Chemical and print its returns beside trivial policies.")
    parser.add_argument("--timesteps", type=int, default=20_000, help="transitions to learn from (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=20, help="evaluation episodes a task (default: %(default)s)")
    parser.add_argument("--n-objects", type=int, default=10, help="objects in the environment (default: %(default)s)")
    parser.add_argument("--log-dir", default="runs/demo", help="where TensorBoard files go (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    env_kwargs = {"rule": "full_fork", "n_objects": arguments.n_objects, "dynamics_seed": 0}

    # Ten copies of the environment, stepped together. One update for each step of all ten.
    env = VecMonitor(GymVectorVecEnv(gym.make_vec(ENV_ID, num_envs=10, **env_kwargs)))
    model = FCDL(
        FCDLPolicy,
        env,
        learning_starts=min(10_000, arguments.timesteps // 3),
        train_freq=1,
        gradient_steps=1,
        tensorboard_log=arguments.log_dir,
        seed=0,
        **preset(ENV_ID),
    )
    start = time.perf_counter()
    model.learn(arguments.timesteps, log_interval=env.num_envs, progress_bar=True)
    print(f"\nTrained on {model.num_timesteps} transitions in {time.perf_counter() - start:.0f} s. Evaluating ...\n")

    # The test tasks corrupt n objects and ask for colours that training never asked for.
    policies = {"FCDL": model, **CHEMICAL.references(ENV_ID, env_kwargs, 0)}
    tasks = CHEMICAL.tasks(env_kwargs)
    results = {
        name: evaluate_tasks(policy, ENV_ID, env_kwargs, tasks, arguments.episodes, progress_bar=True)
        for name, policy in policies.items()
    }
    print(format_table(results))

    model.save(f"{arguments.log_dir}/model.zip")
    print(f"\nThe model is in {arguments.log_dir}/model.zip. Learning curves:")
    print(f"  .venv/bin/tensorboard --logdir {arguments.log_dir}")


if __name__ == "__main__":
    main()
