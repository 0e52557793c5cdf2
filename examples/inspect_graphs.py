"""
Train FCDL on a small Chemical for a minute or two, and look at what it believes: contexts, graphs, and how far they are from
the truth. Writes union.png, codes.png and stability.png.
"""

import argparse
from pathlib import Path

import gymnasium as gym
from stable_baselines3.common.vec_env import VecMonitor

from sb3_fcdl import FCDL, CausalGraph, FCDLPolicy, GymVectorVecEnv
from sb3_fcdl.presets import preset

ENV_ID, ENV_KWARGS = "FCDL/Chemical-v0", {"n_objects": 5, "n_colors": 3}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timesteps", type=int, default=15_000, help="transitions a seed (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("pictures"), help="folder of the pictures (default: %(default)s)")
    return parser.parse_args()


def train(timesteps: int, seed: int) -> FCDL:
    env = VecMonitor(GymVectorVecEnv(gym.make_vec(ENV_ID, num_envs=10, **ENV_KWARGS)))
    # Without what the preset tells the model of the graph.
    settings = preset(ENV_ID, dynamics="fcdl") | {"dynamics_kwargs": {}}
    model = FCDL(FCDLPolicy, env, learning_starts=timesteps // 5, train_freq=1, gradient_steps=3, seed=seed, **settings)
    return model.learn(timesteps)


def main() -> None:
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    models = [train(arguments.timesteps, seed) for seed in range(arguments.seeds)]

    model = models[0]
    codes = model.codes()
    print("\n".join(map(str, codes)))
    titles = [f"code {code.code}: {100 * code.share:.0f} %" for code in codes]
    CausalGraph.plot_grid([code.graph for code in codes], titles).savefig(arguments.output / "codes.png", dpi=80)

    # The union of all contexts beside the true global graph. Entries that the model was told do not count.
    union = model.causal_graph()
    union.plot().savefig(arguments.output / "union.png", dpi=80)
    truth = gym.make(ENV_ID, **ENV_KWARGS).unwrapped.global_graph
    print(f"\n{union}\n\n{union.score(truth, entries=model.dynamics.free_entries)}")

    # How often each edge appears over training seeds.
    stability = CausalGraph.stability([model.causal_graph() for model in models])
    stability.plot().savefig(arguments.output / "stability.png", dpi=80)
    unsure = [f"{p} -> {c}'" for i, c in enumerate(stability.child_names) for j, p in enumerate(stability.parent_names)
              if 0 < stability.probabilities[i, j] < 1]  # fmt: skip
    print(f"\nedges that not all of {len(models)} seeds agree on: {', '.join(unsure) or 'none'}")


if __name__ == "__main__":
    main()
