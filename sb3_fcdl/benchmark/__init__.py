"""Measuring a model on an environment's tasks, beside the floors and the ceiling."""

from sb3_fcdl.benchmark.accuracy import AccuracyResult, evaluate_accuracy, format_accuracy
from sb3_fcdl.benchmark.base import Benchmark, Preset
from sb3_fcdl.benchmark.callback import TaskEvalCallback
from sb3_fcdl.benchmark.chemical import CHEMICAL, chemical_tasks
from sb3_fcdl.benchmark.environments import benchmark_of
from sb3_fcdl.benchmark.evaluation import Task, TaskResult, evaluate_tasks, make_env
from sb3_fcdl.benchmark.graphs import ContextResult, evaluate_graphs, format_graphs
from sb3_fcdl.benchmark.magnetic import MAGNETIC
from sb3_fcdl.benchmark.table import Run, append_csv, check_csv, format_table, read_csv

__all__ = [
    "CHEMICAL",
    "MAGNETIC",
    "AccuracyResult",
    "Benchmark",
    "ContextResult",
    "Preset",
    "Run",
    "Task",
    "TaskEvalCallback",
    "TaskResult",
    "append_csv",
    "benchmark_of",
    "check_csv",
    "chemical_tasks",
    "evaluate_accuracy",
    "evaluate_graphs",
    "evaluate_tasks",
    "format_accuracy",
    "format_graphs",
    "format_table",
    "make_env",
    "read_csv",
]
