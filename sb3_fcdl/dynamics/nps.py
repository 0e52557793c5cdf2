"""Neural production systems: each variable picks one rule and one other thing to look at."""

from collections.abc import Iterator
from functools import cache, partial
from itertools import pairwise
from math import prod
from typing import Literal, get_args

import torch as th
from torch import nn
from torch.nn import functional as F

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import DynamicsModel, Losses, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.distributions import StateDistribution, StateLayout
from sb3_fcdl.dynamics.slots import Slots
from sb3_fcdl.dynamics.stacked import StackedLinear
from sb3_fcdl.graph import CausalGraph
from sb3_fcdl.memo import Memo
from sb3_fcdl.planning.actions import MultiDiscreteActions

SelectorInitName = Literal["scaled", "reference"]


class Selector(nn.Module):
    """
    Bilinear attention with weights of its own for each query and each key.

    :param n_queries: ``Q``
    :param n_keys: ``K``
    :param dim: width of queries and keys
    :param init: ``"scaled"`` draws the weights from U(+-1 / sqrt(dim)). ``"reference"`` draws them from U(+-sqrt(dim)), as the
        published code does: the choices start saturated and hardly learn
    """

    def __init__(self, n_queries: int, n_keys: int, dim: int, init: SelectorInitName) -> None:
        super().__init__()
        self.query = StackedLinear(n_queries, dim, dim)
        self.key = StackedLinear(n_keys, dim, dim)
        bound = dim**0.5 if init == "reference" else dim**-0.5
        for layer in (self.query, self.key):
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, queries: th.Tensor, keys: th.Tensor) -> th.Tensor:
        """
        In train mode a sample that passes the gradient of the Gumbel-softmax (temperature 1) through, else the best key.

        :param queries: ``[Q, R, dim]``
        :param keys: ``[K, R, dim]``, or ``[K, 1, dim]`` if they are the same for all rows
        :return: the key of each query, exactly one-hot, ``[Q, R, K]``
        """
        logits = th.einsum("qrd,krd->qrk", self.query(queries), self.key(keys)) / queries.shape[-1] ** 0.5
        if not self.training:
            return _one_hot(logits)
        gumbel = -th.empty_like(logits).exponential_().log()
        soft = (logits + gumbel).softmax(-1)
        return _one_hot(soft) + (soft - soft.detach())


class NPSDynamics(DynamicsModel):
    """
    Each variable selects one of ``n_rules`` networks and one contextual slot, a variable or the action, and is predicted by
    that network from its own feature and that of the slot; all variables at once (Goyal et al., 2021, in the parallel variant
    of the FCDL comparison). It has no graph. Several action variables share one slot.

    A prediction depends on the variable, its category, the slot and what stands there. Planning computes each of these
    combinations once for a version of the weights, however many states they occur in; with continuous or corrupted variables,
    and in training, each where it occurs.

    :param factors: the variables
    :param n_rules: number of rules (published: 20 in Chemical, 15 in Magnetic)
    :param hidden_dim: width of features, rule embeddings, selectors and rule layers
    :param n_layers: layers of a rule
    :param selector_init: how the selectors start, see ``Selector``
    :raises ValueError: if ``selector_init`` is unknown
    """

    has_graph = False
    # With more, or with continuous ones, nothing is looked up.
    MAX_ACTIONS = 1024

    def __init__(
        self,
        factors: Factors,
        n_rules: int = 20,
        hidden_dim: int = 128,
        n_layers: int = 3,
        selector_init: SelectorInitName = "scaled",
    ) -> None:
        super().__init__(factors)
        if selector_init not in get_args(SelectorInitName):
            raise ValueError(f"unknown selector_init {selector_init!r}, allowed: {', '.join(get_args(SelectorInitName))}")
        self.slots = Slots(factors)
        sizes = [variable.n_categories for variable in factors.action]
        self.has_numbered_actions = all(sizes) and prod(sizes) <= self.MAX_ACTIONS
        n_slots = self.slots.n_slots
        self.state_features = _encoder(n_slots, self.slots.width, hidden_dim)
        self.action_feature = _encoder(1, factors.action_width, hidden_dim)
        self.rule_embedding = nn.Parameter(th.randn(n_rules, 1, hidden_dim))
        self.rule_selector = Selector(n_slots, n_rules, hidden_dim, selector_init)
        self.slot_selector = Selector(n_slots, 1 + n_slots, hidden_dim, selector_init)
        widths = [2 * hidden_dim] + [hidden_dim] * n_layers
        self.rules = nn.ModuleList(StackedLinear(n_rules, n_in, n_out) for n_in, n_out in pairwise(widths))
        # Of each rule one head a variable, side by side.
        self.heads = StackedLinear(n_rules, hidden_dim, n_slots * self.slots.output_width)

    def loss(self, windows: Windows) -> Losses:
        nll = self.unrolled_nll(windows, self._distribution)
        return Losses(nll, {"dynamics": nll.detach()})

    def _stepper(self) -> StepFn:
        look_up = cache(partial(_LookUp, self))
        looks_up = self.slots.looks_up(self.rule_embedding.device) and self.has_numbered_actions

        def step(state: th.Tensor, action: th.Tensor) -> Prediction:
            slots = self.slots.read(state)
            is_known = looks_up and not th.is_grad_enabled() and self.slots.are_one_hot(slots)
            outputs = look_up()(slots.argmax(-1), action) if is_known else None
            if outputs is None:
                return Prediction(self._distribution(state, action))
            return Prediction(self.layout.distribution(self.slots.write(outputs), state))

        return step

    def context_graphs(self) -> list[CausalGraph]:
        return []

    def _distribution(self, state: th.Tensor, action: th.Tensor) -> StateDistribution:
        features = self.state_features(self.slots.read(state))
        slots = th.cat([self.action_feature(action.unsqueeze(0)), features])
        context = th.einsum("vrs,srd->vrd", self.slot_selector(features, slots), slots)
        rule = self.rule_selector(features, self.rule_embedding)
        inputs = th.cat([features, context], dim=-1)
        variable = th.arange(len(inputs), device=inputs.device).repeat_interleave(inputs.shape[1])
        outputs = self.selected_rule(inputs.flatten(0, 1), variable, rule.argmax(-1).flatten())
        outputs = outputs.unflatten(0, inputs.shape[:2])
        if self.training:
            # The choice is one-hot, so the other rules get no gradient; they only say what choosing them would have changed.
            # The factor is zero, its gradient is not.
            outputs = outputs + th.einsum("vrk,kvro->vro", rule - rule.detach(), self._every_rule(inputs))
        return self.layout.distribution(self.slots.write(outputs), state)

    def _by_rule(self) -> Iterator[tuple[tuple[th.Tensor, th.Tensor], ...]]:
        """Weights and biases of the layers of each rule; its heads come last."""
        layers = [*self.rules, self.heads]
        return zip(*(zip(layer.weight, layer.bias, strict=True) for layer in layers), strict=True)

    def selected_rule(self, inputs: th.Tensor, variable: th.Tensor, rule: th.Tensor) -> th.Tensor:
        """
        :param inputs: features of a variable and of the slot that it looks at, ``[N, 2 * hidden_dim]``
        :param variable: which one, ``[N]``, int64
        :param rule: that it selected, ``[N]``, int64
        :return: ``[N, output_width]``
        """
        order = rule.argsort()
        sizes = rule.bincount(minlength=len(self.rule_embedding)).tolist()
        outputs = []
        for hidden, (*layers, (weight, bias)) in zip(inputs[order].split(sizes), self._by_rule(), strict=True):
            if not len(hidden):
                continue
            for layer_weight, layer_bias in layers:
                hidden = th.addmm(layer_bias, hidden, layer_weight).relu_()
            outputs.append(th.addmm(bias, hidden, weight))
        of_every_slot = th.cat(outputs).unflatten(-1, (self.slots.n_slots, -1))
        of_slot = of_every_slot[th.arange(len(order), device=order.device), variable[order]]
        return of_slot[order.argsort()]

    @th.no_grad()
    def _every_rule(self, inputs: th.Tensor) -> th.Tensor:
        """``[V, R, 2 * hidden_dim]`` to ``[n_rules, V, R, output_width]``."""
        outputs = []
        # One at a time: what all of them need between their layers fits no cache.
        for *layers, (weight, bias) in self._by_rule():
            hidden = inputs.flatten(0, 1)
            for layer_weight, layer_bias in layers:
                hidden = th.addmm(layer_bias, hidden, layer_weight).relu_()
            own_weight = weight.unflatten(-1, (len(inputs), -1)).transpose(0, 1)
            outputs.append(th.baddbmm(bias.view(len(inputs), 1, -1), hidden.unflatten(0, inputs.shape[:2]), own_weight))
        return th.stack(outputs)


class _LookUp:
    """
    Evaluation of one-hot states and actions, for one version of the weights.

    Everything that can stand in a slot has a number: the categories, one variable after the other, then the actions. A
    combination is the category of a variable, and what stands in the slot that it looks at.

    :param model: whose actions are categorical and not too many
    """

    def __init__(self, model: NPSDynamics) -> None:
        self.model = model
        n_slots, width = model.slots.n_slots, model.slots.width
        weight = model.rule_embedding
        self.action_layout = StateLayout(model.factors.action)
        self.numbering = MultiDiscreteActions(tuple(variable.n_categories for variable in model.factors.action))
        self.actions = self.numbering.encode(self.numbering.numbered(th.arange(self.numbering.n)), weight.dtype)
        of_state = model.state_features(th.eye(width).to(weight).expand(n_slots, -1, -1))
        of_action = model.action_feature(self.actions.unsqueeze(0))
        self.rule = model.rule_selector(of_state, model.rule_embedding).argmax(-1).flatten()
        self.features = th.cat([of_state.flatten(0, 1), of_action.squeeze(0)])
        key = model.slot_selector.key
        keys = [
            th.baddbmm(key.bias[part], features, key.weight[part]).flatten(0, 1)
            for part, features in ((slice(1, None), of_state), (slice(1), of_action))
        ]
        self.scores = model.slot_selector.query(of_state).flatten(0, 1) @ th.cat(keys).T
        self.outputs = Memo()

    def __call__(self, category: th.Tensor, action: th.Tensor) -> th.Tensor | None:
        """
        :param category: of each variable, ``[V, R]``, int64
        :param action: ``[R, A]``
        :return: of the network, ``[V, R, output_width]``; None where an action is not one-hot
        """
        n_slots, width = self.model.slots.n_slots, self.model.slots.width
        number = self.numbering.number(self.action_layout.categories(action))
        if not th.equal(self.actions[number], action):
            return None
        own = category + th.arange(n_slots).unsqueeze(-1) * width
        contents = th.cat([number.unsqueeze(0) + n_slots * width, own])
        slot = self.scores[own.unsqueeze(1), contents].argmax(1)
        combination = own * self.scores.shape[1] + contents.gather(0, slot)
        rows = self.outputs.rows(combination, self.scores.numel(), self._compute)
        return self.outputs.answers[rows]

    def _compute(self, combination: th.Tensor) -> th.Tensor:
        own, content = combination // self.scores.shape[1], combination % self.scores.shape[1]
        inputs = th.cat([self.features[own], self.features[content]], dim=-1)
        return self.model.selected_rule(inputs, own // self.model.slots.width, self.rule[own])


def _encoder(n_slots: int, input_dim: int, hidden_dim: int) -> nn.Sequential:
    return nn.Sequential(
        StackedLinear(n_slots, input_dim, hidden_dim), nn.ReLU(inplace=True), StackedLinear(n_slots, hidden_dim, hidden_dim)
    )


def _one_hot(scores: th.Tensor) -> th.Tensor:
    return F.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores.dtype)
