"""The environments that the benchmark knows."""

from sb3_fcdl.benchmark import chemical, factored, magnetic
from sb3_fcdl.benchmark.base import ANY, Benchmark

BENCHMARKS = {chemical.ENV_ID: chemical.CHEMICAL, magnetic.ENV_ID: magnetic.MAGNETIC, **factored.FACTORED}


def benchmark_of(env_id: str) -> Benchmark:
    """
    :param env_id: registered name, with or without the module in front
    :return: what is known about the environment; of an unknown one, its training task and random actions
    """
    return BENCHMARKS.get(env_id.rpartition(":")[2], ANY)
