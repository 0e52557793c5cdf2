"""GRADER: a graph from independence tests, and a recurrent network that reads each variable's parents (Ding et al., 2022)."""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch as th

from fcdl_envs.arguments import check, integer, number, one_of
from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import DynamicsModel, Losses, PredictFn, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.distributions import StateDistribution, StateLayout
from sb3_fcdl.dynamics.graph.edges import FreeEdges
from sb3_fcdl.dynamics.graph.evidence import Evidence, GraphEvidence, adjusted
from sb3_fcdl.dynamics.graph.independence import Association, association, quantile_bins
from sb3_fcdl.dynamics.graph.priors import GRAPH_PRIOR, GraphPrior, GraphPriorName
from sb3_fcdl.dynamics.lookup.parent_gru import ParentGRU
from sb3_fcdl.dynamics.stacked import VariableHeads
from sb3_fcdl.graphs.graph import CausalGraph

CITestName = Literal["stratified_chi2", "marginal_chi2"]


class GRADERDynamics(DynamicsModel):
    """
    One graph for all contexts, from independence tests on the replay buffer; each variable is predicted by a GRU that reads
    its parents.

    A test asks, for each edge that is not given, whether the next value of the child depends on the parent. All are there
    until the first round of tests; every round starts from scratch, so that an edge may come and go.

    ``"stratified_chi2"`` compares only samples that agree in the child's present value and in the whole action (but for the
    parent itself): variables persist and are correlated, and a planner chooses its actions by the state, so both would pass
    for influence. Nothing needs to be known of what an action means: 50 actions and 5 values are 250 strata, each of which
    counts for what it is worth, see ``association``. Merging sparse ones over actions would let the planner confound again,
    and leaving them out would leave nothing. The other state variables are not held fixed: one that is merely correlated with
    a parent may be found too, and one that counts only together with another (an exclusive or) may not. Where strata are too
    small to tell anything, an edge is missing.

    ``"marginal_chi2"`` asks for independence without conditions, as published: it takes every correlation for an edge.

    For the tests continuous variables are cut into quantiles of the data; of a continuous child it is the change that is cut
    and tested, since a step may be small beside the range of the variable.

    :param factors: the variables
    :param graph_prior: what the model is told about the graph: a base of ``GraphPrior``, or one
    :param ci_test: the independence test
    :param hidden_dim: width of features and hidden states
    :param discovery_freq: updates between two rounds of tests (published: 10 episodes of 25 steps, an update every 10 steps)
    :param n_discovery_windows: windows drawn for a round; the first transition of each is a sample
    :param significance: an edge has a p-value below it
    :param n_bins: quantiles that a continuous variable is cut into
    :raises ValueError: if an argument is out of its range
    :raises TypeError: if it is of a wrong type
    """

    graph: th.Tensor

    def __init__(
        self,
        factors: Factors,
        graph_prior: GraphPriorName | GraphPrior = "self",
        ci_test: CITestName = "stratified_chi2",
        hidden_dim: int = 128,
        discovery_freq: int = 25,
        n_discovery_windows: int = 20_000,
        significance: float = 0.01,
        n_bins: int = 4,
    ) -> None:
        check(
            graph_prior=(graph_prior, GRAPH_PRIOR),
            ci_test=(ci_test, one_of(*get_args(CITestName))),
            hidden_dim=(hidden_dim, integer(1)),
            discovery_freq=(discovery_freq, integer(1)),
            n_discovery_windows=(n_discovery_windows, integer(1)),
            significance=(significance, number(above=0, below=1)),
            n_bins=(n_bins, integer(2)),
        )
        super().__init__(factors)
        self.ci_test = ci_test
        self.discovery_freq = discovery_freq
        self.n_discovery_windows = n_discovery_windows
        self.significance = significance
        self.n_bins = n_bins
        self.action_layout = StateLayout(factors.action)
        self.edges = FreeEdges(factors, graph_prior)
        self.register_buffer("graph", (self.edges.fill(th.ones(1, self.edges.n_free))[0] > 0).to(th.get_default_dtype()))
        self.evidence = GraphEvidence((1, *self.graph.shape))
        self.network = ParentGRU(factors, hidden_dim)
        self.head = VariableHeads(factors, hidden_dim)

    @property
    def free_entries(self) -> np.ndarray:
        return self.edges.entries

    def loss(self, windows: Windows) -> Losses:
        nll = self.unrolled_nll(windows, self._bind())
        return Losses(nll, {"dynamics": nll.detach()})

    def _stepper(self) -> StepFn:
        predict, graph = self._bind(), self.graph
        return lambda state, action: Prediction(predict(state, action), graph.expand(len(state), -1, -1))

    def context_graphs(self) -> list[CausalGraph]:
        names = self.factors.state_names, self.factors.parent_names
        return [CausalGraph(self.graph.cpu().numpy(), *names, evidence=self.evidence.of_edges()[0])]

    def after_update(self, n_updates: int, sample_windows: Callable[[int], Windows]) -> None:
        if n_updates % self.discovery_freq == 0:
            self.discover(sample_windows(self.n_discovery_windows))

    @th.no_grad()
    def discover(self, windows: Windows) -> None:
        """
        Replace the graph by the edges that are given and those that pass the test.

        :param windows: encoded windows from the replay buffer, none of them twice
        """
        present, following = self._categories(windows)
        n_children, n_parents = self.graph.shape
        tests = []
        for child, parent in (divmod(entry, n_parents) for entry in self.edges.index.tolist()):
            alike = [child, *range(n_children, n_parents)] if self.ci_test == "stratified_chi2" else []
            strata = _strata(present[:, [column for column in alike if column != parent]])
            tests.append(association(present[:, parent], following[:, child], strata))
        if tests:
            p_values = th.stack([test.p_value for test in tests])
            self.graph.view(-1)[self.edges.index] = (p_values < self.significance).to(self.graph.dtype)
            self._keep(tests, adjusted(p_values), len(present))

    def _keep(self, tests: list[Association], q_values: th.Tensor, n: int) -> None:
        """
        The tests as evidence: the information that a parent has of its child, and its standard error if it has none. Where the
        data left nothing to chance, as of a parent that never varies, nothing was tested.

        :param n: samples
        """
        entries = th.zeros(3, *self.evidence.gain.shape, dtype=th.float64, device=q_values.device)
        entries[1], entries[2] = th.inf, 1
        gains, errors = th.stack([test.information for test in tests]), th.stack([test.spread for test in tests])
        errors = errors.where(errors > 0, th.inf)
        entries.view(3, -1)[:, self.edges.index] = th.stack([gains / n, errors / n, q_values])
        evidence = Evidence(entries[0], entries[1], th.full((1, 1, 1), n, device=q_values.device))
        self.evidence.keep(evidence, entries[2], entries[1].isfinite())

    def _categories(self, windows: Windows) -> tuple[th.Tensor, th.Tensor]:
        """The parents, ``[n, P]``, and the next state variables, ``[n, V]``, of the samples, int64."""
        state, action, next_state = (part[:, 0][windows.valid[:, 0]] for part in windows[:3])
        of_state, of_action = self.layout, self.action_layout

        def cut(numbers: th.Tensor) -> th.Tensor:
            return quantile_bins(numbers, self.n_bins)

        now = of_state.by_variable(of_state.categories(state), cut(of_state.numbers(state)))
        chosen = of_action.by_variable(of_action.categories(action), cut(of_action.numbers(action)))
        change = cut(of_state.numbers(next_state) - of_state.numbers(state))
        return th.cat([now, chosen], dim=-1), of_state.by_variable(of_state.categories(next_state), change)

    def _bind(self) -> PredictFn:
        """The model for one version of the weights and the present graph."""
        hidden = self.network.bind(self.graph)

        def predict(state: th.Tensor, action: th.Tensor) -> StateDistribution:
            return self.layout.distribution(self.head(hidden(state, action).relu()), state)

        return predict


def _strata(conditions: th.Tensor) -> th.Tensor:
    """Numbers the rows of ``[n, K]`` categories so that equal rows, and only they, have the same number, ``[n]``, int64."""
    label = conditions.new_zeros(len(conditions))
    for column in conditions.T:
        label = (label * (column.max() + 1) + column).unique(return_inverse=True)[1]
    return label
