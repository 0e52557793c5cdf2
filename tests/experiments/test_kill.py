"""An experiment whose program is killed goes on, and its processes do not outlive it."""

import os
import signal
import subprocess
import sys
import time

import pytest
from experiment_files import figures, tiny_file

PROGRAM = "import sys; from sb3_fcdl.cli import main; sys.exit(main(sys.argv[1:]))"


def is_alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(parent):
    """All below a process; of Linux only."""
    found = []
    for folder in os.listdir("/proc"):
        if folder.isdecimal():
            try:
                with open(f"/proc/{folder}/stat") as file:
                    if int(file.read().rpartition(")")[2].split()[1]) == parent:
                        found += [int(folder), *children_of(int(folder))]
            except OSError:
                continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks for processes as Linux has them")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_program_that_ends_leaves_no_process_and_goes_on(tmp_path, number):
    file, log_dirs = tiny_file(tmp_path, timesteps=1500, checkpoint_freq=200), {}
    for name in ("whole", "ended"):
        log_dirs[name] = tmp_path / name
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, "experiment", str(file), "--processes", "2", "--log-dir"]
    program = subprocess.Popen([*command, str(log_dirs["ended"])], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while len(list(log_dirs["ended"].glob("*/checkpoint_[0-9]*"))) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    children = children_of(program.pid)
    program.send_signal(number)
    _, said = program.communicate(timeout=60)
    assert program.returncode == (-number if number == signal.SIGKILL else 128 + number)
    end = time.monotonic() + 60
    while any(map(is_alive, children)) and time.monotonic() < end:
        time.sleep(0.05)
    assert len(children) >= 2 and not any(map(is_alive, children))
    if number == signal.SIGINT:
        assert "stopping 2 runs: they leave checkpoints" in said and "interrupted; the same command goes on from here" in said
    assert subprocess.run([*command, str(log_dirs["ended"])], timeout=300, check=False).returncode == 0
    assert len(list(log_dirs["ended"].glob("*/progress_from_*.csv"))) >= 1
    assert subprocess.run([*command, str(log_dirs["whole"])], timeout=300, check=False).returncode == 0
    files = sorted(path.name for path in log_dirs["whole"].glob("*.csv"))
    assert len(files) == 4
    for name in files:
        assert figures(log_dirs["ended"] / name) == figures(log_dirs["whole"] / name)
