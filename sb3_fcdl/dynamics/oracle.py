"""The masked network with a graph that is given: what a model knows that need not learn the graph."""

import numpy as np
import torch as th

from fcdl_envs.arguments import check, integer, refuse
from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import DynamicsModel, Losses, PredictFn, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.dynamics.graph.priors import prior_log_odds
from sb3_fcdl.dynamics.lookup.features import ParentFeatures, width_of_numbers
from sb3_fcdl.dynamics.masked import MaskedNetwork
from sb3_fcdl.graphs.graph import CausalGraph


class OracleDynamics(DynamicsModel):
    """
    Every variable is predicted from its parents in one given graph, whatever the context.

    An oracle of the global graph only: where a local graph is sparser, FCDL may know better.

    :param factors: the variables
    :param graph: ``graph[child, parent]``, ``[V, P]``, not 0 where there is an edge, as from each continuous variable to
        itself; None: all that ``graph_prior="order"`` allows, that is every variable depends on itself, on those before it and
        on the action
    :param hidden_dim: width of the features and of every layer
    :param n_layers: predictor layers of a variable
    :raises ValueError: if the graph has another shape, or no edge from a continuous variable to itself
    """

    graph: th.Tensor

    def __init__(self, factors: Factors, graph: np.ndarray | None = None, hidden_dim: int = 128, n_layers: int = 2) -> None:
        check(hidden_dim=(hidden_dim, integer(1)), n_layers=(n_layers, integer(0)))
        super().__init__(factors)
        shape = (len(factors.state_variables), len(factors.parents))
        if graph is None:
            graph = prior_log_odds("order", factors).nan_to_num(nan=1.0).numpy() > 0
        given = np.asarray(graph)
        if given.dtype.kind not in "biuf" or np.isnan(given.astype(float)).any():
            refuse("graph", graph, "numbers or booleans [child, parent], none NaN")
        edges = given.astype(bool)
        if edges.shape != shape:
            raise ValueError(f"graph has shape {edges.shape}, the variables ask for {shape}: a row a child, a column a parent")
        for variable, depends_on_itself in zip(factors.state_variables, edges.diagonal(), strict=True):
            if not (variable.is_categorical or depends_on_itself):
                raise ValueError(f"{variable.name!r} is predicted as a change of itself: graph must have that edge")
        self.register_buffer("graph", th.as_tensor(edges).to(th.get_default_dtype()), persistent=False)
        self.features = ParentFeatures(factors, hidden_dim, width_of_numbers(factors, hidden_dim))
        self.network = MaskedNetwork(factors, self.features, hidden_dim, n_layers)

    @property
    def free_entries(self) -> np.ndarray:
        return np.zeros(self.graph.shape, dtype=bool)

    def loss(self, windows: Windows) -> Losses:
        nll = self.unrolled_nll(windows, self._bind(windows.needs_state_gradient))
        return Losses(nll, {"dynamics": nll.detach()})

    def _stepper(self) -> StepFn:
        predict = self._bind(with_state_gradient=False)
        return lambda state, action: Prediction(predict(state, action), self._masks(state))

    def context_graphs(self) -> list[CausalGraph]:
        return [CausalGraph(self.graph.cpu().numpy(), self.factors.state_names, self.factors.parent_names)]

    def _bind(self, with_state_gradient: bool) -> PredictFn:
        """The model for one version of the weights."""
        features = self.features.bind(with_state_gradient)
        masked = self.network.bind(features)

        def predict(state: th.Tensor, action: th.Tensor) -> StateDistribution:
            return self.layout.distribution(masked(features.read(state, action), self._masks(state)), state)

        return predict

    def _masks(self, state: th.Tensor) -> th.Tensor:
        """The graph for each of ``R`` rows, ``[R, V, P]``."""
        return self.graph.expand(len(state), -1, -1)
