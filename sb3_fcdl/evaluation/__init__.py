"""Measuring a model: returns, local graphs, accuracy of predictions, and what corrupted inputs do to them."""

from sb3_fcdl.evaluation.accuracy import AccuracyResult, evaluate_accuracy, format_accuracy
from sb3_fcdl.evaluation.contexts import ContextResult, evaluate_graphs, format_graphs
from sb3_fcdl.evaluation.returns import Task, TaskResult, evaluate_tasks, make_env
from sb3_fcdl.evaluation.shifted_env import Normal, Shift, ShiftedVecEnv, parse_shift
from sb3_fcdl.evaluation.shifts import ShiftReport, ShiftResult, evaluate_shift
from sb3_fcdl.evaluation.transitions import TransitionResult, evaluate_transitions, format_transitions

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
    "TransitionResult",
    "evaluate_accuracy",
    "evaluate_graphs",
    "evaluate_shift",
    "evaluate_tasks",
    "evaluate_transitions",
    "format_accuracy",
    "format_graphs",
    "format_transitions",
    "make_env",
    "parse_shift",
]
