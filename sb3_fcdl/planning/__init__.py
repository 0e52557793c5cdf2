"""Planning with a model of the environment, whatever the model is."""

from sb3_fcdl.planning.actions import Actions, BoxActions, DiscreteActions, MultiDiscreteActions
from sb3_fcdl.planning.cem import CEM
from sb3_fcdl.planning.icem import ICEM
from sb3_fcdl.planning.mppi import MPPI
from sb3_fcdl.planning.noise import generators_of
from sb3_fcdl.planning.planner import Planner
from sb3_fcdl.planning.problem import KeyFn, Plan, Problem, RewardFn, Step, StepFn, TerminationFn, ValueFn
from sb3_fcdl.planning.rollout import PlainRollout

PLANNERS: dict[str, type[Planner]] = {"cem": CEM, "icem": ICEM, "mppi": MPPI}
"""Every planner by name."""


def planner_class(planner: str | type[Planner]) -> type[Planner]:
    """
    :param planner: a name in ``PLANNERS``, or a class of one's own
    :raises ValueError: if there is no such name
    """
    if isinstance(planner, type) and issubclass(planner, Planner):
        return planner
    if planner not in PLANNERS:
        raise ValueError(f"unknown planner {planner!r}, allowed: {', '.join(PLANNERS)}, or a subclass of Planner")
    return PLANNERS[planner]


__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "PLANNERS",
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
]
