"""What is measured between two log dumps of a training run."""

from collections import deque

import numpy as np
import torch as th

from sb3_fcdl.dynamics import Losses
from sb3_fcdl.fcdl.policies import FCDLPolicy
from sb3_fcdl.graphs.score import f1_score, hamming_distance


class TrainingMeter:
    """
    Collects losses, times and, where the environment tells the truth, local graphs; ``summary`` turns them into log entries.

    Losses stay on the device until then: reading each would make a GPU wait.
    """

    # Latest transitions with a known local graph that `causal/shd` looks at.
    N_GRAPH_SAMPLES = 256

    def __init__(self) -> None:
        self._graph_samples: deque[tuple[th.Tensor, th.Tensor, np.ndarray]] = deque(maxlen=self.N_GRAPH_SAMPLES)
        self._reset()

    def _reset(self) -> None:
        self._loss_sums: dict[str, th.Tensor] = {}
        self._last_codes: th.Tensor | None = None
        self._n_losses = 0
        self._n_updates, self._update_seconds = 0, 0.0
        self._n_plans, self._plan_seconds = 0, 0.0

    def add_losses(self, losses: Losses) -> None:
        for name, term in losses.terms.items():
            self._loss_sums[name] = self._loss_sums.get(name, 0) + term
        self._last_codes = losses.codes
        self._n_losses += 1

    def add_updates(self, n_updates: int, seconds: float) -> None:
        self._n_updates += n_updates
        self._update_seconds += seconds

    def add_plan(self, seconds: float) -> None:
        self._n_plans += 1
        self._plan_seconds += seconds

    def add_graphs(self, state: th.Tensor, action: th.Tensor, graphs: np.ndarray) -> None:
        """
        :param state: encoded, before the transition, ``[n_envs, D]``
        :param action: encoded, ``[n_envs, A]``
        :param graphs: the true local graph of each transition, ``[n_envs, V, P]``, bool
        """
        self._graph_samples.extend(zip(state, action, graphs, strict=True))

    def summary(self, policy: FCDLPolicy) -> dict[str, float]:
        """
        :param policy: the policy, as trained so far
        :return: values by log key; losses and times start anew
        """
        values = {}
        if self._n_plans:
            values["time/plan_ms"] = 1000 * self._plan_seconds / self._n_plans
        if self._n_updates:
            values["time/update_ms"] = 1000 * self._update_seconds / self._n_updates
        values |= {f"train/{name}_loss": (total / self._n_losses).item() for name, total in self._loss_sums.items()}
        if self._last_codes is not None:
            values |= self._contexts(policy, self._last_codes)
        if self._n_losses and self._graph_samples and policy.dynamics.has_graph and policy.dynamics.free_entries.any():
            values |= self._scores(policy)
        self._reset()
        return values

    @staticmethod
    def _contexts(policy: FCDLPolicy, codes: th.Tensor) -> dict[str, float]:
        graphs = policy.dynamics.context_graphs()
        shares = th.bincount(codes, minlength=len(graphs)).cpu().numpy() / len(codes)
        used = shares[shares > 0]
        n_edges = np.array([graph.edges.sum() for graph in graphs])
        return {
            "causal/code_perplexity": float(np.exp(-(used * np.log(used)).sum())),
            "causal/edges_per_code": float(shares @ n_edges),
        }

    def _scores(self, policy: FCDLPolicy) -> dict[str, float]:
        """SHD (mean) and F1 over the entries that the model is free to learn, of the latest transitions."""
        state, action, true_graphs = zip(*self._graph_samples, strict=True)
        with th.no_grad():
            graphs = policy.dynamics.local_graph(th.stack(state), th.stack(action)).bool().cpu().numpy()
        truth, free = np.stack(true_graphs), policy.dynamics.free_entries
        scores = {"causal/shd": hamming_distance(graphs, truth, free)}
        f1 = f1_score(graphs & free, truth & free)
        return scores if np.isnan(f1) else scores | {"causal/f1": f1}
