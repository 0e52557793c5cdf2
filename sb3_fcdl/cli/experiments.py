"""``sb3-fcdl experiment``: all runs of an experiment file."""

import argparse
import sys
from pathlib import Path

from sb3_fcdl.cli.mistakes import mistakes_end_the_program
from sb3_fcdl.cli.options import PROGRAM
from sb3_fcdl.experiments.cluster import RayWorkers
from sb3_fcdl.experiments.display import Display
from sb3_fcdl.experiments.driver import Driver
from sb3_fcdl.experiments.experiment import read_experiment
from sb3_fcdl.experiments.local import LocalWorkers
from sb3_fcdl.experiments.results import Results
from sb3_fcdl.experiments.run import ERROR, RESULTS
from sb3_fcdl.experiments.workers import Workers
from sb3_fcdl.runs.stop import StopRequest


def experiment(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl experiment``"""
    file = Path(arguments.file)
    log_dir = Path(arguments.log_dir or Path("runs") / file.stem)
    csv = Path(arguments.csv or log_dir / RESULTS)
    with StopRequest() as stop, Display() as display:
        with mistakes_end_the_program():
            runs = read_experiment(file)
            driver = Driver(runs, log_dir, Results(csv, runs), stop, display.say)
            workers = _workers(arguments, log_dir)
        try:
            is_complete = driver.perform(workers, display.show)
        finally:
            workers.close()
    failed = driver.progress.failed
    if not is_complete:
        print(f"{PROGRAM}: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(stop.status)
    print(f"{driver.progress.n_finished} of {len(runs)} runs finished. Their results: {csv}")
    if failed:
        print(f"{PROGRAM}: {len(failed)} failed, see {log_dir}/*/{ERROR}", file=sys.stderr)
        sys.exit(1)


def _workers(arguments: argparse.Namespace, log_dir: Path) -> Workers:
    if arguments.ray or arguments.ray_address:
        return RayWorkers(log_dir, arguments.ray_address)
    return LocalWorkers(log_dir, arguments.processes)
