"""Neural production systems: each variable picks one rule and one other thing to look at."""

from itertools import pairwise
from typing import Literal, get_args

import torch as th
from torch import nn
from torch.nn import functional as F

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.base import DynamicsModel, Losses, Prediction, StepFn, Windows
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.dynamics.slots import Slots
from sb3_fcdl.dynamics.stacked import StackedLinear
from sb3_fcdl.graph import CausalGraph

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
        return lambda state, action: Prediction(self._distribution(state, action))

    def context_graphs(self) -> list[CausalGraph]:
        return []

    def _distribution(self, state: th.Tensor, action: th.Tensor) -> StateDistribution:
        features = self.state_features(self.slots.read(state))
        slots = th.cat([self.action_feature(action.unsqueeze(0)), features])
        context = th.einsum("vrs,srd->vrd", self.slot_selector(features, slots), slots)
        rule = self.rule_selector(features, self.rule_embedding)
        inputs = th.cat([features, context], dim=-1)
        outputs = self._selected_rule(inputs, rule.argmax(-1))
        if self.training:
            # The choice is one-hot, so the other rules get no gradient; they only say what choosing them would have changed.
            # The factor is zero, its gradient is not.
            outputs = outputs + th.einsum("vrk,kvro->vro", rule - rule.detach(), self._every_rule(inputs))
        return self.layout.distribution(self.slots.write(outputs), state)

    def _selected_rule(self, inputs: th.Tensor, rule: th.Tensor) -> th.Tensor:
        """
        :param inputs: of each variable, ``[V, R, 2 * hidden_dim]``
        :param rule: ``[V, R]``, int64
        :return: ``[V, R, output_width]``
        """
        n_slots, n_rows, _ = inputs.shape
        order = rule.flatten().argsort()
        sizes = rule.flatten().bincount(minlength=len(self.rule_embedding)).tolist()
        layers = [*self.rules, self.heads]
        weights = zip(*(layer.weight for layer in layers), strict=True)
        biases = zip(*(layer.bias for layer in layers), strict=True)
        outputs = []
        for hidden, weight, bias in zip(inputs.flatten(0, 1)[order].split(sizes), weights, biases, strict=True):
            for layer_weight, layer_bias in zip(weight[:-1], bias[:-1], strict=True):
                hidden = th.addmm(layer_bias, hidden, layer_weight).relu_()
            outputs.append(th.addmm(bias[-1], hidden, weight[-1]))
        of_every_slot = th.cat(outputs).unflatten(-1, (n_slots, -1))
        of_slot = of_every_slot[th.arange(len(order), device=order.device), order // n_rows]
        return of_slot[order.argsort()].unflatten(0, (n_slots, n_rows))

    @th.no_grad()
    def _every_rule(self, inputs: th.Tensor) -> th.Tensor:
        """``[V, R, 2 * hidden_dim]`` to ``[n_rules, V, R, output_width]``."""
        hidden = inputs.flatten(0, 1).expand(len(self.rule_embedding), -1, -1)
        for layer in self.rules:
            hidden = layer(hidden).relu_()
        hidden = hidden.unflatten(1, inputs.shape[:2])
        weight, bias = (part.unflatten(-1, (len(inputs), -1)) for part in (self.heads.weight, self.heads.bias))
        return th.einsum("kvrd,kdvo->kvro", hidden, weight) + bias.transpose(1, 2)


def _encoder(n_slots: int, input_dim: int, hidden_dim: int) -> nn.Sequential:
    return nn.Sequential(
        StackedLinear(n_slots, input_dim, hidden_dim), nn.ReLU(inplace=True), StackedLinear(n_slots, hidden_dim, hidden_dim)
    )


def _one_hot(scores: th.Tensor) -> th.Tensor:
    return F.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores.dtype)
