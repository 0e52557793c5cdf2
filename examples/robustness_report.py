"""
Train FCDL, and the same with a model that reads everything, on a small Chemical for a few minutes; then show both one object
with strong noise. Writes robustness.png and robustness.json.
"""

import argparse
from pathlib import Path

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from sb3_fcdl import FCDL, FCDLPolicy, GymVectorVecEnv
from sb3_fcdl.evaluation import evaluate_shift
from sb3_fcdl.presets import preset

ENV_ID, ENV_KWARGS = "FCDL/Chemical-v0", {"n_objects": 5, "n_colors": 3}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timesteps", type=int, default=15_000, help="transitions a model (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=30, help="with and without noise each (default: %(default)s)")
    parser.add_argument("--variable", default="obj1", help="that is shown with noise (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="folder of the results (default: %(default)s)")
    return parser.parse_args()


def make_env(**kwargs: str) -> VecEnv:
    return VecMonitor(GymVectorVecEnv(gym.make_vec(ENV_ID, num_envs=10, **ENV_KWARGS, **kwargs)))


def main() -> None:
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    models = {}
    for dynamics in ("fcdl", "mlp"):
        learning_starts = arguments.timesteps // 5
        settings = {"learning_starts": learning_starts, "train_freq": 1, "gradient_steps": 3, "seed": 0}
        # Without what the preset tells the model of the graph.
        settings |= preset(ENV_ID, dynamics=dynamics) | {"dynamics_kwargs": {}}
        models[dynamics] = FCDL(FCDLPolicy, make_env(), **settings).learn(arguments.timesteps)

    # In the test task the root is 0: objects do not depend on each other, so noise in one need not disturb the others.
    report = evaluate_shift(models, lambda: make_env(task="test"), {arguments.variable: "noise"}, arguments.episodes)
    print(report)
    report.plot().savefig(arguments.output / "robustness.png", dpi=80)
    (arguments.output / "robustness.json").write_text(report.to_json() + "\n")


if __name__ == "__main__":
    main()
