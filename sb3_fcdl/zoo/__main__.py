"""
The launcher. RL Zoo has no plugins: its scripts look algorithms and their search spaces up in dictionaries, to which FCDL is
added before they start.
"""

import argparse
import importlib
import sys

COMMANDS = ("train", "enjoy")


def main() -> None:
    """
    ``python -m sb3_fcdl.zoo COMMAND ...`` with the arguments of ``python -m rl_zoo3.COMMAND``, to which are added, unless they
    are given: ``--gym-packages sb3_fcdl``, and for training ``--conf-file sb3_fcdl.zoo.hyperparams``.
    """
    command = sys.argv[1] if len(sys.argv) > 1 else None
    if command not in COMMANDS:
        sys.exit(f"usage: python -m sb3_fcdl.zoo {' | '.join(COMMANDS)} --algo fcdl --env ENV ..., got {command!r}")
    try:
        import rl_zoo3
    except ImportError as error:
        sys.exit(f"RL Zoo is missing ({error}): pip install rl_zoo3")
    from rl_zoo3 import hyperparams_opt

    from sb3_fcdl import FCDL
    from sb3_fcdl.zoo.search import convert_fcdl, sample_fcdl

    rl_zoo3.ALGOS["fcdl"] = FCDL
    hyperparams_opt.HYPERPARAMS_SAMPLER["fcdl"] = sample_fcdl
    hyperparams_opt.HYPERPARAMS_CONVERTER["fcdl"] = convert_fcdl
    arguments, algorithm = sys.argv[2:], argparse.ArgumentParser(add_help=False)
    algorithm.add_argument("--algo")
    added = ["--gym-packages", "sb3_fcdl"]
    if command == "train" and algorithm.parse_known_args(arguments)[0].algo == "fcdl":
        added += ["--conf-file", "sb3_fcdl.zoo.hyperparams"]
    # The last one counts: in front, what is added gives way to what is given, however that is spelt.
    sys.argv = [f"rl_zoo3 {command}", *added, *arguments]
    getattr(importlib.import_module(f"rl_zoo3.{command}"), command)()


if __name__ == "__main__":
    main()
