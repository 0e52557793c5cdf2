"""Messages between all pairs of variables: between one-hot ones, a look-up for each pair of categories."""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_fcdl.dynamics.lookup import rule
from sb3_fcdl.dynamics.lookup.slots import Slots
from sb3_fcdl.dynamics.stacked import Affine


class Ends(NamedTuple):
    """
    The first layer of the edge network for one version of the weights, which is a sum over the two variables of a pair.

    :param source: of the one that listens, ``[V, W, hidden_dim]``
    :param target: of the one that is heard
    """

    source: Affine
    target: Affine


class EdgeTable(NamedTuple):
    """
    Every answer of the edge network to one-hot variables, for one version of the weights.

    :param rows: of (pair, category of the source, category of the target), flat, ``[V * (V - 1) * W * W, F]``
    :param tangents: how each row moves with category 1, 2, ... instead of category 0 of the source and of the target,
        ``[V, F, (V - 1) * W * W * 2 * (W - 1)]``, detached; None where no gradient by the inputs is wanted
    """

    rows: th.Tensor
    tangents: th.Tensor | None


class Messages(nn.Module):
    """
    One shared edge network on every ordered pair of variables, and the sum of what each variable hears.

    Edges are what costs time, and ``V`` variables of ``W`` categories have only ``V (V - 1) W^2`` different ones. These are
    computed once for a version of the weights, together with their derivatives by the inputs for the straight-through
    gradient.

    :param slots: the variables
    :param feature_dim: width of what is known of a variable, and of a message, ``F``
    :param hidden_dim: width of the hidden layers
    :param n_layers: hidden layers
    """

    sources: th.Tensor
    targets: th.Tensor

    def __init__(self, slots: Slots, feature_dim: int, hidden_dim: int, n_layers: int) -> None:
        super().__init__()
        self.slots = slots
        self.first = nn.Linear(2 * feature_dim, hidden_dim)
        self.layers = nn.ModuleList(nn.Linear(hidden_dim, hidden_dim) for _ in range(n_layers - 1))
        self.last = nn.Linear(hidden_dim, feature_dim)
        # Ordered pairs of different variables, those of one source together.
        sources, targets = (1 - th.eye(slots.n_slots)).nonzero().unbind(1)
        self.register_buffer("sources", sources, persistent=False)
        self.register_buffer("targets", targets, persistent=False)

    def bind(self, ends: Ends, n_transitions: int, with_state_gradient: bool) -> Callable[[th.Tensor], th.Tensor]:
        """
        For training, as long as the weights stay as they are.

        :param ends: the first layer, see ``Ends``
        :param n_transitions: how many will be computed
        :param with_state_gradient: whether a gradient by the states will be asked for
        :return: from ``slots [V, R, W]`` to what each variable hears, ``[V, R, F]``
        """
        width = self.slots.width
        table = None
        # Rows of the table forward and backward, and their tangents, against the edges of the batch forward and backward.
        if self._has_tables and width**2 * (3 + 2 * (width - 1)) < 3 * n_transitions:
            table = self.table(ends, with_state_gradient)

        def heard(slots: th.Tensor) -> th.Tensor:
            category = None if table is None else self.slots.categories(slots)
            if table is None or category is None:
                return self.computed(ends, slots)
            return self.looked_up(table, slots, category)

        return heard

    def bind_to_plan(self, ends: Ends, then: Callable[[th.Tensor], th.Tensor]) -> "PlannedMessages":
        """
        For planning, as long as the weights stay as they are.

        :param ends: the first layer, see ``Ends``
        :param then: a linear map that follows, ``[..., F]`` to ``[..., O]``
        """
        return PlannedMessages(self, ends, then)

    def computed(self, ends: Ends, slots: th.Tensor) -> th.Tensor:
        """What each variable hears, ``[V, R, F]``, from whatever numbers stand in ``slots [V, R, W]``."""
        inputs = ends.source(slots)[self.sources] + ends.target(slots)[self.targets]
        messages = self.last(self._hidden(inputs)[-1])
        return messages.unflatten(0, (self.slots.n_slots, self.slots.n_slots - 1)).sum(1)

    def looked_up(self, table: EdgeTable, slots: th.Tensor, category: th.Tensor) -> th.Tensor:
        """The same for one-hot ``slots`` of these categories, ``[V, R]``."""
        n_slots, n_rows, width = slots.shape
        entry = category[self.sources] * width + category[self.targets]
        entry = entry.unflatten(0, (n_slots, n_slots - 1)).transpose(1, 2)
        pairs = th.arange(len(self.sources), device=slots.device).view(n_slots, 1, n_slots - 1)
        bags = (entry + pairs * width**2).flatten(0, 1)
        heard = F.embedding_bag(bags, table.rows, mode="sum").unflatten(0, (n_slots, n_rows))
        if table.tangents is None:
            return heard
        return _GradientByInputs.apply(heard, slots, entry, self.targets, table.tangents)

    def table(self, ends: Ends, with_state_gradient: bool) -> EdgeTable:
        """Two one-hot variables at a time; a row of ``weight`` is what a category gives."""
        source, target = ends
        of_source, of_target = (source.weight + source.bias)[self.sources], (target.weight + target.bias)[self.targets]
        hidden = self._hidden(of_source.unsqueeze(2) + of_target.unsqueeze(1))
        rows = self.last(hidden[-1])
        tangents = self._tangents(ends, hidden) if with_state_gradient else None
        return EdgeTable(rows.flatten(0, 2), tangents)

    @property
    def _has_tables(self) -> bool:
        return self.slots.have_tables(self.last.weight.device) and self.slots.n_slots > 1

    def _hidden(self, inputs: th.Tensor) -> list[th.Tensor]:
        """The hidden layers, from the first one before its activation."""
        hidden = [inputs.relu()]
        for layer in self.layers:
            hidden.append(layer(hidden[-1]).relu_())
        return hidden

    @th.no_grad()
    def _tangents(self, ends: Ends, hidden: list[th.Tensor]) -> th.Tensor:
        """See ``EdgeTable``; ``hidden`` are ``[V * (V - 1), W, W, hidden_dim]``."""
        weights = (ends.source.weight[self.sources], ends.target.weight[self.targets])
        moves = th.cat([weight[:, 1:] - weight[:, :1] for weight in weights], dim=1)[:, None, None]
        moves = moves * (hidden[0] > 0).unsqueeze(-2)
        for layer, outputs in zip(self.layers, hidden[1:], strict=True):
            moves = (moves @ layer.get_parameter("weight").T).mul_((outputs > 0).unsqueeze(-2))
        moves = moves @ self.last.weight.T
        return moves.unflatten(0, (self.slots.n_slots, -1)).flatten(1, -2).transpose(1, 2)


class PlannedMessages:
    """
    What each variable hears, sent through a linear map, for one version of the weights.

    :param messages: the edge network
    :param ends: its first layer
    :param then: the linear map, ``[..., F]`` to ``[..., O]``
    """

    def __init__(self, messages: Messages, ends: Ends, then: Callable[[th.Tensor], th.Tensor]) -> None:
        self.messages = messages
        self.ends = ends
        self.then = then
        self.device = messages.last.weight.device
        self.may_look_up = messages.slots.have_tables(self.device) and messages.slots.n_slots > 1

    @cached_property
    def table(self) -> EdgeTable:
        rows = self.messages.table(self.ends, with_state_gradient=False).rows
        # A sum of linear images is the image of the sum: the linear map is computed once a row of the table.
        return EdgeTable(self.then(rows), None)

    def __call__(self, state: th.Tensor, slots: th.Tensor) -> th.Tensor:
        """
        :param state: ``[R, D]``
        :param slots: the same in slots, ``[V, R, W]``
        :return: ``[V, R, O]``
        """
        messages = self.messages
        # A table has as many rows a pair as there are pairs of categories.
        category = messages.slots.categories(slots) if self.may_look_up and len(state) >= messages.slots.width**2 else None
        if category is not None:
            return messages.looked_up(self.table, slots, category)
        if not rule.uses_tables(self.device):
            return self.then(messages.computed(self.ends, slots))
        # Edges do not depend on the action, and a planner asks for many actions in one state.
        states, index = state.unique(dim=0, return_inverse=True)
        return self.then(messages.computed(self.ends, messages.slots.read(states)))[:, index]


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
