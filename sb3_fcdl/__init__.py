"""Causal world models for Stable-Baselines3. Importing the package registers its environments."""

from importlib.metadata import version

import fcdl_envs
from sb3_fcdl.fcdl import FCDL, FCDLPolicy
from sb3_fcdl.graphs.evidence import EdgeEvidence
from sb3_fcdl.graphs.graph import CausalGraph
from sb3_fcdl.vec_env import GymVectorVecEnv

__version__ = version("sb3_fcdl")
__all__ = ["FCDL", "CausalGraph", "EdgeEvidence", "FCDLPolicy", "GymVectorVecEnv", "__version__"]

fcdl_envs.register()
