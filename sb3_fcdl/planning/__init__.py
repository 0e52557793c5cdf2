"""Planning with a model of the environment, whatever the model is."""

from sb3_fcdl.planning.actions import Actions, BoxActions, DiscreteActions, MultiDiscreteActions
from sb3_fcdl.planning.base import KeyFn, Plan, RewardFn, StepFn, TerminationFn
from sb3_fcdl.planning.cem import CEM
from sb3_fcdl.planning.icem import ICEM
from sb3_fcdl.planning.mppi import MPPI
from sb3_fcdl.planning.planner import Planner
from sb3_fcdl.planning.rollout import PlainRollout

PLANNERS: dict[str, type[Planner]] = {"cem": CEM, "icem": ICEM, "mppi": MPPI}
"""Every planner by name."""

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
    "RewardFn",
    "StepFn",
    "TerminationFn",
]
