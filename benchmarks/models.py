"""
The dynamics models on Chemical, trained with the same settings; and FCDL without one of its ingredients at a time.

``python benchmarks/models.py results.csv`` trains every model on both rules (``sb3-fcdl train``, into ``--log-dir``, where an
interrupted run is resumed), evaluates it, and appends to results.csv (returns), results_contexts.csv (graphs),
results_transitions.csv (graphs beside what matters in each transition) and results_accuracy.csv (one-step predictions). It
skips runs that results.csv already has. ``--table`` prints the files.
``--ablation`` does the same with FCDL, complete and without one of its ingredients at a time.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from stable_baselines3.common.type_aliases import PolicyPredictor

from sb3_fcdl import FCDL
from sb3_fcdl.benchmark import benchmark_of, evaluate_predictions
from sb3_fcdl.cli import main as command
from sb3_fcdl.dynamics import DYNAMICS
from sb3_fcdl.evaluation import evaluate_tasks
from sb3_fcdl.evaluation.markdown import markdown, over_seeds
from sb3_fcdl.runs import read_csv
from sb3_fcdl.runs.checkpoint import is_finished
from sb3_fcdl.runs.measurements import Measurements, accuracy_csv, contexts_csv, transitions_csv
from sb3_fcdl.runs.record import TrainRecord
from sb3_fcdl.runs.table import AccuracyCsvRow, ContextCsvRow, CsvRow, TransitionCsvRow

ENV_ID = "FCDL/Chemical-v0"
RULES = ("full_fork", "full_chain")
# Options of `sb3-fcdl train` by the name of the result.
MODELS = {name.upper(): ["--dynamics", name] for name in DYNAMICS}
ABLATION = {
    "FCDL": ["--dynamics", "fcdl"],
    "FCDL, every variable selects the context": ["--dynamics", "fcdl", "--dynamics-kwargs", "context_threshold=0"],
    "FCDL, an edge costs 0.001": ["--dynamics", "fcdl", "--dynamics-kwargs", "sparsity_coef=0.001"],
    "FCDL, last weights": ["--dynamics", "fcdl", "--policy-kwargs", "average_decay=0"],
    "FCDL, codes are graphs": ["--dynamics", "fcdl", "--dynamics-kwargs", "quantize=graphs"],
    "FCDL, no causal order": ["--dynamics", "fcdl", "--dynamics-kwargs", "graph_prior=self"],
    # The published settings, but for those of the planner set back to the defaults.
    "FCDL, planned as published": [
        *("--preset", "paper"),
        *("--dynamics-kwargs", "context_threshold=0.05", "context_drop_after=1000", "sparsity_coef=0.01"),
        *("--policy-kwargs", "average_decay=0.99"),
    ],
    "FCDL, as published": ["--preset", "paper"],
}
OPTIONS = MODELS | ABLATION
Line = TypeVar("Line", CsvRow, ContextCsvRow, AccuracyCsvRow, TransitionCsvRow)


def lines_of(path: Path, row_class: type[Line]) -> list[Line]:
    return read_csv(path, row_class) if path.exists() else []


def train(log_dir: Path, name: str, rule: str, seed: int, timesteps: int) -> Path:
    """:return: the folder of the finished run, the only one in ``log_dir``"""
    folder = next((record.parent for record in log_dir.glob(f"*/{TrainRecord.FILE_NAME}")), None)
    if folder is None:
        run = [*OPTIONS[name], "--rule", rule, "--seed", str(seed), "--timesteps", str(timesteps)]
        command(["train", *run, "--log-dir", str(log_dir), "--progress"])
        return train(log_dir, name, rule, seed, timesteps)
    if not is_finished(folder):
        command(["train", "--resume", str(folder), "--progress"])
    return folder


def evaluate(path: Path, folder: Path, name: str, n_episodes: int, with_references: bool) -> None:
    """Append the results of a model and, if asked for, of floors and ceiling."""
    model, record = FCDL.load(folder / "model.zip"), replace(TrainRecord.load(folder), algo=name)
    kwargs, benchmark = record.env_kwargs, benchmark_of(ENV_ID)
    policies: dict[str, PolicyPredictor] = {record.algo: model}
    if with_references:
        policies |= benchmark.references(ENV_ID, kwargs, record.seed, model.policy.planner)
    tasks = benchmark.tasks(kwargs)
    returns = {
        name: evaluate_tasks(policy, ENV_ID, kwargs, tasks, n_episodes, record.seed) for name, policy in policies.items()
    }
    Measurements(returns, *evaluate_predictions(model, record, record.seed)).append_to(path, record)


def table(title: str, lines: Iterable[Line], value: Callable[[Line], float], column: Callable[[Line], str]) -> str:
    """A row for each model: the mean over seeds [lowest, highest] in each column."""
    cells: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    columns: dict[str, None] = {}
    for line in lines:
        columns[column(line)] = None
        cells[line.algo][column(line)][line.seed] = value(line)
    rows = [[algo, *(over_seeds(list(row[name].values())) for name in columns)] for algo, row in cells.items()]
    return markdown([title, *columns], rows)


def context_of(line: ContextCsvRow | TransitionCsvRow) -> str:
    return f"{line.task}, {line.n_true_edges} edges"


def print_tables(path: Path) -> None:
    for rule in RULES:
        returns, contexts, transitions, accuracies = (
            [line for line in lines_of(file, row) if f"rule={rule}" in line.env_kwargs]
            for file, row in (
                (path, CsvRow),
                (contexts_csv(path), ContextCsvRow),
                (transitions_csv(path), TransitionCsvRow),
                (accuracy_csv(path), AccuracyCsvRow),
            )
        )
        print(f"## {rule}\n")
        print(table("mean return", returns, lambda line: line.mean, lambda line: line.task), "\n")
        print(table("accuracy, %", accuracies, lambda line: 100 * line.accuracy, lambda line: line.task), "\n")
        print(table("SHD", contexts, lambda line: line.shd, context_of), "\n")
        print(table("same graph, %", contexts, lambda line: 100 * line.same_graph, context_of), "\n")
        if transitions:
            print(table("precision", transitions, lambda line: line.precision, context_of), "\n")
            print(table("recall", transitions, lambda line: line.recall, context_of), "\n")
            print(table("purity, %", transitions, lambda line: 100 * line.purity, context_of), "\n")
        trained = [line for line in returns if line.timesteps and line.task == "train"]
        print(table("training", trained, lambda line: 1000 * line.wall_s / line.timesteps, lambda _: "ms a step"), "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("file", type=Path)
    add("--table", action="store_true", help="print what the files have")
    add("--models", nargs="+", choices=OPTIONS, default=list(MODELS), metavar="NAME", help="such as MLP (default: all)")
    add(
        "--ablation",
        dest="models",
        action="store_const",
        const=list(ABLATION),
        help="FCDL, and without one of its ingredients",
    )
    add("--rules", nargs="+", choices=RULES, default=list(RULES))
    add("--seeds", nargs="+", type=int, default=[0, 1])
    add("--timesteps", type=int, default=60_000, help="of a run (default: %(default)s)")
    add("--episodes", type=int, default=50, help="a task (default: %(default)s)")
    add("--log-dir", type=Path, default=Path("runs/models"), help="of the runs (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.table:
        print_tables(arguments.file)
        return
    for seed in arguments.seeds:
        for rule in arguments.rules:
            lines = lines_of(arguments.file, CsvRow)
            done = {line.algo for line in lines if line.seed == seed and f"rule={rule}" in line.env_kwargs}
            for name in arguments.models:
                if name not in done:
                    log_dir = arguments.log_dir / f"{name}, {rule}, seed {seed}"
                    folder = train(log_dir, name, rule, seed, arguments.timesteps)
                    evaluate(arguments.file, folder, name, arguments.episodes, with_references=not done)
                    done.add(name)


if __name__ == "__main__":
    main()
