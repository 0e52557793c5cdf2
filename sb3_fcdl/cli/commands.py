"""The commands of ``sb3-fcdl``. Each takes the options that ``make_parser`` reads for it."""

import argparse
import errno
import json
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.utils import get_latest_run_id

from sb3_fcdl.benchmark import benchmark_of
from sb3_fcdl.cli.env_options import DEFAULT_ENV, env_options, name_parts
from sb3_fcdl.cli.mistakes import mistakes_end_the_program
from sb3_fcdl.cli.options import DEFAULT_TIMESTEPS, PROGRAM
from sb3_fcdl.dynamics import DEFAULT_DYNAMICS
from sb3_fcdl.evaluation import (
    Shift,
    evaluate_shift,
    format_accuracy,
    format_graphs,
    format_transitions,
    make_env,
    parse_shift,
)
from sb3_fcdl.experiments.measuring import learned, measure, references
from sb3_fcdl.experiments.training import TrainingArguments, TrainingRun
from sb3_fcdl.fcdl import FCDL
from sb3_fcdl.progress import has_terminal
from sb3_fcdl.runs import Run, format_table
from sb3_fcdl.runs.checkpoint import missing
from sb3_fcdl.runs.measurements import check_files
from sb3_fcdl.runs.profile import available_devices, format_speeds, load_on, measure_model, recommendation
from sb3_fcdl.runs.record import TrainRecord, machine, package_versions
from sb3_fcdl.runs.stop import StopRequest
from sb3_fcdl.training.checkpoint import MODEL

# What a full or read-only disk says. Other errors of the operating system may be the environment's.
NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def train(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl train``"""
    with StopRequest() as stop:
        with mistakes_end_the_program():
            run = _new_run(arguments, stop) if arguments.resume is None else _old_run(arguments, stop)
        with _full_disks_end_the_program(run.folder):
            is_complete = run.learn(has_bar=arguments.progress)
    n_timesteps = run.model.num_timesteps
    if not is_complete:
        print(f"interrupted after {n_timesteps} timesteps; go on with: {_go_on(run.folder)}", file=sys.stderr)
        sys.exit(stop.status)
    wall_s = run.checkpoints.current_record.wall_s
    print(f"{n_timesteps} timesteps in {wall_s:.0f} s. Next:\n  {PROGRAM} evaluate --model {run.folder / MODEL}")


def _go_on(folder: Path) -> str:
    return f"{PROGRAM} train --resume {folder}"


def _new_run(arguments: argparse.Namespace, stop: StopRequest) -> TrainingRun:
    timesteps = DEFAULT_TIMESTEPS if arguments.timesteps is None else arguments.timesteps
    given = {each.name: getattr(arguments, each.name) for each in fields(TrainingArguments) if hasattr(arguments, each.name)}
    made_with = TrainingArguments(**{**given, "env_kwargs": _env_kwargs(arguments), "timesteps": timesteps})
    name = _run_name(made_with)
    folder = Path(arguments.log_dir) / f"{name}_{get_latest_run_id(arguments.log_dir, name) + 1}"
    return TrainingRun.new(made_with, folder, stop=stop)


def _old_run(arguments: argparse.Namespace, stop: StopRequest) -> TrainingRun:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = TrainingRun.resumed(Path(arguments.resume), arguments.timesteps, stop=stop)
    for warning in caught:
        print(f"{PROGRAM}: {warning.message}", file=sys.stderr)
    return run


def evaluate(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl evaluate``"""
    path, seed = Path(arguments.model), arguments.seed
    with mistakes_end_the_program():
        if arguments.csv is not None:
            check_files(Path(arguments.csv))
        record = _load_record(path, arguments.env_kwargs)
        record = replace(record, env_kwargs={**record.env_kwargs, **env_options(arguments, "evaluate", record.env)})
        model = _load_model(path, record.env, record.env_kwargs)
        policies = learned(model, record) | references(record.env, record.env_kwargs, seed, model.policy.planner)

    def tell(name: str) -> None:
        print(f"evaluating {name} ...", file=sys.stderr, flush=True)

    measured = measure(policies, record, arguments.episodes, seed, model, tell, has_terminal())
    run = Run.of(record)
    print(f"{run.env} {run.env_kwargs}; trained for {run.timesteps} timesteps\n\n{format_table(measured.returns)}")
    if measured.contexts:
        print(f"\nBeside the local graphs:\n\n{format_graphs(measured.contexts)}")
    if measured.transitions:
        print(f"\nBeside what matters in each transition:\n\n{format_transitions(measured.transitions)}")
    selecting = {name: value for name, value in model.dynamics.variable_importance().items() if value}
    if selecting:
        words = ", ".join(f"{name} {value:.4f}" for name, value in selecting.items())
        print(f"\nWhat chooses the context, and what it is worth in nats: {words}")
    if measured.accuracies:
        print(f"\n{format_accuracy(measured.accuracies)}")
    if arguments.csv is not None:
        measured.append_to(Path(arguments.csv), record)


def robustness(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl robustness``"""
    with mistakes_end_the_program():
        shifts = _shifts(arguments.shift)
        record = _load_record(Path(arguments.model[0]), arguments.env_kwargs)
        models = {
            path.removesuffix("/model.zip"): _load_model(Path(path), record.env, record.env_kwargs) for path in arguments.model
        }
        n_envs = min(10, arguments.episodes)
        report = evaluate_shift(
            models,
            lambda: make_env(record.env, n_envs, record.env_kwargs),
            shifts,
            arguments.episodes,
            arguments.seed,
            has_terminal(),
        )
        print(report)
        if arguments.json is not None:
            Path(arguments.json).write_text(report.to_json() + "\n")
        if arguments.plot is not None:
            report.plot().savefig(arguments.plot)


def report(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl report``"""
    with mistakes_end_the_program():
        # Needs matplotlib, which the other commands do not.
        from sb3_fcdl.runs.model_page import write_model_page

        path, output = Path(arguments.model), Path(arguments.output)
        shifts = None
        if arguments.shift is not None:
            shifts = _shifts(arguments.shift)
        record = _load_record(path, arguments.env_kwargs)
        model = _load_model(path, record.env, record.env_kwargs)
        if not output.resolve().parent.is_dir():
            raise FileNotFoundError(f"there is no folder {output.parent} for {output.name}")

        def tell(text: str) -> None:
            print(f"{PROGRAM} report: {text}", file=sys.stderr, flush=True)

        write_model_page(output, model, record, path.parent, shifts, arguments.episodes, arguments.seed, tell, has_terminal())
    print(output)


def profile(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl profile``"""
    with mistakes_end_the_program():
        models = [load_on(Path(arguments.model), device) for device in available_devices()]
    speeds = [measure_model(model, sorted({1, arguments.n_envs})) for model in models]
    print(f"median times in ms\n\n{format_speeds(speeds)}\n\n{recommendation(speeds)}")
    if arguments.json is not None:
        result = {
            "model": arguments.model,
            "devices": [asdict(speed) for speed in speeds],
            "recommendation": recommendation(speeds),
            "versions": package_versions(),
            "machine": machine(),
        }
        with mistakes_end_the_program():
            Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n")


def _env_kwargs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of the environment: the benchmark's for this seed, unless the user gives others."""
    options = env_options(arguments, "train", arguments.env)
    return {**benchmark_of(arguments.env).env_kwargs(arguments.seed), **options, **arguments.env_kwargs}


def _run_name(arguments: TrainingArguments) -> str:
    dynamics = arguments.dynamics_name
    model = [] if dynamics == DEFAULT_DYNAMICS else [dynamics]
    name = re.split("[:/]", arguments.env)[-1]
    return "_".join([name, *name_parts(arguments.env, arguments.env_kwargs), *model, f"seed{arguments.seed}"])


def _load_record(path: Path, env_kwargs: dict[str, Any]) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    if (path.parent / TrainRecord.FILE_NAME).exists():
        record = TrainRecord.load(path.parent)
        return replace(record, env_kwargs={**record.env_kwargs, **env_kwargs})
    if not env_kwargs:
        words = " ".join(f"{key}={value}" for key, value in benchmark_of(DEFAULT_ENV).env_kwargs(0).items())
        raise FileNotFoundError(
            f"there is no {TrainRecord.FILE_NAME} beside {path}: say by --env-kwargs which {DEFAULT_ENV} it was trained on, "
            f"such as {words}"
        )
    return TrainRecord("FCDL", DEFAULT_ENV, env_kwargs, seed=0, timesteps=0, wall_s=0.0)


def _load_model(path: Path, env_id: str, env_kwargs: dict[str, Any]) -> FCDL:
    model = FCDL.load(path)
    env = make_env(env_id, 1, env_kwargs)
    if env.observation_space != model.observation_space:
        raise ValueError(f"{path} was trained on {model.observation_space}, the environment has {env.observation_space}")
    env.close()
    return model


@contextmanager
def _full_disks_end_the_program(folder: Path) -> Iterator[None]:
    """Report in one line that a run cannot be written, and how to go on, and exit with code 2."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = _not_written(error)
        if reason is None:
            raise
        can_go_on = any(not missing(path) for path in folder.glob("*_[0-9]*"))
        then = f"go on with: {_go_on(folder)}" if can_go_on else "train anew, as there is no checkpoint yet"
        print(f"{PROGRAM}: error: cannot write to {folder} ({reason}): make room there, then {then}", file=sys.stderr)
        sys.exit(2)


def _not_written(error: BaseException | None) -> str | None:
    """What the operating system says of a file that it does not write; None: the error, and what it came from, is another."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NOT_WRITTEN:
            return error.strerror
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" in str(error):
            return "torch cannot write"
        error = error.__cause__ or error.__context__
    return None


def _shifts(words: Sequence[str]) -> dict[str, Shift]:
    """What ``VARIABLE=SHIFT`` says, by variable."""
    return {name: parse_shift(text) for name, text in (word.split("=", 1) for word in words)}
