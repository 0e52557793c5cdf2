"""The commands of ``sb3-fcdl``. Each takes the options that ``make_parser`` reads for it."""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import Logger, make_output_format
from stable_baselines3.common.type_aliases import PolicyPredictor
from stable_baselines3.common.utils import get_latest_run_id
from stable_baselines3.common.vec_env import VecEnv

from sb3_fcdl.benchmark import benchmark_of, evaluate_predictions
from sb3_fcdl.callbacks import RunCheckpointCallback, TaskEvalCallback
from sb3_fcdl.cli.env_options import DEFAULT_ENV, env_options, name_parts
from sb3_fcdl.cli.options import PROGRAM
from sb3_fcdl.evaluation import evaluate_shift, evaluate_tasks, format_accuracy, format_graphs, make_env, parse_shift
from sb3_fcdl.evaluation.returns import EVALUATION_SEED_OFFSET
from sb3_fcdl.fcdl import FCDL, FCDLPolicy
from sb3_fcdl.presets import preset, schedule
from sb3_fcdl.runs import Run, format_table
from sb3_fcdl.runs.checkpoint import MODEL, load_checkpoint
from sb3_fcdl.runs.measurements import NOT_CORRUPTED, Measurements, check_files
from sb3_fcdl.runs.profile import available_devices, format_speeds, load_on, measure_model, recommendation
from sb3_fcdl.runs.record import TrainRecord, machine, package_versions

# Timesteps between two checkpoints: some minutes of training, while a checkpoint takes less than a second.
CHECKPOINT_FREQUENCY = 10_000
# The exit code of a program that Ctrl-C ended: a script of several runs stops there.
INTERRUPTED = 130


def train(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl train``"""
    with _mistakes_end_the_program():
        model, folder, record = _new_run(arguments) if arguments.resume is None else _old_run(Path(arguments.resume))
        arguments = argparse.Namespace(**{**record.arguments, "progress": arguments.progress})
        checkpoint = RunCheckpointCallback(folder, record, CHECKPOINT_FREQUENCY)
        callbacks: list[BaseCallback] = [checkpoint]
        if arguments.eval_freq:
            callbacks.append(_eval_callback(arguments, record, folder))
    formats = ["tensorboard", "csv"] + ([] if arguments.progress else ["stdout"])
    suffix = f"_from_{record.timesteps}" if record.timesteps else ""
    model.set_logger(Logger(str(folder), [make_output_format(name, str(folder), suffix) for name in formats]))
    n_left = arguments.timesteps - record.timesteps
    # If all episodes have one length, n_envs of them end in the same step: log once then, not once for every four.
    log_interval = arguments.n_envs
    is_new = record.timesteps == 0
    is_interrupted = False
    try:
        model.learn(n_left, callbacks, log_interval, reset_num_timesteps=is_new, progress_bar=arguments.progress)
    except KeyboardInterrupt:
        is_interrupted = True
    finally:
        model.logger.close()
    model.save(folder / MODEL)
    if is_interrupted:
        checkpoint.save()
        go_on = f"{PROGRAM} train --resume {folder}"
        print(f"interrupted after {model.num_timesteps} timesteps; the model is kept. Go on with\n  {go_on}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    checkpoint.finish()
    wall_s = checkpoint.current_record.wall_s
    print(f"{model.num_timesteps} timesteps in {wall_s:.0f} s. Next:\n  {PROGRAM} evaluate --model {folder / MODEL}")


def _new_run(arguments: argparse.Namespace) -> tuple[FCDL, Path, TrainRecord]:
    env_kwargs = _env_kwargs(arguments)
    model = _make_model(arguments, make_env(arguments.env, arguments.n_envs, env_kwargs))
    name = _run_name(arguments, env_kwargs)
    folder = Path(arguments.log_dir) / f"{name}_{get_latest_run_id(arguments.log_dir, name) + 1}"
    folder.mkdir(parents=True)
    said = {key: value for key, value in vars(arguments).items() if key not in ("command", "resume")}
    record = TrainRecord(arguments.dynamics.upper(), arguments.env, env_kwargs, arguments.seed, 0, 0.0, said)
    return model, folder, record


def _old_run(folder: Path) -> tuple[FCDL, Path, TrainRecord]:

    def load(path: Path) -> FCDL:
        record = TrainRecord.load(path.parent)
        return FCDL.load(path, env=make_env(record.env, record.arguments["n_envs"], record.env_kwargs))

    model, record = load_checkpoint(folder, load)
    # The seed of the run itself would repeat its first episodes, random actions and windows.
    model.set_random_seed(int(np.random.SeedSequence([record.seed, record.timesteps]).generate_state(1)[0]))
    return model, folder, record


def evaluate(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl evaluate``"""
    path, seed = Path(arguments.model), arguments.seed
    with _mistakes_end_the_program():
        if arguments.csv is not None:
            check_files(Path(arguments.csv))
        record = _load_record(path, arguments.env_kwargs)
        record = replace(record, env_kwargs={**record.env_kwargs, **env_options(arguments, "evaluate", record.env)})
        model = _load_model(path, record.env, record.env_kwargs)
        policies = _policies(model, record, seed)
    tasks = benchmark_of(record.env).tasks(record.env_kwargs)
    returns = {}
    for name, (policy, made_with) in policies.items():
        print(f"evaluating {name} ...", file=sys.stderr)
        returns[name] = evaluate_tasks(policy, record.env, made_with, tasks, arguments.episodes, seed)
    run = Run.of(record)
    print(f"{run.env} {run.env_kwargs}; trained for {run.timesteps} timesteps\n\n{format_table(returns)}")
    contexts, accuracies = evaluate_predictions(model, record, seed)
    if contexts:
        print(f"\n{format_graphs(contexts)}")
    selecting = {name: value for name, value in model.dynamics.variable_importance().items() if value}
    if selecting:
        words = ", ".join(f"{name} {value:.4f}" for name, value in selecting.items())
        print(f"\nWhat chooses the context, and what it is worth in nats: {words}")
    if accuracies:
        print(f"\n{format_accuracy(accuracies)}")
    if arguments.csv is not None:
        Measurements(returns, contexts, accuracies).append_to(Path(arguments.csv), record)


def _policies(model: FCDL, record: TrainRecord, seed: int) -> dict[str, tuple[PolicyPredictor, dict[str, Any]]]:
    """Each policy with the keyword arguments of its environment, by name; the model first."""
    benchmark = benchmark_of(record.env)
    policies: dict[str, tuple[PolicyPredictor, dict[str, Any]]] = {record.algo: (model, record.env_kwargs)}
    if benchmark.clean_kwargs:
        policies[record.algo + NOT_CORRUPTED] = (model, {**record.env_kwargs, **benchmark.clean_kwargs})
    references = benchmark.references(record.env, record.env_kwargs, seed, model.policy.planner)
    return policies | {name: (policy, record.env_kwargs) for name, policy in references.items()}


def robustness(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl robustness``"""
    with _mistakes_end_the_program():
        shifts = {name: parse_shift(text) for name, text in (word.split("=", 1) for word in arguments.shift)}
        record = _load_record(Path(arguments.model[0]), arguments.env_kwargs)
        models = {
            path.removesuffix("/model.zip"): _load_model(Path(path), record.env, record.env_kwargs) for path in arguments.model
        }
        n_envs = min(10, arguments.episodes)
        report = evaluate_shift(
            models, lambda: make_env(record.env, n_envs, record.env_kwargs), shifts, arguments.episodes, arguments.seed
        )
        print(report)
        if arguments.json is not None:
            Path(arguments.json).write_text(report.to_json() + "\n")
        if arguments.plot is not None:
            report.plot().savefig(arguments.plot)


def profile(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl profile``"""
    with _mistakes_end_the_program():
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
        with _mistakes_end_the_program():
            Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n")


def _env_kwargs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of the environment: the benchmark's for this seed, unless the user gives others."""
    options = env_options(arguments, "train", arguments.env)
    return {**benchmark_of(arguments.env).env_kwargs(arguments.seed), **options, **arguments.env_kwargs}


def _run_name(arguments: argparse.Namespace, env_kwargs: dict[str, Any]) -> str:
    model = [] if arguments.dynamics == "fcdl" else [arguments.dynamics]
    name = re.split("[:/]", arguments.env)[-1]
    return "_".join([name, *name_parts(arguments.env, env_kwargs), *model, f"seed{arguments.seed}"])


def _make_model(arguments: argparse.Namespace, env: VecEnv) -> FCDL:
    kwargs = {name: getattr(arguments, name) for name in ("dynamics_kwargs", "planner_kwargs", "policy_kwargs")}
    settings = {
        **schedule(arguments.env, arguments.n_envs),
        # Not longer than the run, because a checkpoint holds all of it.
        "buffer_size": min(1_000_000, arguments.timesteps),
        **preset(arguments.env, arguments.preset, arguments.dynamics, **kwargs),
        "tensorboard_log": arguments.log_dir,
        "seed": arguments.seed,
    }
    settings["learning_starts"] = min(settings["learning_starts"], arguments.timesteps // 3)
    return FCDL(FCDLPolicy, env, **settings)


def _eval_callback(arguments: argparse.Namespace, record: TrainRecord, folder: Path) -> EvalCallback:
    env_kwargs = record.env_kwargs
    env = make_env(arguments.env, arguments.n_envs, env_kwargs)
    env.seed(EVALUATION_SEED_OFFSET + arguments.seed)
    benchmark = benchmark_of(arguments.env)
    tests = benchmark.tasks(env_kwargs)[1:]
    on_tests = TaskEvalCallback(
        arguments.env, env_kwargs, tests, benchmark.clean_kwargs, benchmark.tells_graphs, seed=arguments.seed
    )
    callback = _eval_callback_class(env)(
        env,
        n_eval_episodes=10,
        eval_freq=max(1, arguments.eval_freq // arguments.n_envs),
        log_path=str(folder),
        best_model_save_path=str(folder),
        callback_after_eval=on_tests if tests else None,
        verbose=0,
    )
    _take_up(callback, folder / "evaluations.npz", record.timesteps)
    return callback


def _eval_callback_class(env: VecEnv) -> type[EvalCallback]:
    """SB3's own, or, for an environment with action masks, sb3-contrib's."""
    if not env.has_attr("action_masks"):
        return EvalCallback
    try:
        from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
    except ImportError as error:
        raise ImportError(
            f"--eval-freq needs sb3-contrib ({error}), because the environment has action masks: "
            "pip install 'sb3_fcdl[contrib]', or train without --eval-freq"
        ) from error
    return MaskableEvalCallback


def _take_up(callback: EvalCallback, path: Path, timesteps: int) -> None:
    """Restores the evaluations of an interrupted run, so that its best model is replaced by a better one only."""
    if not path.exists():
        return
    with np.load(path) as found:
        callback.best_mean_reward = float(found["results"].mean(axis=1).max())
        is_kept = found["timesteps"] <= timesteps
        callback.evaluations_timesteps = found["timesteps"][is_kept].tolist()
        callback.evaluations_results = found["results"][is_kept].tolist()
        callback.evaluations_length = found["ep_lengths"][is_kept].tolist()
        if "successes" in found:
            callback.evaluations_successes = found["successes"][is_kept].tolist()


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
def _mistakes_end_the_program() -> Iterator[None]:
    """Report a user's mistake in one line and exit with code 2. Use it only around code that checks what the user gave."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, gym.error.Error) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        sys.exit(2)
