"""The record of a training run, by which its results can be traced and repeated."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("sb3_fcdl", "stable-baselines3", "gymnasium", "torch", "numpy")


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def machine() -> dict[str, Any]:
    """The processor and its number of cores; nothing that names the machine or its user."""
    return {"system": platform.system(), "cpu": _cpu_model(), "cores": os.cpu_count()}


def _cpu_model() -> str:
    # platform.processor() is empty on most Linux systems.
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class TrainRecord:
    """
    A training run. It is saved as ``train.json`` beside ``model.zip``.

    :param algo: the algorithm
    :param env: registered name of the environment
    :param env_kwargs: its keyword arguments, complete
    :param seed: of the run
    :param timesteps: transitions collected
    :param wall_s: duration of ``learn``, in seconds
    :param arguments: all arguments of the command
    :param versions: of Python and the packages
    :param machine: the processor
    """

    algo: str
    env: str
    env_kwargs: dict[str, Any]
    seed: int
    timesteps: int
    wall_s: float
    arguments: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=package_versions)
    machine: dict[str, Any] = field(default_factory=machine)

    FILE_NAME = "train.json"

    def save(self, folder: Path) -> None:
        """
        Written aside and renamed: the record before stays until this one is complete.

        :param folder: the run's folder
        """
        partial = folder / f"partial_{self.FILE_NAME}"
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        os.replace(partial, folder / self.FILE_NAME)

    @classmethod
    def load(cls, folder: Path) -> "TrainRecord":
        """
        :param folder: the run's folder
        :raises FileNotFoundError: if it has no record
        :raises ValueError: if the record is not one of ours
        """
        path = folder / cls.FILE_NAME
        try:
            return cls(**json.loads(path.read_text()))
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"{path} is not the record of a training run: {error}") from error
