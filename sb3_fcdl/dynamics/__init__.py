from sb3_fcdl.dynamics.base import DynamicsModel, Losses, Prediction, Windows
from sb3_fcdl.dynamics.fcdl import FCDLDynamics

__all__ = ["DynamicsModel", "FCDLDynamics", "Losses", "Prediction", "Windows"]
