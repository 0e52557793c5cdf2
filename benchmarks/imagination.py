"""
An algorithm of SB3 alone, with as many updates as MBPO makes, and with MBPOCallback.

``python benchmarks/imagination.py results.csv`` trains all three on every environment and appends a line for each evaluation.
It skips runs that the file already has. InvertedPendulum needs the extra ``benchmarks``. To print the file:
``sb3-fcdl table results.csv --rows env algo --columns timesteps --cell seeds --also seeds wall_s``.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch as th
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_fcdl.callbacks import MBPOCallback
from sb3_fcdl.evaluation import Task, TaskResult, evaluate_tasks
from sb3_fcdl.runs import Run, append_csv, read_csv


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


class Evaluations(BaseCallback):
    """
    Evaluates a model at several points of one ``learn()``, with deterministic actions.

    :param run: what is trained; its timesteps and seconds are filled in
    :param at: timesteps
    :param n_episodes: of an evaluation
    """

    def __init__(self, run: Run, at: Sequence[int], n_episodes: int) -> None:
        super().__init__()
        self.run = run
        self.at = at
        self.n_episodes = n_episodes
        self.lines: list[tuple[Run, list[TaskResult]]] = []
        self.wall_s = 0.0  # of learning alone

    def _on_training_start(self) -> None:
        self.start = time.perf_counter()

    def _on_step(self) -> bool:
        if self.num_timesteps in self.at:
            self.wall_s += time.perf_counter() - self.start
            results = evaluate_tasks(self.model, self.run.env, {}, (Task("train"),), self.n_episodes, self.run.seed)
            run = replace(self.run, timesteps=self.num_timesteps, wall_s=self.wall_s)
            print(f"{run}: {results[0].mean:.1f}", flush=True)
            self.lines.append((run, results))
            self.start = time.perf_counter()
        return True


def train(env_id: str, arm: str, seed: int, n_episodes: int) -> list[tuple[Run, list[TaskResult]]]:
    """A line for each evaluation."""
    case = CASES[env_id]
    evaluations = Evaluations(Run(env_id, "", arm, seed, 0, 0.0), case.at, n_episodes)
    gradient_steps = N_UPDATES if arm == MORE_UPDATES else 1
    host = case.host("MlpPolicy", env_id, seed=seed, device="cpu", gradient_steps=gradient_steps, **case.settings)
    mbpo = [MBPOCallback(gradient_steps=N_UPDATES, **case.mbpo)] if arm == MBPO else []
    host.learn(case.at[-1], [evaluations, *mbpo])
    return evaluations.lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--envs", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=10, help="of an evaluation (default: %(default)s)")
    arguments = parser.parse_args()
    rows = read_csv(arguments.file) if arguments.file.exists() else []
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
