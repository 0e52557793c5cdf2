"""Fine-grained causal dynamics learning by evidence: a tree of tests chooses the context, held-out data its graph."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch as th

from fcdl_envs.arguments import Flag, check, integer
from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import DynamicsModel, Losses, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.graph.edges import FreeEdges
from sb3_fcdl.dynamics.graph.evidence import GraphEvidence
from sb3_fcdl.dynamics.graph.growth import grow
from sb3_fcdl.dynamics.graph.held_out import HeldOut
from sb3_fcdl.dynamics.graph.judgement import MIN_ROWS, is_due, judge_edges
from sb3_fcdl.dynamics.graph.priors import GRAPH_PRIOR, GraphPrior, GraphPriorName
from sb3_fcdl.dynamics.graph.tree import ContextTree, succession
from sb3_fcdl.dynamics.lookup.features import BoundFeatures, ParentFeatures, width_of_numbers
from sb3_fcdl.dynamics.masked import MaskedFn, MaskedNetwork
from sb3_fcdl.dynamics.rows import shuffled_rows
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

    Nothing is decided by a price. A fifth of the transitions is never trained on (``Experience.draw``), and from time to time,
    once predictions do not improve much any more, they decide:

    * which contexts there are: from one context a tree is grown, which splits where an edge is needed on one side of a test on
      a variable and needless on the other, see ``grow``. The choice of the context reads the variables of these tests and no
      others, so that a corrupted variable that is not among them cannot change it;
    * which edges each context has: those that held-out transitions support, see ``judge_edges``.

    The network learns to predict from the graphs that are planned with, and in some rows from others: what is compared has
    been learned.

    :param factors: the variables
    :param graph_prior: what the model is told about the graph: a base of ``GraphPrior``, or one
    :param hidden_dim: width of the features and of every layer
    :param n_layers: predictor layers of a variable
    :param n_codes: most contexts
    :param linear_evidence: whether linear regressions of numbers on numbers, on held-out transitions, count as evidence too.
        They find contexts by the difference of two numbers, and edges, that the network has not learned yet. For systems whose
        numbers are piecewise linear, of up to about 15 numbers: the time grows with the fifth power of how many there are
    :raises ValueError: if an argument is out of its range
    :raises TypeError: if it is of a wrong type
    """

    holds_out = 5

    graphs: th.Tensor
    last_nll: th.Tensor
    changed_at: th.Tensor
    importance: th.Tensor

    # Most transitions in a judgement.
    N_JUDGED = 16384
    # Share of the nats explained by which predictions are better than at the last judgement while they still improve.
    IMPROVES = 0.02
    # Updates between a change of contexts that makes predictions worse and the judgement of their edges; and how often the
    # model asks whether they have passed: to read a buffer, the host may have to wait.
    SETTLING = 100
    ASKS_EVERY = 50
    # In this share of the rows the network learns from other graphs than those that are planned with.
    VARIED = 0.25

    def __init__(
        self,
        factors: Factors,
        graph_prior: GraphPriorName | GraphPrior = "none",
        hidden_dim: int = 128,
        n_layers: int = 2,
        n_codes: int = 64,
        linear_evidence: bool = False,
    ) -> None:
        check(
            graph_prior=(graph_prior, GRAPH_PRIOR),
            hidden_dim=(hidden_dim, integer(1)),
            n_layers=(n_layers, integer(0)),
            n_codes=(n_codes, integer(1)),
            linear_evidence=(linear_evidence, Flag()),
        )
        super().__init__(factors)
        self.linear_evidence = linear_evidence
        self.free_edges = FreeEdges(factors, graph_prior)
        shape = (n_codes, len(factors.state_variables), len(factors.parents))
        self.tree = ContextTree(factors, n_codes)
        self.register_buffer("graphs", (self.free_edges.given >= 0).float().expand(shape).clone())
        self.register_buffer("last_nll", th.tensor(th.inf))
        self.register_buffer("changed_at", th.tensor(th.inf))
        self.evidence = GraphEvidence(shape)
        self.register_buffer("importance", th.full((shape[2],), th.inf))
        self.features = ParentFeatures(factors, hidden_dim, width_of_numbers(factors, hidden_dim))
        self.network = MaskedNetwork(factors, self.features, hidden_dim, n_layers, n_codes)

    @property
    def free_entries(self) -> np.ndarray:
        return self.free_edges.entries

    def loss(self, windows: Windows) -> Losses:
        """
        ``-log p(s'_j | s, a; A, k)``, mean over valid rows, steps and children ``j``: ``k`` is the context that the tree
        chooses, ``A`` its graph with entries left out or added at random. Each step is predicted from the recorded state. In a
        sample of the model a variable may be wrong; other variables then predict it better than its own value.
        """
        bound = self._bind(with_state_gradient=windows.state.requires_grad)
        is_valid = windows.valid.unsqueeze(-1)
        # Where a window has left its episode its first step stands in: tables serve only what is one-hot in every row.
        first = (part[:, :1].where(is_valid[:, :1], 0) for part in windows[:3])
        parts = (part.where(is_valid, stand_in) for part, stand_in in zip(windows[:3], first, strict=True))
        state, action, next_state = (part.flatten(0, 1) for part in parts)
        inputs = bound.features.read(state, action)
        code = self.tree(inputs.columns.detach())
        graph = self._nearly(self.graphs[code])
        log_prob = self.layout.distribution(bound.masked(inputs, graph, code), state).log_prob(next_state)
        nll = -windows.mean(log_prob.unflatten(0, windows.valid.shape).unbind(1))
        return Losses(nll, {"dynamics": nll.detach()}, code)

    def _nearly(self, graphs: th.Tensor) -> th.Tensor:
        """
        ``[R, V, P]`` likewise, but in some rows the edges of all contexts; or for each child one entry less, preferably an
        edge; or any entries less, though every other time not itself; or any more.
        """
        free, draw = self.free_edges.is_free, th.rand_like(graphs)
        is_edge = graphs > 0
        first = th.where(free & is_edge, draw + 1, draw.masked_fill(~free, -1))
        is_any = th.rand_like(graphs) < th.rand_like(graphs[..., :1])
        is_itself = th.eye(*free.shape, dtype=th.bool, device=free.device)
        is_kept = is_itself & (th.rand_like(graphs[..., :1]) < 0.5)
        kinds = [
            (self.graphs[self.tree.is_leaf > 0] > 0).any(0) | is_edge,
            is_edge & ~(free & (first == first.amax(-1, keepdim=True))),
            is_edge & ~(free & is_any & ~is_kept),
            is_edge | free & is_any,
        ]
        kind = th.randint(int(len(kinds) / self.VARIED), graphs[:, :1, :1].shape, device=graphs.device)
        for number, varied in enumerate(kinds):
            is_edge = varied.where(kind == number, is_edge)
        return is_edge.to(graphs.dtype)

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
        # A context that there is not has the edges that are given in all.
        graphs = th.where((self.tree.is_leaf > 0).view(-1, 1, 1), self.graphs, (self.free_edges.given > 0).to(self.graphs))
        evidence = self.evidence.of_edges()
        return [
            CausalGraph(graph, *names, label=f"code {code}", evidence=each)
            for code, (graph, each) in enumerate(zip(graphs.cpu().numpy(), evidence, strict=True))
        ]

    @property
    def contexts(self) -> list[int]:
        return self.tree.leaves

    @property
    def context_variables(self) -> tuple[str, ...]:
        return tuple(
            name for name, is_read in zip(self.factors.parent_names, self.tree.reads.tolist(), strict=True) if is_read
        )

    @property
    def context_features(self) -> tuple[tuple[str, ...], ...]:
        names = self.factors.parent_names
        read = sorted({test.reads(self.factors) for test in self.tree.tests})
        return tuple(tuple(names[index] for index in variables) for variables in read)

    def variable_importance(self) -> dict[str, float]:
        if self.importance.isinf().any():
            return {}
        return dict(zip(self.factors.parent_names, self.importance.tolist(), strict=True))

    def after_update(self, n_updates: int, sample_windows: Callable[[int], Windows]) -> None:
        """
        Judge by transitions that were never trained on, when it is time: contexts and edges, or only the edges of contexts
        that are new.
        """
        if not is_due(n_updates) and n_updates % self.ASKS_EVERY:
            return
        changed_at = float(self.changed_at)
        are_new = changed_at < np.inf
        is_time = n_updates >= changed_at + self.SETTLING if are_new else is_due(n_updates)
        if not is_time:
            return
        windows = sample_windows(self.N_JUDGED)
        if int(windows.valid[:, 0].sum()) < MIN_ROWS:
            return
        self.eval()
        settles = self.judge(windows, finds_contexts=not are_new)
        self.changed_at.fill_(n_updates if settles else th.inf)
        self.train()

    @th.no_grad()
    def judge(self, windows: Windows, finds_contexts: bool = True) -> bool:
        """
        Find the contexts and the edges of each; but not yet while predictions improve: what the network has not learned cannot
        be told from what is not there.

        :param windows: never trained on; the first transition of each counts
        :param finds_contexts: whether the contexts are found anew
        :return: whether the edges of new contexts still have to be judged, once predictions are as good as before or no longer
            improve
        """
        held_out = self.held_out(windows)
        nll = self._nll(held_out)
        improved, is_little = self.last_nll - nll, self.IMPROVES * (held_out.marginal_nll() - nll).clamp(min=0)
        self.last_nll.copy_(nll)
        if improved > is_little:
            return not finds_contexts
        if finds_contexts:
            in_any = self.graphs[held_out.context.unique()].amax(0)
            tree = grow(held_out, self.free_edges.is_free, in_any, self.tree, self.units, self.linear_evidence)
            self._take(tree, held_out)
            held_out = self.held_out(windows)
            self.last_nll.copy_(self._nll(held_out))
            self._measure_importance(held_out)
        if self.last_nll - nll > is_little:
            return True
        self._judge_edges(held_out)
        return False

    def _nll(self, held_out: HeldOut) -> th.Tensor:
        """Of a next state, from the graphs that are planned with, nats, a scalar."""
        return held_out.nll(self.graphs[held_out.context]).sum(1).mean()

    def held_out(self, windows: Windows) -> HeldOut:
        """
        :param windows: the first transition of each counts
        :return: the transitions, as the model of this moment predicts them
        """
        state, action, next_state = (part[:, 0][windows.valid[:, 0]] for part in windows[:3])
        bound = self._bind(with_state_gradient=False)
        code = self.tree(th.cat([state, action], dim=-1))
        return HeldOut(self.factors, self.layout, bound.features, bound.masked, (state, action, next_state), code)

    def _take(self, tree: ContextTree, held_out: HeldOut) -> None:
        """
        Have the contexts of another tree. Each starts with the edges that its transitions had, without those of variables that
        are constant in it: what they said, the context says from now on.
        """
        before, free, n_contexts = held_out.context, self.free_edges.is_free, len(self.graphs)
        numbers, sources = succession(before, tree(held_out.columns), n_contexts)
        self.tree.load_state_dict(tree.renumbered(numbers).state_dict())
        after = self.tree(held_out.columns)
        varied, varies = ((free & held_out.varies(code, n_contexts).unsqueeze(1)) for code in (before, after))
        # That a variable had no edges where it was constant says nothing of where it is not.
        had = th.maximum(self.graphs, (free & ~varied).to(self.graphs.dtype))
        graphs, learned = self.graphs.clone(), self.network.of_context
        assert learned is not None
        told = self.network.told.clone()
        for number, source in zip(numbers[tree.leaves].tolist(), sources[tree.leaves].tolist(), strict=True):
            rows = after == number
            graphs[number] = had[before[rows].unique()].amax(0) * ~(free & ~varies[number])
            said = self.graphs[source] * (varied[source] & ~varies[number]) - 1.0 * (varies[number] & ~varied[source])
            one_of_both = (rows & (before == source)).nonzero()[:1, 0]
            inputs = held_out.features.read(held_out.state[one_of_both], held_out.action[one_of_both])
            contribution = self.network.contribution(held_out.features, inputs, said.unsqueeze(0)).squeeze(0)
            told[number] = self.network.told[source] + learned[source] - learned[number] + contribution
        self.graphs.copy_(graphs)
        self.network.told.copy_(told)
        # Nothing is known yet of contexts that have other transitions now.
        moved = before != after
        others = th.cat([before[moved], after[moved]]).unique()
        self.evidence.forget(others)

    def _judge_edges(self, held_out: HeldOut) -> None:
        free = self.free_edges.is_free
        judgement = judge_edges(held_out, held_out.context, self.graphs, free, self.linear_evidence)
        self.graphs.copy_(judgement.graphs)
        self.evidence.keep(judgement.evidence, judgement.q_values, judgement.is_tested)

    def _measure_importance(self, held_out: HeldOut) -> None:
        """What a transition loses when the choice of the context, and only that, sees a variable of another transition."""
        code = held_out.context
        undisturbed = held_out.nll(self.graphs[code])
        every = th.ones(len(held_out), dtype=th.bool, device=code.device)
        for parent, is_read in enumerate(self.tree.reads.tolist()):
            self.importance[parent] = 0
            if is_read:
                other = self.tree(held_out.columns_with(parent, shuffled_rows(every)))
                self.importance[parent] = (held_out.nll(self.graphs[other], context=other) - undisturbed).mean()

    def _bind(self, with_state_gradient: bool) -> _Bound:
        features = self.features.bind(with_state_gradient)
        return _Bound(features, self.network.bind(features))
