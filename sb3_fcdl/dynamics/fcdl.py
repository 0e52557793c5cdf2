"""Fine-Grained Causal Dynamics Learning: one sparse graph for each context (Hwang et al., ICML 2024)."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch as th
from torch.nn import functional as F

from fcdl_envs.arguments import check, integer, number, one_of
from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import DynamicsModel, Losses, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.dynamics.graph.edge_learning import Antithetic, Drawn, EdgeLearning, StraightThrough
from sb3_fcdl.dynamics.graph.edges import FreeEdges
from sb3_fcdl.dynamics.graph.priors import GRAPH_PRIOR, GraphPrior, GraphPriorName
from sb3_fcdl.dynamics.graph.quantizer import GraphQuantizer, LatentQuantizer, Quantized, Quantizer
from sb3_fcdl.dynamics.lookup.features import BoundFeatures, ParentFeatures, ParentInputs, width_of_numbers
from sb3_fcdl.dynamics.lookup.linear import LinearFn, ParentLinear
from sb3_fcdl.dynamics.masked import MaskedFn, MaskedNetwork
from sb3_fcdl.dynamics.rows import mean_of_rows, shuffled_rows
from sb3_fcdl.graphs.graph import CausalGraph

Quantize = Literal["graphs", "latents"]


class _Bound(NamedTuple):
    """
    The model for one version of the weights.

    :param features: read a batch
    :param context: the first layer of the encoder
    :param masked: the masked network
    """

    features: BoundFeatures
    context: LinearFn
    masked: MaskedFn

    def encoder_inputs(self, inputs: ParentInputs, selected: th.Tensor) -> th.Tensor:
        """
        What the encoder's first layer makes of some of the parents.

        :param inputs: the batch
        :param selected: weight of each parent, ``[P]``
        :return: ``[R, hidden_dim]``
        """
        return self.context(inputs, selected.expand(1, len(inputs.columns), -1)).squeeze(0)


def fcdl_paper() -> dict[str, Any]:
    """
    :return: keyword arguments of :class:`FCDLDynamics` for the method as published (Hwang et al., 2024): codes are latent
        vectors, edges learn from a Gumbel-sigmoid, every variable selects the context, and an edge costs 0.001 nats (Eq. 6)
    """
    return {"quantize": "latents", "context_threshold": 0.0, "sparsity_coef": 0.001}


class FCDLDynamics(DynamicsModel):
    """
    A quantizer chooses a context, the context's graph masks the parents, the masked network predicts.

    The equation of the loss stands at :meth:`loss`. ``sparsity_coef`` is the price of an edge in nats. The paper has 0.001,
    its published code eleven times less; with 0.01 the contexts of Chemical form sooner, and corrupted inputs disturb them
    less.

    :param factors: the variables
    :param graph_prior: what the model is told about the graph: a base of ``GraphPrior``, or one
    :param hidden_dim: width of the features and of every layer
    :param n_layers: predictor layers of a variable
    :param n_codes: number of contexts
    :param code_dim: width of a code that stands for a latent vector
    :param sparsity_coef: price of an edge, in nats
    :param commitment_coef: weight of the commitment loss
    :param context_threshold: a variable stops selecting the context when its importance for that is below this share of the
        largest one, and below 0.01 nats; 0: all variables always select it, as published
    :param context_drop_after: updates before the first variable may stop. At first an accident often decides what selects the
        context, and a variable that has stopped does not come back
    :param ema_decay: of the codebook, per training batch
    :param quantize: what the codes stand for: ``"graphs"``, see ``GraphQuantizer``, with an unbiased gradient for the edges
        (``edge_surrogate``) and a cost that keeps them from being certain (``edge_cost``); or ``"latents"``, see
        ``LatentQuantizer``, with the gradient of a Gumbel-sigmoid and the cost of the paper
    :raises ValueError: if an argument is out of its range
    :raises TypeError: if it is of a wrong type
    """

    context_inputs: th.Tensor
    context_importance: th.Tensor
    n_measured: th.Tensor

    # Updates between two measurements of what the encoder needs: 120 before the first variable is dropped by default.
    MEASURE_EVERY = 25
    # Rows in a measurement: two batches of the default size.
    N_MEASURED_ROWS = 512
    # Nats from which a variable matters, whatever the others are worth. While no variable reaches it, contexts have not
    # formed, and nothing is known about what selects them.
    MIN_IMPORTANCE = 0.01
    # A measurement's weight in the moving average, from the tenth on; before, the average is the plain mean.
    MIN_MEASUREMENT_WEIGHT = 0.1

    def __init__(
        self,
        factors: Factors,
        graph_prior: GraphPriorName | GraphPrior = "self",
        hidden_dim: int = 128,
        n_layers: int = 2,
        n_codes: int = 16,
        code_dim: int = 16,
        sparsity_coef: float = 0.01,
        commitment_coef: float = 0.25,
        context_threshold: float = 0.05,
        context_drop_after: int = 3000,
        ema_decay: float = 0.99,
        quantize: Quantize = "graphs",
    ) -> None:
        check(
            graph_prior=(graph_prior, GRAPH_PRIOR),
            hidden_dim=(hidden_dim, integer(1)),
            n_layers=(n_layers, integer(0)),
            n_codes=(n_codes, integer(1)),
            code_dim=(code_dim, integer(1)),
            sparsity_coef=(sparsity_coef, number(at_least=0)),
            commitment_coef=(commitment_coef, number(at_least=0)),
            context_threshold=(context_threshold, number(at_least=0, below=1)),
            context_drop_after=(context_drop_after, integer(0)),
            ema_decay=(ema_decay, number(at_least=0, below=1)),
            quantize=(quantize, one_of(*get_args(Quantize))),
        )
        super().__init__(factors)
        self.context_threshold = context_threshold
        self.context_drop_after = context_drop_after
        self.sparsity_coef = sparsity_coef
        self.commitment_coef = commitment_coef
        self.free_edges = FreeEdges(factors, graph_prior)
        n_parents = len(factors.parents)
        self.register_buffer("context_inputs", th.ones(n_parents))
        self.register_buffer("context_importance", th.zeros(n_parents))
        self.register_buffer("n_measured", th.zeros(()))
        self.features = ParentFeatures(factors, hidden_dim, width_of_numbers(factors, hidden_dim))
        self.context_layer = ParentLinear(self.features, 1, hidden_dim, bias=False)
        self.edge_learning: EdgeLearning = Antithetic() if quantize == "graphs" else StraightThrough()
        self.quantizer: Quantizer
        if quantize == "graphs":
            self.quantizer = GraphQuantizer(hidden_dim, self.free_edges.n_free, n_codes, ema_decay)
        else:
            self.quantizer = LatentQuantizer(hidden_dim, self.free_edges.n_free, n_codes, code_dim, ema_decay)
        self.network = MaskedNetwork(factors, self.features, hidden_dim, n_layers)

    @property
    def free_entries(self) -> np.ndarray:
        return self.free_edges.entries

    def loss(self, windows: Windows) -> Losses:
        """
        ``L = L_pred + sparsity_coef * R + commitment_coef * Q``, Eq. (7) of the FCDL paper with a codebook of averages, where

        * ``L_pred`` is the mean over valid rows, steps and children ``j`` of ``-log p(s'_j | s, a; A)`` (Eq. 5), ``A`` sampled
        * ``R`` is the cost of the free edges of a child, mean over valid rows and steps (Eq. 6: the number of edges of ``A``)
        * ``Q`` is the squared distance of what was quantized from its code, mean over valid rows, steps and ``C`` entries
        """
        bound = self._bind(windows.needs_state_gradient)
        contexts: list[Quantized] = []
        drawn: list[Drawn] = []

        def predict(state: th.Tensor, action: th.Tensor) -> StateDistribution:
            inputs = bound.features.read(state, action)
            valid = windows.valid[:, len(contexts)]
            contexts.append(self.quantizer(bound.encoder_inputs(inputs, self.context_inputs), valid))

            def masked(mask: th.Tensor) -> StateDistribution:
                return self.layout.distribution(bound.masked(inputs, mask), state)

            drawn.append(self.edge_learning.draw(self.free_edges.fill(contexts[-1].log_odds), masked))
            return drawn[-1].prediction

        nlls = list(self.unroll(windows, predict))
        costs = [self.edge_learning.cost(context.log_odds).sum(-1) for context in contexts]
        terms = {
            "dynamics": windows.mean(nlls),
            "reg": windows.mean_of_rows(costs) / len(self.factors.state_variables),
            "commit": windows.mean_of_rows([context.commitment for context in contexts]),
        }
        total = terms["dynamics"] + self.sparsity_coef * terms["reg"] + self.commitment_coef * terms["commit"]
        steps = zip(drawn, nlls, windows.next_state.unbind(1), strict=True)
        total = total + windows.mean([self.edge_learning.surrogate(each, nll, target) for each, nll, target in steps])
        codes = th.cat([context.code for context in contexts])
        return Losses(total, {name: term.detach() for name, term in terms.items()}, codes)

    def _stepper(self) -> StepFn:
        bound = self._bind(with_state_gradient=False)
        graphs = self._graphs()

        def step(state: th.Tensor, action: th.Tensor) -> Prediction:
            inputs = bound.features.read(state, action)
            code = self.quantizer.code(bound.encoder_inputs(inputs, self.context_inputs))
            mask = graphs[code]
            return Prediction(self.layout.distribution(bound.masked(inputs, mask), state), mask, code)

        return step

    @th.no_grad()
    def context_graphs(self) -> list[CausalGraph]:
        probabilities = self.free_edges.fill(self.quantizer.graph_log_odds()).sigmoid().cpu().numpy()
        return [
            CausalGraph(graph, self.factors.state_names, self.factors.parent_names, label=f"code {code}")
            for code, graph in enumerate(probabilities)
        ]

    @property
    def context_variables(self) -> tuple[str, ...]:
        selects = self.context_inputs.bool().tolist()
        return tuple(name for name, does in zip(self.factors.parent_names, selects, strict=True) if does)

    def variable_importance(self) -> dict[str, float]:
        if self.n_measured == 0:
            return {}
        return dict(zip(self.factors.parent_names, self.context_importance.tolist(), strict=True))

    def after_update(self, n_updates: int, sample_windows: Callable[[int], Windows]) -> None:
        """
        Take from the encoder, one at a time, the variables that it does not need.

        The mask protects the prediction from a corrupted variable that does not matter. Nothing protects the choice of the
        mask: the published encoder reads all variables, and a large number in any of them leads to a wrong context.
        """
        if self.context_threshold == 0 or n_updates % self.MEASURE_EVERY:
            return
        self.eval()
        importance = self._measure_importance(sample_windows(self.N_MEASURED_ROWS))
        self.train()
        self.n_measured += 1
        self.context_importance.lerp_(importance, (1 / self.n_measured).clamp(min=self.MIN_MEASUREMENT_WEIGHT))
        score = self.context_importance.where(self.context_inputs > 0, th.inf)
        largest = self.context_importance.max()
        limit = (self.context_threshold * largest).clamp(max=self.MIN_IMPORTANCE)
        is_needless = (score.min() < limit) & (largest > self.MIN_IMPORTANCE)
        drops = is_needless & (self.n_measured * self.MEASURE_EVERY >= self.context_drop_after)
        # By arithmetic: to read the numbers, the host would have to wait for the device.
        self.context_inputs *= 1 - drops * F.one_hot(score.argmin(), len(score))
        self.context_importance *= self.context_inputs

    @th.no_grad()
    def _measure_importance(self, windows: Windows) -> th.Tensor:
        """
        What the prediction of one step loses when the encoder, and only the encoder, sees a variable of other rows.

        :param windows: recorded transitions; the first one of each window is looked at, if it is valid
        :return: nats, mean over children, ``[P]``; near zero (of either sign) for a variable that does not select the context
        """
        state, action, next_state, valid = (part[:, 0] for part in windows)
        bound = self._bind(with_state_gradient=False)
        graphs = self._graphs()
        inputs = bound.features.read(state, action)

        def loss(encoder_inputs: th.Tensor) -> th.Tensor:
            mask = graphs[self.quantizer.code(encoder_inputs)]
            return -mean_of_rows(self.layout.distribution(bound.masked(inputs, mask), state).log_prob(next_state), valid)

        together = bound.encoder_inputs(inputs, self.context_inputs)
        undisturbed = loss(together)
        losses = []
        for selected in th.diag(self.context_inputs):
            own = bound.encoder_inputs(inputs, selected)
            losses.append(loss(together - own + own[shuffled_rows(valid)]))
        return th.stack(losses) - undisturbed

    def _graphs(self) -> th.Tensor:
        """The graph of each context, 0 or 1, ``[K, V, P]``."""
        log_odds = self.free_edges.fill(self.quantizer.graph_log_odds())
        return (log_odds > 0).to(log_odds.dtype)

    def _bind(self, with_state_gradient: bool) -> _Bound:
        features = self.features.bind(with_state_gradient)
        return _Bound(features, self.context_layer.bind(features), self.network.bind(features))
