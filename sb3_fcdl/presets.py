"""Settings that are known to work, by environment: what ``FCDL`` is made with."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from sb3_fcdl.dynamics import DEFAULT_DYNAMICS, DYNAMICS, DynamicsModel, fcdl_paper
from sb3_fcdl.planning import Planner, planner_class
from sb3_fcdl.planning.actions import Actions


@dataclass(frozen=True)
class _Settings:
    """
    :param common: keyword arguments of ``FCDL``, whatever the dynamics model
    :param by_dynamics: further ones, by the name of the model; a model that is not listed has its own defaults
    """

    common: Mapping[str, Any] = field(default_factory=dict)
    by_dynamics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _model(**dynamics_kwargs: Any) -> dict[str, Any]:
    return {"dynamics_kwargs": dynamics_kwargs}


DEFAULT = "default"
LAST_WEIGHTS = {"policy_kwargs": {"average_decay": 0.0}}

# Hwang et al. (2024), Tables 4 to 6.
CHEMICAL_TRAINING = {"learning_rate": 1e-4, "train_horizon": 3, "gamma": 1.0}
CHEMICAL_PUBLISHED_PLANNER = {
    "planner": "cem",
    "planner_kwargs": {"horizon": 3, "n_iterations": 5, "n_candidates": 64},
}
# As many model steps as the published planner takes, by the memo, and one or two points more of return: docs/planners.md.
CHEMICAL_PLANNER = {
    "planner": "icem",
    "planner_kwargs": {"horizon": 5, "n_iterations": 3, "n_candidates": 128},
}
CHEMICAL_MLP = _model(hidden_dim=1024, n_layers=3)
# The published experiments tell FCDL, NCD and the oracle the causal order of the objects.
ORDER = {"graph_prior": "order"}

MAGNETIC_TRAINING = {
    "learning_rate": 1e-4,
    "learning_starts": 2000,
    "train_horizon": 1,
    "gamma": 1.0,
    "planner": "cem",
    "planner_kwargs": {"horizon": 1, "n_iterations": 5, "n_candidates": 64},
}
MAGNETIC_MLP = _model(hidden_dim=512, n_layers=4)

PRESETS: dict[str, dict[str, _Settings]] = {
    "FCDL/Chemical-v0": {
        DEFAULT: _Settings(
            CHEMICAL_TRAINING | CHEMICAL_PLANNER,
            {
                # Contexts form early here: docs/codebook.md.
                "fcdl": _model(**ORDER, quantize="latents", context_drop_after=1000),
                # The evidence waits for a network that has learned: three times as fast as published.
                "fcdl_tree": {"learning_rate": 3e-4},
                "ncd": _model(**ORDER),
                "mlp": CHEMICAL_MLP,
            },
        ),
        "paper": _Settings(
            CHEMICAL_TRAINING | CHEMICAL_PUBLISHED_PLANNER | LAST_WEIGHTS,
            {
                "fcdl": _model(**ORDER, **fcdl_paper()),
                "ncd": _model(**ORDER, sparsity_coef=0.001),
                "gnn": _model(feature_dim=256, hidden_dim=512),
                "mlp": CHEMICAL_MLP,
            },
        ),
    },
    "FCDL/Magnetic-v0": {
        DEFAULT: _Settings(
            {**MAGNETIC_TRAINING, "learning_rate": 3e-4},
            {
                "fcdl": _model(n_layers=3, sparsity_coef=0.05),
                "fcdl_tree": _model(n_layers=3),
                "mlp": MAGNETIC_MLP,
            },
        ),
        "paper": _Settings(
            MAGNETIC_TRAINING | LAST_WEIGHTS,
            {
                "fcdl": _model(n_layers=3, **fcdl_paper()),
                "ncd": _model(n_layers=3, sparsity_coef=0.001),
                "oracle": _model(n_layers=3),
                "cdl": _model(cmi_decay=0.99),
                "nps": _model(n_rules=15),
                "gnn": _model(feature_dim=256, hidden_dim=512),
                "mlp": MAGNETIC_MLP,
            },
        ),
    },
}
# Of an environment that is not listed: FCDL's own defaults.
UNKNOWN_ENV = {DEFAULT: _Settings()}


def preset(
    env_id: str, name: str = DEFAULT, dynamics: str | type[DynamicsModel] | None = None, **changes: Any
) -> dict[str, Any]:
    """
    What to make an ``FCDL`` with: ``FCDL(FCDLPolicy, env_id, **preset(env_id, "paper"))`` is the published experiment.

    The schedule of updates is ``schedule``'s, because ``train_freq`` counts steps of all environments together. Experiments on
    Chemical collect 10 000 random transitions (``learning_starts``), then update once for every 10 transitions.

    :param env_id: registered name of the environment, with or without the module in front
    :param name: ``"default"``, or ``"paper"`` where the environment is one of the published experiments
    :param dynamics: the dynamics model, a name or a class; None: the published FCDL in the preset ``"paper"``, else that of
        ``FCDL``'s own default
    :param changes: further keyword arguments of ``FCDL``, which replace those of the preset; a dictionary, such as
        ``planner_kwargs``, replaces only the keys that it has
    :return: keyword arguments of ``FCDL``, the model's own included; yours to change. For an environment that has no preset:
        the model alone, all else has ``FCDL``'s defaults
    :raises ValueError: if the environment has no preset of that name
    """
    settings = _settings(env_id, name)
    dynamics = dynamics or (DEFAULT_DYNAMICS if name == DEFAULT else "fcdl")
    names = {model: known for known, model in DYNAMICS.items()}
    of_model = settings.by_dynamics.get(dynamics if isinstance(dynamics, str) else names.get(dynamics, ""), {})
    arguments = deepcopy({**settings.common, "dynamics": dynamics, "dynamics_kwargs": {}, **of_model})
    for key, value in changes.items():
        before = arguments.get(key)
        arguments[key] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return arguments


def schedule(env_id: str, n_envs: int) -> dict[str, int]:
    """
    When a model learns: the published schedule for an environment that has a preset, ``FCDL``'s own for any other, with as
    many updates for each transition whatever the number of environments, where that can be.

    :param env_id: registered name of the environment
    :param n_envs: number of environments
    :return: ``learning_starts``, ``train_freq`` and ``gradient_steps``
    """
    is_published = env_id.rpartition(":")[2] in PRESETS
    starts, transitions = (10_000, 10) if is_published else (500, 2)
    return {
        "learning_starts": starts,
        "train_freq": max(1, transitions // n_envs),
        "gradient_steps": max(1, n_envs // transitions),
    }


def preset_planner(env_id: str, actions: Actions, name: str = DEFAULT) -> Planner:
    """
    The planner of a preset, for a policy that plans on something else than a learned model.

    :param env_id: registered name of an environment that has a preset
    :param actions: what an action is
    :param name: of the preset
    :raises ValueError: if the environment has no preset of that name
    """
    common = _settings(env_id, name).common
    return planner_class(common["planner"])(actions, **common["planner_kwargs"])


def _settings(env_id: str, name: str) -> _Settings:
    presets = PRESETS.get(env_id.rpartition(":")[2], UNKNOWN_ENV)
    if name not in presets:
        raise ValueError(f"unknown preset {name!r} of {env_id}, allowed: {', '.join(presets)}")
    return presets[name]
