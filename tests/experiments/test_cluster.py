"""Runs as tasks of Ray: folders that travel; and, where Ray is installed, a cluster that loses a node."""

import importlib.util
import os
import signal
import subprocess
import sys
import time

import pytest
from experiment_files import figures, tiny_file

from sb3_fcdl.cli import main
from sb3_fcdl.experiments.cluster import Mailbox, RayWorkers, pack, put_back, unpack

# A head without cores, on which the program is, and two nodes with one core. As soon as both have sent a checkpoint, one of
# them is killed.
CLUSTER = """
import sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from sb3_fcdl.cli import main

file, log_dir = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
node, _ = (cluster.add_node(num_cpus=1) for _ in range(2))

def kill():
    while len(list(Path(log_dir).glob("*/checkpoint_*"))) < 2:
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)

threading.Thread(target=kill, daemon=True).start()
try:
    main(["experiment", file, "--log-dir", log_dir, "--ray-address", cluster.address])
finally:
    cluster.shutdown()
"""


def test_a_folder_comes_back_as_it_went(tmp_path):
    folder, other = tmp_path / "run", tmp_path / "other" / "run"
    (folder / "checkpoint_10").mkdir(parents=True)
    (folder / "checkpoint_10" / "model.zip").write_bytes(b"\x00model")
    other.mkdir(parents=True)
    (other / "old").touch()
    unpack(pack(folder), other)
    assert [path.relative_to(other).as_posix() for path in sorted(other.rglob("*"))] == [
        "checkpoint_10",
        "checkpoint_10/model.zip",
    ]
    assert (other / "checkpoint_10" / "model.zip").read_bytes() == b"\x00model"
    assert [path.name for path in other.parent.iterdir()] == ["run"]


def test_a_folder_that_was_being_replaced_is_put_back(tmp_path):
    (tmp_path / "run.before" / "checkpoint_10").mkdir(parents=True)
    put_back(tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint_10").is_dir()
    (tmp_path / "run.before").mkdir()
    put_back(tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint_10").is_dir()


def test_the_mailbox_keeps_the_last_folder_of_each_run_until_it_is_taken():
    mailbox = Mailbox()
    mailbox.note_start("a")
    for archive in (b"1", b"2"):
        mailbox.put("a", archive)
    assert mailbox.take() == ({"a"}, {"a": b"2"})
    assert mailbox.take() == (set(), {})


def test_missing_ray_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'sb3_fcdl\[ray\]'"):
        RayWorkers(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["experiment", str(tiny_file(tmp_path)), "--log-dir", str(tmp_path / "runs"), "--ray"])
    assert ended.value.code == 2 and "pip install 'sb3_fcdl[ray]'" in capsys.readouterr().err


def processes_with(word):
    """Process ids whose environment or command has a word; of Linux only."""
    found = []
    for folder in os.listdir("/proc"):
        if folder.isdecimal() and int(folder) != os.getpid():
            try:
                with open(f"/proc/{folder}/cmdline", "rb") as file:
                    text = file.read()
                with open(f"/proc/{folder}/environ", "rb") as file:
                    text += file.read()
            except OSError:
                continue
            if word.encode() in text:
                found.append(int(folder))
    return found


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")
@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="looks for processes as Linux has them")
def test_a_cluster_that_loses_a_node_has_the_figures_of_this_machine(tmp_path):
    file, log_dir = tiny_file(tmp_path, timesteps=2000, checkpoint_freq=200), tmp_path / "ray"
    mark = f"SB3_FCDL_TEST={tmp_path}"
    environment = {**os.environ, "SB3_FCDL_TEST": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-W", "ignore", "-c", CLUSTER, str(file), str(log_dir)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    try:
        assert done.returncode == 0, done.stderr
        # The run on that node, and the next one, if Ray had it wait there.
        assert done.stderr.count("died: ") in (1, 2) and "4 of 4 runs finished" in done.stdout
        # What was lost went on from a checkpoint.
        assert len(list(log_dir.glob("*/progress_from_*.csv"))) == 1
        end = time.monotonic() + 20
        while processes_with(mark) and time.monotonic() < end:
            time.sleep(0.2)
        assert processes_with(mark) == []
    finally:
        for process in processes_with(mark):
            os.kill(process, signal.SIGKILL)
    assert main(["experiment", str(file), "--log-dir", str(tmp_path / "local"), "--processes", "1"]) == 0
    for path in (tmp_path / "local").glob("*.csv"):
        assert figures(path) == figures(log_dir / path.name)
    assert len(list(log_dir.glob("*.csv"))) == 4
