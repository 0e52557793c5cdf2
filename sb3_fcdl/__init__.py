"""Causal world models for Stable-Baselines3. Importing the package registers its environments."""

from importlib.metadata import version

import fcdl_envs
from fcdl_envs.variables import Factors, Variable
from sb3_fcdl import presets
from sb3_fcdl.callbacks import DynamicsCallback
from sb3_fcdl.dynamics import GraphPrior
from sb3_fcdl.evaluation import evaluate_shift
from sb3_fcdl.fcdl import FCDL, FCDLPolicy
from sb3_fcdl.graphs import CausalGraph, EdgeEvidence
from sb3_fcdl.vec_env import GymVectorVecEnv

__version__ = version("sb3_fcdl")
__all__ = [
    "FCDL",
    "CausalGraph",
    "DynamicsCallback",
    "EdgeEvidence",
    "FCDLPolicy",
    "Factors",
    "GraphPrior",
    "GymVectorVecEnv",
    "Variable",
    "__version__",
    "evaluate_shift",
    "presets",
]

fcdl_envs.register()
