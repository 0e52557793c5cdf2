"""The command ``sb3-fcdl``: train a model, evaluate it beside floors and ceiling, disturb it, time it on this machine."""

import argparse
import ast
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stable_baselines3.common.type_aliases import PolicyPredictor
    from stable_baselines3.common.vec_env import VecEnv

    from sb3_fcdl.benchmark import AccuracyResult, ContextResult, TaskResult
    from sb3_fcdl.benchmark.record import TrainRecord
    from sb3_fcdl.fcdl import FCDL

PROGRAM = "sb3-fcdl"
DEFAULT_ENV = "FCDL/Chemical-v0"
# Behind the name of a model whose inputs are not corrupted.
NOT_CORRUPTED = ", not corrupted"
# Timesteps between two savings of all that a run needs to go on after an interruption: minutes of work, less than a second.
CHECKPOINT_FREQUENCY = 10_000
DESCRIPTION = """\
Causal world models for Stable-Baselines3.

`train` learns a model of an environment online and writes a run folder; `evaluate` measures its model on the training task
and on the test tasks, beside policies that learn nothing (floors) and the same planner on the true dynamics (ceiling).
`robustness` measures models while chosen variables are observed wrongly.
`profile` tells how fast its model is on this machine, and which device to choose.
"""
EPILOG = f"""\
examples:
  {PROGRAM} train --timesteps 30000 --seed 0 --log-dir runs --progress
  {PROGRAM} evaluate --model runs/Chemical-v0_full_fork_seed0_1/model.zip --episodes 50
  {PROGRAM} profile --model runs/Chemical-v0_full_fork_seed0_1/model.zip
  tensorboard --logdir runs

`{PROGRAM} COMMAND --help` lists the options of a command.
"""
TRAIN_EPILOG = f"""\
what it writes: LOG_DIR/ENV_RULE_DYNAMICS_seedSEED_K/ (without the dynamics for FCDL itself) with
  model.zip               the model, for FCDL.load and `{PROGRAM} evaluate`
  train.json              arguments, versions, machine and wall-clock time
  progress.csv, events.*  the learning curve; look at it with `tensorboard --logdir LOG_DIR`
  best_model.zip          with --eval-freq: the model of the best evaluation
  checkpoint*             while it runs: what --resume goes on from, every 10 000 timesteps
Ctrl-C ends the training early and keeps the model. After anything worse, --resume goes on from the last checkpoint, in new
episodes and with new random numbers; its curve is progress_from_N.csv.

examples:
  {PROGRAM} train --timesteps 30000 --seed 0 --log-dir runs --progress
  {PROGRAM} train --rule full_chain --dynamics-kwargs n_codes=8 --planner-kwargs n_candidates=128
  {PROGRAM} train --resume runs/Chemical-v0_full_fork_seed0_1
  {PROGRAM} train --timesteps 3000 --env-kwargs n_objects=5 n_colors=3      (a small system: a first look in a minute)
"""
EVALUATE_EPILOG = f"""\
The environment is the one of train.json beside the model. The columns are its training task (`train`) and its test tasks
with n corrupted objects (`n=2`, `n=4`, `n=6`; in a small system only those with n <= n_objects - 4). Every policy meets the
same initial states, and none that training has seen. ms/predict is the mean time of one decision for ten environments at once.
What a corrupted object shows: with `--noise scale` its one-hot colour times 100 * N(0, 1), with `--noise color` any colour.

rows:
  MODEL, not corrupted    the model, shown the corrupted objects as they are: what it would reach if corruption did not matter
  no-op                   sets the last object to the colour that it has
  random                  uniform over all actions
  random, root excluded   uniform over the actions that do not change the regime
  fix in index order      sets the first wrong object right
  planner on the true dynamics  the model's planner with the true system as its model and the true colours of corrupted
                          objects: what a perfect model would reach

A second table has the graphs of the model under random actions, by task and true context (number of edges of the true graph):
the share of the transitions that are in it; the structural Hamming distance to the true graph, missing and extra edges; and
how often code and graph are those that the same state has without corruption. A third has the share of the objects shown as
they are whose next colour the model predicts right, under random actions, beside chance and the best prediction that there is.
With `--csv results.csv` these go to results_contexts.csv and results_accuracy.csv.

examples:
  {PROGRAM} evaluate --model runs/Chemical-v0_full_fork_seed0_1/model.zip --episodes 50
  {PROGRAM} evaluate --model runs/Chemical-v0_full_fork_seed0_1/model.zip --noise color
  {PROGRAM} evaluate --model model.zip --env-kwargs rule=full_fork dynamics_seed=3 --csv results.csv
"""
PROFILE_EPILOG = f"""\
It needs no environment: observations are made up, every variable has any of its values. The times are medians; `update` is one
update of the model on a batch of its size. OMP_NUM_THREADS sets the number of threads on the CPU.

examples:
  {PROGRAM} profile --model runs/Chemical-v0_full_fork_seed0_1/model.zip
  {PROGRAM} profile --model model.zip --n-envs 100 --json profile.json
"""

ROBUSTNESS_EPILOG = f"""\
The environment is the training task of train.json beside the first model; all models meet the same initial states. What is
observed of a variable instead of its value: `noise`, the value times 100 * N(0, 1); `Normal(MEAN,STD)`, a number; or a fixed
number or category. What the columns mean: docs/trust.md.

examples:
  {PROGRAM} robustness --model runs/Chemical-v0_full_fork_seed0_1/model.zip --shift obj3=noise obj4=noise
  {PROGRAM} robustness --model a/model.zip b/model.zip --shift "box_x=Normal(0,100)" --plot box.png
"""


def main(argv: list[str] | None = None) -> int:
    """
    Entry point.

    :param argv: the arguments, those of the process if None
    :return: 0; wrong arguments and files end the process with 2 and a message
    """
    arguments = _parser().parse_args(argv)
    command = {"train": train, "evaluate": evaluate, "robustness": robustness, "profile": profile}[arguments.command]
    command(arguments)
    return 0


def train(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl train``"""
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import Logger, make_output_format

    from sb3_fcdl.benchmark.checkpoint import CheckpointCallback

    with _mistakes_end_the_program():
        model, folder, record = _new_run(arguments) if arguments.resume is None else _old_run(Path(arguments.resume))
    arguments = argparse.Namespace(**{**record.arguments, "progress": arguments.progress})
    formats = ["tensorboard", "csv"] + ([] if arguments.progress else ["stdout"])
    suffix = f"_from_{record.timesteps}" if record.timesteps else ""
    model.set_logger(Logger(str(folder), [make_output_format(name, str(folder), suffix) for name in formats]))
    checkpoint = CheckpointCallback(folder, record, CHECKPOINT_FREQUENCY)
    callbacks: list[BaseCallback] = [checkpoint]
    if arguments.eval_freq:
        callbacks.append(_eval_callback(arguments, record.env_kwargs, folder))
    n_left = arguments.timesteps - record.timesteps
    # Environments whose episodes are of one length end them in the same step, which SB3 would log once for every four.
    log_interval = arguments.n_envs
    is_new = record.timesteps == 0
    try:
        model.learn(n_left, callbacks, log_interval, reset_num_timesteps=is_new, progress_bar=arguments.progress)
    except KeyboardInterrupt:
        print(f"interrupted after {model.num_timesteps} timesteps", file=sys.stderr)
    finally:
        model.logger.close()
    model.save(folder / "model.zip")
    checkpoint.finish()
    wall_s = checkpoint.current_record.wall_s
    print(f"{model.num_timesteps} timesteps in {wall_s:.0f} s. Next:\n  {PROGRAM} evaluate --model {folder / 'model.zip'}")


def _new_run(arguments: argparse.Namespace) -> tuple["FCDL", Path, "TrainRecord"]:
    from stable_baselines3.common.utils import get_latest_run_id

    from sb3_fcdl.benchmark import make_env
    from sb3_fcdl.benchmark.record import TrainRecord

    env_kwargs = _env_kwargs(arguments)
    model = _make_model(arguments, make_env(arguments.env, arguments.n_envs, env_kwargs))
    name = _run_name(arguments, env_kwargs)
    folder = Path(arguments.log_dir) / f"{name}_{get_latest_run_id(arguments.log_dir, name) + 1}"
    folder.mkdir(parents=True)
    said = {key: value for key, value in vars(arguments).items() if key not in ("command", "resume")}
    record = TrainRecord(arguments.dynamics.upper(), arguments.env, env_kwargs, arguments.seed, 0, 0.0, said)
    return model, folder, record


def _old_run(folder: Path) -> tuple["FCDL", Path, "TrainRecord"]:
    from sb3_fcdl.benchmark import make_env
    from sb3_fcdl.benchmark.checkpoint import load_checkpoint
    from sb3_fcdl.benchmark.record import TrainRecord
    from sb3_fcdl.fcdl import FCDL

    def load(path: Path) -> FCDL:
        record = TrainRecord.load(folder)
        return FCDL.load(path, env=make_env(record.env, record.arguments["n_envs"], record.env_kwargs))

    model, record = load_checkpoint(folder, load)
    return model, folder, record


def evaluate(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl evaluate``"""
    from sb3_fcdl.benchmark import (
        benchmark_of,
        check_csv,
        evaluate_accuracy,
        evaluate_graphs,
        evaluate_tasks,
        format_accuracy,
        format_graphs,
        format_table,
    )
    from sb3_fcdl.benchmark.table import AccuracyCsvRow, ContextCsvRow

    path, seed = Path(arguments.model), arguments.seed
    with _mistakes_end_the_program():
        if arguments.csv is not None:
            check_csv(arguments.csv)
            check_csv(_beside(arguments.csv, "contexts"), ContextCsvRow)
            check_csv(_beside(arguments.csv, "accuracy"), AccuracyCsvRow)
        record = _load_record(path, arguments.env_kwargs)
        if arguments.noise is not None:
            record = replace(record, env_kwargs={**record.env_kwargs, "noise": arguments.noise})
        env, env_kwargs, benchmark = record.env, record.env_kwargs, benchmark_of(record.env)
        model = _load_model(path, env, env_kwargs)
        policies = _policies(model, record, seed)
    tasks = benchmark.tasks(env_kwargs)
    results = {}
    for name, (policy, made_with) in policies.items():
        print(f"evaluating {name} ...", file=sys.stderr)
        results[name] = evaluate_tasks(policy, env, made_with, tasks, arguments.episodes, seed)
    print(f"{env} {_words(env_kwargs)}; trained for {record.timesteps} timesteps\n\n{format_table(results)}")
    contexts, accuracies = [], {}
    if model.dynamics.has_graph and benchmark.tells_graphs:
        contexts = evaluate_graphs(model.policy, env, env_kwargs, tasks, benchmark.clean_kwargs, seed=seed)
        print(f"\n{format_graphs(contexts)}")
    if benchmark.bayes_step is not None:
        bayes_step = benchmark.bayes_step(env, env_kwargs)
        known = {record.algo: model.policy}
        accuracies = evaluate_accuracy(known, env, env_kwargs, tasks, benchmark.clean_kwargs, bayes_step, seed=seed)
        print(f"\n{format_accuracy(accuracies)}")
    if arguments.csv is not None:
        _append_results(arguments.csv, record, results, contexts, accuracies)


def _policies(model: "FCDL", record: "TrainRecord", seed: int) -> dict[str, tuple["PolicyPredictor", dict[str, Any]]]:
    """What is evaluated and keyword arguments of the environment that it meets, by name; the model first."""
    from sb3_fcdl.benchmark import benchmark_of

    benchmark = benchmark_of(record.env)
    policies: dict[str, tuple[PolicyPredictor, dict[str, Any]]] = {record.algo: (model, record.env_kwargs)}
    if benchmark.clean_kwargs:
        policies[record.algo + NOT_CORRUPTED] = (model, {**record.env_kwargs, **benchmark.clean_kwargs})
    references = benchmark.references(record.env, record.env_kwargs, seed, model.policy.planner)
    return policies | {name: (policy, record.env_kwargs) for name, policy in references.items()}


def robustness(arguments: argparse.Namespace) -> None:
    """:param arguments: those of ``sb3-fcdl robustness``"""
    from sb3_fcdl.benchmark import make_env
    from sb3_fcdl.robustness import evaluate_shift, parse_shift

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
    from sb3_fcdl.benchmark.profile import available_devices, format_speeds, load_on, measure_model, recommendation
    from sb3_fcdl.benchmark.record import machine, package_versions

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
    """What the environment is made with: the benchmark's choice for the seed, overruled by what the user says."""
    from sb3_fcdl.benchmark import benchmark_of

    rule = {} if arguments.rule is None else {"rule": arguments.rule}
    return {**benchmark_of(arguments.env).env_kwargs(arguments.seed), **rule, **arguments.env_kwargs}


def _run_name(arguments: argparse.Namespace, env_kwargs: dict[str, Any]) -> str:
    parts = [arguments.env.rpartition("/")[2], env_kwargs.get("rule"), arguments.dynamics, f"seed{arguments.seed}"]
    return "_".join(part for part in parts if part not in (None, "fcdl"))


def _make_model(arguments: argparse.Namespace, env: "VecEnv") -> "FCDL":
    from sb3_fcdl.benchmark import benchmark_of
    from sb3_fcdl.fcdl import FCDL, FCDLPolicy

    preset = benchmark_of(arguments.env).preset(arguments.preset)
    settings = {
        "learning_starts": 10_000,
        # A checkpoint holds all of it, so let it be no longer than the run.
        "buffer_size": min(1_000_000, arguments.timesteps),
        # One update for every ten transitions, as published, whatever the number of environments.
        "train_freq": max(1, 10 // arguments.n_envs),
        "gradient_steps": max(1, arguments.n_envs // 10),
        **preset.arguments(arguments.dynamics),
        "tensorboard_log": arguments.log_dir,
        "seed": arguments.seed,
    }
    settings["learning_starts"] = min(settings["learning_starts"], arguments.timesteps // 3)
    settings["dynamics_kwargs"] = {**settings["dynamics_kwargs"], **arguments.dynamics_kwargs}
    settings["planner_kwargs"] = {**settings.get("planner_kwargs", {}), **arguments.planner_kwargs}
    return FCDL(FCDLPolicy, env, **settings)


def _eval_callback(arguments: argparse.Namespace, env_kwargs: dict[str, Any], folder: Path) -> Any:
    from stable_baselines3.common.callbacks import EvalCallback

    from sb3_fcdl.benchmark import TaskEvalCallback, benchmark_of, make_env
    from sb3_fcdl.benchmark.evaluation import EVALUATION_SEED_OFFSET

    env = make_env(arguments.env, arguments.n_envs, env_kwargs)
    env.seed(EVALUATION_SEED_OFFSET + arguments.seed)
    tests = benchmark_of(arguments.env).tasks(env_kwargs)[1:]
    return EvalCallback(
        env,
        n_eval_episodes=10,
        eval_freq=max(1, arguments.eval_freq // arguments.n_envs),
        best_model_save_path=str(folder),
        callback_after_eval=TaskEvalCallback(arguments.env, env_kwargs, tests, seed=arguments.seed) if tests else None,
        verbose=0,
    )


def _append_results(
    csv: str,
    record: "TrainRecord",
    results: dict[str, list["TaskResult"]],
    contexts: list["ContextResult"],
    accuracies: dict[str, list["AccuracyResult"]],
) -> None:
    from sb3_fcdl.benchmark import Run, append_csv

    learned = Run(record.env, _words(record.env_kwargs), record.algo, record.seed, record.timesteps, record.wall_s)

    def run(name: str) -> Run:
        is_learned = name in (record.algo, record.algo + NOT_CORRUPTED)
        return replace(learned, algo=name) if is_learned else replace(learned, algo=name, timesteps=0, wall_s=0.0)

    for name, row in results.items():
        append_csv(csv, run(name), row)
    if contexts:
        append_csv(_beside(csv, "contexts"), learned, contexts)
    for name, accuracy in accuracies.items():
        append_csv(_beside(csv, "accuracy"), run(name), accuracy)


def _words(env_kwargs: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(env_kwargs.items()))


def _beside(csv: str, what: str) -> Path:
    return Path(csv).with_stem(f"{Path(csv).stem}_{what}")


def _load_record(path: Path, env_kwargs: dict[str, Any]) -> Any:
    from sb3_fcdl.benchmark.record import TrainRecord

    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    if (path.parent / TrainRecord.FILE_NAME).exists():
        record = TrainRecord.load(path.parent)
        return replace(record, env_kwargs={**record.env_kwargs, **env_kwargs})
    if not env_kwargs:
        raise FileNotFoundError(
            f"there is no {TrainRecord.FILE_NAME} beside {path}: say by --env-kwargs what it was trained on, "
            "such as rule=full_fork dynamics_seed=0"
        )
    return TrainRecord("FCDL", DEFAULT_ENV, env_kwargs, seed=0, timesteps=0, wall_s=0.0)


def _load_model(path: Path, env_id: str, env_kwargs: dict[str, Any]) -> "FCDL":
    from sb3_fcdl.benchmark import make_env
    from sb3_fcdl.fcdl import FCDL

    model = FCDL.load(path)
    env = make_env(env_id, 1, env_kwargs)
    if env.observation_space != model.observation_space:
        raise ValueError(f"{path} was trained on {model.observation_space}, the environment has {env.observation_space}")
    env.close()
    return model


@contextmanager
def _mistakes_end_the_program() -> Iterator[None]:
    """What the user got wrong is told in one line, with exit code 2. Use it only round code that checks what the user gave."""
    import gymnasium as gym

    try:
        yield
    except (ValueError, TypeError, OSError, gym.error.Error) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(PROGRAM, description=DESCRIPTION, epilog=EPILOG, formatter_class=style)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train_options(
        commands.add_parser(
            "train",
            help="train FCDL and save it",
            description="Train FCDL on an environment, about one update for every ten transitions.",
            epilog=TRAIN_EPILOG,
            formatter_class=style,
        )
    )
    _add_evaluate_options(
        commands.add_parser(
            "evaluate",
            help="returns of a saved model on all tasks, beside floors and ceiling",
            description="Evaluate a saved model on all tasks: mean return, 95 % bootstrap interval, success rate.",
            epilog=EVALUATE_EPILOG,
            formatter_class=style,
        )
    )
    _add_robustness_options(
        commands.add_parser(
            "robustness",
            help="saved models while chosen variables are observed wrongly",
            description="Compare saved models with and without a shift of what they observe.",
            epilog=ROBUSTNESS_EPILOG,
            formatter_class=style,
        )
    )
    _add_profile_options(
        commands.add_parser(
            "profile",
            help="times of a saved model on each device of this machine",
            description="Time a saved model on each device of this machine, and tell which one to choose.",
            epilog=PROFILE_EPILOG,
            formatter_class=style,
        )
    )
    return parser


def _add_train_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--env", default=DEFAULT_ENV, help="registered name of the environment (default: %(default)s)")
    add("--dynamics", default="fcdl", metavar="NAME", help="the model, see docs/dynamics.md (default: %(default)s)")
    add("--preset", metavar="NAME", help="settings known for the environment: default or paper (default: default)")
    add("--timesteps", type=_positive, default=30_000, metavar="N", help="transitions to learn from (default: %(default)s)")
    add(
        "--seed",
        type=int,
        default=0,
        help="seed of the run, and of the system unless --env-kwargs says it (default: %(default)s)",
    )
    add("--log-dir", default="runs", metavar="DIR", help="where the run folder is made (default: %(default)s)")
    add("--n-envs", type=_positive, default=10, metavar="N", help="environments stepped at once (default: %(default)s)")
    add("--rule", help="of Chemical's local regime: full_fork, full_chain or none (default: full_fork)")
    _add_keywords(
        parser,
        "--env-kwargs",
        "of the environment: n_objects, n_colors, dynamics_seed, graph (see help(fcdl_envs.chemical.ChemicalEnv))",
    )
    _add_keywords(
        parser,
        "--dynamics-kwargs",
        "of the dynamics model: n_codes, sparsity_coef, graph_prior and more (see help(sb3_fcdl.dynamics.FCDLDynamics))",
    )
    _add_keywords(
        parser,
        "--planner-kwargs",
        "of the planner: horizon, n_iterations, n_candidates, n_elites (see help(sb3_fcdl.planning.CEM))",
    )
    add(
        "--eval-freq",
        type=_positive,
        metavar="N",
        help="transitions between evaluations of 10 episodes a task, logged as eval/* (default: none)",
    )
    add("--resume", metavar="FOLDER", help="go on with an interrupted run; its own arguments hold, but for --progress")
    add("--progress", action="store_true", help="a progress bar instead of the log on the terminal (needs tqdm and rich)")


def _add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="FILE", help="model.zip of a run folder")
    add("--episodes", type=_positive, default=50, metavar="N", help="episodes a task, 25 steps each (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the evaluation's initial states (default: %(default)s)")
    add("--noise", choices=("scale", "color"), help="how Chemical's test tasks corrupt objects (default: scale)")
    add("--csv", metavar="FILE", help="also append the results to this file, a line a policy and task (default: none)")
    _add_keywords(parser, "--env-kwargs", "of the environment; they go before those of train.json")


def _add_profile_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="FILE", help="model.zip of a run folder, or any file that FCDL.save wrote")
    add("--n-envs", type=_positive, default=10, metavar="N", help="environments to act in, beside one (default: %(default)s)")
    add("--json", metavar="FILE", help="also write the times, versions and machine to this file (default: none)")


def _add_robustness_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, nargs="+", metavar="FILE", help="model.zip of one run folder or several")
    add("--shift", required=True, nargs="+", type=_assignment, metavar="VARIABLE=SHIFT", help="what is observed instead")
    add("--episodes", type=_positive, default=20, metavar="N", help="with and without the shift each (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the initial states and the noise (default: %(default)s)")
    add("--json", metavar="FILE", help="also write the results to this file (default: none)")
    add("--plot", metavar="FILE", help="also draw them into this file, such as robustness.png (default: none)")
    _add_keywords(parser, "--env-kwargs", "of the environment; they go before those of train.json")


def _assignment(word: str) -> str:
    if not all(word.partition("=")):
        raise argparse.ArgumentTypeError(f"expected VARIABLE=SHIFT, such as obj3=noise, got {word!r}")
    return word


def _add_keywords(parser: argparse.ArgumentParser, option: str, what: str) -> None:
    parser.add_argument(
        option, nargs="+", action=_Keywords, default={}, metavar="KEY=VALUE", help=f"keyword arguments {what} (default: none)"
    )


class _Keywords(argparse.Action):
    """Collects ``key=value`` words; a value that is no Python literal is a string."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, _: str | None = None
    ) -> None:
        keywords = dict(getattr(namespace, self.dest))
        for word in values:
            key, equals, value = word.partition("=")
            if not (key.isidentifier() and equals):
                parser.error(f"argument {self.option_strings[0]}: expected KEY=VALUE, got {word!r}")
            keywords[key] = _literal(value)
        setattr(namespace, self.dest, keywords)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
