"""Runs in processes of this machine, which fail, and are killed."""

import os
import signal
import time

import pytest
from experiment_files import figures, tiny_file

from sb3_fcdl.cli import main
from sb3_fcdl.experiments.experiment import read_experiment
from sb3_fcdl.experiments.local import LocalWorkers
from sb3_fcdl.experiments.run import carry_out
from sb3_fcdl.experiments.workers import Ending

BROKEN = """
[models.broken]
dynamics = "mlp"
dynamics_kwargs = { hiden_dim = 16 }
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals of POSIX")
def test_a_process_that_is_killed_loses_what_came_after_its_checkpoint(tmp_path):
    run = read_experiment(tiny_file(tmp_path, timesteps=400, checkpoint_freq=150))[1]
    workers, folder = LocalWorkers(tmp_path / "runs", 1), tmp_path / "runs" / run.name
    try:
        workers.start(run)
        end = time.monotonic() + 120
        while not list(folder.glob("checkpoint_[0-9]*/train.json")) and time.monotonic() < end:
            time.sleep(0.005)
        (process,) = (process for _, process in workers._processes.values())
        assert workers.n_free == 0 and workers.running == [run] and os.getpgid(process.pid) == process.pid
        os.kill(process.pid, signal.SIGKILL)
        (ended,) = workers.wait(60)
        assert ended.ending is Ending.DIED and "ended with -9" in ended.reason and workers.n_left == 0
        workers.start(run)
        (ended,) = workers.wait(120)
    finally:
        workers.close()
    assert ended.ending is Ending.FINISHED
    assert list(folder.glob("progress_from_*.csv"))
    carry_out(run, tmp_path / "whole")
    for path in (tmp_path / "whole" / "results_400").iterdir():
        assert figures(folder / "results_400" / path.name) == figures(path)


def test_the_command_carries_out_all_runs_but_those_that_fail(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tiny_file(tmp_path, more=BROKEN)
    file.write_text(file.read_text().replace("[0, 1]", "[0]").replace("[models.FCDL]", "[models.FCDL]\nenvironments = []"))
    with pytest.raises(SystemExit) as ended:
        main(["experiment", "tiny.toml", "--processes", "1"])
    said = capfd.readouterr()
    assert ended.value.code == 1
    assert "1 of 2 runs finished. Their results: runs/tiny/results.csv" in said.out
    assert "finished 1 of 2: chain_MLP_seed0" in said.err
    assert said.err.count("failed: chain_broken_seed0: TypeError") == 1 and "hiden_dim" in said.err
    assert said.err.endswith("1 failed, see runs/tiny/*/error.txt\n")
    assert {line["algo"] for line in figures(tmp_path / "runs/tiny/results.csv")} == {"MLP", "MLP, not corrupted"}
    assert not list((tmp_path / "runs/tiny/chain_MLP_seed0").glob("error.txt"))


def test_the_command_names_mistakes_before_it_begins(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["experiment", str(tmp_path / "none.toml")])
    assert ended.value.code == 2 and "none.toml" in capsys.readouterr().err
