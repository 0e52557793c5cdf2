"""How far the local graphs of a model are from the true ones, in each context of each task."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import obs_as_tensor

from sb3_fcdl.benchmark.evaluation import EVALUATION_SEED_OFFSET, Task, make_env
from sb3_fcdl.fcdl import FCDLPolicy


@dataclass(frozen=True)
class ContextResult:
    """
    The graphs of a model in one true context. Entries that the model was given do not count.

    :param task: name of the task
    :param n_true_edges: edges of the true graph, given ones included; it is what tells contexts apart here
    :param share: of the task's transitions that are in this context, in [0, 1]
    :param missing: true edges that a graph lacks, mean over transitions
    :param extra: edges of a graph that are not true, mean over transitions
    """

    task: str
    n_true_edges: int
    share: float
    missing: float
    extra: float

    @property
    def shd(self) -> float:
        """Structural Hamming distance, mean over transitions."""
        return self.missing + self.extra


def evaluate_graphs(
    policy: FCDLPolicy,
    env_id: str,
    env_kwargs: dict[str, Any],
    tasks: Sequence[Task],
    n_steps: int = 200,
    seed: int = 0,
    n_envs: int = 10,
) -> list[ContextResult]:
    """
    Compare local graphs with those that the environment tells in ``info["local_graph"]``, under random actions.

    :param policy: a trained policy whose model has graphs
    :param env_id: registered name of the environment
    :param env_kwargs: its keyword arguments, without the task
    :param tasks: what to evaluate on
    :param n_steps: steps of each environment
    :param seed: of the environments and the actions
    :param n_envs: environments that are stepped at once
    :return: a result for each context of each task, the one with the fewest edges first
    :raises ValueError: if the model has no graph, or the environment does not tell the true one
    """
    policy.set_training_mode(False)
    results = []
    for task in tasks:
        graphs, truths = _local_graphs(policy, env_id, {**env_kwargs, **task.env_kwargs}, n_steps, seed, n_envs)
        counts = truths.sum(axis=(1, 2))
        for n_true_edges in np.unique(counts):
            graph, truth = graphs[counts == n_true_edges], truths[counts == n_true_edges]
            free = policy.dynamics.free_entries
            missing, extra = ((wrong & free).sum(axis=(1, 2)).mean() for wrong in (truth & ~graph, graph & ~truth))
            share = len(graph) / len(graphs)
            results.append(ContextResult(task.name, int(n_true_edges), share, float(missing), float(extra)))
    return results


def format_graphs(results: Iterable[ContextResult]) -> str:
    """A Markdown table with a row a context."""
    lines = ["| task | true edges | share | SHD | missing | extra |", "| --- | --- | --- | --- | --- | --- |"]
    for each in results:
        numbers = f"{100 * each.share:.0f} % | {each.shd:.2f} | {each.missing:.2f} | {each.extra:.2f}"
        lines.append(f"| {each.task} | {each.n_true_edges} | {numbers} |")
    return "\n".join(lines)


def _local_graphs(
    policy: FCDLPolicy, env_id: str, env_kwargs: dict[str, Any], n_steps: int, seed: int, n_envs: int
) -> tuple[np.ndarray, np.ndarray]:
    """The model's and the true graph of each transition, twice ``[n_steps * n_envs, V, P]``, bool."""
    env = make_env(env_id, n_envs, env_kwargs)
    env.seed(EVALUATION_SEED_OFFSET + seed)
    env.action_space.seed(seed)
    observation = env.reset()
    graphs, truths = [], []
    for _ in range(n_steps):
        actions = np.stack([env.action_space.sample() for _ in range(n_envs)])
        stored = policy.scale_action(actions) if isinstance(env.action_space, spaces.Box) else actions.reshape(n_envs, -1)
        with th.no_grad():
            encoded = policy.encode(obs_as_tensor(observation, policy.device), th.as_tensor(stored, device=policy.device))
            graphs.append(policy.dynamics.local_graph(*encoded).bool().cpu().numpy())
        observation, _, _, infos = env.step(actions)
        if "local_graph" not in infos[0]:
            raise ValueError(f"{env_id} does not tell the true graph of a transition in info['local_graph']")
        truths.append(np.stack([info["local_graph"] for info in infos]))
    env.close()
    return np.concatenate(graphs), np.concatenate(truths)
