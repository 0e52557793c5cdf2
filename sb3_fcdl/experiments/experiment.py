"""Experiment files: environments, models, presets, seeds and evaluations in TOML, and the runs that they make."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym

from sb3_fcdl.benchmark import benchmark_of
from sb3_fcdl.dynamics import DYNAMICS
from sb3_fcdl.evaluation import make_env
from sb3_fcdl.presets import preset, schedule
from sb3_fcdl.runs import Run
from sb3_fcdl.runs.measurements import accuracy_csv, contexts_csv, transitions_csv

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Of the algorithm that is resumed exactly, and whose graphs are measured; any other is one of SB3 or sb3-contrib.
FCDL = "FCDL"
# Of a run that trains nothing: floors and ceiling.
REFERENCES = "references"
EXPERIMENT_KEYS = ("seeds", "presets", "references", "environments", "models", "evaluations")
# What may stand at the top, for all environments, or in one of them.
SHARED_KEYS = ("timesteps", "episodes", "evaluate_at", "n_envs", "checkpoint_freq")
ENVIRONMENT_KEYS = ("env", "env_kwargs", *SHARED_KEYS)
FCDL_KEYS = ("dynamics", "dynamics_kwargs", "planner_kwargs", "policy_kwargs")
MODEL_KEYS = ("algorithm", "kwargs", "environments", "presets", *FCDL_KEYS)
TABLES = ("environments", "models", "evaluations", "env_kwargs", "kwargs", *FCDL_KEYS[1:])


@dataclass(frozen=True)
class PlannedRun:
    """
    One run of an experiment: trained, then evaluated.

    :param name: of its folder
    :param algo: what tables call the model; ``REFERENCES``: nothing is trained
    :param env: registered name of the environment
    :param env_kwargs: its keyword arguments, complete
    :param seed: of the run
    :param timesteps: transitions to learn from
    :param episodes: of an evaluation, a task
    :param evaluate_at: timesteps of further evaluations on the way
    :param n_envs: environments stepped at once
    :param algorithm: ``"FCDL"``, or a class of SB3 or sb3-contrib
    :param preset: of FCDL
    :param model: keyword arguments of ``TrainingArguments``, or of the class
    :param evaluations: by name, what the environment is evaluated with besides
    :param checkpoint_freq: timesteps between two checkpoints
    :param python_path: folder of the experiment file, whose modules may register environments
    """

    name: str
    algo: str
    env: str
    env_kwargs: dict[str, Any]
    seed: int
    timesteps: int
    episodes: int
    evaluate_at: tuple[int, ...] = ()
    n_envs: int = 10
    algorithm: str = FCDL
    preset: str = "default"
    model: dict[str, Any] = field(default_factory=dict)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    checkpoint_freq: int = 10_000
    python_path: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what is trained, as JSON has it: not how it is evaluated, which may change."""
        settings = asdict(self)
        for name in ("checkpoint_freq", "python_path", "evaluations", "episodes"):
            del settings[name]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}

    @property
    def row(self) -> Run:
        """What its lines in result files begin with, but for the seconds."""
        words = " ".join(f"{key}={value}" for key, value in sorted(self.env_kwargs.items()))
        return Run(self.env.rpartition(":")[2], words, self.algo, self.seed, self.timesteps, 0.0)

    def evaluated(self, name: str) -> "PlannedRun":
        """
        :param name: of an evaluation; that of the plain one is empty
        :return: the run with the keyword arguments that its environment is evaluated with
        """
        return replace(self, env_kwargs={**self.env_kwargs, **self.evaluations.get(name, {})})

    def find_modules(self) -> None:
        """Have Python find the modules that lie beside the experiment file."""
        if self.python_path and self.python_path not in sys.path:
            sys.path.append(self.python_path)


def read_experiment(path: Path) -> list[PlannedRun]:
    """
    The runs of an experiment file, in the order of the seeds, then the environments, then the models.

    :param path: the file
    :raises OSError: if it cannot be read
    :raises ValueError: if it is no TOML, or something in it is not allowed; says what is
    :raises TypeError: if something is of a wrong type
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML file: {error}") from error
    try:
        runs = list(_runs(given, str(path.parent.resolve())))
        _check_names(runs)
        _check_evaluations(runs)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{path}: {error}") from error
    return runs


def _runs(given: Mapping[str, Any], python_path: str) -> Iterator[PlannedRun]:
    _check_keys("the file", given, (*EXPERIMENT_KEYS, *SHARED_KEYS))
    for key in ("environments", "models"):
        if not given.get(key):
            raise ValueError(f"there are no {key}: give at least one as [{key}.NAME]")
    shared = {key: given[key] for key in SHARED_KEYS if key in given}
    environments = {name: _environment(name, {**shared, **each}) for name, each in given["environments"].items()}
    models = {name: _model(name, each, environments, given.get("presets")) for name, each in given["models"].items()}
    evaluations = {name: _evaluation(name, each) for name, each in given.get("evaluations", {}).items()}
    for seed in _numbers("seeds", given.get("seeds", [0]), at_least=0):
        for env_name, environment in environments.items():
            benchmark = benchmark_of(environment["env"])
            made_with = {**benchmark.env_kwargs(seed), **environment["env_kwargs"]}
            common = {**environment, "env_kwargs": made_with, "seed": seed, "evaluations": evaluations}
            common["python_path"] = python_path
            if given.get("references", True):
                nothing = {"timesteps": 0, "evaluate_at": ()}
                yield PlannedRun(name=_slug(env_name, REFERENCES, seed), algo=REFERENCES, **{**common, **nothing})
            for model_name, model in models.items():
                if env_name in model["environments"]:
                    yield from _runs_of_model(env_name, model_name, model, common)


def _runs_of_model(env_name: str, name: str, model: Mapping[str, Any], common: Mapping[str, Any]) -> Iterator[PlannedRun]:
    for each in model["presets"]:
        # Or it says that there is none of that name.
        preset(common["env"], each)
        # The default is what the name alone stands for; where there is one preset, it needs no telling apart.
        algo = name if each == "default" or len(model["presets"]) == 1 else f"{name}, {each}"
        yield PlannedRun(
            name=_slug(env_name, algo, common["seed"]),
            algo=algo,
            algorithm=model["algorithm"],
            preset=each,
            model=model["arguments"],
            **common,
        )


def _environment(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    where = f"[environments.{name}]"
    _check_keys(where, given, ENVIRONMENT_KEYS)
    if "env" not in given:
        raise ValueError(f'{where} has no env: give the registered name, such as env = "FCDL/Chemical-v0"')
    timesteps = _number(f"timesteps of {where}", given.get("timesteps", 30_000))
    at = tuple(_numbers(f"evaluate_at of {where}", given.get("evaluate_at", []), at_least=1))
    n_envs = _number(f"n_envs of {where}", given.get("n_envs", 10))
    for each in at:
        if each >= timesteps or each % n_envs:
            raise ValueError(
                f"evaluate_at of {where} must be multiples of its {n_envs} environments and below its {timesteps} timesteps, "
                f"at which the run is evaluated anyway, got {each}"
            )
    between = n_envs * schedule(given["env"], n_envs)["train_freq"]
    if timesteps % between:
        raise ValueError(
            f"timesteps of {where} must be a multiple of the {between} transitions of its {n_envs} environments between two "
            f"updates, got {timesteps}"
        )
    return {
        "env": given["env"],
        "env_kwargs": given.get("env_kwargs", {}),
        "timesteps": timesteps,
        "episodes": _number(f"episodes of {where}", given.get("episodes", 50)),
        "evaluate_at": at,
        "n_envs": n_envs,
        "checkpoint_freq": _number(f"checkpoint_freq of {where}", given.get("checkpoint_freq", PlannedRun.checkpoint_freq)),
    }


def _model(
    name: str, given: Mapping[str, Any], environments: Mapping[str, Any], presets: Sequence[str] | None
) -> dict[str, Any]:
    where = f"[models.{name}]"
    _check_keys(where, given, MODEL_KEYS)
    algorithm = given.get("algorithm", FCDL)
    if algorithm != FCDL:
        not_taken = [key for key in (*FCDL_KEYS, "presets") if key in given]
        if not_taken:
            raise ValueError(f"{where}: {', '.join(not_taken)} are of FCDL alone; {algorithm} takes kwargs")
        arguments, presets = dict(given.get("kwargs", {})), ["default"]
    else:
        arguments = {key: given[key] for key in FCDL_KEYS if key in given}
        if arguments.get("dynamics", next(iter(DYNAMICS))) not in DYNAMICS:
            raise ValueError(f"{where}: there are no dynamics {given['dynamics']!r}, only {', '.join(DYNAMICS)}")
        arguments |= {"algorithm_kwargs": given["kwargs"]} if "kwargs" in given else {}
        presets = given.get("presets", presets or ["default"])
    chosen = given.get("environments", list(environments))
    for each in chosen:
        if each not in environments:
            raise ValueError(f"{where}: there is no environment {each!r}, only {', '.join(environments)}")
    return {"algorithm": algorithm, "arguments": arguments, "presets": presets, "environments": chosen}


def _evaluation(name: str, given: Any) -> dict[str, Any]:
    where = f"[evaluations.{name}]"
    if not isinstance(given, dict):
        raise TypeError(f"{where} must be a table of keyword arguments of the environment, such as {{ a = 1 }}, got {given!r}")
    taken = [path_of(Path("csv")).stem.removeprefix("csv_") for path_of in (contexts_csv, transitions_csv, accuracy_csv)]
    if f"_{name}".endswith(tuple(f"_{kind}" for kind in taken)):
        raise ValueError(f"{where} needs another name: {', '.join(taken)} at its end are of files with other results")
    if not re.fullmatch(r"[\w .,=+-]+", name):
        raise ValueError(
            f"{where} needs another name, of letters, digits and any of _.,=+-, because it is part of a file name"
        )
    return given


def _check_evaluations(runs: Sequence[PlannedRun]) -> None:
    """Whether the environments can be made with what they will be evaluated with, which a run does only in the end."""
    environments = {(run.env, str(run.env_kwargs)): run for run in runs if run.seed == runs[0].seed}
    for run in environments.values():
        run.find_modules()
        for name in run.evaluations:
            env_kwargs = run.evaluated(name).env_kwargs
            try:
                for task in benchmark_of(run.env).tasks(env_kwargs):
                    make_env(run.env, 1, {**env_kwargs, **task.env_kwargs}).close()
            except (ValueError, TypeError, gym.error.Error) as error:
                words = ", ".join(f"{key}={value!r}" for key, value in run.evaluations[name].items())
                raise ValueError(f"[evaluations.{name}]: {run.env} cannot be made with {words}: {error}") from error


def _check_keys(where: str, given: Mapping[str, Any], allowed: Sequence[str]) -> None:
    for key, value in given.items():
        if key not in allowed:
            raise ValueError(f"{where} has an unknown key {key!r}, allowed: {', '.join(allowed)}")
        if key in TABLES and not isinstance(value, dict) and not (key == "environments" and isinstance(value, list)):
            raise TypeError(f"{key} of {where} must be a table, such as {{ a = 1 }}, got {value!r}")


def _number(what: str, value: Any, at_least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} must be a whole number, got {value!r}")
    if value < at_least:
        raise ValueError(f"{what} must be at least {at_least}, got {value}")
    return value


def _numbers(what: str, values: Any, at_least: int) -> list[int]:
    if not isinstance(values, list):
        raise TypeError(f"{what} must be a list, such as [1, 2], got {values!r}")
    return [_number(what, value, at_least) for value in values]


def _slug(env_name: str, algo: str, seed: int) -> str:
    return re.sub(r"[^\w.=-]+", "_", f"{env_name}_{algo}_seed{seed}")


def _check_names(runs: Sequence[PlannedRun]) -> None:
    rows: dict[Any, str] = {}
    for run in runs:
        for key in (run.name, (run.row.env, run.row.env_kwargs, run.algo, run.seed)):
            if key in rows:
                raise ValueError(f"the runs {rows[key]} and {run.name} cannot be told apart: name them differently")
            rows[key] = run.name
