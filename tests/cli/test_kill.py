"""A run that is killed again and again ends as the one that is not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch as th

from sb3_fcdl import FCDL

# Frequent checkpoints; and, if asked to, the program kills itself while it makes, renames or deletes the n-th file or folder
# of a checkpoint: an audit hook sees each before it happens.
PROGRAM = """
import os, signal, sys
import sb3_fcdl.cli, sb3_fcdl.experiments.training

def run(frequency, kill_at, arguments):
    sb3_fcdl.experiments.training.CHECKPOINT_FREQUENCY = frequency
    left = [kill_at]

    def hook(event, arguments):
        if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir") and "checkpoint_" in str(arguments[0]):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    if kill_at:
        sys.addaudithook(hook)
    sys.argv = ["sb3-fcdl", *arguments]
    sys.exit(sb3_fcdl.cli.main())
"""
# `python -m sb3_fcdl.cli` with what is above.
ONE = PROGRAM + "run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])"
# The same, without importing torch for each: forks a process for each line of JSON, and says its process id, then its status.
MANY = (
    PROGRAM
    + """
import json
for line in sys.stdin:
    process = os.fork()
    if not process:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            run(*json.loads(line))
        except SystemExit as error:
            os._exit(error.code or 0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(99)
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""
)
SIZES = ["n_objects=4", "n_colors=3"]
QUICK = [
    "--dynamics-kwargs",
    "hidden_dim=16",
    "n_codes=4",
    "--planner-kwargs",
    "n_iterations=2",
    "n_candidates=8",
    "n_elites=4",
]
TRAIN = ["train", "--seed", "3", "--env-kwargs", *SIZES, *QUICK]
NAME = "Chemical-v0_full_fork_seed3_1"


def wait(folder, delay):
    """Until there is a new checkpoint, so that the run gets on however slow the machine is, and then the delay."""
    before, end = set(folder.glob("checkpoint_[0-9]*")), time.monotonic() + 120
    while not set(folder.glob("checkpoint_[0-9]*")) - before and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(delay)


class Runner:
    """Runs the command in processes of its own, and kills them."""

    def __init__(self, forks):
        command = [sys.executable, "-W", "ignore", "-c", MANY]
        self.parent = subprocess.Popen(command, stdin=-1, stdout=-1, text=True) if forks else None

    def __call__(self, frequency, arguments, folder=None, delay=None, kill_at=0):
        """Its status; -9 if it was killed: after its first new checkpoint and a delay, or at a file of a checkpoint."""
        if self.parent is None:
            command = [sys.executable, "-W", "ignore", "-c", ONE, str(frequency), str(kill_at), *arguments]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            if delay is not None:
                wait(folder, delay)
                process.kill()
            return process.wait()
        self.parent.stdin.write(json.dumps([frequency, kill_at, arguments]) + "\n")
        self.parent.stdin.flush()
        process = int(self.parent.stdout.readline())
        if delay is not None:
            wait(folder, delay)
            os.kill(process, signal.SIGKILL)
        return int(self.parent.stdout.readline())

    def close(self):
        if self.parent is not None:
            self.parent.communicate()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes of POSIX")
@pytest.mark.parametrize(
    ("forks", "timesteps", "longest", "options"),
    [(True, 600, 0.1, []), (False, 1500, 1.0, ["--eval-freq", "150"])],
    ids=["short", "long"],
)
def test_ten_kills_change_nothing(tmp_path, forks, timesteps, longest, options):
    rng, run = random.Random(0), Runner(forks)
    train = [*TRAIN, *options, "--timesteps", str(timesteps), "--log-dir"]
    try:
        assert run(10_000, [*train, str(tmp_path / "whole")]) == 0
        folder, n_kills, n_restarts = tmp_path / "killed" / NAME, 0, 0
        status = None
        while status != 0:
            has_checkpoint = any(folder.glob("checkpoint_[0-9]*/train.json"))
            if folder.exists() and not has_checkpoint:
                # Killed before the first checkpoint: nothing to go on from.
                folder.rename(folder.with_name(f"nothing_{n_restarts}"))
                n_restarts += 1
            arguments = ["train", "--resume", str(folder)] if has_checkpoint else [*train, str(tmp_path / "killed")]
            is_last = n_kills == 10
            delay = rng.uniform(0, longest) if not is_last and n_kills % 2 else None
            kill_at = 0 if is_last or delay is not None else rng.randrange(1, 60)
            status = run(20, arguments, folder, delay, kill_at)
            assert status in (0, -9), status
            n_kills += status == -9
    finally:
        run.close()
    assert n_kills == 10
    whole, killed = (FCDL.load(path / "model.zip") for path in (tmp_path / "whole" / NAME, folder))
    expected, found = whole.policy.state_dict(), killed.policy.state_dict()
    assert whole._n_updates == killed._n_updates > 10 and expected.keys() == found.keys()
    assert all(th.equal(expected[key], found[key]) for key in expected)
    if options:
        evaluations = [dict(np.load(Path(path) / "evaluations.npz")) for path in (tmp_path / "whole" / NAME, folder)]
        assert all(np.array_equal(evaluations[0][key], evaluations[1][key]) for key in evaluations[0])
    assert [path.name for path in folder.glob("*_[0-9]*") if path.is_dir()] == [f"end_{timesteps}"]
