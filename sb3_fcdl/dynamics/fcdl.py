"""Fine-Grained Causal Dynamics Learning: one sparse graph for each context (Hwang et al., ICML 2024)."""

from typing import NamedTuple

import torch as th

from sb3_fcdl.dynamics.base import DynamicsModel, Losses, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.layers import LinearTables, ParentFeatures, ParentLinear
from sb3_fcdl.dynamics.masked import MaskedNetwork
from sb3_fcdl.dynamics.masks import GraphPriorName, prior_log_odds, sample_edges
from sb3_fcdl.dynamics.quantizer import Quantized, Quantizer
from sb3_fcdl.factorization import Factorization
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

    :param factorization: the variables
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
        factorization: Factorization,
        graph_prior: GraphPriorName = "order",
        hidden_dim: int = 128,
        n_layers: int = 2,
        n_codes: int = 16,
        code_dim: int = 16,
        sparsity_coef: float = 0.01,
        commitment_coef: float = 0.25,
        ema_decay: float = 0.99,
    ) -> None:
        super().__init__(factorization)
        self.sparsity_coef = sparsity_coef
        self.commitment_coef = commitment_coef
        log_odds = prior_log_odds(graph_prior, len(self.sizes), len(factorization.parents))
        self.free_entries = log_odds.isnan().numpy()
        self.register_buffer("log_odds", log_odds.nan_to_num(), persistent=False)
        self.register_buffer("free_index", log_odds.isnan().flatten().nonzero().squeeze(-1), persistent=False)
        self.features = ParentFeatures(factorization, hidden_dim)
        self.context_layer = ParentLinear(self.features, 1, hidden_dim, bias=False)
        self.quantizer = Quantizer(hidden_dim, len(self.free_index), n_codes, code_dim, ema_decay)
        self.network = MaskedNetwork(factorization, self.features, hidden_dim, n_layers)

    def loss(self, windows: Windows) -> Losses:
        tables = self._tables(with_tangents=True)
        state = windows.state[:, 0]
        nll, n_valid = state.new_zeros(()), windows.valid.sum().clamp(min=1)
        sparsity, commitment, codes = [], [], []
        for step in range(windows.state.shape[1]):
            logits, quantized = self._training_step(tables, state, windows.action[:, step])
            step_nll = self.negative_log_likelihood(logits, windows.next_state[:, step]).mean(-1)
            # Rows that have left their episode still pass through: model samples under real actions, harmless to averages.
            nll = nll + (step_nll * windows.valid[:, step]).sum()
            sparsity.append(quantized.log_odds.sigmoid().sum(-1).mean() / len(self.sizes))
            commitment.append(quantized.commitment)
            codes.append(quantized.code)
            state = self.sample_straight_through(logits)
        terms = {"dynamics": nll / n_valid, "reg": th.stack(sparsity).mean(), "commit": th.stack(commitment).mean()}
        total = terms["dynamics"] + self.sparsity_coef * terms["reg"] + self.commitment_coef * terms["commit"]
        return Losses(total, {name: term.detach() for name, term in terms.items()}, th.cat(codes))

    def _training_step(self, tables: _Tables, state: th.Tensor, action: th.Tensor) -> tuple[th.Tensor, Quantized]:
        """Logits, ``[B, D]``, and the contexts of a batch."""
        inputs = self.features.read(state, action)
        quantized = self.quantizer(self.context_layer(self.features, tables.context, inputs).squeeze(0))
        mask = sample_edges(self._log_odds(quantized.log_odds))
        return self.network(self.features, tables.prediction, inputs, mask), quantized

    def stepper(self) -> StepFn:
        if self.training:
            raise RuntimeError("the model is in train mode: call eval() before planning or reading graphs")
        tables = self._tables(with_tangents=False)
        graphs = (self._log_odds(self.quantizer.graph_log_odds()) > 0).to(self.log_odds.dtype)

        def step(state: th.Tensor, action: th.Tensor) -> Prediction:
            inputs = self.features.read(state, action)
            code = self.quantizer.code(self.context_layer(self.features, tables.context, inputs).squeeze(0))
            mask = graphs[code]
            return Prediction(self.network(self.features, tables.prediction, inputs, mask), mask, code)

        return step

    @th.no_grad()
    def context_graphs(self) -> list[CausalGraph]:
        probabilities = self._log_odds(self.quantizer.graph_log_odds()).sigmoid().cpu().numpy()
        names = self.factorization
        return [
            CausalGraph(graph, names.state_names, names.parent_names, label=f"code {code}")
            for code, graph in enumerate(probabilities)
        ]

    def _tables(self, with_tangents: bool) -> _Tables:
        return _Tables(
            self.context_layer.tables(self.features, with_tangents),
            self.network.aggregation.tables(self.features, with_tangents),
        )

    def _log_odds(self, free: th.Tensor) -> th.Tensor:
        """``[R, F]`` free entries to ``[R, V, P]``, given ones filled in."""
        given = self.log_odds.flatten().expand(len(free), -1)
        return given.scatter(1, self.free_index.expand(len(free), -1), free).unflatten(1, self.log_odds.shape)
