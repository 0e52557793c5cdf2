"""A run that was stopped and resumed is the run that was not."""

import csv
import shutil

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from random_env import RandomEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger, make_output_format
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize
from tiny import TINY, tiny_fcdl

from sb3_fcdl import FCDL
from sb3_fcdl.evaluation import make_env

SETTINGS = {
    "train_horizon": 1,
    "learning_starts": 40,
    "batch_size": 16,
    "train_freq": 4,
    "dynamics_kwargs": {"hidden_dim": 8},
    "planner": "icem",
    "planner_kwargs": {"horizon": 2, "n_candidates": 8, "n_elites": 4},
}
ENVIRONMENTS = {
    "classic": lambda: make_vec_env("CartPole-v1", 2),
    "normalized": lambda: VecNormalize(make_vec_env("Pendulum-v1", env_kwargs={"max_episode_steps": 50}), norm_obs=True),
    "ten in one": lambda: make_env("FCDL/Chemical-v0", 10, TINY),
    "one by one": lambda: make_vec_env("FCDL/Chemical-v0", 2, env_kwargs=TINY),
}


class CheckpointAt(BaseCallback):
    """Saves a checkpoint before the first rollout that begins at or behind a timestep."""

    def __init__(self, timestep, folder):
        super().__init__()
        self.timestep, self.folder = timestep, folder
        self.saved_at = None

    def _on_step(self):
        return True

    def _on_rollout_start(self):
        if self.saved_at is None and self.num_timesteps >= self.timestep:
            self.saved_at = self.num_timesteps
            self.model.save_checkpoint(self.folder)


def log_to(model, folder):
    folder.mkdir()
    model.set_logger(Logger(str(folder), [make_output_format("csv", str(folder), "")]))


def curve(folder, behind):
    """What was logged behind a timestep, but for the times."""
    with (folder / "progress.csv").open() as file:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [
        {key: value for key, value in row.items() if not key.startswith("time/")}
        for row in rows
        if int(row["time/total_timesteps"]) > behind
    ]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(name, tmp_path):
    make, folder = ENVIRONMENTS[name], tmp_path / "checkpoint"
    whole = tiny_fcdl(make(), policy="MultiInputPolicy" if "one" in name else "MlpPolicy", **SETTINGS)
    log_to(whole, tmp_path / "whole")
    # Past the end of an episode that begins before the checkpoint: of ten environments it comes after 250 timesteps, and
    # CartPole may stand for longer than 130.
    n_timesteps = 300 if name in ("ten in one", "classic") else 130
    callback = CheckpointAt(81, folder)
    whole.learn(n_timesteps, callback, log_interval=1)

    np.random.seed(7)  # what came before in the new process
    resumed = FCDL.resume(folder, make())
    log_to(resumed, tmp_path / "resumed")
    assert resumed.num_timesteps == callback.saved_at < n_timesteps
    resumed.learn(n_timesteps - resumed.num_timesteps, log_interval=1, reset_num_timesteps=False)

    expected, found = whole.policy.state_dict(), resumed.policy.state_dict()
    assert expected.keys() == found.keys() and all(th.equal(expected[key], found[key]) for key in expected)
    optimizers = [model.policy.optimizer.state_dict()["state"] for model in (whole, resumed)]
    assert all(
        th.equal(a["exp_avg_sq"], b["exp_avg_sq"]) for a, b in zip(*(each.values() for each in optimizers), strict=True)
    )
    for array in ("actions", "rewards", "dones"):
        np.testing.assert_array_equal(getattr(whole.replay_buffer, array), getattr(resumed.replay_buffer, array))
    for model in (whole, resumed):
        model.logger.close()
    rows = curve(tmp_path / "whole", callback.saved_at)
    assert rows and rows == curve(tmp_path / "resumed", callback.saved_at)


def test_environment_without_a_state_goes_on_in_new_episodes_and_says_so(tmp_path):
    class Opaque(RandomEnv):
        def __init__(self):
            super().__init__(gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2))
            self.simulator = memoryview(b"in C")

    model = tiny_fcdl(Opaque(), policy="MlpPolicy", **SETTINGS).learn(60)
    model.save_checkpoint(tmp_path / "checkpoint")
    with pytest.warns(UserWarning, match=r"simulator is builtins.memoryview, .* goes on in new episodes"):
        resumed = FCDL.resume(tmp_path / "checkpoint", Opaque())
    assert resumed.learn(20, reset_num_timesteps=False).num_timesteps == 80


def test_workers_have_no_state_that_can_be_taken(tmp_path):
    env = make_vec_env("CartPole-v1", 2, vec_env_cls=SubprocVecEnv)
    tiny_fcdl(env, policy="MlpPolicy", **SETTINGS).learn(60).save_checkpoint(tmp_path / "checkpoint")
    with pytest.warns(UserWarning, match="goes on in new episodes"):
        FCDL.resume(tmp_path / "checkpoint", env)
    env.close()


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path):
    folder = tmp_path / "checkpoint"
    tiny_fcdl("CartPole-v1", policy="MlpPolicy", **SETTINGS).learn(60).save_checkpoint(folder)
    for name in ("model.zip", "replay_buffer.npz", "state.pt"):
        copy = tmp_path / f"without_{name}"
        shutil.copytree(folder, copy)
        (copy / name).write_bytes((copy / name).read_bytes()[:100])
        with pytest.raises(ValueError, match="damaged"):
            FCDL.resume(copy, "CartPole-v1")
        (copy / name).unlink()
        with pytest.raises(ValueError, match=f"not a complete one: it has no {name}"):
            FCDL.resume(copy, "CartPole-v1")


def test_a_checkpoint_of_another_environment_is_refused(tmp_path):
    tiny_fcdl("CartPole-v1", policy="MlpPolicy", **SETTINGS).learn(60).save_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        FCDL.resume(tmp_path / "checkpoint", "Pendulum-v1")


def test_a_failed_checkpoint_leaves_the_one_before(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint"
    model = tiny_fcdl("CartPole-v1", policy="MlpPolicy", **SETTINGS).learn(60)
    model.save_checkpoint(folder)
    model.learn(20, reset_num_timesteps=False)

    def disk_full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sb3_fcdl.fcdl.resumable.save_buffer", disk_full)
    with pytest.raises(OSError, match="No space left"):
        model.save_checkpoint(folder)
    monkeypatch.undo()
    assert FCDL.resume(folder, "CartPole-v1").num_timesteps == 60
