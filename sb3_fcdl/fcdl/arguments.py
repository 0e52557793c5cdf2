"""What the arguments of the algorithm, the policy and the callback may be."""

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.type_aliases import TrainFrequencyUnit

from fcdl_envs.arguments import Either, Flag, Function, Keywords, OrNone, Rule, check, integer, number, seed
from sb3_fcdl.dynamics import DYNAMICS_RULE
from sb3_fcdl.planning import PLANNER_RULE
from sb3_fcdl.world.factorization import CLIP_OBS


class EveryEpisodes:
    """SB3's way to count steps or episodes: ``(n, "step")`` or ``(n, "episode")``."""

    def takes_type_of(self, value: Any) -> bool:
        return isinstance(value, tuple) and len(value) == 2 and integer().takes_type_of(value[0])

    def takes(self, value: Any) -> bool:
        return integer(1).takes(value[0]) and value[1] in ("step", "episode", *TrainFrequencyUnit)

    def __str__(self) -> str:
        return '(n, "step") or (n, "episode")'


RULES: dict[str, Rule] = {
    "learning_rate": Either(number(at_least=0, at_most=1), Function()),
    "buffer_size": integer(1),
    "learning_starts": integer(0),
    # Batch normalisation has no variance of one row.
    "batch_size": integer(2),
    "gamma": number(above=0, at_most=1),
    "train_freq": Either(integer(1), EveryEpisodes()),
    "gradient_steps": integer(-1),
    "train_horizon": integer(1),
    "exploration_rate": number(at_least=0, at_most=1),
    "dynamics": DYNAMICS_RULE,
    "planner": PLANNER_RULE,
    "optimize_memory_usage": Flag(),
    "stats_window_size": integer(1),
    "verbose": integer(0, 2),
    "seed": seed(),
    "average_decay": number(at_least=0, below=1),
    "uncertainty_coef": number(at_least=0),
    "clip_obs": CLIP_OBS,
    "lr_schedule": Function(),
    "log_freq": integer(1),
    **{f"{of}_kwargs": OrNone(Keywords()) for of in ("dynamics", "planner", "policy", "replay_buffer", "optimizer")},
}


def check_arguments(arguments: Mapping[str, Any], **others: Rule) -> None:
    """
    :param arguments: by name; those that have no rule are not looked at
    :param others: rules that differ from ``RULES``, by name
    :raises TypeError: naming the first argument of a wrong type
    :raises ValueError: naming the first argument of a wrong value. A learning rate that is a function is asked for its values
        at the beginning and at the end
    """
    rules = {**RULES, **others}
    check(**{name: (value, rules[name]) for name, value in arguments.items() if name in rules})
    schedule = arguments.get("learning_rate")
    if callable(schedule):
        check(**{f"learning_rate({left:g})": (schedule(left), number(at_least=0, at_most=1)) for left in (1.0, 0.0)})
