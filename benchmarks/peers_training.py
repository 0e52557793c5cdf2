"""
Learning Pendulum by planning: PETS of mbrl-lib beside our ``dynamics="mlp"``, return and seconds at equal environment steps.

It runs in the environment of ``peers.py``, whose docstring says how to make it:

    OMP_NUM_THREADS=1 .venv-peers/bin/python benchmarks/peers_training.py benchmarks/results/peers_training.csv

Neither is told the reward. PETS has the network, the ensemble and the training of mbrl-lib's example ``pets_cartpole``, and by
default a plan of our size: 64 candidates of 50 steps in one iteration of iCEM, with one particle each. The example's size is
``--candidates 350 --horizon 15 --iterations 5 --particles 20``. Ours has default settings. PETS cannot plan discrete actions,
so there is no CartPole. Seconds are wall-clock time of learning alone, without the evaluations.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

from sb3_fcdl import FCDL
from sb3_fcdl.evaluation import Task, evaluate_tasks
from sb3_fcdl.evaluation.markdown import markdown, over_seeds
from sb3_fcdl.runs import Run, append_csv, read_csv
from sb3_fcdl.runs.table import CsvRow

ENV_ID = "Pendulum-v1"
EPISODE = 200
OURS, PETS = "FCDL, mlp", "PETS"


class Learner:
    """Something that learns from environment steps, and acts as SB3's algorithms do."""

    def learn(self, n_steps: int) -> None:
        raise NotImplementedError

    def predict(
        self, observation: np.ndarray, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> Any:
        raise NotImplementedError


class Ours(Learner):
    """FCDL with default settings."""

    def __init__(self, seed: int) -> None:
        self.model = FCDL("MlpPolicy", ENV_ID, dynamics="mlp", seed=seed, device="cpu")

    def learn(self, n_steps: int) -> None:
        self.model.learn(n_steps, reset_num_timesteps=False)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.predict(*args, **kwargs)


class Pets(Learner):
    """
    PETS from the parts of mbrl-lib: a probabilistic ensemble, trained anew every 50 steps, and iCEM.

    :param seed: of the environment and the networks
    :param size: ``horizon``, ``candidates``, ``iterations`` and ``particles`` of a plan
    """

    TRAIN_FREQ = 50

    def __init__(self, seed: int, size: argparse.Namespace) -> None:
        import mbrl.models
        from mbrl.env.termination_fns import no_termination
        from mbrl.util.common import create_one_dim_tr_model, create_replay_buffer
        from omegaconf import OmegaConf

        th.manual_seed(seed)
        self.size = size
        self.env = gym.make(ENV_ID)
        self.env.action_space.seed(seed)
        self.observation, _ = self.env.reset(seed=seed)
        self.config = OmegaConf.create(PETS_CONFIG)
        shapes = self.env.observation_space.shape, self.env.action_space.shape
        rng = np.random.default_rng(seed)
        self.buffer = create_replay_buffer(self.config, *shapes, rng=rng)
        self.model = create_one_dim_tr_model(self.config, *shapes)
        self.trainer = mbrl.models.ModelTrainer(self.model, optim_lr=7.5e-4, weight_decay=3e-5)
        self.model_env = mbrl.models.ModelEnv(self.env, self.model, no_termination, None, th.Generator().manual_seed(seed))
        self.agents = [self._agent()]
        self.n_steps = 0

    def _agent(self) -> Any:
        from mbrl.planning import create_trajectory_optim_agent_for_model
        from omegaconf import OmegaConf

        space = self.env.action_space
        optimizer = {
            "_target_": "mbrl.planning.ICEMOptimizer",
            "num_iterations": self.size.iterations,
            "population_size": self.size.candidates,
            "elite_ratio": 0.1,
            "population_decay_factor": 1.25,
            "colored_noise_exponent": 2.0,
            "keep_elite_frac": 0.3,
            "population_size_module": self.config.overrides.num_elites,  # which the ensemble asks for
            "alpha": 0.1,
            "lower_bound": "???",
            "upper_bound": "???",
            "device": "cpu",
        }
        agent = {
            "_target_": "mbrl.planning.TrajectoryOptimizerAgent",
            "_recursive_": False,
            "optimizer_cfg": optimizer,
            "action_lb": space.low.tolist(),
            "action_ub": space.high.tolist(),
            "planning_horizon": self.size.horizon,
        }
        return create_trajectory_optim_agent_for_model(self.model_env, OmegaConf.create(agent), self.size.particles)

    def learn(self, n_steps: int) -> None:
        from mbrl.util.common import train_model_and_save_model_and_data

        for _ in range(n_steps):
            if self.n_steps < EPISODE:
                action = self.env.action_space.sample()
            else:
                if self.n_steps % self.TRAIN_FREQ == 0:
                    train_model_and_save_model_and_data(self.model, self.trainer, self.config.overrides, self.buffer)
                action = self.agents[0].act(self.observation)
            after, reward, terminated, truncated, _ = self.env.step(action)
            self.buffer.add(self.observation, action, after, reward, terminated, truncated)
            self.observation = after
            self.n_steps += 1
            if terminated or truncated:
                self.observation, _ = self.env.reset()
                self.agents[0].reset()

    def predict(
        self, observation: np.ndarray, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> Any:
        """``state`` is the agents, one for each environment, which keep their last plans."""
        agents = state or [self._agent() for _ in observation]
        for agent, starts in zip(agents, np.broadcast_to(episode_start, len(agents)), strict=True):
            if starts:
                agent.reset()
        return np.stack([agent.act(row) for agent, row in zip(agents, observation, strict=True)]), agents


PETS_CONFIG = {
    "dynamics_model": {
        "_target_": "mbrl.models.GaussianMLP",
        "_recursive_": False,  # the network makes its own activation
        "device": "cpu",
        "num_layers": 4,
        "in_size": "???",
        "out_size": "???",
        "ensemble_size": 7,
        "hid_size": 200,
        "deterministic": False,
        "propagation_method": "random_model",
        "learn_logvar_bounds": False,
        "activation_fn_cfg": {"_target_": "torch.nn.SiLU"},
    },
    "algorithm": {
        "learned_rewards": True,
        "target_is_delta": True,
        "normalize": True,
        "normalize_double_precision": True,
        "dataset_size": 10_000,
    },
    "overrides": {
        "num_elites": 5,
        "model_batch_size": 256,
        "validation_ratio": 0,
        "num_epochs_train_model": 25,
        "patience": 25,
    },
}


def run(algorithm: str, learner: Learner, seed: int, evaluated_at: Sequence[int], n_episodes: int, file: Path) -> None:
    """Learn, and append a line after each of those numbers of steps."""
    wall_s, reached = 0.0, 0
    for timesteps in evaluated_at:
        start = time.perf_counter()
        learner.learn(timesteps - reached)
        wall_s, reached = wall_s + time.perf_counter() - start, timesteps
        results = evaluate_tasks(learner, ENV_ID, {}, (Task("train"),), n_episodes, seed)
        print(f"{algorithm}, seed {seed}: {results[0].mean:.1f} after {timesteps} timesteps, {wall_s:.0f} s", flush=True)
        append_csv(file, Run(ENV_ID, "", algorithm, seed, timesteps, wall_s), results)


def table(rows: Sequence[CsvRow]) -> str:
    """Markdown: mean over seeds [lowest, highest]."""
    lines = []
    for algorithm, timesteps in sorted({(row.algo, row.timesteps) for row in rows}):
        same = [row for row in rows if (row.algo, row.timesteps) == (algorithm, timesteps)]
        seconds = over_seeds([row.wall_s for row in same])
        lines.append([algorithm, f"{timesteps:,}", str(len(same)), over_seeds([row.mean for row in same]), seconds])
    return markdown(["", "steps", "seeds", "return", "s"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--algorithms", nargs="+", choices=(OURS, PETS), default=(OURS, PETS))
    parser.add_argument("--evaluated-at", nargs="+", type=int, default=[1000, 2000, 3000], metavar="STEPS")
    parser.add_argument("--episodes", type=int, default=5, help="of an evaluation (default: %(default)s)")
    for name, default in {"candidates": 64, "horizon": 50, "iterations": 1, "particles": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="of a plan of PETS (default: %(default)s)")
    arguments = parser.parse_args(argv)
    th.set_num_threads(1)
    warnings.filterwarnings("ignore", module="(mbrl|hydra).*")
    makers: dict[str, Callable[[int], Learner]] = {OURS: Ours, PETS: lambda seed: Pets(seed, arguments)}
    for seed in arguments.seeds:
        for algorithm in arguments.algorithms:
            run(algorithm, makers[algorithm](seed), seed, arguments.evaluated_at, arguments.episodes, arguments.file)
    print(table(read_csv(arguments.file)))


if __name__ == "__main__":
    main()
