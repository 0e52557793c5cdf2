"""Checkpoints are whole or not there."""

import os

import pytest
from tiny import ENV_ID, TINY, tiny_fcdl, tiny_vec_env

from sb3_fcdl import FCDL
from sb3_fcdl.callbacks import RunCheckpointCallback
from sb3_fcdl.runs.checkpoint import is_finished, load_checkpoint, put_back_curves, save_checkpoint
from sb3_fcdl.runs.record import TrainRecord


def resume(path):
    return FCDL.resume(path, tiny_vec_env())


def record_of(timesteps):
    return TrainRecord("FCDL", ENV_ID, TINY, seed=0, timesteps=timesteps, wall_s=100.0)


def learn_to_40(folder):
    """Checkpoints before the rollouts after 20 and 40 timesteps."""
    return tiny_fcdl(tiny_vec_env(), learning_starts=1000).learn(44, RunCheckpointCallback(folder, record_of(0), 20))


def resumable(folder):
    """Timesteps of model, buffer and record."""
    _, model, record = load_checkpoint(folder, resume)
    return model.num_timesteps, model.replay_buffer.size() * model.n_envs, record.timesteps


@pytest.mark.parametrize("saver", [(FCDL, "save"), (TrainRecord, "save")], ids=lambda saver: saver[0].__name__)
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, saver):
    learn_to_40(tmp_path)
    _, model, record = load_checkpoint(tmp_path, resume)
    save = getattr(*saver)

    def save_half(self, path):
        save(self, path)
        file = path / TrainRecord.FILE_NAME if path.is_dir() else path
        os.truncate(file, file.stat().st_size // 2)
        raise OSError("no space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(*saver, save_half)
        with pytest.raises(OSError, match="no space left"):
            model.learn(24, RunCheckpointCallback(tmp_path, record, 20), reset_num_timesteps=False)
    assert resumable(tmp_path) == (40, 40, 40)
    _, model, record = load_checkpoint(tmp_path, resume)
    model.learn(24, RunCheckpointCallback(tmp_path, record, 20), reset_num_timesteps=False)
    assert resumable(tmp_path) == (60, 60, 60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_60", "train.json"]


def test_an_old_checkpoint_that_was_half_deleted_is_passed_over(tmp_path):
    learn_to_40(tmp_path)
    (tmp_path / "checkpoint_9").mkdir()
    assert resumable(tmp_path) == (40, 40, 40)


@pytest.mark.parametrize("name", ["model.zip", "replay_buffer.npz", "state.pt", "train.json"])
def test_the_newest_checkpoint_that_is_whole_is_used_and_the_others_are_named(tmp_path, name):
    model = learn_to_40(tmp_path)
    (tmp_path / "checkpoint_40").rename(tmp_path / "kept")
    save_checkpoint(tmp_path, model, record_of(44))
    (tmp_path / "kept").rename(tmp_path / "checkpoint_40")
    file = tmp_path / "checkpoint_44" / name
    file.write_bytes(file.read_bytes()[:50])
    with pytest.warns(UserWarning, match=r"checkpoint_44.*The run goes on from .*checkpoint_40"):
        assert resumable(tmp_path) == (40, 40, 40)
    file.unlink()
    with pytest.warns(UserWarning, match=rf"checkpoint_44 is not complete: it has no {name}.*checkpoint_40"):
        assert resumable(tmp_path) == (40, 40, 40)
    (tmp_path / "checkpoint_40" / "state.pt").unlink()
    with pytest.raises(ValueError, match=rf"checkpoint_44 is not complete: it has no {name}. There is no other"):
        resumable(tmp_path)
    # A half-deleted one does not keep the next from being saved.
    save_checkpoint(tmp_path, model, record_of(44))
    assert resumable(tmp_path) == (44, 44, 44)


def test_a_checkpoint_of_this_very_timestep_stays(tmp_path):
    learn_to_40(tmp_path)
    before = (tmp_path / "checkpoint_40" / "train.json").read_text()
    _, model, record = load_checkpoint(tmp_path, resume)
    callback = RunCheckpointCallback(tmp_path, record, 20)
    model.learn(0, callback, reset_num_timesteps=False)
    callback.save()
    assert (tmp_path / "checkpoint_40" / "train.json").read_text() == before


def test_curves_are_put_back_as_they_were_at_the_checkpoint(tmp_path):
    (tmp_path / "progress.csv").write_text("a\n1\n")
    learn_to_40(tmp_path)
    (tmp_path / "progress.csv").write_text("a,b\n1,\n2,3\n4")
    (tmp_path / "progress_from_40.csv").write_text("c\n")
    put_back_curves(tmp_path / "checkpoint_40")
    assert (tmp_path / "progress.csv").read_text() == "a\n1\n" and not (tmp_path / "progress_from_40.csv").exists()


def test_a_run_that_ended_leaves_model_and_record_and_what_it_needs_to_train_on(tmp_path):
    callback = RunCheckpointCallback(tmp_path, record_of(0), 20)
    tiny_fcdl(tiny_vec_env(), learning_starts=1000).learn(52, callback)
    assert not is_finished(tmp_path)
    callback.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["end_52", "model.zip", "train.json"]
    assert is_finished(tmp_path) and resumable(tmp_path) == (52, 52, 52)
    written = TrainRecord.load(tmp_path)
    assert written.timesteps == 52 and written.wall_s > 100


def test_a_run_killed_while_it_ended_is_not_finished(tmp_path, monkeypatch):
    callback = RunCheckpointCallback(tmp_path, record_of(0), 20)
    tiny_fcdl(tiny_vec_env(), learning_starts=1000).learn(52, callback)
    with monkeypatch.context() as killed:
        killed.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            callback.finish()
    assert not is_finished(tmp_path) and not (tmp_path / "model.zip").exists()
    assert resumable(tmp_path) == (40, 40, 40)  # of this time, as the record of the last could not be renamed
