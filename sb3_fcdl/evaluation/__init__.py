"""Measuring a model: returns, local graphs, accuracy of predictions, and what corrupted inputs do to them."""

from sb3_fcdl.evaluation.accuracy import AccuracyResult, evaluate_accuracy, format_accuracy
from sb3_fcdl.evaluation.contexts import ContextResult, evaluate_graphs, format_graphs
from sb3_fcdl.evaluation.returns import Task, TaskResult, evaluate_tasks, make_env
from sb3_fcdl.evaluation.shifted_env import Normal, Shift, ShiftedVecEnv, parse_shift
from sb3_fcdl.evaluation.shifts import ShiftReport, ShiftResult, evaluate_shift

__all__ = [
    "AccuracyResult",
    "ContextResult",
    "Normal",
    "Shift",
    "ShiftReport",
    "ShiftResult",
    "ShiftedVecEnv",
    "Task",
    "TaskResult",
    "evaluate_accuracy",
    "evaluate_graphs",
    "evaluate_shift",
    "evaluate_tasks",
    "format_accuracy",
    "format_graphs",
    "make_env",
    "parse_shift",
]
