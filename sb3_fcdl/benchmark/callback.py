"""Returns on an environment's test tasks while a run is training."""

from collections.abc import Sequence
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from sb3_fcdl.benchmark.evaluation import Task, evaluate_tasks


class TaskEvalCallback(BaseCallback):
    """
    Evaluates the model on several tasks whenever it is triggered, and logs the mean returns as ``eval/return_TASK``.

    Meant for ``EvalCallback(..., callback_after_eval=TaskEvalCallback(...))``. Training is not disturbed: the evaluation has
    its own environments, and deterministic actions draw from no shared generator.

    :param env_id: registered name of the environment
    :param env_kwargs: its keyword arguments, without the task
    :param tasks: what to evaluate on
    :param n_episodes: episodes a task
    :param seed: of the evaluation environments
    """

    def __init__(
        self, env_id: str, env_kwargs: dict[str, Any], tasks: Sequence[Task], n_episodes: int = 10, seed: int = 0
    ) -> None:
        super().__init__()
        self.env_id = env_id
        self.env_kwargs = env_kwargs
        self.tasks = tasks
        self.n_episodes = n_episodes
        self.seed = seed

    def _on_step(self) -> bool:
        for result in evaluate_tasks(self.model, self.env_id, self.env_kwargs, self.tasks, self.n_episodes, self.seed):
            self.logger.record(f"eval/return_{result.task}", result.mean)
        self.logger.dump(self.num_timesteps)
        return True
