import copy

import numpy as np
import pytest
import torch as th
from dense import tables_used
from toy import KINDS, factors, random_windows

from sb3_fcdl.dynamics import Windows
from sb3_fcdl.dynamics.distributions import StateDistribution, output_width
from sb3_fcdl.dynamics.lookup.contents import Distinct
from sb3_fcdl.dynamics.nps import NPSDynamics

SMALL = {"n_rules": 5, "hidden_dim": 12}


class PlainNPS(NPSDynamics):
    """Every rule with a gradient, weighted by the choice, one variable at a time."""

    def distribution(self, state: th.Tensor, action: th.Tensor) -> StateDistribution:
        features = self.state_features(self.slots.read(state))
        slots = th.cat([self.action_feature(action.unsqueeze(0)), features])
        chosen = self.slot_selector(features, slots)
        rule = self.rule_selector(features, self.rule_embedding)
        outputs = []
        for i in range(len(features)):
            context = sum(chosen[i, :, p, None] * slots[p] for p in range(len(slots)))
            total = 0
            for r in range(len(self.rule_embedding)):
                hidden = th.cat([features[i], context], dim=-1)
                for layer in self.rules:
                    hidden = (hidden @ layer.weight[r] + layer.bias[r]).relu()
                width = self.slots.output_width
                own = slice(i * width, (i + 1) * width)
                total = total + rule[i, :, r, None] * (hidden @ self.heads.weight[r, :, own] + self.heads.bias[r, :, own])
            outputs.append(total)
        return self.layout.distribution(self.slots.write(th.stack(outputs)), state)


def make_model(kind: str, model_class: type[NPSDynamics] = NPSDynamics, **kwargs) -> NPSDynamics:
    th.manual_seed(0)
    sizes, action_sizes = KINDS[kind]
    model = model_class(factors(sizes, *action_sizes), **(SMALL | kwargs)).double()
    for name, parameter in model.named_parameters():
        # Biases start at zero, where a test would not see them.
        if name.endswith("bias"):
            th.nn.init.normal_(parameter, std=0.3)
    return model


def make_windows(kind: str, n_rows: int, length: int = 1) -> Windows:
    sizes, action_sizes = KINDS[kind]
    return random_windows(sizes, *action_sizes, n_rows=n_rows, length=length, dtype=th.float64)


def independent_outputs(model: NPSDynamics, state: th.Tensor, action: th.Tensor) -> tuple[th.Tensor, set[int], set[int]]:
    """Spec 1.4 in evaluation, one sample and one variable at a time, in NumPy; and which rules and slots were chosen."""

    def layer(inputs: np.ndarray, stacked, index: int) -> np.ndarray:
        weight, bias = stacked.weight.detach().numpy()[index], stacked.bias.detach().numpy()[index, 0]
        return inputs @ weight[: len(inputs)] + bias

    def feature(inputs: np.ndarray, encoder, index: int) -> np.ndarray:
        return layer(np.maximum(layer(inputs, encoder[0], index), 0), encoder[2], index)

    def best(query: np.ndarray, keys: list[np.ndarray], selector, index: int) -> int:
        query = layer(query, selector.query, index)
        return int(np.argmax([query @ layer(key, selector.key, k) for k, key in enumerate(keys)]))

    embeddings = list(model.rule_embedding.detach().numpy()[:, 0])
    width, rows, rules, contexts = model.slots.output_width, [], set(), set()
    for x, u in zip(state.numpy(), action.numpy(), strict=True):
        features, start = [], 0
        for i, variable in enumerate(model.factors.state_variables):
            features.append(feature(x[start : start + variable.width], model.state_features, i))
            start += variable.width
        slots = [feature(u, model.action_feature, 0), *features]
        outputs = []
        for i, variable in enumerate(model.factors.state_variables):
            r = best(features[i], embeddings, model.rule_selector, i)
            p = best(features[i], slots, model.slot_selector, i)
            rules.add(r)
            contexts.add(p)
            hidden = np.concatenate([features[i], slots[p]])
            for stacked in model.rules:
                hidden = np.maximum(layer(hidden, stacked, r), 0)
            outputs.append(layer(hidden, model.heads, r)[i * width : i * width + output_width(variable)])
        rows.append(np.concatenate(outputs))
    return th.as_tensor(np.stack(rows)), rules, contexts


@pytest.mark.parametrize("selector_init", ["scaled", "reference"])
@pytest.mark.parametrize("kind", KINDS)
def test_prediction_equals_an_independent_evaluation_of_the_network(kind, selector_init):
    model, windows = make_model(kind, selector_init=selector_init).eval(), make_windows(kind, 20)
    state, action = windows.state[:, 0], windows.action[:, 0]
    outputs, rules, contexts = independent_outputs(model, state, action)
    assert len(rules) > 1 and len(contexts) > 1
    actual, expected = model.step(state, action).next_state, model.layout.distribution(outputs, state)
    for name in ("logits", "mean", "log_std"):
        th.testing.assert_close(getattr(actual, name).detach(), getattr(expected, name), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_every_gradient_equal_those_with_all_rules(kind, monkeypatch):
    """Over three steps, so that gradients also pass the samples of the state."""
    shares, every_rule = [], NPSDynamics._every_rule

    def counting_every_rule(model: NPSDynamics, inputs: th.Tensor, distinct: Distinct) -> th.Tensor:
        shares.append(len(distinct.pairs) / len(distinct.kind))
        return every_rule(model, inputs, distinct)

    monkeypatch.setattr(NPSDynamics, "_every_rule", counting_every_rule)
    windows, results = make_windows(kind, n_rows=33, length=3), []
    for model_class in (NPSDynamics, PlainNPS):
        model = make_model(kind, model_class).train()
        th.manual_seed(1)
        losses = model.loss(windows)
        losses.total.backward()
        results.append((losses.total.item(), {name: parameter.grad for name, parameter in model.named_parameters()}))
    are_categorical = all(size for sizes in KINDS[kind] for size in sizes)
    assert len(shares) == 3 and all(share < 0.9 if are_categorical else share == 1 for share in shares)
    (loss, gradients), (plain_loss, plain_gradients) = results
    assert loss == pytest.approx(plain_loss, rel=1e-12)
    for name, gradient in plain_gradients.items():
        # Densities of untrained numbers have losses and gradients in the thousands.
        scale = max(1, gradient.abs().max().item())
        assert gradient.abs().max() > 0, name
        th.testing.assert_close(gradients[name] / scale, gradient / scale, rtol=0, atol=1e-10)


@th.no_grad()
@pytest.mark.parametrize("kind", [kind for kind, (sizes, _) in KINDS.items() if all(sizes)])
def test_planning_computes_every_combination_once_and_predicts_as_without_tables(kind, monkeypatch):
    model, windows = make_model(kind).eval(), make_windows(kind, 60)
    state, action = windows.state[:, 0], windows.action[:, 0]
    n_computed = []
    selected_rule = model.selected_rule
    monkeypatch.setattr(
        model, "selected_rule", lambda inputs, *args: n_computed.append(len(inputs)) or selected_rule(inputs, *args)
    )
    step = model.stepper()
    first, again = step(state, action), step(state, action)
    assert len(n_computed) == 1 and n_computed[0] < 60 * model.slots.n_slots
    # Whatever else stands in an action, it goes through the network.
    other_action = step(state, 2 * action).next_state.logits
    with tables_used(False):
        dense = [model.step(state, factor * action).next_state.logits for factor in (1, 2)]
    assert th.equal(other_action, dense[1])
    for prediction in (first, again):
        th.testing.assert_close(prediction.next_state.logits, dense[0], rtol=0, atol=1e-12)


def test_unselected_slots_and_rules_change_no_bit_in_evaluation():
    model, windows = make_model("equal").eval(), make_windows("equal", 1)
    state, action = windows.state[:, 0], windows.action[:, 0]
    before = model.step(state, action).next_state.logits
    rule = model.rule_selector(model.state_features(model.slots.read(state)), model.rule_embedding)
    unused = rule.sum((0, 1)) == 0
    assert unused.any()
    corrupted = copy.deepcopy(model)
    with th.no_grad():
        for layer in (*corrupted.rules, corrupted.heads):
            layer.weight[unused] = 1e9
    assert th.equal(before, corrupted.step(state, action).next_state.logits)


@pytest.mark.parametrize(("selector_init", "bound"), [("scaled", 12**-0.5), ("reference", 12**0.5)])
def test_selectors_start_within_the_named_bound(selector_init, bound):
    model = make_model("equal", selector_init=selector_init)
    for selector in (model.rule_selector, model.slot_selector):
        for layer in (selector.query, selector.key):
            assert 0.95 * bound < layer.weight.abs().max() <= bound


def test_selection_is_a_sample_of_the_softmax():
    model = make_model("continuous", n_rules=3)
    selector = model.rule_selector
    features = th.randn(3, 1, 12, dtype=th.float64)
    logits = th.einsum("qrd,krd->qk", selector.query(features), selector.key(model.rule_embedding)) / 12**0.5
    samples = selector.train()(features.expand(-1, 20_000, -1), model.rule_embedding)
    assert th.equal(samples.detach().unique(), th.tensor([0.0, 1.0], dtype=th.float64))
    th.testing.assert_close(samples.mean(1), logits.softmax(-1), rtol=0, atol=0.015)


def test_unknown_selector_init_lists_the_known_ones():
    with pytest.raises(ValueError, match="scaled, reference"):
        make_model("equal", selector_init="published")


def test_default_widths_have_the_published_number_of_parameters():
    model = NPSDynamics(factors([5] * 10, 50))
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(2.5e6, rel=1e-2)


def test_several_action_variables_are_numbered_together():
    th.manual_seed(0)
    model = NPSDynamics(factors([3, 2, 4], 2, 3, 4), **SMALL).double().eval()
    windows = random_windows([3, 2, 4], 2, 3, 4, n_rows=50, length=1, dtype=th.float64)
    state, action = windows.state[:, 0], windows.action[:, 0]
    by_table = model.step(state, action).next_state.logits
    with tables_used(False):
        th.testing.assert_close(by_table, model.step(state, action).next_state.logits, rtol=0, atol=1e-12)
