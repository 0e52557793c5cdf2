"""Returns and scores of the graphs on an environment's test tasks, while a run is training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from fcdl_envs.arguments import Flag, check, integer
from sb3_fcdl.evaluation.contexts import evaluate_graphs
from sb3_fcdl.evaluation.returns import Task, evaluate_tasks
from sb3_fcdl.fcdl import FCDL

# Steps of each of ten environments that graphs are compared on: a curve needs less than the table of `sb3-fcdl evaluate`.
N_GRAPH_STEPS = 20


class TaskEvalCallback(BaseCallback):
    """
    Evaluates the model on several tasks whenever it is triggered, and logs the mean returns as ``eval/return_TASK``; with
    ``clean_kwargs`` also the returns of the same model without corruption, as ``eval/return_TASK_not_corrupted``.

    With ``tells_graphs``, and if the model has graphs, it also logs what ``evaluate_graphs`` measures, for each task and true
    context: ``eval_shd/TASK_edges=N``, where N is the number of edges of the true graph; with ``clean_kwargs`` also how often
    code and graph are the same without corruption: ``eval_same_code/TASK_edges=N`` and ``eval_same_graph/TASK_edges=N``.

    Meant for ``EvalCallback(..., callback_after_eval=TaskEvalCallback(...))``. Training is not disturbed: the evaluation has
    its own environments, and deterministic actions draw from no shared generator.

    :param env_id: registered name of the environment
    :param env_kwargs: its keyword arguments, without the task
    :param tasks: what to evaluate on
    :param clean_kwargs: keyword arguments under which the environment shows the same episodes without corruption; None or
        empty: nothing is corrupted
    :param tells_graphs: whether ``info["local_graph"]`` is the true graph of a transition
    :param n_episodes: episodes a task
    :param seed: of the evaluation environments
    :raises ValueError: if a number is out of range
    :raises TypeError: if it is no integer
    """

    def __init__(
        self,
        env_id: str,
        env_kwargs: dict[str, Any],
        tasks: Sequence[Task],
        clean_kwargs: dict[str, Any] | None = None,
        tells_graphs: bool = False,
        n_episodes: int = 10,
        seed: int = 0,
    ) -> None:
        check(tells_graphs=(tells_graphs, Flag()), n_episodes=(n_episodes, integer(1)), seed=(seed, integer(0)))
        super().__init__()
        self.env_id = env_id
        self.env_kwargs = env_kwargs
        self.tasks = tasks
        self.clean_kwargs = clean_kwargs or {}
        self.tells_graphs = tells_graphs
        self.n_episodes = n_episodes
        self.seed = seed

    def _on_step(self) -> bool:
        self._record_returns("", self.env_kwargs)
        if self.clean_kwargs:
            self._record_returns("_not_corrupted", {**self.env_kwargs, **self.clean_kwargs})
        if isinstance(self.model, FCDL) and self.model.dynamics.has_graph and self.tells_graphs:
            self._record_graphs(self.model)
        self.logger.dump(self.num_timesteps)
        return True

    def _record_returns(self, suffix: str, env_kwargs: dict[str, Any]) -> None:
        for result in evaluate_tasks(self.model, self.env_id, env_kwargs, self.tasks, self.n_episodes, self.seed):
            self.logger.record(f"eval/return_{result.task}{suffix}", result.mean)

    def _record_graphs(self, model: FCDL) -> None:
        contexts = evaluate_graphs(
            model, self.env_id, self.env_kwargs, self.tasks, self.clean_kwargs, n_steps=N_GRAPH_STEPS, seed=self.seed
        )
        for context in contexts:
            for measure in ("shd", "same_code", "same_graph"):
                value = getattr(context, measure)
                if not np.isnan(value):
                    self.logger.record(f"eval_{measure}/{context.task}_edges={context.n_true_edges}", value)
