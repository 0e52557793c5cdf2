"""
Runs as tasks of a Ray cluster. A node needs neither the folders of this program nor storage that all nodes share: with every
checkpoint the folder of a run comes back to this program, and goes out again if another node is to go on with it.
"""

import io
import logging
import os
import shutil
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch as th

from sb3_fcdl.experiments.experiment import PlannedRun
from sb3_fcdl.experiments.run import ERROR, carry_out
from sb3_fcdl.experiments.workers import Ended, Ending, last_line
from sb3_fcdl.extras import needs


class RayWorkers:
    """
    See ``Workers``. Ray queues what its nodes have no core for, so that it can ask for more nodes.

    :param log_dir: of this program, with the folders of the runs
    :param address: of the cluster; None: that of ``RAY_ADDRESS``, else one that runs on this machine, else a new one here
    :raises ImportError: if Ray is not installed
    :raises ConnectionError: if there is no cluster at the address
    """

    def __init__(self, log_dir: Path, address: str | None = None) -> None:
        with needs("ray", "ray"):
            import ray
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
        self.log_dir = log_dir
        self._ray: Any = ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            ray.init(address, log_to_driver=False, logging_level=logging.WARNING)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox = self._ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()
        # A retry of Ray's own would begin with the folder of the first attempt.
        self._work = self._ray.remote(num_cpus=1, max_retries=0)(_work)
        self._tasks: dict[Any, PlannedRun] = {}
        self._started: set[str] = set()

    @property
    def n_workers(self) -> int:
        """See ``Workers``."""
        return int(self._ray.cluster_resources().get("CPU", 0))

    @property
    def n_free(self) -> int:
        """See ``Workers``."""
        return 1

    @property
    def running(self) -> list[PlannedRun]:
        """See ``Workers``; without those that Ray has queued."""
        return [run for run in self._tasks.values() if run.name in self._started]

    @property
    def n_left(self) -> int:
        """See ``Workers``."""
        return len(self._tasks)

    def start(self, run: PlannedRun) -> None:
        """See ``Workers``."""
        folder = self.log_dir / run.name
        put_back(folder)
        archive = self._ray.put(pack(folder) if folder.exists() else None)
        self._tasks[self._work.remote(run, archive, self._mailbox)] = run

    def wait(self, seconds: float) -> list[Ended]:
        """See ``Workers``."""
        done, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
        started, archives = self._ray.get(self._mailbox.take.remote())
        self._started |= started
        for name, archive in archives.items():
            unpack(archive, self.log_dir / name)
        return [self._ended(task) for task in done]

    def _ended(self, task: Any) -> Ended:
        run = self._tasks.pop(task)
        self._started.discard(run.name)
        try:
            ending = Ending(self._ray.get(task))
        except self._ray.exceptions.TaskCancelledError:
            ending = Ending.STOPPED
        except self._ray.exceptions.RayTaskError:
            # Not the run's own errors, which are returned: Ray could not begin it, or the disk of the node is full.
            raise
        except self._ray.exceptions.RayError as error:
            return Ended(run, Ending.DIED, str(error).strip().splitlines()[0])
        error_file = self.log_dir / run.name / ERROR
        reason = f"{last_line(error_file)} (all of it: {error_file})" if ending is Ending.FAILED else ""
        return Ended(run, ending, reason)

    def stop(self) -> None:
        """See ``Workers``."""
        for task in self._tasks:
            self._ray.cancel(task)

    def close(self) -> None:
        """See ``Workers``."""
        for task in self._tasks:
            self._ray.cancel(task, force=True)
        if self._is_ours:
            self._ray.shutdown()


class Mailbox:
    """Lives on the node of the program, and keeps for it what the tasks send, of each run the last."""

    def __init__(self) -> None:
        self._started: set[str] = set()
        self._archives: dict[str, bytes] = {}

    def note_start(self, name: str) -> None:
        """:param name: of a run that is now being worked on"""
        self._started.add(name)

    def put(self, name: str, archive: bytes) -> None:
        """
        :param name: of a run
        :param archive: of its folder
        """
        self._archives[name] = archive

    def take(self) -> tuple[set[str], dict[str, bytes]]:
        """What has come since the last call: runs that have begun, and folders."""
        taken = self._started, self._archives
        self._started, self._archives = set(), {}
        return taken


def _work(run: PlannedRun, archive: bytes | None, mailbox: Any) -> str:
    """On a node: how it ended. The folder is in the mailbox before it returns."""
    import ray

    th.set_num_threads(1)
    ray.get(mailbox.note_start.remote(run.name))
    with TemporaryDirectory() as root:
        folder = Path(root) / run.name
        if archive is not None:
            unpack(archive, folder)

        def send() -> None:
            ray.get(mailbox.put.remote(run.name, pack(folder)))

        try:
            ending = Ending.FINISHED if carry_out(run, folder, send) else Ending.STOPPED
        except Exception:  # it is in the folder
            ending = Ending.FAILED
        send()
    return ending.value


def pack(folder: Path) -> bytes:
    """:return: the folder as a tar archive"""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(folder, ".")
    return archive.getvalue()


def unpack(archive: bytes, folder: Path) -> None:
    """
    Replace a folder by the one in an archive. If this is interrupted, the one or the other is there, see ``put_back``.

    :param archive: what ``pack`` returned
    :param folder: to be replaced, or made
    """
    partial, before = folder.with_name(f"{folder.name}.partial"), folder.with_name(f"{folder.name}.before")
    for each in (partial, before):
        shutil.rmtree(each, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        # Early releases of Python 3.10 have no filters. The archive is our own.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(partial)
    if folder.exists():
        folder.rename(before)
    partial.rename(folder)
    shutil.rmtree(before, ignore_errors=True)


def put_back(folder: Path) -> None:
    """
    Undo what an interrupted ``unpack`` left half done.

    :param folder: that was to be replaced
    """
    before = folder.with_name(f"{folder.name}.before")
    if before.exists() and not folder.exists():
        before.rename(folder)
