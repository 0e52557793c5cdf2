"""The dynamics models, by the names under which ``FCDL(dynamics=...)`` knows them."""

from fcdl_envs.arguments import Either, Subclass, check, one_of
from sb3_fcdl.dynamics.base import DynamicsModel, Losses, Prediction, Windows
from sb3_fcdl.dynamics.cdl import CDLDynamics
from sb3_fcdl.dynamics.dense import DenseDynamics
from sb3_fcdl.dynamics.fcdl import FCDLDynamics, fcdl_paper
from sb3_fcdl.dynamics.fcdl_tree import ContextTreeDynamics
from sb3_fcdl.dynamics.gnn import GNNDynamics
from sb3_fcdl.dynamics.grader import GRADERDynamics
from sb3_fcdl.dynamics.graph.priors import GraphPrior
from sb3_fcdl.dynamics.mlp import MLPDynamics
from sb3_fcdl.dynamics.modular import ModularDynamics
from sb3_fcdl.dynamics.ncd import NCDDynamics
from sb3_fcdl.dynamics.nps import NPSDynamics
from sb3_fcdl.dynamics.oracle import OracleDynamics

DYNAMICS: dict[str, type[DynamicsModel]] = {
    "fcdl": FCDLDynamics,
    "fcdl_tree": ContextTreeDynamics,
    "ncd": NCDDynamics,
    "oracle": OracleDynamics,
    "cdl": CDLDynamics,
    "grader": GRADERDynamics,
    "nps": NPSDynamics,
    "gnn": GNNDynamics,
    "modular": ModularDynamics,
    "mlp": MLPDynamics,
}
# The model of ``FCDL``, unless one is named.
DEFAULT_DYNAMICS = "fcdl_tree"
DYNAMICS_RULE = Either(one_of(*DYNAMICS), Subclass(DynamicsModel))


def dynamics_class(dynamics: str | type[DynamicsModel]) -> type[DynamicsModel]:
    """
    :param dynamics: a name in ``DYNAMICS``, or a class of one's own
    :raises ValueError: if there is no such name, or it is another class
    :raises TypeError: if it is neither
    """
    check(dynamics=(dynamics, DYNAMICS_RULE))
    return DYNAMICS[dynamics] if isinstance(dynamics, str) else dynamics


__all__ = [
    "DEFAULT_DYNAMICS",
    "DYNAMICS",
    "DYNAMICS_RULE",
    "CDLDynamics",
    "ContextTreeDynamics",
    "DenseDynamics",
    "DynamicsModel",
    "FCDLDynamics",
    "GNNDynamics",
    "GRADERDynamics",
    "GraphPrior",
    "Losses",
    "MLPDynamics",
    "ModularDynamics",
    "NCDDynamics",
    "NPSDynamics",
    "OracleDynamics",
    "Prediction",
    "Windows",
    "dynamics_class",
    "fcdl_paper",
]
