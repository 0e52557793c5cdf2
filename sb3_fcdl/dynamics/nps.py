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
from sb3_fcdl.graphs.graph import CausalGraph
from sb3_fcdl.memo import Memo
from sb3_fcdl.planning.actions import MultiDiscreteActions

SelectorInitName = Literal["scaled", "reference"]
# Weight and bias of each.
_Layers = tuple[tuple[th.Tensor, th.Tensor], ...]


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
    combinations once for a version of the weights, however many states they occur in, and training the rules that were not
    selected once a batch; with continuous or corrupted variables each where it occurs.

    :param factors: the variables
    :param n_rules: number of rules (published: 20 in Chemical, 15 in Magnetic)
    :param hidden_dim: width of features, rule embeddings, selectors and rule layers
    :param n_layers: layers of a rule
    :param selector_init: how the selectors start, see ``Selector``
    :raises ValueError: if ``selector_init`` is unknown
    """

    has_graph = False

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
        self.contents = _Contents(factors, self.slots)
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

        def step(state: th.Tensor, action: th.Tensor) -> Prediction:
            contents = None if th.is_grad_enabled() else self.contents.numbers(self.slots.read(state), action)
            if contents is None:
                return Prediction(self._distribution(state, action))
            return Prediction(self.layout.distribution(self.slots.write(look_up()(contents)), state))

        return step

    def context_graphs(self) -> list[CausalGraph]:
        return []

    def _distribution(self, state: th.Tensor, action: th.Tensor) -> StateDistribution:
        one_hots = self.slots.read(state)
        features = self.state_features(one_hots)
        slots = th.cat([self.action_feature(action.unsqueeze(0)), features])
        slot = self.slot_selector(features, slots)
        context = th.einsum("vrs,srd->vrd", slot, slots)
        rule = self.rule_selector(features, self.rule_embedding)
        inputs = th.cat([features, context], dim=-1)
        variable = th.arange(len(inputs), device=inputs.device).repeat_interleave(inputs.shape[1])
        outputs = self.selected_rule(inputs.flatten(0, 1), variable, rule.argmax(-1).flatten())
        outputs = outputs.unflatten(0, inputs.shape[:2])
        if self.training:
            # The choice is one-hot, so the other rules get no gradient; they only say what choosing them would have changed.
            # The factor is zero, its gradient is not.
            contents = self.contents.numbers(one_hots, action)
            alike = None if contents is None else self.contents.combinations(contents, slot.argmax(-1))
            outputs = outputs + th.einsum("vrk,kvro->vro", rule - rule.detach(), self._every_rule(inputs, alike))
        return self.layout.distribution(self.slots.write(outputs), state)

    def _by_rule(self) -> Iterator[_Layers]:
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
        parts = (part[order].split(sizes) for part in (inputs, variable))
        for layers, own_inputs, own_variable in zip(self._by_rule(), *parts, strict=True):
            if len(own_inputs):
                outputs.append(self._of_rule(layers, own_inputs, own_variable))
        return th.cat(outputs)[order.argsort()]

    def _of_rule(self, layers: _Layers, inputs: th.Tensor, variable: th.Tensor) -> th.Tensor:
        """
        :param layers: of the rule, see ``_by_rule``
        :param inputs: ``[N, 2 * hidden_dim]``
        :param variable: whose they are, ``[N]``, int64
        :return: ``[N, output_width]``
        """
        *hidden_layers, (weight, bias) = layers
        for layer_weight, layer_bias in hidden_layers:
            inputs = th.addmm(layer_bias, inputs, layer_weight).relu_()
        of_every_slot = th.addmm(bias, inputs, weight).unflatten(-1, (self.slots.n_slots, -1))
        return of_every_slot[th.arange(len(variable), device=variable.device), variable]

    @th.no_grad()
    def _every_rule(self, inputs: th.Tensor, alike: th.Tensor | None) -> th.Tensor:
        """
        :param inputs: of each variable, ``[V, R, 2 * hidden_dim]``
        :param alike: the same number where they are the same, ``[V, R]``, int64; None: not known
        :return: of each rule, ``[n_rules, V, R, output_width]``
        """
        rows = th.arange(inputs.shape[:2].numel(), device=inputs.device)
        variable, given = rows // inputs.shape[1], rows
        if alike is not None:
            given = alike.flatten().unique(return_inverse=True)[1]
            rows = rows.new_empty(int(given.max()) + 1).scatter_(0, given, rows)
        distinct, variable = inputs.flatten(0, 1)[rows], variable[rows]
        # One rule at a time: what all of them need between their layers fits no cache.
        outputs = [self._of_rule(layers, distinct, variable) for layers in self._by_rule()]
        return th.stack(outputs)[:, given].unflatten(1, inputs.shape[:2])


class _Contents:
    """
    Numbers everything that can stand in a slot: the categories, one variable after the other, then the actions.

    :param factors: the variables
    :param slots: their slots
    """

    # With more, or with continuous ones, nothing is numbered.
    MAX_ACTIONS = 1024

    def __init__(self, factors: Factors, slots: Slots) -> None:
        self.slots = slots
        self.action_layout = StateLayout(factors.action)
        sizes = tuple(variable.n_categories for variable in factors.action)
        self.actions = MultiDiscreteActions(sizes) if all(sizes) and prod(sizes) <= self.MAX_ACTIONS else None

    def every_action(self, dtype: th.dtype) -> th.Tensor:
        """The encoded actions, by their numbers, ``[n, A]``."""
        assert self.actions is not None
        return self.actions.encode(self.actions.numbered(th.arange(self.actions.n)), dtype)

    def numbers(self, slots: th.Tensor, action: th.Tensor) -> th.Tensor | None:
        """
        :param slots: of the variables, ``[V, R, width]``
        :param action: ``[R, A]``
        :return: what stands in the slots, the action's first, ``[1 + V, R]``, int64; None where it has no numbers: something
            is not one-hot, or it may not be asked for, see ``Slots.looks_up``
        """
        if self.actions is None or not self.slots.looks_up(action.device) or not self.slots.are_one_hot(slots):
            return None
        number = self.actions.number(self.action_layout.categories(action))
        if not th.equal(self.actions.encode(self.actions.numbered(number), action.dtype), action):
            return None
        own = slots.argmax(-1) + th.arange(len(slots)).unsqueeze(-1) * slots.shape[-1]
        return th.cat([number.unsqueeze(0) + len(slots) * slots.shape[-1], own])

    @property
    def n(self) -> int:
        """How many numbers there are."""
        assert self.actions is not None
        return self.slots.n_slots * self.slots.width + self.actions.n

    def combinations(self, contents: th.Tensor, slot: th.Tensor) -> th.Tensor:
        """
        Numbers a variable, its category, and what stands in the slot that it looks at.

        :param contents: see ``numbers``, ``[1 + V, R]``
        :param slot: that each variable looks at, ``[V, R]``, int64
        :return: below ``n * n``, ``[V, R]``, int64
        """
        return contents[1:] * self.n + contents.gather(0, slot)


class _LookUp:
    """
    Evaluation of numbered contents, for one version of the weights.

    :param model: whose actions are numbered
    """

    def __init__(self, model: NPSDynamics) -> None:
        self.model = model
        n_slots, width = model.slots.n_slots, model.slots.width
        weight = model.rule_embedding
        of_state = model.state_features(th.eye(width).to(weight).expand(n_slots, -1, -1))
        of_action = model.action_feature(model.contents.every_action(weight.dtype).unsqueeze(0))
        self.rule = model.rule_selector(of_state, model.rule_embedding).argmax(-1).flatten()
        self.features = th.cat([of_state.flatten(0, 1), of_action.squeeze(0)])
        key = model.slot_selector.key
        keys = [
            th.baddbmm(key.bias[part], features, key.weight[part]).flatten(0, 1)
            for part, features in ((slice(1, None), of_state), (slice(1), of_action))
        ]
        self.scores = model.slot_selector.query(of_state).flatten(0, 1) @ th.cat(keys).T
        self.outputs = Memo()

    def __call__(self, contents: th.Tensor) -> th.Tensor:
        """
        :param contents: of the slots, ``[1 + V, R]``
        :return: of the network, ``[V, R, output_width]``
        """
        slot = self.scores[contents[1:].unsqueeze(1), contents].argmax(1)
        combination = self.model.contents.combinations(contents, slot)
        rows = self.outputs.rows(combination, self.model.contents.n**2, self._compute)
        return self.outputs.answers[rows]

    def _compute(self, combination: th.Tensor) -> th.Tensor:
        own, content = combination // self.model.contents.n, combination % self.model.contents.n
        inputs = th.cat([self.features[own], self.features[content]], dim=-1)
        return self.model.selected_rule(inputs, own // self.model.slots.width, self.rule[own])


def _encoder(n_slots: int, input_dim: int, hidden_dim: int) -> nn.Sequential:
    return nn.Sequential(
        StackedLinear(n_slots, input_dim, hidden_dim), nn.ReLU(inplace=True), StackedLinear(n_slots, hidden_dim, hidden_dim)
    )


def _one_hot(scores: th.Tensor) -> th.Tensor:
    return F.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores.dtype)
