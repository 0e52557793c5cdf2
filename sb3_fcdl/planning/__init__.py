"""Planning with a model of the environment, whatever the model is."""

from sb3_fcdl.planning.actions import Actions, BoxActions, DiscreteActions
from sb3_fcdl.planning.base import Plan, Planner, RewardFn, StepFn
from sb3_fcdl.planning.cem import CEM

__all__ = ["CEM", "Actions", "BoxActions", "DiscreteActions", "Plan", "Planner", "RewardFn", "StepFn"]
