"""
An animation of a policy in Magnetic: of a trained model, or of a script that chases the ball.

Run it with ``python examples/magnetic_gif.py --help``. It needs the extras ``magnetic`` and ``plot``.
"""

import argparse
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from fcdl_envs.magnetic_task import BALL_HEIGHT, STEP_SIZE, ball_and_eef
from sb3_fcdl.plots.gif import gif

FRAME_MS = 100
PAUSE_MS = 800


class ChaseTheBall:
    """The scripted policy: straight to where the ball is."""

    def predict(self, observation: np.ndarray, deterministic: bool = True) -> tuple[np.ndarray, None]:
        ball, eef = ball_and_eef(observation)
        return np.clip((np.array([*ball, BALL_HEIGHT]) - eef) / STEP_SIZE, -1, 1), None


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write an animated GIF of a policy in FCDL/Magnetic-v0.")
    parser.add_argument("--model", type=Path, help="an FCDL model that was saved (default: chase the ball)")
    parser.add_argument("--output", type=Path, default=Path("magnetic.gif"), help="where the GIF goes (default: %(default)s)")
    parser.add_argument("--task", choices=("train", "test"), default="train", help="default: %(default)s")
    parser.add_argument("--episodes", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode (default: %(default)s)")
    parser.add_argument("--size", type=int, default=320, help="width and height in pixels (default: %(default)s)")
    return parser.parse_args()


def load_policy(path: Path | None) -> Any:
    if path is None:
        return ChaseTheBall()
    from sb3_fcdl import FCDL

    return FCDL.load(path)


def main() -> None:
    arguments = parse_arguments()
    policy = load_policy(arguments.model)
    env = gym.make("FCDL/Magnetic-v0", task=arguments.task, render_mode="rgb_array")
    pictures: list[Any] = []
    durations: list[int] = []
    for seed in range(arguments.seed, arguments.seed + arguments.episodes):
        observation, _ = env.reset(seed=seed)
        pictures.append(env.render())
        truncated = False
        while not truncated:
            action, _ = policy.predict(observation, deterministic=True)
            observation, _, _, truncated, _ = env.step(action)
            pictures.append(env.render())
        durations += [FRAME_MS] * (len(pictures) - len(durations) - 1) + [PAUSE_MS]
    env.close()

    frames = [np.asarray(Image.fromarray(picture).resize((arguments.size, arguments.size))) for picture in pictures]
    arguments.output.write_bytes(gif(frames, durations))
    print(f"{len(frames)} frames, {arguments.output.stat().st_size / 1e6:.2f} MB in {arguments.output}")


if __name__ == "__main__":
    main()
