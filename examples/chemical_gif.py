"""
An animation of a policy in Chemical: on the left what drives what in each step, on the right what the model believes.

Run it with ``python examples/chemical_gif.py --help``. Without ``--model`` it trains one, for two minutes. It needs the extra
``plot``.
"""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw
from stable_baselines3.common.vec_env import VecMonitor

from fcdl_envs.chemical_render import render_rgb
from sb3_fcdl import FCDL, GymVectorVecEnv, presets
from sb3_fcdl.plots.gif import gif

ENV_ID, ENV_KWARGS = "FCDL/Chemical-v0", {"n_objects": 5, "n_colors": 3}
FRAME_MS, PAUSE_MS, HEADER = 700, 2000, 34


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write an animated GIF of FCDL in FCDL/Chemical-v0 with five objects.")
    parser.add_argument("--model", type=Path, help="an FCDL model of five objects and three colours (default: train one)")
    parser.add_argument("--timesteps", type=int, default=30_000, help="of training (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("chemical.gif"), help="where the GIF goes (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="shown of each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode (default: %(default)s)")
    parser.add_argument("--size", type=int, default=320, help="width and height of each half in pixels (default: %(default)s)")
    return parser.parse_args()


def train(timesteps: int) -> FCDL:
    env = VecMonitor(GymVectorVecEnv(gym.make_vec(ENV_ID, num_envs=10, **ENV_KWARGS)))
    settings = presets.preset(ENV_ID, learning_rate=1e-3, exploration_rate=1.0, train_freq=1)
    return FCDL("MultiInputPolicy", env, **settings, learning_starts=timesteps // 5, seed=0).learn(timesteps)


def picture(state: dict, graphs: tuple[np.ndarray, np.ndarray], titles: tuple[str, str], size: int) -> np.ndarray:
    """The state with the arrows of each graph ``[V, V]``, side by side, below the titles."""
    halves = []
    for graph, title in zip(graphs, titles, strict=True):
        edges = graph & ~np.eye(len(graph), dtype=bool)  # an arrow to itself cannot be seen
        drawn = render_rgb(state["colors"], state["goal"], edges, ENV_KWARGS["n_colors"])
        half = Image.new("RGB", (size, size + HEADER), "white")
        half.paste(Image.fromarray(drawn).resize((size, size)), (0, HEADER))
        ImageDraw.Draw(half).text((size // 2, HEADER // 2), title, fill="black", font_size=15, anchor="mm")
        halves.append(np.asarray(half))
    return np.concatenate(halves, axis=1)


def main() -> None:
    arguments = parse_arguments()
    model = train(arguments.timesteps) if arguments.model is None else FCDL.load(arguments.model)
    env = gym.make(ENV_ID, **ENV_KWARGS)
    frames: list[np.ndarray] = []
    durations: list[int] = []
    n_objects, n_colors = ENV_KWARGS["n_objects"], ENV_KWARGS["n_colors"]
    for seed in range(arguments.seed, arguments.seed + arguments.episodes):
        observation, _ = env.reset(seed=seed)
        plan = None
        for _ in range(arguments.steps):
            state = env.unwrapped.get_state()
            action, plan = model.predict(observation, plan, np.array([plan is None]), deterministic=True)
            believed = model.local_graph(observation, action).edges[:, :n_objects]
            observation, _, _, _, info = env.step(action)
            true = info["transition_graph"][:, :n_objects].astype(bool)
            titles = (f"true: object {action // n_colors} is painted", "believed by the model")
            frames.append(picture(state, (true, believed), titles, arguments.size))
        durations += [FRAME_MS] * (arguments.steps - 1) + [PAUSE_MS]
    env.close()
    arguments.output.write_bytes(gif(frames, durations))
    print(f"{len(frames)} frames, {arguments.output.stat().st_size / 1e6:.2f} MB in {arguments.output}")


if __name__ == "__main__":
    main()
