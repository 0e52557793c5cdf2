"""What is known of environments: their tasks, floors and ceilings."""

from sb3_fcdl.benchmark.base import Benchmark, EnvOption
from sb3_fcdl.benchmark.chemical import CHEMICAL, chemical_tasks
from sb3_fcdl.benchmark.environments import BENCHMARKS, benchmark_of
from sb3_fcdl.benchmark.magnetic import MAGNETIC
from sb3_fcdl.benchmark.predictions import evaluate_predictions

__all__ = [
    "BENCHMARKS",
    "CHEMICAL",
    "MAGNETIC",
    "Benchmark",
    "EnvOption",
    "benchmark_of",
    "chemical_tasks",
    "evaluate_predictions",
]
