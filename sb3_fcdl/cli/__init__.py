"""The command ``sb3-fcdl``: train a model, evaluate it, shift what it observes, write a page about it, time it; all runs of an
experiment, their tables and pictures."""

from sb3_fcdl.cli.commands import evaluate, profile, report, robustness, train
from sb3_fcdl.cli.experiments import experiment
from sb3_fcdl.cli.options import make_parser
from sb3_fcdl.cli.tables import plot, print_table


def main(argv: list[str] | None = None) -> int:
    """
    Entry point.

    :param argv: the arguments, those of the process if None
    :return: 0; wrong arguments and files end the process with 2 and a message, Ctrl-C in training with 130,
        SIGTERM with 143; runs that failed with 1
    """
    arguments = make_parser().parse_args(argv)
    commands = {
        "train": train,
        "evaluate": evaluate,
        "robustness": robustness,
        "report": report,
        "profile": profile,
        "experiment": experiment,
        "table": print_table,
        "plot": plot,
    }
    commands[arguments.command](arguments)
    return 0
