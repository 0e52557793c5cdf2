"""Callbacks for training runs."""

from sb3_fcdl.callbacks.dynamics import DynamicsCallback
from sb3_fcdl.callbacks.mbpo import MBPOCallback
from sb3_fcdl.callbacks.run_checkpoint import RunCheckpointCallback
from sb3_fcdl.callbacks.task_eval import TaskEvalCallback
from sb3_fcdl.callbacks.video import VideoCallback

__all__ = ["DynamicsCallback", "MBPOCallback", "RunCheckpointCallback", "TaskEvalCallback", "VideoCallback"]
