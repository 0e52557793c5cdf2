"""Measuring a model: returns, local graphs, accuracy of predictions, and what corrupted inputs do to them."""

from sb3_fcdl.evaluation.accuracy import AccuracyResult, evaluate_accuracy, format_accuracy
from sb3_fcdl.evaluation.contexts import ContextResult, evaluate_graphs, format_graphs
from sb3_fcdl.evaluation.returns import Task, TaskResult, evaluate_tasks, make_env
from sb3_fcdl.evaluation.shifts import Normal, ShiftReport, ShiftResult, evaluate_shift, parse_shift

__all__ = [
    "AccuracyResult",
    "ContextResult",
    "Normal",
    "ShiftReport",
    "ShiftResult",
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
