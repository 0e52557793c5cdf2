"""Options and help of single environments, all of them declared by their ``Benchmark``."""

import argparse
from textwrap import fill
from typing import Any

from sb3_fcdl.benchmark import BENCHMARKS, EnvOption, benchmark_of

# The environment of a command that names none.
DEFAULT_ENV = next(iter(BENCHMARKS))
WIDTH = 125
NAME_WIDTH = 30


def add_env_options(parser: argparse.ArgumentParser, command: str) -> None:
    """
    Add the options that environments declare.

    :param parser: of the command
    :param command: its name
    """
    for name, declared in _options(command).items():
        words = (f"{option.help} ({', '.join(option.choices)}; {env_id} only)" for env_id, option in declared.items())
        parser.add_argument(f"--{name}", metavar=name.upper(), help="; ".join(words))


def env_options(arguments: argparse.Namespace, command: str, env_id: str) -> dict[str, Any]:
    """
    Keyword arguments of an environment that were given by options.

    :param arguments: those of the command
    :param command: its name
    :param env_id: registered name of the environment
    :raises ValueError: if the environment does not declare one of them, or not this value
    """
    given = {}
    for name in _options(command):
        value = getattr(arguments, name)
        if value is None:
            continue
        declared = {option.name: option for option in benchmark_of(env_id).options if option.command == command}
        if name not in declared:
            raise ValueError(f"{env_id} has no option --{name}; keyword arguments of any environment go into --env-kwargs")
        choices = declared[name].choices
        if value not in choices:
            raise ValueError(f"--{name} of {env_id} must be one of {', '.join(choices)}, got {value!r}")
        given[name] = value
    return given


def name_parts(env_id: str, env_kwargs: dict[str, Any]) -> list[str]:
    """Values of options that stand in the name of a run's folder."""
    options = (option for option in benchmark_of(env_id).options if option.is_in_run_name)
    return [str(env_kwargs[option.name]) for option in options if option.name in env_kwargs]


def option_examples(program: str, command: str, arguments: str) -> str:
    """
    A line for each option, for the help.

    :param program: its name
    :param command: of the program
    :param arguments: further arguments of the examples; ``{env_id}`` stands for the environment
    """
    return "\n".join(
        f"  {program} {command} {arguments.format(env_id=env_id)} --{name} {option.choices[1]}"
        for name, declared in _options(command).items()
        for env_id, option in declared.items()
    )


def environments_in_words() -> str:
    """The tasks of each environment and its policies that learn nothing, for the help of ``evaluate``."""
    sections = []
    for env_id, benchmark in BENCHMARKS.items():
        lines = [f"{env_id}:", fill(benchmark.description, WIDTH, initial_indent="  ", subsequent_indent="  ")]
        for name, text in benchmark.rows.items():
            lines.append(fill(text, WIDTH, initial_indent=f"  {name:<{NAME_WIDTH}}", subsequent_indent=" " * (2 + NAME_WIDTH)))
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def _options(command: str) -> dict[str, dict[str, EnvOption]]:
    """The declared options of a command by name, each by environment."""
    options: dict[str, dict[str, EnvOption]] = {}
    for env_id, benchmark in BENCHMARKS.items():
        for option in benchmark.options:
            if option.command == command:
                options.setdefault(option.name, {})[env_id] = option
    return options
