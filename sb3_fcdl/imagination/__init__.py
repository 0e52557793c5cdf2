"""What a learned model imagines: as environments, or as transitions for a replay buffer."""

from sb3_fcdl.imagination.branches import Branches, RolloutLength, branch
from sb3_fcdl.imagination.counterfactual import check_has_graph, recombined
from sb3_fcdl.imagination.mixture import MixedReplay
from sb3_fcdl.imagination.step import Imagined, imagine, replayed
from sb3_fcdl.imagination.vec_env import ActionMaskFn, ImaginedVecEnv

__all__ = [
    "ActionMaskFn",
    "Branches",
    "Imagined",
    "ImaginedVecEnv",
    "MixedReplay",
    "RolloutLength",
    "branch",
    "check_has_graph",
    "imagine",
    "recombined",
    "replayed",
]
