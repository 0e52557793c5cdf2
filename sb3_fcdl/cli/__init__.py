"""The command ``sb3-fcdl``: train a model, evaluate it, shift what it observes, write a page about it, time it."""

from sb3_fcdl.cli.commands import evaluate, profile, report, robustness, train
from sb3_fcdl.cli.options import make_parser


def main(argv: list[str] | None = None) -> int:
    """
    Entry point.

    :param argv: the arguments, those of the process if None
    :return: 0; wrong arguments and files end the process with 2 and a message, Ctrl-C in training with 130,
        SIGTERM with 143
    """
    arguments = make_parser().parse_args(argv)
    commands = {"train": train, "evaluate": evaluate, "robustness": robustness, "report": report, "profile": profile}
    commands[arguments.command](arguments)
    return 0
