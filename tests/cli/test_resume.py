"""Training runs that crash, are interrupted or cannot write, and how they go on."""

import csv
import errno
import json
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from command import SIZES, error_of
from stable_baselines3.common.callbacks import EvalCallback
from tiny import ends_after, signalled_after

from sb3_fcdl import FCDL
from sb3_fcdl.cli import main
from sb3_fcdl.runs.checkpoint import is_finished


class Crash(Exception):
    """The machine goes down."""


WHOLE = ["train", "--timesteps", "300", "--seed", "1", "--eval-freq", "110", *SIZES]
FOLDER = "Chemical-v0_full_fork_seed1_1"


def rows_of(*paths):
    """The curve in these files, but for times; numbers as they are written."""
    rows = [row for path in paths for row in csv.DictReader(path.read_text().splitlines())]
    return [
        {key: value for key, value in row.items() if value and (not key.startswith("time/") or key == "time/total_timesteps")}
        for row in rows
    ]


def assert_same_run(folder, other):
    """Weights, optimizer, buffer and evaluations bit for bit."""
    models = [FCDL.load(path / "model.zip") for path in (folder, other)]
    ours, theirs = (model.policy.state_dict() for model in models)
    assert ours.keys() == theirs.keys() and all(th.equal(ours[key], theirs[key]) for key in ours)
    ours, theirs = (model.policy.optimizer.state_dict()["state"] for model in models)
    assert all(th.equal(ours[key]["exp_avg_sq"], theirs[key]["exp_avg_sq"]) for key in ours)
    best = [FCDL.load(path / "best_model.zip").policy.state_dict() for path in (folder, other)]
    assert all(th.equal(best[0][key], best[1][key]) for key in best[0])
    evaluations = [dict(np.load(path / "evaluations.npz")) for path in (folder, other)]
    assert all(np.array_equal(evaluations[0][key], evaluations[1][key]) for key in evaluations[1])


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    log_dir = tmp_path_factory.mktemp("whole")
    assert main([*WHOLE, "--log-dir", str(log_dir)]) == 0
    return log_dir / FOLDER


def test_a_run_that_crashed_goes_on_bit_for_bit(tmp_path, monkeypatch, whole_run):
    monkeypatch.setattr("sb3_fcdl.experiments.training.CHECKPOINT_FREQUENCY", 100)
    with monkeypatch.context() as until_crash:
        until_crash.setattr(FCDL, "train", ends_after(13, Crash))
        with pytest.raises(Crash):
            main([*WHOLE, "--log-dir", str(tmp_path)])
    folder = tmp_path / FOLDER
    before = json.loads((folder / "train.json").read_text())
    assert before["timesteps"] == 200 and not (folder / "model.zip").exists()
    # What the run wrote after its checkpoint is repeated: an evaluation, rows of the curve.
    assert dict(np.load(folder / "evaluations.npz"))["timesteps"].tolist() == [110, 220]
    assert rows_of(folder / "progress.csv")[-1]["time/total_timesteps"] == "220"

    assert main(["train", "--resume", str(folder)]) == 0
    assert_same_run(folder, whole_run)
    curve = rows_of(folder / "progress.csv", folder / "progress_from_200.csv")
    assert len(curve) >= 3 and curve == rows_of(whole_run / "progress.csv")
    after = json.loads((folder / "train.json").read_text())
    assert after["timesteps"] == 300 and after["wall_s"] > before["wall_s"]
    assert {key: after[key] for key in ("env_kwargs", "arguments")} == {
        key: before[key] for key in ("env_kwargs", "arguments")
    }
    assert list(folder.glob("checkpoint*")) == [] and is_finished(folder)


def test_a_run_that_has_ended_is_trained_on(capsys, tmp_path, whole_run):
    folder = tmp_path / whole_run.name
    shutil.copytree(whole_run, folder)
    for more in ([], ["--timesteps", "300"]):
        assert "has 300 timesteps: give --timesteps above that" in error_of(capsys, "train", "--resume", str(folder), *more)
    assert main(["train", "--resume", str(folder), "--timesteps", "380"]) == 0
    assert is_finished(folder) and sorted(path.name for path in folder.glob("*_[0-9]*")) == [
        "end_380",
        "progress_from_300.csv",
    ]
    record = json.loads((folder / "train.json").read_text())
    assert record["timesteps"] == record["arguments"]["timesteps"] == 380
    model = FCDL.load(folder / "model.zip")
    # One update for ten transitions after the first 100.
    assert model.num_timesteps == 380 and model._n_updates == 28
    assert dict(np.load(folder / "evaluations.npz"))["timesteps"].tolist() == [110, 220, 330]


OPAQUE = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Simulated(CartPoleEnv):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.simulator = memoryview(b"in C")

gymnasium.register("Simulated-v0", Simulated, max_episode_steps=20)
"""


def test_a_resumed_run_says_if_it_is_no_repetition(capsys, tmp_path, monkeypatch):
    (tmp_path / "opaque.py").write_text(OPAQUE)
    monkeypatch.syspath_prepend(tmp_path)
    quick = ["--dynamics-kwargs", "hidden_dim=16", "--planner-kwargs", "horizon=2", "--log-dir", str(tmp_path / "runs")]
    try:
        assert main(["train", "--env", "opaque:Simulated-v0", "--timesteps", "60", "--eval-freq", "30", *quick]) == 0
        folder = tmp_path / "runs" / "Simulated-v0_seed0_1"
        found = dict(np.load(folder / "evaluations.npz"))
        np.savez(folder / "evaluations.npz", **{**found, "results": np.full_like(found["results"], 1e6)})
        best = (folder / "best_model.zip").read_bytes()
        capsys.readouterr()
        assert main(["train", "--resume", str(folder), "--timesteps", "90"]) == 0
    finally:
        gym.registry.pop("Simulated-v0", None)
        sys.modules.pop("opaque", None)
    (said,) = capsys.readouterr().err.splitlines()
    assert "goes on in new episodes and is no repetition" in said
    # It will not meet the best model again.
    assert (folder / "best_model.zip").read_bytes() == best


def status_of(*arguments):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as exit_info:
        main(list(arguments))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    return exit_info.value.code


@pytest.mark.parametrize(
    ("frequency", "number", "status"),
    [(1000, signal.SIGINT, 130), (70, signal.SIGTERM, 143), (110, signal.SIGINT, 130)],
    ids=["none before, ctrl-c", "one before, sigterm", "one of the same step, ctrl-c"],
)
def test_a_signal_leaves_a_checkpoint_of_that_step(tmp_path, monkeypatch, capsys, whole_run, frequency, number, status):
    monkeypatch.setattr("sb3_fcdl.experiments.training.CHECKPOINT_FREQUENCY", frequency)
    with monkeypatch.context() as until_signal:
        until_signal.setattr(FCDL, "train", signalled_after(12, number))
        assert status_of(*WHOLE, "--log-dir", str(tmp_path)) == status
    folder = tmp_path / FOLDER
    # Updates begin after 100 timesteps.
    said = f"interrupted after 220 timesteps; go on with: sb3-fcdl train --resume {folder}\n"
    assert capsys.readouterr().err == said
    assert json.loads((folder / "train.json").read_text())["timesteps"] == 220
    model = FCDL.load(folder / "model.zip")
    assert (model.num_timesteps, model._n_updates) == (220, 12)
    assert [path.name for path in folder.glob("checkpoint*")] == ["checkpoint_220"] and not is_finished(folder)
    assert main(["train", "--resume", str(folder)]) == 0
    assert is_finished(folder)
    assert_same_run(folder, whole_run)
    curve = rows_of(folder / "progress.csv", folder / "progress_from_220.csv")
    assert curve == rows_of(whole_run / "progress.csv")


def test_a_signal_before_the_first_rollout_leaves_a_checkpoint(tmp_path, monkeypatch, whole_run):
    with monkeypatch.context() as at_once:
        at_once.setattr(
            "sb3_fcdl.experiments.training._eval_callback_class", lambda env: signal.raise_signal(15) or EvalCallback
        )
        assert status_of(*WHOLE, "--log-dir", str(tmp_path)) == 143
    folder = tmp_path / FOLDER
    assert [path.name for path in folder.glob("checkpoint*")] == ["checkpoint_0"]
    assert main(["train", "--resume", str(folder)]) == 0
    assert_same_run(folder, whole_run)
    assert rows_of(folder / "progress.csv") == rows_of(whole_run / "progress.csv")


def test_a_second_signal_ends_at_once_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("sb3_fcdl.experiments.training.CHECKPOINT_FREQUENCY", 70)
    monkeypatch.setattr(FCDL, "train", signalled_after(12, signal.SIGTERM, signal.SIGINT))
    assert status_of(*WHOLE, "--log-dir", str(tmp_path)) == 130
    assert [path.name for path in (tmp_path / FOLDER).glob("checkpoint*")] == ["checkpoint_210"]


def test_train_sets_no_handlers_outside_the_main_thread(tmp_path):
    quick = ["train", "--timesteps", "30", "--log-dir", str(tmp_path), *SIZES]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(main, quick).result() == 0


@pytest.mark.parametrize(
    ("saver", "then"),
    [
        ("sb3_fcdl.runs.checkpoint.sync", "make room there, then train anew"),
        ("sb3_fcdl.runs.checkpoint.save_model", "make room there, then go on with: sb3-fcdl train --resume"),
    ],
)
def test_a_full_disk_ends_with_one_line(capsys, tmp_path, monkeypatch, saver, then):
    def disk_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sb3_fcdl.experiments.training.CHECKPOINT_FREQUENCY", 20)
    monkeypatch.setattr(saver, disk_full)
    said = error_of(capsys, "train", "--timesteps", "40", "--log-dir", str(tmp_path), *SIZES)
    assert f"cannot write to {tmp_path / 'Chemical-v0_full_fork_seed0_1'} (No space left on device)" in said and then in said


@pytest.fixture
def small_files():
    """Until the end of the test the operating system lets no file grow beyond 60 kB."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_that_may_not_grow_ends_with_one_line(capfd, tmp_path, small_files):
    """The operating system itself refuses, also in the midst of what torch writes."""
    with pytest.raises(SystemExit) as ended:
        main(["train", "--timesteps", "40", "--log-dir", str(tmp_path), *SIZES])
    said = capfd.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1, said
    assert "cannot write to" in said and "train anew" in said


def test_a_log_dir_that_cannot_be_written_is_named(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for log_dir in (tmp_path / "file", tmp_path / "file" / "runs"):
        said = error_of(capsys, "train", "--log-dir", str(log_dir), *SIZES)
        assert f"cannot make the folder {log_dir}" in said and "choose another --log-dir" in said

    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert "(Read-only file system): choose another --log-dir" in error_of(capsys, "train", "--log-dir", "runs", *SIZES)
