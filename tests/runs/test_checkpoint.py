"""Checkpoints are whole or not there."""

import os

import pytest
from tiny import ENV_ID, TINY, tiny_fcdl, tiny_vec_env

from sb3_fcdl import FCDL
from sb3_fcdl.runs.checkpoint import CheckpointCallback, load_checkpoint
from sb3_fcdl.runs.record import TrainRecord


def load(path):
    return FCDL.load(path, env=tiny_vec_env())


def learn_to_40(folder):
    """Checkpoints after 20 and 40 timesteps."""
    record = TrainRecord("FCDL", ENV_ID, TINY, seed=0, timesteps=0, wall_s=0.0)
    return tiny_fcdl(tiny_vec_env(), learning_starts=1000).learn(40, CheckpointCallback(folder, record, 20))


def resumable(folder):
    """Timesteps of model, buffer and record. SB3 calls back before it stores a step, so the buffer lacks the last one."""
    model, record = load_checkpoint(folder, load)
    return model.num_timesteps, model.replay_buffer.size() * model.n_envs, record.timesteps


@pytest.mark.parametrize(
    "saver", [(FCDL, "save"), (FCDL, "save_replay_buffer"), (TrainRecord, "save")], ids=lambda saver: saver[1]
)
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, saver):
    learn_to_40(tmp_path)
    model, record = load_checkpoint(tmp_path, load)
    save = getattr(*saver)

    def save_half(self, path):
        save(self, path)
        file = path / TrainRecord.FILE_NAME if path.is_dir() else path
        os.truncate(file, file.stat().st_size // 2)
        raise OSError("no space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(*saver, save_half)
        with pytest.raises(OSError, match="no space left"):
            model.learn(20, CheckpointCallback(tmp_path, record, 20), reset_num_timesteps=False)
    assert resumable(tmp_path) == (40, 38, 40)
    model, record = load_checkpoint(tmp_path, load)
    model.learn(20, CheckpointCallback(tmp_path, record, 20), reset_num_timesteps=False)
    assert resumable(tmp_path) == (60, 56, 60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_60", "train.json"]


def test_an_old_checkpoint_that_was_half_deleted_is_passed_over(tmp_path):
    learn_to_40(tmp_path)
    (tmp_path / "checkpoint_9").mkdir()
    assert resumable(tmp_path) == (40, 38, 40)
