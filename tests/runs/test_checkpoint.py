"""Checkpoints are whole or not there."""

import os

import pytest
from tiny import ENV_ID, TINY, tiny_fcdl, tiny_vec_env

from sb3_fcdl import FCDL
from sb3_fcdl.callbacks import RunCheckpointCallback
from sb3_fcdl.runs.checkpoint import is_finished, load_checkpoint, save_checkpoint
from sb3_fcdl.runs.record import TrainRecord


def load(path):
    return FCDL.load(path, env=tiny_vec_env())


def learn_to_40(folder):
    """Checkpoints after 20 and 40 timesteps."""
    record = TrainRecord("FCDL", ENV_ID, TINY, seed=0, timesteps=0, wall_s=0.0)
    return tiny_fcdl(tiny_vec_env(), learning_starts=1000).learn(40, RunCheckpointCallback(folder, record, 20))


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
            model.learn(20, RunCheckpointCallback(tmp_path, record, 20), reset_num_timesteps=False)
    assert resumable(tmp_path) == (40, 38, 40)
    model, record = load_checkpoint(tmp_path, load)
    model.learn(20, RunCheckpointCallback(tmp_path, record, 20), reset_num_timesteps=False)
    assert resumable(tmp_path) == (60, 56, 60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_60", "train.json"]


def test_an_old_checkpoint_that_was_half_deleted_is_passed_over(tmp_path):
    learn_to_40(tmp_path)
    (tmp_path / "checkpoint_9").mkdir()
    assert resumable(tmp_path) == (40, 38, 40)


def test_a_checkpoint_of_this_very_timestep_stays(tmp_path):
    model = learn_to_40(tmp_path)
    before = (tmp_path / "checkpoint_40" / "train.json").read_text()
    save_checkpoint(tmp_path, model, TrainRecord("FCDL", ENV_ID, TINY, seed=0, timesteps=40, wall_s=99.0))
    assert (tmp_path / "checkpoint_40" / "train.json").read_text() == before


def test_a_run_that_ended_leaves_its_record_and_no_checkpoint(tmp_path):
    record = TrainRecord("FCDL", ENV_ID, TINY, seed=0, timesteps=0, wall_s=100.0)
    callback = RunCheckpointCallback(tmp_path, record, 20)
    model = tiny_fcdl(tiny_vec_env(), learning_starts=1000).learn(52, callback)
    model.save(tmp_path / "model.zip")
    assert not is_finished(tmp_path)
    callback.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.zip", "train.json"] and is_finished(tmp_path)
    written = TrainRecord.load(tmp_path)
    assert written.timesteps == 52 and written.wall_s > 100
