"""Callbacks for training runs."""

from sb3_fcdl.callbacks.dynamics import DynamicsCallback
from sb3_fcdl.callbacks.video import VideoCallback

__all__ = ["DynamicsCallback", "VideoCallback"]
