"""The environments that the benchmark knows."""

from sb3_fcdl.benchmark.base import ANY, Benchmark
from sb3_fcdl.benchmark.chemical import CHEMICAL
from sb3_fcdl.benchmark.magnetic import MAGNETIC

BENCHMARKS = {"FCDL/Chemical-v0": CHEMICAL, "FCDL/Magnetic-v0": MAGNETIC}


def benchmark_of(env_id: str) -> Benchmark:
    """
    :param env_id: registered name, with or without the module in front
    :return: what is known about the environment; of one that we have never heard of, its training task and random actions
    """
    return BENCHMARKS.get(env_id.rpartition(":")[2], ANY)
