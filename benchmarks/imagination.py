"""
An algorithm of SB3 alone, with as many updates as MBPO makes, and with MBPOCallback; or with counterfactual transitions.

``python benchmarks/imagination.py results.csv`` trains these arms on every environment and appends a line for each evaluation.
``--arms`` takes others as well: MBPOCallback with one ingredient changed.
It skips runs that the file has the end of; a run that was killed starts again, and appends what the file lacks.
InvertedPendulum and Hopper need the extra ``benchmarks``. To print the file:
``sb3-fcdl table results.csv --rows env algo --columns timesteps --cell seeds --also seeds wall_s``.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import points  # noqa: F401 (registers its environments)
import torch as th
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_fcdl.callbacks import MBPOCallback
from sb3_fcdl.evaluation import Task, TaskResult, evaluate_tasks
from sb3_fcdl.runs import Run, append_csv, read_csv

WriteFn = Callable[[Run, list[TaskResult]], None]


class Arm(NamedTuple):
    """
    :param n_updates: of the algorithm for each recorded transition
    :param mbpo: arguments of the callback; None: there is none
    """

    n_updates: int
    mbpo: dict[str, Any] | None


ALONE, MORE_UPDATES, MBPO, COUNTERFACTUAL = "alone", "alone, as many updates", "MBPOCallback", "counterfactual"
# Half of a batch is recorded, half is recombined: nothing is imagined.
ONE_TREE = {"dynamics": "fcdl_tree", "n_members": 1, "n_elites": 1}
SWAPS = {**ONE_TREE, "real_ratio": 0.5, "counterfactual_ratio": 0.5}
ARMS = {
    ALONE: Arm(1, None),
    MORE_UPDATES: Arm(10, None),
    MBPO: Arm(10, {}),
    COUNTERFACTUAL: Arm(1, SWAPS),
    "alone, five updates": Arm(5, None),
    # Fewer of the model, of which only the graph is used.
    "counterfactual, five updates": Arm(5, {**SWAPS, "model_gradient_steps": 10}),
    "one member": Arm(10, {"n_members": 1, "n_elites": 1}),
    "half recorded": Arm(10, {"real_ratio": 0.5}),
    "one update": Arm(1, {}),
    "three updates": Arm(3, {}),
    "five steps": Arm(10, {"rollout_length": 5, "n_branches": 2000}),
}


class Case(NamedTuple):
    """
    :param host: the algorithm
    :param settings: its arguments, the same in all arms
    :param mbpo: arguments of the callback in all arms
    :param at: timesteps of the evaluations
    :param arms: that are trained unless others are named
    """

    host: type[OffPolicyAlgorithm]
    settings: dict[str, Any]
    mbpo: dict[str, Any]
    at: Sequence[int]
    arms: Sequence[str] = (ALONE, MORE_UPDATES, MBPO)


# Values move more quickly towards their targets (tau) and networks are smaller than SB3's defaults: both help all three arms.
SMALL = {"learning_rate": 1e-3, "learning_starts": 200, "train_freq": 1, "policy_kwargs": {"net_arch": [64, 64]}}
OF_SAC = {**SMALL, "tau": 0.02, "ent_coef": "auto_0.1"}
OF_DQN = {**SMALL, "batch_size": 128, "tau": 0.02, "target_update_interval": 1, "exploration_fraction": 0.2}
# As MBPO was published on Hopper, but for networks of 128 instead of 256, and 1000 random steps instead of 5000.
OF_HOPPER = {
    **SMALL,
    "learning_rate": 3e-4,
    "learning_starts": 1000,
    "ent_coef": "auto_0.1",
    "target_entropy": -1.0,
    "policy_kwargs": {"net_arch": [128, 128]},
}
HOPPER_AT = (2500, 5000, 7500, 10_000, 12_500, 15_000)
POINTS_AT = (500, 750, 1000, 1250, 1500, 1750, 2000, 2500)
CASES = {
    "InvertedPendulum-v5": Case(SAC, OF_SAC, {}, (1000, 1500, 2000, 2500, 3000)),
    "Pendulum-v1": Case(SAC, OF_SAC, {}, (500, 1000)),
    "CartPole-v1": Case(DQN, OF_DQN, {}, (1000, 2500)),
    "Hopper-v5": Case(SAC, OF_HOPPER, {"dynamics_kwargs": {"hidden_dim": 128, "activation": "silu"}}, HOPPER_AT),
    "Points-v0": Case(SAC, OF_SAC, {}, POINTS_AT, (ALONE, COUNTERFACTUAL)),
    "RarePoints-v0": Case(SAC, OF_SAC, {}, (1000, 1500, 2000, 3000, 4000), (ALONE, COUNTERFACTUAL)),
}


class Evaluations(BaseCallback):
    """
    Evaluates a model at several points of one ``learn()``, with deterministic actions.

    :param run: what is trained; its timesteps and seconds are filled in
    :param at: timesteps
    :param n_episodes: of an evaluation
    :param write: is given the results of each
    """

    def __init__(self, run: Run, at: Sequence[int], n_episodes: int, write: WriteFn) -> None:
        super().__init__()
        self.run = run
        self.at = at
        self.n_episodes = n_episodes
        self.write = write
        self.wall_s = 0.0  # of learning alone

    def _on_training_start(self) -> None:
        self.start = time.perf_counter()

    def _on_step(self) -> bool:
        if self.num_timesteps in self.at:
            self.wall_s += time.perf_counter() - self.start
            results = evaluate_tasks(self.model, self.run.env, {}, (Task("train"),), self.n_episodes, self.run.seed)
            run = replace(self.run, timesteps=self.num_timesteps, wall_s=self.wall_s)
            print(f"{run}: {results[0].mean:.1f}", flush=True)
            self.write(run, results)
            self.start = time.perf_counter()
        return True


def train(env_id: str, arm: str, seed: int, at: Sequence[int], n_episodes: int, write: WriteFn) -> None:
    """
    :param at: timesteps of the evaluations, the last of which ends the run
    :param write: is given the results of each evaluation
    """
    case = CASES[env_id]
    evaluations = Evaluations(Run(env_id, "", arm, seed, 0, 0.0), at, n_episodes, write)
    n_updates, options = ARMS[arm]
    gradient_steps = n_updates if options is None else 1
    host = case.host("MlpPolicy", env_id, seed=seed, device="cpu", gradient_steps=gradient_steps, **case.settings)
    mbpo = [] if options is None else [MBPOCallback(gradient_steps=n_updates, **case.mbpo | options)]
    host.learn(at[-1], [evaluations, *mbpo])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--envs", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="(default: those of the environment)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--until", type=int, default=10**9, help="leave out later evaluations (timesteps)")
    parser.add_argument("--episodes", type=int, default=10, help="of an evaluation (default: %(default)s)")
    arguments = parser.parse_args()
    rows = read_csv(arguments.file) if arguments.file.exists() else []
    th.set_num_threads(1)
    done = {(row.env, row.algo, row.seed, row.timesteps) for row in rows}

    def write(run: Run, results: list[TaskResult]) -> None:
        if (run.env, run.algo, run.seed, run.timesteps) not in done:
            append_csv(arguments.file, run, results)

    for seed, env_id in product(arguments.seeds, arguments.envs):
        at = [timestep for timestep in CASES[env_id].at if timestep <= arguments.until]
        if not at:
            parser.error(f"--until must be at least {min(CASES[env_id].at)}, where {env_id} is first evaluated")
        for arm in arguments.arms or CASES[env_id].arms:
            if (env_id, arm, seed, at[-1]) not in done:
                train(env_id, arm, seed, at, arguments.episodes, write)


if __name__ == "__main__":
    main()
