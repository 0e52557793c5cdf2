"""
An algorithm of SB3 alone, with as many updates as MBPO makes, and with MBPOCallback.

``python benchmarks/imagination.py results.csv`` trains all three on every environment and appends a line for each evaluation.
It skips runs that the file already has. ``--table`` prints the file. InvertedPendulum needs the extra ``benchmarks``.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch as th
from environments import Evaluations, Line, evaluate, table
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_fcdl.callbacks import MBPOCallback
from sb3_fcdl.runs import append_csv, read_csv


class Case(NamedTuple):
    """
    :param host: the algorithm
    :param settings: its arguments, the same in all arms
    :param mbpo: arguments of the callback
    :param at: timesteps of the evaluations, the last of which ends a run
    """

    host: type[OffPolicyAlgorithm]
    settings: dict[str, Any]
    mbpo: dict[str, Any]
    at: Sequence[int]


# Values move more quickly towards their targets (tau) and networks are smaller than SB3's defaults: both help all three arms.
SMALL = {"learning_rate": 1e-3, "learning_starts": 200, "train_freq": 1, "policy_kwargs": {"net_arch": [64, 64]}}
OF_SAC = {**SMALL, "tau": 0.02, "ent_coef": "auto_0.1"}
OF_DQN = {**SMALL, "batch_size": 128, "tau": 0.02, "target_update_interval": 1, "exploration_fraction": 0.2}
CASES = {
    "InvertedPendulum-v5": Case(SAC, OF_SAC, {}, (1000, 1500)),
    "Pendulum-v1": Case(SAC, OF_SAC, {}, (500, 1000)),
    "CartPole-v1": Case(DQN, OF_DQN, {}, (1000, 2500)),
}
ALONE, MORE_UPDATES, MBPO = "alone", "alone, as many updates", "MBPOCallback"
ARMS = (ALONE, MORE_UPDATES, MBPO)
N_UPDATES = 10


def train(env_id: str, arm: str, seed: int, n_episodes: int) -> list[Line]:
    """A line for each evaluation."""
    case = CASES[env_id]
    evaluations = Evaluations(partial(evaluate, env_id, arm, seed, n=n_episodes), case.at)
    gradient_steps = N_UPDATES if arm == MORE_UPDATES else 1
    host = case.host("MlpPolicy", env_id, seed=seed, device="cpu", gradient_steps=gradient_steps, **case.settings)
    mbpo = [MBPOCallback(gradient_steps=N_UPDATES, **case.mbpo)] if arm == MBPO else []
    host.learn(case.at[-1], [evaluations, *mbpo])
    return evaluations.lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--table", action="store_true", help="print what the file has")
    parser.add_argument("--envs", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=10, help="of an evaluation (default: %(default)s)")
    arguments = parser.parse_args()
    rows = read_csv(arguments.file) if arguments.file.exists() else []
    if arguments.table:
        print(table(rows))
        return
    th.set_num_threads(1)
    done = {(row.env, row.algo, row.seed) for row in rows}
    for seed in arguments.seeds:
        for env_id in arguments.envs:
            for arm in arguments.arms:
                if (env_id, arm, seed) not in done:
                    for line in train(env_id, arm, seed, arguments.episodes):
                        append_csv(arguments.file, *line)


if __name__ == "__main__":
    main()
