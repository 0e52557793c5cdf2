"""
The launcher. RL Zoo has no plugins: its scripts look algorithms up in a dictionary, to which FCDL is added before they start.
"""

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
    from sb3_fcdl import FCDL

    rl_zoo3.ALGOS["fcdl"] = FCDL
    arguments = sys.argv[2:]
    added = {"--gym-packages": "sb3_fcdl"}
    if command == "train" and _value_of("--algo", arguments) == "fcdl":
        added["--conf-file"] = "sb3_fcdl.zoo.hyperparams"
    for option, value in added.items():
        if _value_of(option, arguments) is None:
            arguments += [option, value]
    sys.argv = [f"rl_zoo3 {command}", *arguments]
    getattr(importlib.import_module(f"rl_zoo3.{command}"), command)()


def _value_of(option: str, arguments: list[str]) -> str | None:
    """What stands behind an option, as ``--option value`` or ``--option=value``."""
    for place, word in enumerate(arguments):
        if word == option and place + 1 < len(arguments):
            return arguments[place + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


if __name__ == "__main__":
    main()
