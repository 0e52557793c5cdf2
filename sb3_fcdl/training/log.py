"""What is measured of a model while it learns, and what is logged of it."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.logger import Logger

from sb3_fcdl.dynamics import Losses
from sb3_fcdl.graphs.score import f1_score, hamming_distance, precision_and_recall
from sb3_fcdl.inspection.report import N_WINDOWS, has_tensorboard, record_hyperparameters, report, report_lengths
from sb3_fcdl.training.experience import Experience
from sb3_fcdl.world.precision import in_float32
from sb3_fcdl.world.world_model import WorldModel


class Truth(NamedTuple):
    """
    What is logged of the model's graphs beside one kind of true graph.

    :param keys: of the log
    :param score: function of graphs ``[R, V, P]``, true graphs ``[R, V, P]`` and the entries that count ``[V, P]``, all bool;
        returns a number for each key, NaN if there is none
    """

    keys: tuple[str, str]
    score: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[float, float]]


# By the key of ``info`` that has the true graph.
TRUTHS = {
    "local_graph": Truth(
        ("causal/shd", "causal/f1"),
        lambda graphs, truth, free: (hamming_distance(graphs, truth, free), f1_score(graphs & free, truth & free)),
    ),
    "transition_graph": Truth(
        ("causal/transition_precision", "causal/transition_recall"),
        lambda graphs, truth, free: precision_and_recall(graphs & free, truth & free),
    ),
}


class ModelLog:
    """
    Collects losses, times and, where the environment tells the truth, local graphs; ``record`` turns them into log entries.

    Losses stay on the device until then: reading each would make a GPU wait.

    :param world: the model that predicts
    :param horizon: of its planner, environment steps
    :param is_guest: whether ``train/`` and ``time/`` belong to another algorithm: the keys are then ``dynamics/``
    """

    # Latest transitions with a true graph that `causal/shd` and the like look at.
    N_GRAPH_SAMPLES = 256
    # Log dumps from one report for TensorBoard to the next.
    REPORT_EVERY = 10

    def __init__(self, world: WorldModel, horizon: int, is_guest: bool = False) -> None:
        self.world = world
        self.horizon = horizon
        self.is_guest = is_guest
        self._graph_samples: deque[tuple[th.Tensor, th.Tensor, Mapping[str, np.ndarray]]] = deque(maxlen=self.N_GRAPH_SAMPLES)
        self._n_records = 0
        self._selecting = world.dynamics.context_variables
        self._reset()

    def _reset(self) -> None:
        self._loss_sums: dict[str, th.Tensor] = {}
        self._last_codes: th.Tensor | None = None
        self._n_losses = 0
        self._n_updates, self._update_seconds = 0, 0.0
        self._n_plans, self._plan_seconds = 0, 0.0

    def get_state(self) -> dict[str, Any]:
        """What has been measured and not yet recorded, for a checkpoint."""
        return {name: value for name, value in vars(self).items() if name not in ("world", "horizon", "is_guest")}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from what ``get_state`` returned."""
        samples, device = state["_graph_samples"], self.world.device
        vars(self).update({name: value for name, value in state.items() if name != "_graph_samples"})
        self._graph_samples.extend((before.to(device), action.to(device), told) for before, action, told in samples)

    def start(self) -> None:
        """A run begins: the next record has a report."""
        self._n_records = 0

    def add_losses(self, losses: Losses, heads: dict[str, th.Tensor]) -> None:
        """
        :param losses: of the dynamics
        :param heads: of the learned heads, by name
        """
        for name, term in (losses.terms | {name: loss.detach() for name, loss in heads.items()}).items():
            self._loss_sums[name] = self._loss_sums.get(name, 0) + term
        self._last_codes = losses.codes
        self._n_losses += 1

    def add_updates(self, n_updates: int, seconds: float) -> None:
        self._n_updates += n_updates
        self._update_seconds += seconds

    def add_plan(self, seconds: float) -> None:
        self._n_plans += 1
        self._plan_seconds += seconds

    def add_graphs(self, state: th.Tensor, action: th.Tensor, told: Sequence[Mapping[str, np.ndarray]]) -> None:
        """
        :param state: encoded, before the transition, ``[n_envs, D]``
        :param action: encoded, ``[n_envs, A]``
        :param told: the true graphs of each transition by their key in ``TRUTHS``, ``[V, P]`` bool; at least one
        """
        self._graph_samples.extend(zip(state, action, told, strict=True))

    @in_float32
    def record(
        self,
        logger: Logger,
        experience: Experience,
        timesteps: int,
        n_updates: int,
        hyperparameters: dict[str, Any] | None = None,
    ) -> None:
        """
        Record what was measured since the last call; with TensorBoard every tenth time a report too, see
        ``sb3_fcdl.inspection.report``. Where the logger writes text, a line says when other variables choose the context.

        :param logger: writes it with its next dump
        :param experience: what the model learns from
        :param timesteps: so far; they choose the windows of the report
        :param n_updates: likewise; before the first there is nothing to report
        :param hyperparameters: for TensorBoard's HPARAMS tab, with the first report; None: none
        """
        for key, value in self.summary().items():
            group, _, name = key.partition("/")
            logger.record(f"dynamics/{name}" if self.is_guest and group in ("train", "time") else key, value)
        selecting = self.world.dynamics.context_variables
        if selecting != self._selecting:
            chosen_by = ", ".join(selecting) or "no variable"
            logger.info(f"timestep {timesteps}, update {n_updates}: the context is chosen by {chosen_by}")
            self._selecting = selecting
        if not (n_updates and has_tensorboard(logger)):
            return
        if self._n_records == 0 and hyperparameters is not None:
            record_hyperparameters(logger, hyperparameters)
        if self._n_records % self.REPORT_EVERY == 0:
            # Of its own generator: training is the same with and without TensorBoard.
            looked_at = experience.recorded(N_WINDOWS, max(report_lengths(self.horizon)), seed=timesteps)
            report(logger, self.world, self.horizon, *looked_at)
        self._n_records += 1

    def summary(self) -> dict[str, float]:
        """:return: values by log key; losses and times start anew"""
        dynamics, values = self.world.dynamics, {}
        if self._n_plans:
            values["time/plan_ms"] = 1000 * self._plan_seconds / self._n_plans
        if self._n_updates:
            values["time/update_ms"] = 1000 * self._update_seconds / self._n_updates
        values |= {f"train/{name}_loss": (total / self._n_losses).item() for name, total in self._loss_sums.items()}
        if self._last_codes is not None:
            values |= self._contexts(self._last_codes)
        if self._n_losses and self._graph_samples and dynamics.has_graph and dynamics.free_entries.any():
            values |= self._scores()
        self._reset()
        return values

    def _contexts(self, codes: th.Tensor) -> dict[str, float]:
        graphs = self.world.dynamics.context_graphs()
        shares = th.bincount(codes, minlength=len(graphs)).cpu().numpy() / len(codes)
        used = shares[shares > 0]
        n_edges = np.array([graph.edges.sum() for graph in graphs])
        return {
            "causal/code_perplexity": float(np.exp(-(used * np.log(used)).sum())),
            "causal/edges_per_code": float(shares @ n_edges),
        }

    def _scores(self) -> dict[str, float]:
        """Of the latest transitions, over the entries that the model is free to learn."""
        state, action, told = zip(*self._graph_samples, strict=True)
        with th.no_grad():
            graphs = self.world.dynamics.local_graph(th.stack(state), th.stack(action)).bool().cpu().numpy()
        free = self.world.dynamics.free_entries
        scores: dict[str, float] = {}
        for name, truth in TRUTHS.items():
            rows = [row for row, each in enumerate(told) if name in each]
            if rows:
                true_graphs = np.stack([told[row][name] for row in rows])
                scores.update(zip(truth.keys, truth.score(graphs[rows], true_graphs, free), strict=True))
        return {key: score for key, score in scores.items() if not np.isnan(score)}
