"""A graph neural network over the variables, each of which hears from every other one: the transition of C-SWM."""

from functools import cache
from typing import NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import DynamicsModel, Losses, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.dynamics.slots import Slots
from sb3_fcdl.dynamics.stacked import StackedLinear
from sb3_fcdl.graphs.graph import CausalGraph


class _Affine(NamedTuple):
    """One linear layer a variable: ``weight [V, I, O]``, ``bias [V, 1, O]``."""

    weight: th.Tensor
    bias: th.Tensor

    def __call__(self, inputs: th.Tensor) -> th.Tensor:
        return th.baddbmm(self.bias, inputs, self.weight)


class _Products(NamedTuple):
    """
    Products of the matrices that meet without an activation between them, for one version of the weights.

    :param source: what a variable gives to the first edge layer as the one that listens, ``[V, W, hidden_dim]``
    :param target: likewise as the one that is heard
    :param own: what it gives to its own first node layer
    :param head: from the last hidden layer of a node to its output
    """

    source: _Affine
    target: _Affine
    own: _Affine
    head: _Affine


class _EdgeTable(NamedTuple):
    """
    Every answer of the edge network to one-hot variables, for one version of the weights.

    :param rows: of (pair, category of the source, category of the target), flat, ``[V * (V - 1) * W * W, F]``
    :param tangents: how each row moves with category 1, 2, ... instead of category 0 of the source and of the target,
        ``[V, F, (V - 1) * W * W * 2 * (W - 1)]``, detached; None where no gradient by the inputs is wanted
    """

    rows: th.Tensor
    tangents: th.Tensor | None


class GNNDynamics(DynamicsModel):
    """
    Each ordered pair of variables sends a message through one shared edge network; the sum of what a variable hears, its own
    embedding and the action pass one shared node network (Kipf et al., 2020, as used by the FCDL paper). It has no graph.

    Edges are what costs time, and ``V`` variables of ``W`` categories have only ``V (V - 1) W^2`` different ones: they are
    computed once for a version of the weights, together with their derivatives by the inputs for the straight-through
    gradient, and looked up. With continuous or corrupted variables each edge is computed where it occurs; the numbers are
    the same.

    The default widths are the largest that keep a training run in Chemical within eight times the time of FCDL's on a CPU;
    the published ones, 256 and 512, need 1.75 times the multiplications of these.

    :param factors: the variables
    :param feature_dim: width of the embedding of a variable and of a message (published: 256)
    :param hidden_dim: width of the hidden layers of both networks (published: 512)
    :param n_layers: hidden layers of each network
    """

    has_graph = False
    sources: th.Tensor
    targets: th.Tensor

    def __init__(self, factors: Factors, feature_dim: int = 192, hidden_dim: int = 384, n_layers: int = 3) -> None:
        super().__init__(factors)
        self.slots = Slots(factors)
        n_slots = self.slots.n_slots
        self.embedding = StackedLinear(n_slots, self.slots.width, feature_dim)
        self.edge_input = nn.Linear(2 * feature_dim, hidden_dim)
        self.edge_layers = nn.ModuleList(nn.Linear(hidden_dim, hidden_dim) for _ in range(n_layers - 1))
        self.edge_output = nn.Linear(hidden_dim, feature_dim)
        self.input_widths = [feature_dim, factors.action_width, feature_dim]
        self.node_input = nn.Linear(sum(self.input_widths), hidden_dim)
        self.node_layers = nn.ModuleList(nn.Linear(hidden_dim, hidden_dim) for _ in range(n_layers - 1))
        self.node_output = nn.Linear(hidden_dim, feature_dim)
        self.head = StackedLinear(n_slots, feature_dim, self.slots.output_width)
        # Ordered pairs of different variables, those of one source together.
        sources, targets = (1 - th.eye(n_slots)).nonzero().unbind(1)
        self.register_buffer("sources", sources, persistent=False)
        self.register_buffer("targets", targets, persistent=False)

    def loss(self, windows: Windows) -> Losses:
        products = self._products()
        table = None
        # Rows of the table forward and backward, and their tangents, against the edges of the batch forward and backward.
        width, n_transitions = self.slots.width, windows.valid.numel()
        if self._has_tables and width**2 * (3 + 2 * (width - 1)) < 3 * n_transitions:
            table = self._edge_table(products, with_tangents=windows.needs_state_gradient)

        def predict(state: th.Tensor, action: th.Tensor) -> StateDistribution:
            slots = self.slots.read(state)
            if table is not None and self.slots.are_one_hot(slots):
                heard = self._looked_up(table, slots)
            else:
                heard = self._computed(products, slots)
            outputs = self._node_outputs(products, slots, action, self._node_part(heard))
            return self.layout.distribution(outputs, state)

        nll = self.unrolled_nll(windows, predict)
        return Losses(nll, {"dynamics": nll.detach()})

    def _stepper(self) -> StepFn:
        products = self._products()

        @cache
        def table() -> _EdgeTable:
            rows = self._edge_table(products, with_tangents=False).rows
            # A sum of linear images is the image of the sum: what follows the sum is done once a row.
            return _EdgeTable(self._node_part(rows), None)

        def step(state: th.Tensor, action: th.Tensor) -> Prediction:
            slots = self.slots.read(state)
            if self._has_tables and len(state) >= self.slots.width**2 and self.slots.are_one_hot(slots):
                heard = self._looked_up(table(), slots)
            elif state.device.type != "cpu":
                heard = self._node_part(self._computed(products, slots))
            else:
                # Edges do not depend on the action, and a planner asks for many actions in one state.
                states, index = state.unique(dim=0, return_inverse=True)
                heard = self._node_part(self._computed(products, self.slots.read(states)))[:, index]
            return Prediction(self.layout.distribution(self._node_outputs(products, slots, action, heard), state))

        return step

    def context_graphs(self) -> list[CausalGraph]:
        return []

    @property
    def _has_tables(self) -> bool:
        return self.slots.looks_up(self.node_input.weight.device) and self.slots.n_slots > 1

    def _products(self) -> _Products:
        embedding, last = self.embedding, self.node_output
        source, target = self.edge_input.weight.T.chunk(2)
        own = self.node_input.weight.T[: self.input_widths[0]]
        return _Products(
            _Affine(embedding.weight @ source, embedding.bias @ source + self.edge_input.bias),
            _Affine(embedding.weight @ target, embedding.bias @ target),
            _Affine(embedding.weight @ own, embedding.bias @ own + self.node_input.bias),
            _Affine(last.weight.T @ self.head.weight, last.bias[None] @ self.head.weight + self.head.bias),
        )

    def _edge_layers(self, inputs: th.Tensor) -> list[th.Tensor]:
        """The hidden layers of the edge network, from the first one before its activation."""
        hidden = [inputs.relu()]
        for layer in self.edge_layers:
            hidden.append(layer(hidden[-1]).relu_())
        return hidden

    def _computed(self, products: _Products, slots: th.Tensor) -> th.Tensor:
        """What each variable hears, ``[V, R, F]``, from whatever numbers stand in ``slots [V, R, W]``."""
        inputs = products.source(slots)[self.sources] + products.target(slots)[self.targets]
        messages = self.edge_output(self._edge_layers(inputs)[-1])
        return messages.unflatten(0, (self.slots.n_slots, self.slots.n_slots - 1)).sum(1)

    def _looked_up(self, table: _EdgeTable, slots: th.Tensor) -> th.Tensor:
        """The same for one-hot ``slots``."""
        n_slots, n_rows, width = slots.shape
        category = slots.argmax(-1)
        entry = category[self.sources] * width + category[self.targets]
        entry = entry.unflatten(0, (n_slots, n_slots - 1)).transpose(1, 2)
        pairs = th.arange(len(self.sources), device=slots.device).view(n_slots, 1, n_slots - 1)
        bags = (entry + pairs * width**2).flatten(0, 1)
        heard = F.embedding_bag(bags, table.rows, mode="sum").unflatten(0, (n_slots, n_rows))
        if table.tangents is None:
            return heard
        return _GradientByInputs.apply(heard, slots, entry, self.targets, table.tangents)

    def _edge_table(self, products: _Products, with_tangents: bool) -> _EdgeTable:
        """Two one-hot variables at a time; a row of ``weight`` is what a category gives."""
        source, target = products.source, products.target
        of_source, of_target = (source.weight + source.bias)[self.sources], (target.weight + target.bias)[self.targets]
        hidden = self._edge_layers(of_source.unsqueeze(2) + of_target.unsqueeze(1))
        rows = self.edge_output(hidden[-1])
        tangents = self._tangents(products, hidden) if with_tangents else None
        return _EdgeTable(rows.flatten(0, 2), tangents)

    @th.no_grad()
    def _tangents(self, products: _Products, hidden: list[th.Tensor]) -> th.Tensor:
        """See ``_EdgeTable``; ``hidden`` are ``[V * (V - 1), W, W, hidden_dim]``."""
        ends = (products.source.weight[self.sources], products.target.weight[self.targets])
        moves = th.cat([weight[:, 1:] - weight[:, :1] for weight in ends], dim=1)[:, None, None]
        moves = moves * (hidden[0] > 0).unsqueeze(-2)
        for layer, outputs in zip(self.edge_layers, hidden[1:], strict=True):
            moves = (moves @ layer.get_parameter("weight").T).mul_((outputs > 0).unsqueeze(-2))
        moves = moves @ self.edge_output.weight.T
        return moves.unflatten(0, (self.slots.n_slots, -1)).flatten(1, -2).transpose(1, 2)

    def _node_part(self, heard: th.Tensor) -> th.Tensor:
        """What was heard, ``[..., F]``, as it enters the first node layer, ``[..., hidden_dim]``."""
        return F.linear(heard, self.node_input.weight[:, -self.input_widths[2] :])

    def _node_outputs(self, products: _Products, slots: th.Tensor, action: th.Tensor, heard: th.Tensor) -> th.Tensor:
        """The flat output of the model, ``[R, output_width]``, from what was heard, ``[V, R, hidden_dim]``."""
        of_action = self.node_input.weight.split(self.input_widths, dim=1)[1]
        hidden = (products.own(slots) + F.linear(action, of_action) + heard).relu_()
        for layer in self.node_layers:
            hidden = layer(hidden).relu_()
        return self.slots.write(products.head(hidden))


class _GradientByInputs(th.autograd.Function):
    """
    Gives sums of looked-up messages the gradient by their one-hot inputs that the edge network would have given them.

    The inputs are samples, a softmax away from logits: a constant added to the gradient by all categories of a variable
    changes nothing, so the gradient by category 0 is taken as 0, and the others relative to it.
    """

    @staticmethod
    def forward(ctx, heard, slots, entry, targets, tangents):  # type: ignore[no-untyped-def]
        """``heard [V, R, F]``, ``slots [V, R, W]``, ``entry [V, R, V - 1]``: which of ``W * W`` rows each message is."""
        ctx.save_for_backward(entry, targets, tangents)
        ctx.width = slots.shape[-1]
        return heard.view_as(heard)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        if not ctx.needs_input_grad[1]:
            return gradient, None, None, None, None
        entry, targets, tangents = ctx.saved_tensors
        shape = (2, ctx.width - 1)
        # All rows by a matrix product, then the one that was looked up: less to move than the tangents of each message.
        every = th.bmm(gradient, tangents).unflatten(-1, (entry.shape[-1], ctx.width**2, *shape))
        index = entry[..., None, None, None].expand(*entry.shape, 1, *shape)
        by_source, by_target = every.gather(3, index).squeeze(3).unbind(3)
        by_slots = by_source.sum(2).index_add_(0, targets, by_target.transpose(1, 2).flatten(0, 1))
        return gradient, F.pad(by_slots, (1, 0)), None, None, None
