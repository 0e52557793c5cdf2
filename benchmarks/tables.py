"""
The committed result files as Markdown tables.

``python benchmarks/tables.py benchmarks/results/chemical_30k.csv`` prints a table for each system: for every policy the mean
return over training seeds and episodes, and between brackets the lowest and the highest mean of a seed.
"""

import argparse
from collections import defaultdict

from sb3_fcdl.evaluation.markdown import markdown, over_seeds
from sb3_fcdl.runs import read_csv
from sb3_fcdl.runs.table import CsvRow

Means = dict[tuple[str, str], list[float]]


def system(row: CsvRow) -> str:
    """What the seeds of an experiment share: the environment and its keyword arguments, except the seed of its dynamics."""
    words = (word for word in row.env_kwargs.split() if not word.startswith("dynamics_seed="))
    return " ".join((row.env, *words))


def table(means: Means) -> str:
    """
    :param means: by policy and task, the mean return of each seed; in the order of the rows and columns
    """
    policies, tasks = (list(dict.fromkeys(names)) for names in zip(*means, strict=True))
    rows = [[policy, *(over_seeds(means[policy, task]) for task in tasks)] for policy in policies]
    return markdown(["policy", *tasks], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="result files that `sb3-fcdl evaluate --csv` wrote")
    systems: dict[str, Means] = defaultdict(lambda: defaultdict(list))
    seeds: dict[str, set[int]] = defaultdict(set)
    for path in parser.parse_args().files:
        for row in read_csv(path):
            name = system(row)
            systems[name][row.algo, row.task].append(row.mean)
            seeds[name].add(row.seed)
    for name, means in systems.items():
        print(f"**{name}**, mean return over {len(seeds[name])} training seeds [lowest seed, highest seed]\n")
        print(f"{table(means)}\n")


if __name__ == "__main__":
    main()
