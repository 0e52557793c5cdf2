"""An evaluation episode in TensorBoard, as a moving picture."""

from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat

from fcdl_envs.arguments import check, integer
from sb3_fcdl.observations import given_to

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class VideoCallback(BaseCallback):
    """
    Shows an evaluation episode in TensorBoard at regular intervals, as a moving picture among the images.

    It is a GIF, because SB3's ``Video`` would need moviepy. Needs pillow (extra ``plot``).

    :param env: to evaluate in, one environment with ``render_mode="rgb_array"``
    :param video_freq: calls of ``env.step`` from one episode to the next
    :param seed: of the episode, which is the same each time
    :raises ValueError: if the environment does not render, ``video_freq`` is below 1, or ``seed`` negative
    :raises TypeError: if one of them is no integer
    """

    def __init__(self, env: gym.Env, video_freq: int = 10_000, seed: int = 0) -> None:
        super().__init__()
        if env.render_mode != "rgb_array":
            raise ValueError(f"the environment must be made with render_mode='rgb_array', got {env.render_mode!r}")
        check(video_freq=(video_freq, integer(1)), seed=(seed, integer(0)))
        self.env, self.video_freq, self.seed = env, video_freq, seed

    def _on_training_start(self) -> None:
        if not self._writers():
            raise ValueError("VideoCallback shows episodes in TensorBoard: give the model a tensorboard_log")

    def _on_step(self) -> bool:
        if self.n_calls % self.video_freq == 0:
            frames = self._play()
            for writer in self._writers():
                _write_gif(writer, "eval/episode", frames, self.env.metadata.get("render_fps", 10), self.num_timesteps)
        return True

    def _play(self) -> list[np.ndarray]:
        """The pictures of an episode, ``[height, width, 3]`` uint8 each."""
        observation, _ = self.env.reset(seed=self.seed)
        given = given_to(self.model)
        frames, is_over, state, is_first = [self._picture()], False, None, np.ones(1, dtype=bool)
        while not is_over:
            action, state = self.model.predict(given(observation), state, is_first, deterministic=True)
            observation, _, terminated, truncated, _ = self.env.step(action)
            frames.append(self._picture())
            is_over, is_first = terminated or truncated, np.zeros(1, dtype=bool)
        return frames

    def _picture(self) -> np.ndarray:
        return np.asarray(self.env.render())

    def _writers(self) -> "list[SummaryWriter]":
        return [output.writer for output in self.logger.output_formats if isinstance(output, TensorBoardOutputFormat)]


def _write_gif(writer: "SummaryWriter", tag: str, frames: list[np.ndarray], fps: float, step: int) -> None:
    from tensorboard.compat.proto.summary_pb2 import Summary

    from sb3_fcdl.plots.gif import gif

    height, width, _ = frames[0].shape
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif(frames, 1000 / fps))
    assert writer.file_writer is not None
    writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
