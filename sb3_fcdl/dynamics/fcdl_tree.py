"""Fine-grained causal dynamics learning by evidence: a tree of tests chooses the context, held-out data its graph."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch as th

from fcdl_envs.arguments import check, integer
from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import DynamicsModel, Losses, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.dynamics.graph.edges import FreeEdges
from sb3_fcdl.dynamics.graph.evidence import Evidence
from sb3_fcdl.dynamics.graph.held_out import HeldOut
from sb3_fcdl.dynamics.graph.judgement import ALPHA, MIN_ROWS, Judgement, judge_edges
from sb3_fcdl.dynamics.graph.priors import GRAPH_PRIOR, GraphPrior, GraphPriorName
from sb3_fcdl.dynamics.graph.splits import best_split
from sb3_fcdl.dynamics.graph.tree import ContextTree
from sb3_fcdl.dynamics.lookup.features import BoundFeatures, ParentFeatures
from sb3_fcdl.dynamics.masked import MaskedFn, MaskedNetwork
from sb3_fcdl.dynamics.rows import shuffled_rows
from sb3_fcdl.graphs.evidence import EdgeEvidence
from sb3_fcdl.graphs.graph import CausalGraph


class _Bound(NamedTuple):
    """
    The model for one version of the weights.

    :param features: read a batch
    :param masked: the masked network
    """

    features: BoundFeatures
    masked: MaskedFn


class ContextTreeDynamics(DynamicsModel):
    """
    FCDL with contexts and edges by evidence. A tree of tests on the variables chooses the context, the context's graph masks
    the parents, and the masked network, which knows the context, predicts.

    Nothing is decided by a price. A fifth of the transitions is never trained on (``Experience.draw``), and from time to time
    they decide:

    * which edges each context has: those that held-out transitions support, see ``judge_edges``;
    * where a context is two: where an edge is needed on one side of a test on a variable and needless on the other, see
      ``best_split``. The choice of the context reads the variables of these tests and no others, so that a corrupted variable
      that is not among them cannot change it;
    * whether a test is still worthwhile: one whose two sides no longer differ is undone.

    The network learns to predict from the graphs that are planned with, from these graphs less one edge, and from these graphs
    and any more edges: what is compared has been learned.

    :param factors: the variables
    :param graph_prior: what the model is told about the graph: a base of ``GraphPrior``, or one
    :param hidden_dim: width of the features and of every layer
    :param n_layers: predictor layers of a variable
    :param n_codes: most contexts
    :raises ValueError: if an argument is out of its range
    :raises TypeError: if it is of a wrong type
    """

    holds_out = 5

    graphs: th.Tensor
    gain: th.Tensor
    standard_error: th.Tensor
    q_values: th.Tensor
    is_tested: th.Tensor
    n_held_out: th.Tensor
    importance: th.Tensor

    # Updates before the first judgement. From then on each comes when there were a fifth more updates than at the last.
    FIRST_JUDGEMENT = 100
    JUDGEMENTS_GROW = 1.2
    # Most transitions in a judgement.
    N_JUDGED = 8192
    # Share of the edges that a transition has, mean over all, that a test must save: more contexts are not worth their number.
    WORTH = 0.01
    # Standard errors by which an edge must be needed on one side of a test for the test to stay.
    KEEP_Z = 3.0
    # In so many rows one entry of each child is left out; in so many, others are added.
    LEFT_OUT, ADDED = 0.4, 0.5

    def __init__(
        self,
        factors: Factors,
        graph_prior: GraphPriorName | GraphPrior = "self",
        hidden_dim: int = 128,
        n_layers: int = 2,
        n_codes: int = 64,
    ) -> None:
        check(
            graph_prior=(graph_prior, GRAPH_PRIOR),
            hidden_dim=(hidden_dim, integer(1)),
            n_layers=(n_layers, integer(0)),
            n_codes=(n_codes, integer(1)),
        )
        super().__init__(factors)
        self.free_edges = FreeEdges(factors, graph_prior)
        shape = (n_codes, len(factors.state_variables), len(factors.parents))
        self.tree = ContextTree(factors, n_codes)
        self.register_buffer("graphs", (self.free_edges.given >= 0).float().expand(shape).clone())
        self.register_buffer("gain", th.zeros(shape))
        self.register_buffer("standard_error", th.full(shape, th.inf))
        self.register_buffer("q_values", th.ones(shape))
        self.register_buffer("is_tested", th.zeros(shape))
        self.register_buffer("n_held_out", th.zeros(n_codes))
        self.register_buffer("importance", th.zeros(shape[2]))
        self.features = ParentFeatures(factors, hidden_dim)
        self.network = MaskedNetwork(factors, self.features, hidden_dim, n_layers, n_codes)

    @property
    def free_entries(self) -> np.ndarray:
        return self.free_edges.entries

    def loss(self, windows: Windows) -> Losses:
        """
        ``-log p(s'_j | s, a; A, k)``, mean over valid rows, steps and children ``j``: ``k`` is the context that the tree
        chooses, ``A`` its graph with entries left out or added at random.
        """
        bound = self._bind(windows.needs_state_gradient)
        codes: list[th.Tensor] = []

        def predict(state: th.Tensor, action: th.Tensor) -> StateDistribution:
            inputs = bound.features.read(state, action)
            codes.append(self.tree(inputs.columns.detach()))
            graph = self._nearly(self.graphs[codes[-1]])
            return self.layout.distribution(bound.masked(inputs, graph, codes[-1]), state)

        nll = self.unrolled_nll(windows, predict)
        return Losses(nll, {"dynamics": nll.detach()}, th.cat(codes))

    def _nearly(self, graphs: th.Tensor) -> th.Tensor:
        """``[R, V, P]`` likewise: of each child one entry is left out now and then, preferably an edge, and some are added."""
        free = self.free_edges.is_free
        which = th.rand_like(graphs)
        which = th.where(free & (graphs > 0), which + 1, which.masked_fill(~free, -1))
        each_child = graphs[..., :1]
        is_left_out = (which == which.amax(-1, keepdim=True)) & free & (th.rand_like(each_child) < self.LEFT_OUT)
        rate = th.rand_like(each_child) * (th.rand_like(each_child) < self.ADDED)
        is_added = (th.rand_like(graphs) < rate) & free
        return (((graphs > 0) | is_added) & ~is_left_out).to(graphs.dtype)

    def _stepper(self) -> StepFn:
        bound = self._bind(with_state_gradient=False)

        def step(state: th.Tensor, action: th.Tensor) -> Prediction:
            inputs = bound.features.read(state, action)
            code = self.tree(inputs.columns)
            graph = self.graphs[code]
            return Prediction(self.layout.distribution(bound.masked(inputs, graph, code), state), graph, code)

        return step

    @th.no_grad()
    def context_graphs(self) -> list[CausalGraph]:
        names = self.factors.state_names, self.factors.parent_names
        of_codes = (self.graphs, self.gain, self.standard_error, self.q_values, self.is_tested > 0)
        arrays = zip(*(each.cpu().numpy() for each in of_codes), self.n_held_out.int().tolist(), strict=True)
        return [
            CausalGraph(graph, *names, label=f"code {code}", evidence=EdgeEvidence(*evidence))
            for code, (graph, *evidence) in enumerate(arrays)
        ]

    @property
    def context_variables(self) -> tuple[str, ...]:
        return tuple(
            name for name, is_read in zip(self.factors.parent_names, self.tree.reads.tolist(), strict=True) if is_read
        )

    def variable_importance(self) -> dict[str, float]:
        if not self.n_held_out.any():
            return {}
        return dict(zip(self.factors.parent_names, self.importance.tolist(), strict=True))

    def after_update(self, n_updates: int, sample_windows: Callable[[int], Windows]) -> None:
        """Judge contexts and edges by transitions that were never trained on, when it is time."""
        if not self._is_due(n_updates):
            return
        windows = sample_windows(self.N_JUDGED)
        if int(windows.valid[:, 0].sum()) < MIN_ROWS:
            return
        self.eval()
        self.judge(windows)
        self.train()

    def _is_due(self, n_updates: int) -> bool:
        last, now = (
            np.floor(np.log(max(each, 1) / self.FIRST_JUDGEMENT) / np.log(self.JUDGEMENTS_GROW))
            for each in (n_updates - 1, n_updates)
        )
        return n_updates >= self.FIRST_JUDGEMENT and now > last

    @th.no_grad()
    def judge(self, windows: Windows) -> None:
        """
        Find the edges of each context, undo tests that are not worthwhile, and look for better ones.

        :param windows: never trained on; the first transition of each counts
        """
        bound = self._bind(with_state_gradient=False)
        held_out = HeldOut(self.factors, self.layout, bound.features, bound.masked, windows)
        judgement = self._judge_edges(held_out)
        self._merge(held_out, judgement)
        if self._split(held_out, judgement):
            self._judge_edges(held_out)
        self._measure_importance(held_out)

    def _judge_edges(self, held_out: HeldOut) -> Judgement:
        code = self.tree(held_out.columns)
        order = self.gain.clamp(min=0).sum((0, 1)).argsort().tolist()
        judgement = judge_edges(held_out, code, self.graphs, self.free_edges.is_free, order)
        self.graphs.copy_(judgement.graphs)
        self.gain.copy_(judgement.evidence.gain)
        self.standard_error.copy_(judgement.evidence.standard_error)
        self.q_values.copy_(judgement.q_values)
        self.is_tested.copy_(judgement.is_tested)
        self.n_held_out.copy_(th.bincount(code, minlength=len(self.graphs)))
        return judgement

    def _mean_edges(self, code: th.Tensor) -> float:
        return float((self.graphs[code] * self.free_edges.is_free).sum((1, 2)).mean())

    def _merge(self, held_out: HeldOut, judgement: Judgement) -> None:
        """Undo each last test that saves too little: few edges are there on one side and clearly needless on the other."""
        while True:
            code = self.tree(held_out.columns)
            needed = 0.5 * self.WORTH * self._mean_edges(code)
            needless = [
                (leaf, other, test)
                for leaf, other, test in self.tree.siblings()
                if self._kept_by(leaf, other, test, code, judgement.by_value) < needed
            ]
            if not needless:
                return
            leaf, other, test = needless[0]
            union = th.maximum(self.graphs[leaf], self.graphs[other])
            # Constant on either side, the variable had no edge; the next judgement finds those that it needs now.
            is_read = self.tree.parents_of(test)
            union[:, is_read] = th.maximum(union[:, is_read], self.free_edges.is_free[:, is_read].to(union.dtype))
            self.graphs[leaf] = union
            self.tree.merge(leaf, other, test)

    def _kept_by(self, leaf: int, other: int, test: int, code: th.Tensor, by_value: th.Tensor) -> float:
        """
        Edges that a test saves, mean over all transitions: clearly needed on one side, and on the other not there, or worth
        less without being worth anything by themselves.
        """
        rows = (code == leaf) | (code == other)
        side = (code[rows] == other).long()
        n = th.bincount(side, minlength=2)
        if n.min() < MIN_ROWS // 2:
            return 0.0
        is_counted = self.free_edges.is_free & ~self.tree.parents_of(test)
        there = th.stack([self.graphs[each][is_counted] > 0 for each in (leaf, other)])
        value = Evidence.of(by_value[rows][:, is_counted], side, 2)
        least = value.gain - self.KEEP_Z * value.standard_error
        differs = value.gain - value.gain.flip(0) < -self.KEEP_Z * value.standard_error.square().sum(0).sqrt()
        is_needless = ~there | (differs & (value.p_value > ALPHA))
        saved = (is_needless & (there & (least > 0)).flip(0)).sum(1)
        return float((n * saved).sum() / len(code))

    def _split(self, held_out: HeldOut, judgement: Judgement) -> bool:
        """Split each context in two by its best test, if that saves enough; those that save most first. Whether any was."""
        code = self.tree(held_out.columns)
        needed = self.WORTH * self._mean_edges(code)
        found = []
        for leaf in self.tree.leaves:
            rows = code == leaf
            edges = ((self.graphs[leaf] > 0) & self.free_edges.is_free).nonzero()
            if rows.sum() < 4 * MIN_ROWS or not len(edges):
                continue
            gains = judgement.by_value[rows][:, edges[:, 0], edges[:, 1]].double()
            split = best_split(self.factors, held_out.columns[rows], gains, edges[:, 1])
            share = float(rows.double().mean())
            if split is not None and split.saved * share >= needed:
                found.append((split.saved * share, leaf, split))
        for _, leaf, split in sorted(found, key=lambda each: -each[0]):
            new = self.tree.split(leaf, split.weights, split.threshold)
            if new is None:  # there is no room for another context
                break
            for buffer in (
                self.graphs,
                self.gain,
                self.standard_error,
                self.q_values,
                self.is_tested,
                self.network.of_context,
            ):
                assert buffer is not None
                buffer[new] = buffer[leaf]
        return bool(found)

    def _measure_importance(self, held_out: HeldOut) -> None:
        """What a transition loses when the choice of the context, and only that, sees a variable of another transition."""
        code = self.tree(held_out.columns)
        undisturbed = held_out.nll(self.graphs[code], code)
        every = th.ones(len(held_out), dtype=th.bool, device=code.device)
        for parent, is_read in enumerate(self.tree.reads.tolist()):
            self.importance[parent] = 0
            if is_read:
                other = self.tree(held_out.columns_with(parent, shuffled_rows(every)))
                self.importance[parent] = (held_out.nll(self.graphs[other], other) - undisturbed).mean()

    def _bind(self, with_state_gradient: bool) -> _Bound:
        features = self.features.bind(with_state_gradient)
        return _Bound(features, self.network.bind(features))
