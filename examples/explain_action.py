"""
Train FCDL on a small Chemical for a minute, and ask it why it acts as it does: what it imagines, from which parents, what
the second best action would cost, and what if a variable had another value. Writes explanation.png.
"""

import argparse
from pathlib import Path

import gymnasium as gym
from stable_baselines3.common.vec_env import VecMonitor

from sb3_fcdl import FCDL, FCDLPolicy, GymVectorVecEnv
from sb3_fcdl.presets import preset

ENV_ID, ENV_KWARGS = "FCDL/Chemical-v0", {"n_objects": 5, "n_colors": 3}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timesteps", type=int, default=15_000, help="transitions to learn from (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the training and the explained state (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="folder of the picture (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    env = VecMonitor(GymVectorVecEnv(gym.make_vec(ENV_ID, num_envs=10, **ENV_KWARGS)))
    learning_starts = arguments.timesteps // 5
    # Without what the preset tells the model of the graph.
    settings = preset(ENV_ID, dynamics="fcdl") | {"dynamics_kwargs": {}}
    model = FCDL(
        FCDLPolicy, env, learning_starts=learning_starts, train_freq=1, gradient_steps=3, seed=arguments.seed, **settings
    )
    model.learn(arguments.timesteps)

    observation, _ = gym.make(ENV_ID, task="test", **ENV_KWARGS).reset(seed=arguments.seed)
    explanation = model.explain(observation)
    print(explanation)
    explanation.plot().savefig(arguments.output / "explanation.png", dpi=80)

    print()
    names = model.policy.world.factors.state_names
    for name in names:
        now = int(explanation.plan.values[0, names.index(name)])
        print(explanation.do(**{name: (now + 1) % ENV_KWARGS["n_colors"]}))


if __name__ == "__main__":
    main()
