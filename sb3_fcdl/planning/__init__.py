"""Planning with a model of the environment, whatever the model is."""

from fcdl_envs.arguments import Either, Subclass, check, one_of
from sb3_fcdl.planning.actions import Actions, BoxActions, DiscreteActions, MultiDiscreteActions
from sb3_fcdl.planning.cem import CEM
from sb3_fcdl.planning.icem import ICEM
from sb3_fcdl.planning.mppi import MPPI
from sb3_fcdl.planning.noise import generators_of
from sb3_fcdl.planning.planner import Planner
from sb3_fcdl.planning.problem import KeyFn, Plan, Problem, RewardFn, Step, StepFn, TerminationFn, ValueFn, with_goal
from sb3_fcdl.planning.rollout import PlainRollout

PLANNERS: dict[str, type[Planner]] = {"cem": CEM, "icem": ICEM, "mppi": MPPI}
"""Every planner by name."""
PLANNER_RULE = Either(one_of(*PLANNERS), Subclass(Planner))


def planner_class(planner: str | type[Planner]) -> type[Planner]:
    """
    :param planner: a name in ``PLANNERS``, or a class of one's own
    :raises ValueError: if there is no such name, or it is another class
    :raises TypeError: if it is neither
    """
    check(planner=(planner, PLANNER_RULE))
    return PLANNERS[planner] if isinstance(planner, str) else planner


__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "PLANNERS",
    "PLANNER_RULE",
    "Actions",
    "BoxActions",
    "DiscreteActions",
    "KeyFn",
    "MultiDiscreteActions",
    "PlainRollout",
    "Plan",
    "Planner",
    "Problem",
    "RewardFn",
    "Step",
    "StepFn",
    "TerminationFn",
    "ValueFn",
    "generators_of",
    "planner_class",
    "with_goal",
]
