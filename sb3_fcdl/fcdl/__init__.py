from sb3_fcdl.fcdl.fcdl import FCDL
from sb3_fcdl.fcdl.policies import FCDLPolicy

__all__ = ["FCDL", "FCDLPolicy"]
