"""Causal Dynamics Learning: one graph for all contexts, from conditional mutual information (Wang et al., ICML 2022)."""

from collections.abc import Callable

import numpy as np
import torch as th
from torch import nn
from torch.nn import functional as F

from fcdl_envs.arguments import check, integer, number
from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import DynamicsModel, Losses, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.dynamics.graph.evidence import Evidence, GraphEvidence, adjusted
from sb3_fcdl.dynamics.graph.priors import GRAPH_PRIOR, GraphPrior, GraphPriorName, prior_log_odds
from sb3_fcdl.dynamics.lookup.child_features import ChildFeatures
from sb3_fcdl.dynamics.stacked import StackedLinear, VariableHeads
from sb3_fcdl.graphs.graph import CausalGraph


class CDLDynamics(DynamicsModel):
    """
    A parent is kept if a variable is predicted worse without it, by the same network.

    Each variable has features of its own of each parent, takes their element-wise maximum over the parents that a mask lets
    through, and predicts from it. There are three predictions: from all parents; without one free parent, drawn for each
    sample and variable; and from the parents in the graph. Each follows the window on samples of its own. In the second, only
    the variable itself does; its other parents are samples of the first.

    Every ``cmi_freq`` updates the conditional mutual information of each parent and child is estimated, on transitions that
    no update sees: on data that the network knows by heart, it would miss every parent. A free edge is there while the moving
    average is at least ``cmi_threshold``. All free edges are there at first. The published CDL is ``graph_prior="self"``.

    :param factors: the variables
    :param graph_prior: what the model is told about the graph: a base of ``GraphPrior``, or one
    :param hidden_dim: width of the features and of every layer
    :param n_layers: predictor layers of a variable
    :param cmi_threshold: information that makes an edge, nats
    :param cmi_decay: of the moving average, per estimate
    :param cmi_freq: updates between two estimates
    :param cmi_batch_size: windows that an estimate looks at
    """

    holds_out = 10

    is_free: th.Tensor
    is_allowed: th.Tensor
    threshold: th.Tensor
    cmi: th.Tensor

    def __init__(
        self,
        factors: Factors,
        graph_prior: GraphPriorName | GraphPrior = "self",
        hidden_dim: int = 128,
        n_layers: int = 2,
        cmi_threshold: float = 0.001,
        cmi_decay: float = 0.9,
        cmi_freq: int = 10,
        cmi_batch_size: int = 256,
    ) -> None:
        check(
            graph_prior=(graph_prior, GRAPH_PRIOR),
            hidden_dim=(hidden_dim, integer(1)),
            n_layers=(n_layers, integer(0)),
            cmi_threshold=(cmi_threshold, number(at_least=0)),
            cmi_decay=(cmi_decay, number(at_least=0, below=1)),
            cmi_freq=(cmi_freq, integer(1)),
            cmi_batch_size=(cmi_batch_size, integer(1)),
        )
        super().__init__(factors)
        self.cmi_decay = cmi_decay
        self.cmi_freq = cmi_freq
        self.cmi_batch_size = cmi_batch_size
        n_children = len(factors.state_variables)
        log_odds = prior_log_odds(graph_prior, factors)
        self.register_buffer("is_free", log_odds.isnan(), persistent=False)
        self.register_buffer("is_allowed", log_odds.isnan() | (log_odds > 0), persistent=False)
        # A tensor like the average that begins there: in any precision the two are equal, and the edge is there.
        self.register_buffer("threshold", th.tensor(cmi_threshold), persistent=False)
        self.register_buffer("cmi", th.full_like(log_odds, cmi_threshold))
        # Of the latest estimate.
        self.evidence = GraphEvidence((1, *log_odds.shape))
        self.features = ChildFeatures(factors, hidden_dim)
        self.layers = nn.ModuleList(StackedLinear(n_children, hidden_dim, hidden_dim) for _ in range(n_layers))
        self.head = VariableHeads(factors, hidden_dim)

    @property
    def free_entries(self) -> np.ndarray:
        return self.is_free.cpu().numpy()

    @property
    def graph(self) -> th.Tensor:
        """The parents that the model plans with, ``[V, P]``, bool."""
        return self.is_allowed & ~(self.is_free & (self.cmi < self.threshold))

    def loss(self, windows: Windows) -> Losses:
        """
        ``L = L_full + L_dropped + L_causal``, each the mean over rows, steps and children ``j`` of a negative log-likelihood:

        * full: ``-log p(s'_j | s, a)``
        * dropped: ``-log p(s'_j | (s, a) without parent i)``, ``i`` drawn at random
        * causal: ``-log p(s'_j | parents of j in the graph)``
        """
        features = self.features.bind(windows.needs_state_gradient)
        n_rows, horizon = windows.valid.shape
        every = self.is_allowed.unsqueeze(1).expand(-1, n_rows, -1)
        # Dropped for the whole window, as published.
        kept = every & ~self._dropped(n_rows)
        mask = th.cat([every, kept, self.graph.unsqueeze(1).expand_as(every)], dim=1)
        # The three rollouts, with all parents, without one, with the graph's, go through the network as one batch.
        state, totals = windows.state[:, 0].repeat(3, 1), windows.state.new_zeros(3)
        for step in range(horizon):
            # In the second, only a variable itself follows its own samples.
            inputs = features.read_three(state, windows.action[:, step].repeat(3, 1))
            distribution = self._distribution(features.maximum(inputs, mask), state)
            nll = -distribution.log_prob(windows.next_state[:, step].repeat(3, 1)).mean(-1)
            totals = totals + (nll.view(3, n_rows) * windows.valid[:, step]).sum(-1)
            state = distribution.sample()
        full, dropped, causal = totals / windows.valid.sum().clamp(min=1)
        terms = {"dynamics": causal.detach(), "full": full.detach(), "dropped": dropped.detach()}
        return Losses(full + dropped + causal, terms)

    def _stepper(self) -> StepFn:
        features, graph = self.features.bind(with_state_gradient=False), self.graph

        def step(state: th.Tensor, action: th.Tensor) -> Prediction:
            mask = graph.unsqueeze(1).expand(-1, len(state), -1)
            distribution = self._distribution(features.maximum(features.read(state, action), mask), state)
            return Prediction(distribution, mask.transpose(0, 1).to(state.dtype))

        return step

    def after_update(self, n_updates: int, sample_windows: Callable[[int], Windows]) -> None:
        if n_updates % self.cmi_freq == 0:
            windows = sample_windows(self.cmi_batch_size)
            if windows.valid.any():
                gains = self.gains(windows)
                self.cmi.lerp_(gains.mean(0), 1 - self.cmi_decay)
                self._keep(gains)

    def _keep(self, gains: th.Tensor) -> None:
        """What each transition gains by each edge, ``[R, V, P]``, as evidence."""
        evidence = Evidence.of(gains, gains.new_zeros(len(gains), dtype=th.int64), 1)
        self.evidence.keep(evidence, adjusted(evidence.p_value, self.is_free), self.is_free)

    @th.no_grad()
    def gains(self, windows: Windows) -> th.Tensor:
        """
        How much worse each variable is predicted without each parent, all others given, at the recorded states; an estimate of
        the conditional mutual information:

            ``CMI(j, i) = E[log p(s'_j | s, a) - log p(s'_j | (s, a) without i)]``

        :param windows: whose valid transitions are looked at
        :return: this difference in each of them, nats, ``[R, V, P]``; 0 for a parent that the prior rules out
        """
        state, action, next_state = (part[windows.valid] for part in windows[:3])
        layers = self.features.bind(with_state_gradient=False)
        features = layers.each(layers.read(state, action))
        features.masked_fill_(~self.is_allowed[:, None, :, None], -th.inf)

        def nll(hidden: th.Tensor) -> th.Tensor:
            return -self._distribution(hidden, state).log_prob(next_state)

        # The maximum without a parent is the second largest feature where that parent has the largest, else the same.
        largest, winner = features.max(2)
        second = features.scatter_(2, winner.unsqueeze(2), -th.inf).amax(2)
        # As in ``ChildFeatures``: a child without parents has a feature of 0.
        largest, second = (feature.masked_fill_(feature.isneginf(), 0) for feature in (largest, second))
        of_all = nll(largest)
        without = [nll(second.where(winner == parent, largest)) for parent in range(features.shape[2])]
        return th.stack(without, dim=-1) - of_all.unsqueeze(-1)

    def context_graphs(self) -> list[CausalGraph]:
        names = self.factors.state_names, self.factors.parent_names
        return [CausalGraph(self.graph.double().cpu().numpy(), *names, evidence=self.evidence.of_edges()[0])]

    def _dropped(self, n_rows: int) -> th.Tensor:
        """One free parent of each child for each sample, ``[V, R, P]``, bool; none for a child without free parents."""
        is_free = self.is_free.unsqueeze(1)
        noise = th.rand(len(is_free), n_rows, is_free.shape[-1], device=is_free.device)
        drawn = noise.masked_fill(~is_free, -1).argmax(-1)
        return F.one_hot(drawn, noise.shape[-1]).bool() & is_free

    def _distribution(self, hidden: th.Tensor, state: th.Tensor) -> StateDistribution:
        """
        :param hidden: what each child has made of its parents, ``[V, R, F]``
        :param state: ``[R, D]``
        """
        for layer in self.layers:
            hidden = layer(hidden).relu_()
        return self.layout.distribution(self.head(hidden), state)
