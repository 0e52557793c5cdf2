"""Returns of a policy on the tasks of an environment."""

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.type_aliases import PolicyPredictor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from fcdl_envs.arguments import check, integer, number
from sb3_fcdl.observations import Observations, given_to
from sb3_fcdl.progress import progress
from sb3_fcdl.vec_env import GymVectorVecEnv
from sb3_fcdl.world.declared import action_masks_of

# Environment i of a batch is seeded with seed + i. Training seeds below the offset do not overlap with evaluation seeds.
EVALUATION_SEED_OFFSET = 1_000_000


@dataclass(frozen=True)
class Task:
    """
    One task of an environment.

    :param name: what tables call it
    :param env_kwargs: the keyword arguments that choose it
    """

    name: str
    env_kwargs: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class SimulatesEnv(Protocol):
    """A policy that plans from the true state of the environments that it acts in."""

    def attach(self, env: VecEnv) -> None:
        """:param env: where it is going to act"""


@dataclass(frozen=True)
class Returns:
    """
    The returns of a policy on one task.

    :param task: name of the task
    :param mean: mean return of an episode
    :param ci_low: lower end of the 95 % bootstrap interval of the mean over episodes
    :param ci_high: its upper end
    :param success: share of the episodes whose last ``info["is_success"]`` was true, in [0, 1]; NaN where there is none
    :param n_episodes: number of episodes
    """

    task: str
    mean: float
    ci_low: float
    ci_high: float
    success: float
    n_episodes: int


@dataclass(frozen=True)
class TaskResult(Returns):
    """
    How a policy does on one task.

    :param predict_ms: mean time of a call of ``predict``, on the whole batch of environments, in ms
    """

    predict_ms: float


def make_env(env_id: str, n_envs: int, env_kwargs: dict[str, Any]) -> VecEnv:
    """
    Several copies of an environment as an SB3 ``VecEnv``. They are stepped in one batch if the environment has a vectorised
    form that resets as SB3 expects, else one after the other.

    :param env_id: registered name, with or without the module in front that registers it
    :param n_envs: number of environments
    :param env_kwargs: their keyword arguments
    """
    module, _, name = env_id.rpartition(":")
    if module:
        import_module(module)
    if gym.spec(name).vector_entry_point is not None:
        batch = gym.make_vec(env_id, num_envs=n_envs, **env_kwargs)
        if batch.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP:
            return VecMonitor(GymVectorVecEnv(batch))
        batch.close()
    # Whoever needs a seed gives one later. Without any, SB3 would draw one from NumPy's global generator, which an algorithm
    # that is being evaluated may be training with.
    return make_vec_env(env_id, n_envs, seed=0, env_kwargs=env_kwargs)


def evaluate_tasks(
    model: PolicyPredictor,
    env_id: str,
    env_kwargs: dict[str, Any],
    tasks: Sequence[Task],
    n_episodes: int = 50,
    seed: int = 0,
    n_envs: int = 10,
    progress_bar: bool = False,
) -> list[TaskResult]:
    """
    Evaluate deterministic actions on each task, with SB3's ``evaluate_policy``.

    All policies that are evaluated with the same ``seed`` and ``n_envs`` meet the same initial states, and none that training
    has seen. A model acts as it does in training, see ``AsInTraining``.

    :param model: anything with SB3's ``predict``
    :param env_id: registered name of the environment
    :param env_kwargs: its keyword arguments, without the task
    :param tasks: what to evaluate on
    :param n_episodes: episodes a task
    :param seed: of the evaluation environments
    :param n_envs: environments that are stepped at once
    :param progress_bar: show how many episodes are done, as SB3's ``learn`` does; needs tqdm and rich (extra ``extra``)
    :return: a result for each task, in order
    :raises ValueError: if ``n_episodes`` or ``n_envs`` is below 1
    """
    check(n_episodes=(n_episodes, integer(1)), seed=(seed, integer(0)), n_envs=(n_envs, integer(1)))
    n_envs = min(n_envs, n_episodes)
    with progress("episodes", n_episodes * len(tasks), progress_bar) as has_ended:
        return [
            _evaluate(
                model, task.name, make_env(env_id, n_envs, {**env_kwargs, **task.env_kwargs}), n_episodes, seed, has_ended
            )
            for task in tasks
        ]


def _evaluate(
    model: PolicyPredictor, task: str, env: VecEnv, n_episodes: int, seed: int, has_ended: Callable[[], Any]
) -> TaskResult:
    env.seed(EVALUATION_SEED_OFFSET + seed)
    if isinstance(model, SimulatesEnv):
        model.attach(env)
    acting = AsInTraining(model, env)
    successes: list[float] = []

    def note_success(local_variables: dict[str, Any], _: dict[str, Any]) -> None:
        if local_variables["done"]:
            successes.append(local_variables["info"].get("is_success", np.nan))
            has_ended()

    returns, _ = evaluate_policy(acting, env, n_episodes, callback=note_success, return_episode_rewards=True)
    env.close()
    mean, low, high = bootstrap_interval(np.asarray(returns))
    return TaskResult(task, mean, low, high, float(np.mean(successes)), n_episodes, acting.mean_ms)


def bootstrap_interval(
    values: np.ndarray, confidence: float = 0.95, n_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """
    Percentile bootstrap interval of a mean. It is deterministic: the same values give the same interval.

    :param values: the sample, ``[n]``
    :param confidence: of the interval, in (0, 1)
    :param n_resamples: number of resamples
    :param seed: of the resamples
    :return: the mean and the two ends of its interval
    """
    check(confidence=(confidence, number(above=0, below=1)), n_resamples=(n_resamples, integer(1)), seed=(seed, integer(0)))
    rows = np.random.default_rng(seed).integers(len(values), size=(n_resamples, len(values)))
    low, high = np.quantile(values[rows].mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(values.mean()), float(low), float(high)


class AsInTraining:
    """
    A model that acts as it does in training. If it still has its ``VecNormalize``, it sees normalised observations. If its
    ``predict`` takes action masks, it gets those of the environment. The time that ``predict`` takes is recorded.

    :param model: anything with SB3's ``predict``
    :param env: where it acts, without ``VecNormalize``
    :param watch: called at every step with the observations of the environment and the chosen actions
    """

    def __init__(
        self, model: PolicyPredictor, env: VecEnv, watch: Callable[[Observations, np.ndarray], None] | None = None
    ) -> None:
        self.model = model
        self.env = env
        self.watch = watch
        self.given = given_to(model)
        self._takes_masks = "action_masks" in inspect.signature(model.predict).parameters
        self._durations: list[float] = []

    @property
    def mean_ms(self) -> float:
        """Mean time of a call of the model's ``predict``, in ms."""
        return 1000 * float(np.mean(self._durations))

    def predict(
        self,
        observation: Observations,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """SB3's signature, on observations of the environment."""
        given = self.given(observation)
        masks = action_masks_of(self.env) if self._takes_masks else None
        allowed = {} if masks is None else {"action_masks": masks}
        start = time.perf_counter()
        actions, state = self.model.predict(given, state, episode_start, deterministic, **allowed)
        self._durations.append(time.perf_counter() - start)
        if self.watch is not None:
            self.watch(observation, actions)
        return actions, state
