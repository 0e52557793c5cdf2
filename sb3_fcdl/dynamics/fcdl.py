"""Fine-Grained Causal Dynamics Learning: one sparse graph for each context (Hwang et al., ICML 2024)."""

from typing import NamedTuple

import numpy as np
import torch as th

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import DynamicsModel, Losses, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.dynamics.layers import LinearTables, ParentFeatures, ParentLinear
from sb3_fcdl.dynamics.masked import MaskedNetwork
from sb3_fcdl.dynamics.masks import GraphPriorName, prior_log_odds, sample_edges
from sb3_fcdl.dynamics.quantizer import Quantized, Quantizer
from sb3_fcdl.graph import CausalGraph


class _Tables(NamedTuple):
    """Both layers that read the parents' features, for one version of the weights."""

    context: LinearTables
    prediction: LinearTables


class FCDLDynamics(DynamicsModel):
    """
    A quantizer chooses a context, the context's graph masks the parents, the masked network predicts.

    The loss of a step is the negative log-likelihood, averaged over variables, plus ``sparsity_coef`` times the expected
    number of free edges a variable, so that the coefficient is the price of an edge in nats (Eq. 6 of the paper), plus
    ``commitment_coef`` times the distance to the code (Eq. 7). The paper's price is 0.001, its published code's eleven times
    lower; with 0.01 the contexts of Chemical form sooner and hold better against corrupted inputs.

    :param factors: the variables
    :param graph_prior: what the model is told about the graph, see ``prior_log_odds``
    :param hidden_dim: width of the features and of every layer
    :param n_layers: predictor layers of a variable
    :param n_codes: number of contexts
    :param code_dim: width of a code
    :param sparsity_coef: price of an edge, in nats
    :param commitment_coef: weight of the commitment loss
    :param ema_decay: of the codebook, per training batch
    """

    log_odds: th.Tensor
    free_index: th.Tensor

    def __init__(
        self,
        factors: Factors,
        graph_prior: GraphPriorName = "order",
        hidden_dim: int = 128,
        n_layers: int = 2,
        n_codes: int = 16,
        code_dim: int = 16,
        sparsity_coef: float = 0.01,
        commitment_coef: float = 0.25,
        ema_decay: float = 0.99,
    ) -> None:
        super().__init__(factors)
        self.sparsity_coef = sparsity_coef
        self.commitment_coef = commitment_coef
        log_odds = prior_log_odds(graph_prior, len(factors.state_variables), len(factors.parents))
        self.register_buffer("log_odds", log_odds.nan_to_num(), persistent=False)
        self.register_buffer("free_index", log_odds.isnan().flatten().nonzero().squeeze(-1), persistent=False)
        self.features = ParentFeatures(factors, hidden_dim)
        self.context_layer = ParentLinear(self.features, 1, hidden_dim, bias=False)
        self.quantizer = Quantizer(hidden_dim, len(self.free_index), n_codes, code_dim, ema_decay)
        self.network = MaskedNetwork(factors, self.features, hidden_dim, n_layers)

    @property
    def free_entries(self) -> np.ndarray:
        free = np.zeros(self.log_odds.numel(), dtype=bool)
        free[self.free_index.cpu().numpy()] = True
        return free.reshape(self.log_odds.shape)

    def loss(self, windows: Windows) -> Losses:
        tables = self._tables(with_tangents=True)
        contexts: list[Quantized] = []

        def predict(state: th.Tensor, action: th.Tensor) -> StateDistribution:
            inputs = self.features.read(state, action)
            context = self.quantizer(self.context_layer(self.features, tables.context, inputs).squeeze(0))
            contexts.append(context)
            mask = sample_edges(self._log_odds(context.log_odds))
            return self.layout.distribution(self.network(self.features, tables.prediction, inputs, mask), state)

        n_variables = len(self.factors.state_variables)
        nll = self.unrolled_nll(windows, predict)
        n_edges = [context.log_odds.sigmoid().sum(-1).mean() for context in contexts]
        terms = {
            "dynamics": nll,
            "reg": th.stack(n_edges).mean() / n_variables,
            "commit": th.stack([context.commitment for context in contexts]).mean(),
        }
        total = nll + self.sparsity_coef * terms["reg"] + self.commitment_coef * terms["commit"]
        codes = th.cat([context.code for context in contexts])
        return Losses(total, {name: term.detach() for name, term in terms.items()}, codes)

    def _stepper(self) -> StepFn:
        tables = self._tables(with_tangents=False)
        graphs = self._graphs()

        def step(state: th.Tensor, action: th.Tensor) -> Prediction:
            inputs = self.features.read(state, action)
            code = self.quantizer.code(self.context_layer(self.features, tables.context, inputs).squeeze(0))
            mask = graphs[code]
            outputs = self.network(self.features, tables.prediction, inputs, mask)
            return Prediction(self.layout.distribution(outputs, state), mask, code)

        return step

    @th.no_grad()
    def context_graphs(self) -> list[CausalGraph]:
        probabilities = self._log_odds(self.quantizer.graph_log_odds()).sigmoid().cpu().numpy()
        return [
            CausalGraph(graph, self.factors.state_names, self.factors.parent_names, label=f"code {code}")
            for code, graph in enumerate(probabilities)
        ]

    def _graphs(self) -> th.Tensor:
        """The graph of each context, 0 or 1, ``[K, V, P]``."""
        return (self._log_odds(self.quantizer.graph_log_odds()) > 0).to(self.log_odds.dtype)

    def _tables(self, with_tangents: bool) -> _Tables:
        return _Tables(
            self.context_layer.tables(self.features, with_tangents),
            self.network.aggregation.tables(self.features, with_tangents),
        )

    def _log_odds(self, free: th.Tensor) -> th.Tensor:
        """``[R, F]`` free entries to ``[R, V, P]``, given ones filled in."""
        given = self.log_odds.flatten().expand(len(free), -1)
        return given.scatter(1, self.free_index.expand(len(free), -1), free).unflatten(1, self.log_odds.shape)
