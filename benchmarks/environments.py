"""
FCDL beside model-free algorithms, on environments of Gymnasium.

``python benchmarks/environments.py results.csv`` trains every algorithm with its default settings on every environment and
appends a line for each evaluation at the end of each run. It skips runs that the file already has.
``--table`` prints the file. Reacher and InvertedPendulum need the extra ``benchmarks``.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import PolicyPredictor

from sb3_fcdl import FCDL
from sb3_fcdl.benchmark.base import RandomActions
from sb3_fcdl.evaluation import Task, TaskResult, evaluate_tasks
from sb3_fcdl.evaluation.markdown import markdown, over_seeds
from sb3_fcdl.runs import Run, append_csv, read_csv
from sb3_fcdl.runs.table import CsvRow

FACTORED_TAXI = "FactoredTaxi-v4"
LIMITED_CLIFF = "LimitedCliffWalking-v1"
ENVIRONMENTS = (
    "CartPole-v1",
    "Pendulum-v1",
    "Acrobot-v1",
    "FrozenLake-v1",
    "Taxi-v4",
    FACTORED_TAXI,
    "InvertedPendulum-v5",
    "Reacher-v5",
    "MountainCar-v0",
    LIMITED_CLIFF,
)
ALGORITHMS: dict[str, Callable[..., BaseAlgorithm]] = {
    "FCDL": lambda *args, **kwargs: FCDL(*args, dynamics="fcdl", **kwargs),
    "FCDL, fcdl_tree": lambda *args, **kwargs: FCDL(*args, dynamics="fcdl_tree", **kwargs),
    "FCDL, mlp": lambda *args, **kwargs: FCDL(*args, dynamics="mlp", **kwargs),
    "FCDL, mlp, uncertainty_coef=1": lambda *args, **kwargs: FCDL(
        *args, dynamics="mlp", policy_kwargs={"uncertainty_coef": 1.0}, **kwargs
    ),
    "PPO": PPO,
    "DQN": DQN,
    "SAC": SAC,
}
EVALUATED_AT = (2_500, 5_000, 10_000)
RANDOM = "random"
Line = tuple[Run, list[TaskResult]]


def factored_taxi(**kwargs: Any) -> gym.Env:
    """Taxi, whose 500 states are shown as what they are: row, column, place of the passenger (4: on board), destination."""
    taxi = gym.make("Taxi-v4", **kwargs).unwrapped
    space = gym.spaces.MultiDiscrete([5, 5, 5, 4])
    return gym.wrappers.TransformObservation(taxi, lambda state: np.array(list(taxi.decode(state))), space)


if FACTORED_TAXI not in gym.registry:  # this file may be run twice in one process
    gym.register(FACTORED_TAXI, factored_taxi, max_episode_steps=200)
    # CliffWalking itself never cuts an episode off: one that does not arrive would never be evaluated.
    gym.register(LIMITED_CLIFF, gym.spec("CliffWalking-v1").entry_point, max_episode_steps=200)


def learns(algorithm: str, env_id: str) -> bool:
    """Whether an algorithm has the environment's kind of action."""
    is_box = isinstance(gym.spec(env_id).make().action_space, gym.spaces.Box)
    return not ((algorithm == "DQN" and is_box) or (algorithm == "SAC" and not is_box))


def evaluate(env_id: str, algorithm: str, seed: int, model: PolicyPredictor, timesteps: int, wall_s: float, n: int) -> Line:
    """The mean return of ``n`` episodes, deterministic actions."""
    results = evaluate_tasks(model, env_id, {}, (Task("train"),), n, seed)
    print(f"{env_id}, {algorithm}, seed {seed}: {results[0].mean:.1f} after {timesteps} timesteps, {wall_s:.0f} s", flush=True)
    return Run(env_id, "", algorithm, seed, timesteps, wall_s), results


class Evaluations(BaseCallback):
    """
    Evaluates a model at several points of one ``learn()``, because SB3's schedules depend on its length. PPO is evaluated as
    of its last update.

    :param evaluate: from the model, its timesteps and the seconds of learning alone to a line
    :param at: timesteps
    """

    def __init__(self, evaluate: Callable[[PolicyPredictor, int, float], Line], at: Sequence[int]) -> None:
        super().__init__()
        self.evaluate = evaluate
        self.at = at
        self.lines: list[Line] = []
        self.wall_s = 0.0

    def _on_training_start(self) -> None:
        self.start = time.perf_counter()

    def _on_step(self) -> bool:
        if self.num_timesteps in self.at:
            self.wall_s += time.perf_counter() - self.start
            self.lines.append(self.evaluate(self.model, self.num_timesteps, self.wall_s))
            self.start = time.perf_counter()
        return True


def train(env_id: str, algorithm: str, seed: int, n_episodes: int, at: Sequence[int] = EVALUATED_AT) -> list[Line]:
    """A line for each entry of ``at``, the last of which ends the run."""
    evaluations = Evaluations(partial(evaluate, env_id, algorithm, seed, n=n_episodes), at)
    ALGORITHMS[algorithm]("MlpPolicy", env_id, seed=seed, device="cpu").learn(at[-1], evaluations)
    return evaluations.lines


def table(rows: list[CsvRow]) -> str:
    """A row for each environment and algorithm: mean over seeds [lowest, highest] after so many timesteps, and the time."""
    cells: dict[tuple[str, str], dict[int, list[CsvRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        cells[row.env, row.algo][row.timesteps].append(row)
    lines = []
    reported = sorted({row.timesteps for row in rows if row.timesteps})
    for (env_id, algorithm), by_timesteps in cells.items():
        reached = (by_timesteps.get(0 if algorithm == RANDOM else timesteps, []) for timesteps in reported)
        last = by_timesteps[max(by_timesteps)]
        seconds = f"{sum(row.wall_s for row in last) / len(last):.0f}"
        means = (over_seeds([row.mean for row in each]) for each in reached)
        lines.append([env_id, algorithm, str(len(last)), *means, seconds])
    counts = [f"{timesteps:,}" for timesteps in reported]
    return markdown(["environment", "algorithm", "seeds", *counts, "s"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--table", action="store_true", help="print what the file has")
    parser.add_argument("--envs", nargs="+", default=ENVIRONMENTS)
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--timesteps", nargs="+", type=int, default=EVALUATED_AT, help="of the evaluations (default: %(default)s)"
    )
    parser.add_argument("--episodes", type=int, default=20, help="of an evaluation (default: %(default)s)")
    arguments = parser.parse_args()
    rows = read_csv(arguments.file) if arguments.file.exists() else []
    if arguments.table:
        print(table(rows))
        return
    done = {(row.env, row.algo, row.seed) for row in rows if row.timesteps in (0, arguments.timesteps[-1])}
    n_episodes = arguments.episodes
    for seed in arguments.seeds:
        for env_id in arguments.envs:
            if (env_id, RANDOM, seed) not in done:
                floor = RandomActions(env_id, {}, seed)
                append_csv(arguments.file, *evaluate(env_id, RANDOM, seed, floor, 0, 0.0, n_episodes))
            for algorithm in arguments.algorithms:
                if (env_id, algorithm, seed) not in done and learns(algorithm, env_id):
                    for line in train(env_id, algorithm, seed, n_episodes, arguments.timesteps):
                        append_csv(arguments.file, *line)


if __name__ == "__main__":
    main()
