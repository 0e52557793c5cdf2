"""The command ``sb3-fcdl``: train a model, evaluate it, shift what it observes, time it."""

from sb3_fcdl.cli.commands import evaluate, profile, robustness, train
from sb3_fcdl.cli.options import make_parser


def main(argv: list[str] | None = None) -> int:
    """
    Entry point.

    :param argv: the arguments, those of the process if None
    :return: 0; wrong arguments and files end the process with 2 and a message, Ctrl-C in training with 130,
        SIGTERM with 143
    """
    arguments = make_parser().parse_args(argv)
    command = {"train": train, "evaluate": evaluate, "robustness": robustness, "profile": profile}[arguments.command]
    command(arguments)
    return 0
