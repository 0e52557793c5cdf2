"""Who does what next, and what becomes of those that fail or die; with workers that only say so."""

import signal

import pytest
from experiment_files import result, tiny_file

from sb3_fcdl.experiments.driver import MAX_DEATHS, Driver
from sb3_fcdl.experiments.experiment import read_experiment
from sb3_fcdl.experiments.results import Results
from sb3_fcdl.experiments.workers import Ended, Ending
from sb3_fcdl.runs import append_csv, read_csv
from sb3_fcdl.runs.record import TrainRecord
from sb3_fcdl.runs.stop import StopRequest


class Scripted:
    """Workers that end a run as they are told: its name with the endings of its attempts, finished if there is none left."""

    def __init__(self, log_dir, n_workers=2, **endings):
        self.log_dir = log_dir
        self.n_workers = n_workers
        self.endings = endings
        self.running = []
        self.started = []
        self.is_stopped = False

    @property
    def n_free(self):
        return self.n_workers - len(self.running)

    @property
    def n_left(self):
        return len(self.running)

    def start(self, run):
        self.started.append(run.name)
        self.running.append(run)
        assert len(self.running) <= self.n_workers

    def wait(self, seconds):
        run = self.running.pop(0)
        if self.is_stopped:
            return [Ended(run, Ending.STOPPED)]
        script = self.endings.get(run.name, [])
        ending = script.pop(0) if script else Ending.FINISHED
        if callable(ending):
            ending()
            ending = Ending.FINISHED
        if ending is Ending.FINISHED:
            append_csv(self.log_dir / run.name / "results_60" / "results.csv", run.row, [result(1.0)])
        return [Ended(run, ending, "no memory")]

    def stop(self):
        self.is_stopped = True


@pytest.fixture
def experiment(tmp_path):
    """Its runs, and what makes a driver of them that has said what follows."""
    runs, said = read_experiment(tiny_file(tmp_path)), []

    def driver(stop=None):
        return Driver(runs, tmp_path, Results(tmp_path / "results.csv", runs), stop or StopRequest(), said.append)

    return runs, driver, said


def test_a_run_that_fails_does_not_stop_the_others_and_is_tried_again(tmp_path, experiment):
    runs, driver, said = experiment
    workers, first = Scripted(tmp_path, chain_MLP_seed0=[Ending.FAILED]), driver()
    assert first.perform(workers)
    assert sorted(workers.started) == sorted(run.name for run in runs)
    assert first.progress.n_finished == 3 and [ended.run.name for ended in first.progress.failed] == ["chain_MLP_seed0"]
    assert "failed: chain_MLP_seed0: no memory" in said
    assert (first.progress.timesteps, first.progress.timesteps_done) == (240, 180)

    again, second = Scripted(tmp_path), driver()
    assert second.progress.n_finished == 3 and second.progress.timesteps_before == 180
    assert second.perform(again) and again.started == ["chain_MLP_seed0"]
    assert [(row.algo, row.seed) for row in read_csv(tmp_path / "results.csv")] == [
        ("FCDL", 0),
        ("MLP", 0),
        ("FCDL", 1),
        ("MLP", 1),
    ]


def test_who_dies_goes_on_but_not_for_ever(tmp_path, experiment):
    _, driver, said = experiment
    script = {"chain_FCDL_seed0": [Ending.DIED], "chain_MLP_seed1": [Ending.DIED] * 9}
    workers, made = Scripted(tmp_path, **script), driver()
    assert made.perform(workers)
    assert workers.started.count("chain_FCDL_seed0") == 2
    assert workers.started.count("chain_MLP_seed1") == MAX_DEATHS + 1
    assert made.progress.n_finished == 3 and len(made.progress.failed) == 1
    assert said.count("died: chain_FCDL_seed0 (no memory): goes on from its last checkpoint") == 1


def test_who_gets_further_between_two_deaths_may_die_often(tmp_path, experiment):
    """A machine of the kind that is taken away again and again."""
    _, driver, _ = experiment

    class GetsFurther(Scripted):
        def start(self, run):
            super().start(run)
            folder = tmp_path / run.name
            folder.mkdir(exist_ok=True)
            TrainRecord("FCDL", run.env, {}, 0, self.started.count(run.name) * 5, 1.0).save(folder)

    workers, made = GetsFurther(tmp_path, chain_MLP_seed1=[Ending.DIED] * 7), driver()
    assert made.perform(workers) and made.progress.failed == []
    assert workers.started.count("chain_MLP_seed1") == 8 > MAX_DEATHS + 1


def test_a_signal_stops_all_and_starts_no_more(tmp_path, experiment):
    _, driver, said = experiment
    with StopRequest() as stop:
        workers = Scripted(tmp_path, chain_FCDL_seed0=[lambda: signal.raise_signal(signal.SIGTERM)])
        made = driver(stop)
        assert not made.perform(workers)
    assert workers.started == ["chain_FCDL_seed0", "chain_MLP_seed0"] and workers.is_stopped
    assert made.progress.n_finished == 1 and made.progress.failed == [] and "stopping 1 runs" in said[-1]
