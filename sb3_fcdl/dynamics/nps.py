"""Neural production systems: each variable picks one rule and one other thing to look at."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, get_args

import torch as th
from torch import nn

from fcdl_envs.arguments import check, integer, one_of
from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import Prediction, StepFn
from sb3_fcdl.dynamics.dense import DenseDynamics
from sb3_fcdl.dynamics.distributions import StateDistribution, best_one_hot
from sb3_fcdl.dynamics.lookup.contents import Choices, Contents, Distinct
from sb3_fcdl.dynamics.lookup.slots import Slots
from sb3_fcdl.dynamics.stacked import StackedLinear

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
            return best_one_hot(logits)
        gumbel = -th.empty_like(logits).exponential_().log()
        soft = (logits + gumbel).softmax(-1)
        return best_one_hot(soft) + (soft - soft.detach())


class NPSDynamics(DenseDynamics):
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
    :raises ValueError: if an argument is out of its range
    :raises TypeError: if it is of a wrong type
    """

    can_be_stacked = False  # it counts what selects a rule

    def __init__(
        self,
        factors: Factors,
        n_rules: int = 20,
        hidden_dim: int = 128,
        n_layers: int = 3,
        selector_init: SelectorInitName = "scaled",
    ) -> None:
        check(
            n_rules=(n_rules, integer(1)),
            hidden_dim=(hidden_dim, integer(1)),
            n_layers=(n_layers, integer(1)),
            selector_init=(selector_init, one_of(*get_args(SelectorInitName))),
        )
        super().__init__(factors)
        self.slots = Slots(factors)
        self.contents = Contents(factors, self.slots)
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

    def _stepper(self) -> StepFn:
        looked_up = self.contents.bind(self._choices, self.selected_rule)

        def step(state: th.Tensor, action: th.Tensor) -> Prediction:
            outputs = looked_up(self.slots.read(state), action)
            if outputs is None:
                return Prediction(self.distribution(state, action))
            return Prediction(self.layout.distribution(self.slots.write(outputs), state))

        return step

    def distribution(self, state: th.Tensor, action: th.Tensor) -> StateDistribution:
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
            distinct = self.contents.distinct(one_hots, action, slot.argmax(-1))
            outputs = outputs + th.einsum("vrk,kvro->vro", rule - rule.detach(), self._every_rule(inputs, distinct))
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
    def _every_rule(self, inputs: th.Tensor, distinct: Distinct) -> th.Tensor:
        """
        :param inputs: of each variable, ``[V, R, 2 * hidden_dim]``
        :param distinct: which of them to compute
        :return: of each rule, ``[n_rules, V, R, output_width]``
        """
        different, variable = inputs.flatten(0, 1)[distinct.pairs], distinct.pairs // inputs.shape[1]
        # One rule at a time: what all of them need between their layers fits no cache.
        outputs = [self._of_rule(layers, different, variable) for layers in self._by_rule()]
        return th.stack(outputs)[:, distinct.kind].unflatten(1, inputs.shape[:2])

    def _choices(self) -> Choices:
        """What the selectors choose for each category of each variable, among all that can stand in a slot."""
        of_state = self.state_features(self.contents.every_category(self.rule_embedding))
        of_action = self.action_feature(self.contents.every_action(self.rule_embedding).unsqueeze(0))
        rule = self.rule_selector(of_state, self.rule_embedding).argmax(-1).flatten()
        key = self.slot_selector.key
        keys = [
            th.baddbmm(key.bias[slots], features, key.weight[slots]).flatten(0, 1)
            for slots, features in ((slice(1, None), of_state), (slice(1), of_action))
        ]
        scores = self.slot_selector.query(of_state).flatten(0, 1) @ th.cat(keys).T
        return Choices(th.cat([of_state.flatten(0, 1), of_action.squeeze(0)]), rule, scores)


def _encoder(n_slots: int, input_dim: int, hidden_dim: int) -> nn.Sequential:
    return nn.Sequential(
        StackedLinear(n_slots, input_dim, hidden_dim), nn.ReLU(inplace=True), StackedLinear(n_slots, hidden_dim, hidden_dim)
    )
