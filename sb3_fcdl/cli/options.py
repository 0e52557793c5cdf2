"""The options of ``sb3-fcdl`` and what its ``--help`` says."""

import argparse
import ast
from typing import Any

from sb3_fcdl.cli.env_options import DEFAULT_ENV, add_env_options, environments_in_words, option_examples
from sb3_fcdl.dynamics import DEFAULT_DYNAMICS
from sb3_fcdl.experiments.pictures import KINDS, STATISTICS
from sb3_fcdl.experiments.tables import ALSO, CELLS

PROGRAM = "sb3-fcdl"
DEFAULT_TIMESTEPS = 30_000
DESCRIPTION = """\
Causal world models for Stable-Baselines3.

`train` learns a model of an environment online and writes a run folder; `evaluate` measures its model on the training task
and on the test tasks, beside policies that learn nothing (floors) and the same planner on the true dynamics (ceiling).
`robustness` measures models while chosen variables are observed wrongly.
`report` writes one page about a model for a browser.
`profile` measures how fast a model is on this machine, and recommends a device.
`experiment` carries out all runs of a file, on this machine or a Ray cluster; `table` and `plot` show results.
"""
EPILOG = f"""\
examples:
  {PROGRAM} train --timesteps 30000 --seed 0 --log-dir runs --progress
  {PROGRAM} evaluate --model runs/RUN/model.zip --episodes 50
  {PROGRAM} profile --model runs/RUN/model.zip
  tensorboard --logdir runs

`{PROGRAM} COMMAND --help` lists the options of a command.
"""
TRAIN_DESCRIPTION = """\
Train FCDL on an environment: max(1, N_ENVS // K) updates of the model after every max(1, K // N_ENVS) steps of all
environments. K is 10 on Chemical and Magnetic, as published, and 2 on all others, as in the class FCDL. That is one update for
every K transitions if N_ENVS divides K or is a multiple of it.
"""
TRAIN_EPILOG = f"""\
what it writes: LOG_DIR/RUN/, where RUN is ENV_OPTIONS_DYNAMICS_seedSEED_K (without DYNAMICS if it is the default), with
  model.zip               the model, for FCDL.load and `{PROGRAM} evaluate`
  train.json              arguments, versions, machine and wall-clock time
  progress.csv, events.*  the learning curve; look at it with `tensorboard --logdir LOG_DIR`
  best_model.zip          with --eval-freq: the model of the best evaluation; all of them are in evaluations.npz
  checkpoint_N/           what --resume continues from, every 10 000 timesteps; end_N/ when the run has ended
Ctrl-C and SIGTERM end the training early and keep the model and a checkpoint of that timestep (exit status 130 and 143); a
second one ends the program at once and leaves the last checkpoint. --resume continues from the last checkpoint bit for bit,
as if the run had not stopped, on the same machine and versions. Its curve goes on in progress_from_N.csv; rows of progress.csv
from after the checkpoint are removed there, as the resumed run logs them again (TensorBoard shows them twice). If the state of
an environment cannot be saved (a simulator in C without get_state() and set_state()), the resumed run says so and goes on in
new episodes.
A run that has ended is trained on by --resume with a larger --timesteps; its replay buffer keeps its size.

examples:
  {PROGRAM} train --timesteps 30000 --seed 0 --log-dir runs --progress
  {PROGRAM} train --env CartPole-v1 --dynamics-kwargs n_codes=8 --planner-kwargs n_candidates=128
{option_examples(PROGRAM, "train", "--env {env_id}")}
  {PROGRAM} train --resume runs/RUN
  {PROGRAM} train --resume runs/RUN --timesteps 60000
"""
EVALUATE_EPILOG = f"""\
The environment is that of train.json beside the model. The columns are its training task (`train`) and its test tasks. All
policies meet the same initial states, and none that training has seen. ms/predict is the mean time of one decision for ten
environments at once. The first row is the model. If the environment corrupts observations, `MODEL, not corrupted` is the same
model without corruption: what it would reach if corruption did not matter. The other rows are policies that learn nothing,
see below.

A second table compares the model's graphs with the true ones under random actions, by task and true context (number of edges
of the true graph): the share of transitions in this context; the structural Hamming distance, missing and extra edges; and
how often code and graph are the same without corruption. A third table compares the same graphs with what matters in each
single transition: needed and used edges, precision, recall, F1; and the purity of the codes, which is the share of
transitions whose true context is the most frequent one of their code. The line below it lists the variables that choose the
context, and how much worse the prediction of one step gets if the choice sees another value of one of them. A fourth table
has the one-step accuracy under random actions, over categorical variables that are not corrupted, beside chance and the best
possible prediction. Each table is printed only if the truth that it needs is known. With `--csv results.csv` they go to
results_contexts.csv, results_transitions.csv and results_accuracy.csv.

{environments_in_words()}

any other environment: its training task, and
  {"random":<30}uniform over all actions

examples:
  {PROGRAM} evaluate --model runs/RUN/model.zip --episodes 50
{option_examples(PROGRAM, "evaluate", "--model runs/RUN/model.zip")}
  {PROGRAM} evaluate --model model.zip --env-kwargs KEY=VALUE --csv results.csv
"""
PROFILE_EPILOG = f"""\
It needs no environment: observations are random. The times are medians; `update` is one update of the model on one batch.
OMP_NUM_THREADS sets the number of threads on the CPU.

examples:
  {PROGRAM} profile --model runs/RUN/model.zip
  {PROGRAM} profile --model model.zip --n-envs 100 --json profile.json
"""

ROBUSTNESS_EPILOG = f"""\
The environment is the training task of train.json beside the first model; all models meet the same initial states. A shift is
what is observed instead of the value of a variable: `noise`, the value times 100 * N(0, 1); `Normal(MEAN,STD)`, a random
number; or a fixed number or category. What the columns mean: docs/report.md.

examples:
  {PROGRAM} robustness --model runs/RUN/model.zip --shift x=noise color=red
  {PROGRAM} robustness --model a/model.zip b/model.zip --shift "x=Normal(0,100)" --plot robustness.png
"""

EXPERIMENT_EPILOG = f"""\
The file names environments, models, presets, seeds and evaluations; every combination is a run. docs/experiments.md has its
keys. A run is trained and evaluated as by `{PROGRAM} train` and `{PROGRAM} evaluate`, in its folder LOG_DIR/RUN; floors and
ceiling of each environment and seed are runs of their own. Whenever a run has finished, its results go into the files of
--csv, in the order of the experiment. Runs whose lines these files have are not repeated.
Ctrl-C and SIGTERM leave a checkpoint of each run; the same command goes on from there, as it does after a crash. A run that
fails leaves LOG_DIR/RUN/error.txt, and the others go on (exit status 1 in the end).

With --ray or --ray-address the runs are tasks of a Ray cluster, one core each. The folders of the runs need not be on shared
storage: they come back to this program with every checkpoint. A node that dies costs the work since the last one.

examples:
  {PROGRAM} experiment benchmarks/experiments/smoke.toml
  {PROGRAM} experiment benchmarks/experiments/smoke.toml --ray-address auto
"""

TABLE_EPILOG = f"""\
FILE is a result file of `{PROGRAM} evaluate --csv` or `{PROGRAM} experiment`, `evaluations.npz` of SB3's EvalCallback, or
`monitor.csv` of its Monitor. Rows and columns are told apart by the columns of the file and by keyword arguments of the
environment, such as rule. Unless timesteps are among them, a run counts with its last evaluation.
A cell is over all seeds:
  range        mean [lowest seed, highest seed]
  seeds        every seed
  mean, iqm    mean or interquartile mean, with its 95 % stratified bootstrap interval
  improvement  the probability that a run is better than one of --over, with the same interval

examples:
  {PROGRAM} table benchmarks/results/models_60k.csv --where rule=full_chain
  {PROGRAM} table models.csv --where rule=full_chain --columns --cell iqm --normalize random "planner on the true dynamics"
  {PROGRAM} table logs/*/CartPole-v1_*/evaluations.npz --cell iqm
"""
PLOT_EPILOG = f"""\
FILE and --where: see `{PROGRAM} table --help`. All tasks that are chosen count together, as strata of the intervals: compare
different tasks with --normalize.

examples:
  {PROGRAM} plot models.csv --where rule=full_chain task=n=2 --out models.png
  {PROGRAM} plot models.csv --kind profile --normalize random "planner on the true dynamics" --out profile.png
  {PROGRAM} plot logs/*/CartPole-v1_*/evaluations.npz --kind curves --out curves.png
"""

REPORT_EPILOG = f"""\
The page is one file that loads nothing. It shows the contexts in words, their graphs with the evidence for each edge, which
variables choose the context, the learning curve of the run folder, what the model loses while each variable is observed
wrongly, and one episode. The environment is the training task of train.json beside the model. Needs matplotlib (extra `plot`).

examples:
  {PROGRAM} report runs/RUN/model.zip -o report.html
  {PROGRAM} report runs/RUN/model.zip -o report.html --shift x=noise "y=Normal(0,100)" --episodes 20
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of ``sb3-fcdl``; what it returns has the name of the command as ``command``."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(PROGRAM, description=DESCRIPTION, epilog=EPILOG, formatter_class=style)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train_options(
        commands.add_parser(
            "train",
            help="train FCDL and save it",
            description=TRAIN_DESCRIPTION,
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
    _add_report_options(
        commands.add_parser(
            "report",
            help="one page about a saved model, for a browser",
            description="Write one page about a saved model: contexts, graphs, evidence, robustness, an episode.",
            epilog=REPORT_EPILOG,
            formatter_class=style,
        )
    )
    _add_profile_options(
        commands.add_parser(
            "profile",
            help="times of a saved model on each device of this machine",
            description="Time a saved model on each device of this machine, and recommend one.",
            epilog=PROFILE_EPILOG,
            formatter_class=style,
        )
    )
    _add_experiment_options(
        commands.add_parser(
            "experiment",
            help="all runs of an experiment file, on this machine or a Ray cluster",
            description="Carry out all runs of an experiment file, and write their results.",
            epilog=EXPERIMENT_EPILOG,
            formatter_class=style,
        )
    )
    _add_table_options(
        commands.add_parser(
            "table",
            help="results as a Markdown table",
            description="Print results as a Markdown table.",
            epilog=TABLE_EPILOG,
            formatter_class=style,
        )
    )
    _add_plot_options(
        commands.add_parser(
            "plot",
            help="results as a picture",
            description="Draw results: intervals, performance profiles, the probability of improvement, learning curves.",
            epilog=PLOT_EPILOG,
            formatter_class=style,
        )
    )
    return parser


def _add_train_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--env", default=DEFAULT_ENV, help="registered name, or MODULE:NAME to import what registers it (default: %(default)s)"
    )
    add(
        "--dynamics",
        metavar="NAME",
        help=f"the model, see docs/dynamics.md (default: {DEFAULT_DYNAMICS}, with --preset paper the published fcdl)",
    )
    add(
        "--preset",
        default="default",
        metavar="NAME",
        help="settings known for the environment: default or paper (default: %(default)s)",
    )
    add(
        "--timesteps",
        type=_positive,
        metavar="N",
        help=f"transitions to learn from; with --resume: in all, above those of the run (default: {DEFAULT_TIMESTEPS})",
    )
    add(
        "--seed",
        type=int,
        default=0,
        help="of the run, and of what the environment draws once and for all (default: %(default)s)",
    )
    add("--log-dir", default="runs", metavar="DIR", help="where the run folder is made (default: %(default)s)")
    add("--n-envs", type=_positive, default=10, metavar="N", help="environments stepped at once (default: %(default)s)")
    add_env_options(parser, "train")
    _add_keywords(
        parser,
        "--env-kwargs",
        "of the environment, see its documentation; they overrule what is said above",
    )
    _add_keywords(
        parser,
        "--dynamics-kwargs",
        "of the dynamics model: n_codes, graph_prior, hidden_dim and more (see help(sb3_fcdl.dynamics.ContextTreeDynamics))",
    )
    _add_keywords(
        parser,
        "--planner-kwargs",
        "of the planner: horizon, n_iterations, n_candidates, n_elites (see help(sb3_fcdl.planning.CEM))",
    )
    _add_keywords(
        parser,
        "--policy-kwargs",
        "of the policy: average_decay, clip_obs, optimizer_kwargs (see help(sb3_fcdl.FCDLPolicy))",
    )
    add(
        "--eval-freq",
        type=_positive,
        metavar="N",
        help="transitions between evaluations of 10 episodes a task, logged as eval/* (default: none)",
    )
    add("--resume", metavar="FOLDER", help="continue a run, with its own arguments except --progress and --timesteps")
    add("--progress", action="store_true", help="a progress bar instead of the log on the terminal (needs tqdm and rich)")


def _add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="FILE", help="model.zip of a run folder")
    add("--episodes", type=_positive, default=50, metavar="N", help="episodes a task (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the evaluation's initial states (default: %(default)s)")
    add_env_options(parser, "evaluate")
    add("--csv", metavar="FILE", help="also append the results to this file, a line for each policy and task (default: none)")
    _add_keywords(parser, "--env-kwargs", "of the environment; they overrule those of train.json")


def _add_profile_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="FILE", help="model.zip of a run folder, or any file that FCDL.save wrote")
    add("--n-envs", type=_positive, default=10, metavar="N", help="number of environments, beside one (default: %(default)s)")
    add("--json", metavar="FILE", help="also write the times, versions and machine to this file (default: none)")


def _add_robustness_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, nargs="+", metavar="FILE", help="model.zip of one run folder or several")
    add("--shift", required=True, nargs="+", type=_assignment, metavar="VARIABLE=SHIFT", help="what is observed instead")
    add(
        "--episodes",
        type=_positive,
        default=20,
        metavar="N",
        help="episodes with the shift, and as many without (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="of the initial states and the noise (default: %(default)s)")
    add("--json", metavar="FILE", help="also write the results to this file (default: none)")
    add("--plot", metavar="FILE", help="also draw them into this file, such as robustness.png (default: none)")
    _add_keywords(parser, "--env-kwargs", "of the environment; they overrule those of train.json")


def _add_experiment_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE", help="the experiment, in TOML")
    add("--log-dir", metavar="DIR", help="with the folders of the runs (default: runs/ and the name of the file)")
    add("--csv", metavar="FILE", help="the results (default: results.csv in the log dir)")
    add("--processes", type=_positive, metavar="N", help="runs at once on this machine (default: one a core)")
    add("--ray", action="store_true", help="run on Ray: the cluster of RAY_ADDRESS or of this machine, else a new one here")
    add("--ray-address", metavar="ADDRESS", help="run on this Ray cluster: auto, HOST:PORT or ray://HOST:PORT")


def _add_table_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_lines_options(parser)
    add("--columns", nargs="*", default=["task"], metavar="KEY", help="what tells columns apart (default: task)")
    add("--cell", choices=CELLS, default="range", help="what a cell shows of its seeds (default: %(default)s)")
    add(
        "--also",
        nargs="+",
        choices=ALSO,
        default=[],
        help="further columns: number of seeds, last timesteps, seconds of training",
    )
    add("--digits", type=int, default=1, metavar="N", help="after the point (default: %(default)s)")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--order", nargs="+", default=[], metavar="NAME", help="rows that come first, in this order")
    order.add_argument("--only", nargs="+", default=[], metavar="NAME", help="the only rows, in this order")


def _add_plot_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_lines_options(parser)
    add("--kind", choices=KINDS, default=KINDS[0], help="of the picture (default: %(default)s)")
    add("--statistic", choices=STATISTICS, default="iqm", help="of intervals and curves (default: %(default)s)")
    add("--out", required=True, metavar="FILE", help="the picture, such as results.png")


def _add_lines_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="results")
    add("--where", nargs="+", type=_assignment, default=[], metavar="KEY=VALUE", help="only lines with these values")
    add("--rows", nargs="+", default=["algo"], metavar="KEY", help="what tells rows, or algorithms, apart (default: algo)")
    add(
        "--values",
        nargs="+",
        default=["mean"],
        metavar="NAME",
        help="what was measured: mean (the return), success%%, accuracy%%, shd, ...; with %% in per cent (default: mean)",
    )
    add(
        "--label",
        nargs="+",
        type=_named,
        default=[],
        metavar="NAME:TEXT",
        help="what a row or column is called",
    )
    add("--over", metavar="NAME", help="the algorithm that others are compared with")
    add(
        "--normalize",
        nargs=2,
        metavar=("FLOOR", "CEILING"),
        help="algorithms whose scores are 0 and 1, on each task and seed (default: scores as they are)",
    )


def _named(word: str) -> str:
    if not all(word.partition(":")):
        raise argparse.ArgumentTypeError(f"expected NAME:TEXT, such as MLP:dense, got {word!r}")
    return word


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help="model.zip of a run folder")
    add("-o", "--output", required=True, metavar="FILE", help="the page, such as report.html")
    add(
        "--shift",
        nargs="+",
        type=_assignment,
        metavar="VARIABLE=SHIFT",
        help="what is observed instead, one after the other (default: noise in each variable)",
    )
    add(
        "--episodes",
        type=_positive,
        default=10,
        metavar="N",
        help="episodes for each shift, and as many without (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="of the initial states and the noise (default: %(default)s)")
    _add_keywords(parser, "--env-kwargs", "of the environment; they overrule those of train.json")


def _assignment(word: str) -> str:
    if not all(word.partition("=")):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, such as x=noise, got {word!r}")
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
