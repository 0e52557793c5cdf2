"""Neural Causal Dynamics: a sparse graph inferred for each sample, without contexts (Hwang et al., 2023)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch as th
from torch import nn

from fcdl_envs.arguments import Flag, check, integer, number
from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import DynamicsModel, Losses, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.dynamics.graph.edge_learning import StraightThrough
from sb3_fcdl.dynamics.graph.edges import FreeEdges
from sb3_fcdl.dynamics.graph.evidence import GraphEvidence, adjusted, by_value
from sb3_fcdl.dynamics.graph.held_out import HeldOut
from sb3_fcdl.dynamics.graph.judgement import MIN_GAIN, MIN_ROWS, is_due
from sb3_fcdl.dynamics.graph.priors import GRAPH_PRIOR, GraphPrior, GraphPriorName
from sb3_fcdl.dynamics.lookup.features import BoundFeatures, ParentFeatures, ParentInputs, width_of_numbers
from sb3_fcdl.dynamics.lookup.linear import LinearFn, ParentLinear
from sb3_fcdl.dynamics.masked import MaskedFn, MaskedNetwork
from sb3_fcdl.dynamics.norms import batch_norm
from sb3_fcdl.dynamics.rows import weight_of_rows
from sb3_fcdl.dynamics.stacked import Distinct
from sb3_fcdl.graphs.graph import CausalGraph


class _Bound(NamedTuple):
    """
    The model for one version of the weights.

    :param features: read a batch
    :param edges: the first layer of the edge network
    :param masked: the masked network
    """

    features: BoundFeatures
    edges: LinearFn
    masked: MaskedFn


class LabelledLinear(ParentLinear):
    """
    A ``ParentLinear`` that also reads the mask: ``z_j + sum_i mask[j, i] * label_ji``.

    A parent that is masked and a parent whose feature is 0 look alike otherwise. No gradient reaches the mask this way.

    :param features: the features that it reads
    :param n_children: ``J``
    :param output_dim: ``O``
    """

    def __init__(self, features: ParentFeatures, n_children: int, output_dim: int) -> None:
        super().__init__(features, n_children, output_dim)
        # One layer on features and mask together, so their inputs count together.
        bound = (6 / (self.fan_in + features.n_parents)) ** 0.5
        self.label = nn.Parameter(th.empty(n_children, features.n_parents, output_dim).uniform_(-bound, bound))

    def bind(self, features: BoundFeatures) -> LinearFn:
        """See ``ParentLinear.bind``."""
        unlabelled = super().bind(features)

        def labelled(inputs: ParentInputs, mask: th.Tensor, distinct: Distinct | None = None) -> th.Tensor:
            outputs = th.baddbmm(unlabelled(inputs, mask), mask.detach(), self.label)
            return outputs if distinct is None else outputs.flatten(0, 1)[distinct.chosen]

        return labelled


class NCDDynamics(DynamicsModel):
    """
    An auxiliary network infers a mask of the parents for each sample, the masked network predicts.

    The equation of the loss stands at :meth:`loss`. ``sparsity_coef`` is the price of an edge in nats, as in ``FCDLDynamics``.

    :param factors: the variables
    :param graph_prior: what the model is told about the graph: a base of ``GraphPrior``, or one
    :param hidden_dim: width of the features and of every layer
    :param n_layers: predictor layers of a variable
    :param sparsity_coef: price of an edge, in nats
    :param code_labelling: whether the prediction of a variable reads its mask, besides the parents that it lets through
    """

    holds_out = 10

    edge_rates: th.Tensor

    # Most transitions that the evidence looks at.
    N_JUDGED = 4096
    # Of the running mean of the edges, per training batch; as FCDL's codebook.
    RATE_DECAY = 0.99

    def __init__(
        self,
        factors: Factors,
        graph_prior: GraphPriorName | GraphPrior = "self",
        hidden_dim: int = 128,
        n_layers: int = 2,
        sparsity_coef: float = 0.01,
        code_labelling: bool = True,
    ) -> None:
        check(
            graph_prior=(graph_prior, GRAPH_PRIOR),
            hidden_dim=(hidden_dim, integer(1)),
            n_layers=(n_layers, integer(0)),
            sparsity_coef=(sparsity_coef, number(at_least=0)),
            code_labelling=(code_labelling, Flag()),
        )
        super().__init__(factors)
        self.sparsity_coef = sparsity_coef
        self.edge_learning = StraightThrough()
        self.free_edges = FreeEdges(factors, graph_prior)
        self.features = ParentFeatures(factors, hidden_dim, width_of_numbers(factors, hidden_dim))
        self.edge_layer = ParentLinear(self.features, 1, hidden_dim, bias=False)
        self.edge_network = nn.Sequential(
            batch_norm(hidden_dim),
            nn.LeakyReLU(),
            nn.Linear(hidden_dim, hidden_dim, bias=False),
            batch_norm(hidden_dim),
            nn.LeakyReLU(),
            nn.Linear(hidden_dim, self.free_edges.n_free),
        )
        self.network = MaskedNetwork(factors, self.features, hidden_dim, n_layers)
        if code_labelling:
            self.network.aggregation = LabelledLinear(self.features, len(factors.state_variables), hidden_dim)
        self.register_buffer("edge_rates", th.full((self.free_edges.n_free,), 0.5))
        self.evidence = GraphEvidence((1, len(factors.state_variables), len(factors.parents)))

    @property
    def free_entries(self) -> np.ndarray:
        return self.free_edges.entries

    def loss(self, windows: Windows) -> Losses:
        """
        ``L = L_pred + sparsity_coef * R``: that of FCDL (Eq. 6 of its paper) with a graph a sample, where

        * ``L_pred`` is the mean over valid rows, steps and children ``j`` of ``-log p(s'_j | s, a; A)``, with ``A`` sampled
        * ``R`` is the expected number of free edges of a child, mean over valid rows and steps

        In train mode the running mean of the edges moves.
        """
        bound = self._bind(windows.needs_state_gradient)
        probabilities: list[th.Tensor] = []

        def predict(state: th.Tensor, action: th.Tensor) -> StateDistribution:
            inputs = bound.features.read(state, action)
            free = self._free_log_odds(bound, inputs)
            probabilities.append(self.edge_learning.cost(free))

            def masked(mask: th.Tensor) -> StateDistribution:
                return self.layout.distribution(bound.masked(inputs, mask), state)

            return self.edge_learning.draw(self.free_edges.fill(free), masked).prediction

        nll = self.unrolled_nll(windows, predict)
        valid = windows.valid.T.unsqueeze(-1)
        rates = (th.stack(probabilities) * valid).mean((0, 1)) * weight_of_rows(valid, probabilities[0].dtype)
        if self.training:
            self.edge_rates.lerp_(rates.detach(), 1 - self.RATE_DECAY)
        terms = {"dynamics": nll, "reg": rates.sum() / len(self.factors.state_variables)}
        total = nll + self.sparsity_coef * terms["reg"]
        return Losses(total, {name: term.detach() for name, term in terms.items()})

    def _stepper(self) -> StepFn:
        bound = self._bind(with_state_gradient=False)

        def step(state: th.Tensor, action: th.Tensor) -> Prediction:
            inputs = bound.features.read(state, action)
            log_odds = self.free_edges.fill(self._free_log_odds(bound, inputs))
            mask = (log_odds > 0).to(log_odds.dtype)
            return Prediction(self.layout.distribution(bound.masked(inputs, mask), state), mask)

        return step

    @th.no_grad()
    def context_graphs(self) -> list[CausalGraph]:
        """One graph: how probable each edge was, in the mean over recent training samples."""
        probabilities = self.free_edges.fill(self.edge_rates.logit().unsqueeze(0))[0].sigmoid().cpu().numpy()
        names = self.factors.state_names, self.factors.parent_names
        return [CausalGraph(probabilities, *names, label="mean of the samples", evidence=self.evidence.of_edges()[0])]

    def after_update(self, n_updates: int, sample_windows: Callable[[int], Windows]) -> None:
        if is_due(n_updates):
            windows = sample_windows(self.N_JUDGED)
            if int(windows.valid[:, 0].sum()) >= MIN_ROWS:
                self.eval()
                self._weigh(windows)
                self.train()

    @th.no_grad()
    def _weigh(self, windows: Windows) -> None:
        """
        What the edges are worth on transitions that no update sees, by the values of the parents: the model chooses its edges,
        and predicts, as if a parent had the value that it has in another transition.
        """
        state, action, next_state = (part[:, 0][windows.valid[:, 0]] for part in windows[:3])
        step = self.stepper()

        def nll(columns: th.Tensor) -> th.Tensor:
            rows = zip(columns.split(HeldOut.CHUNK), next_state.split(HeldOut.CHUNK), strict=True)
            widths = [state.shape[1], action.shape[1]]
            chunks = [step(*given.split(widths, dim=1)).next_state.log_prob(then) for given, then in rows]
            return -th.cat(chunks).clamp(min=-HeldOut.MOST)

        evidence = by_value(nll, th.cat([state, action], dim=1), self.factors.parent_slices)
        is_free = th.as_tensor(self.free_entries, device=state.device)
        q_values = adjusted(evidence.above(MIN_GAIN).p_value, is_free)
        self.evidence.keep(evidence, q_values, is_free & evidence.standard_error.isfinite())

    def _free_log_odds(self, bound: _Bound, inputs: ParentInputs) -> th.Tensor:
        """Of the free entries, for each row, ``[R, F]``."""
        every_parent = inputs.columns.new_ones(1, len(inputs.columns), self.features.n_parents)
        return self.edge_network(bound.edges(inputs, every_parent).squeeze(0))

    def _bind(self, with_state_gradient: bool) -> _Bound:
        features = self.features.bind(with_state_gradient)
        return _Bound(features, self.edge_layer.bind(features), self.network.bind(features))
