"""Measuring a model on Chemical's tasks, beside the floors and the ceiling."""

from sb3_fcdl.benchmark.evaluation import Task, TaskResult, chemical_tasks, evaluate_tasks
from sb3_fcdl.benchmark.references import reference_policies
from sb3_fcdl.benchmark.table import Run, append_csv, check_csv, format_table, read_csv

__all__ = [
    "Run",
    "Task",
    "TaskResult",
    "append_csv",
    "check_csv",
    "chemical_tasks",
    "evaluate_tasks",
    "format_table",
    "read_csv",
    "reference_policies",
]
