from itertools import combinations

import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from tiny import tiny_env, tiny_fcdl, tiny_vec_env

from fcdl_envs.variables import Variable
from sb3_fcdl import FCDL
from sb3_fcdl.inspection.codes import codes_of, describe

RNG = np.random.default_rng(0)


def test_rule_of_a_category_and_a_threshold_is_found():
    color, height = RNG.integers(4, size=2000), RNG.uniform(0, 16, 2000)
    variables = [Variable("color", 4), Variable("height")]
    # Quantiles of a uniform number on [0, 16] are close to whole numbers.
    rule = describe(variables, np.stack([color, height], axis=1), (color == 2) & (height > np.quantile(height, 0.25)))
    assert rule.text.startswith("color = 2 and height > ")
    assert float(rule.text.rpartition(" ")[2]) == pytest.approx(4, abs=0.5)
    assert rule.precision == rule.recall == 1


@pytest.mark.parametrize(
    ("members", "text"), [([0, 1, 2, 4], "k in 0-2, 4"), ([0, 1, 2, 4, 5], "k != 3"), ([5], "k = 5"), (range(6), "always")]
)
def test_sets_of_categories_in_words(members, text):
    values = np.repeat(np.arange(6), 10)
    rule = describe([Variable("k", 6)], values[:, None], np.isin(values, list(members)))
    assert (rule.text, rule.precision, rule.recall) == (text, 1, 1)


def test_sets_of_categories_with_names_in_words():
    values = np.repeat(np.arange(6), 10)
    for members, text in (([0, 1, 2, 4], "k in a, b, c, e"), ([0, 1, 2, 4, 5], "k != d"), ([5], "k = f")):
        assert describe([Variable("k", 6, tuple("abcdef"))], values[:, None], np.isin(values, members)).text == text
    from_7 = Variable("k", 6, ("7", "8", "9", "10", "11", "12"))
    assert describe([from_7], values[:, None], np.isin(values, [0, 1, 2, 4])).text == "k in 7-9, 11"


def test_no_set_of_categories_is_better_by_brute_force():
    values = RNG.integers(6, size=400)
    is_member = RNG.random(400) < np.array([0.1, 0.5, 0.9, 0.3, 0.6, 0.4])[values]
    sets = [chosen for size in range(1, 6) for chosen in combinations(range(6), size)]
    hits = [(is_member & np.isin(values, chosen)).sum() for chosen in sets]
    scores = [2 * hit / (np.isin(values, chosen).sum() + is_member.sum()) for hit, chosen in zip(hits, sets, strict=True)]
    rule = describe([Variable("x", 6)], values[:, None], is_member)
    assert 2 / (1 / rule.precision + 1 / rule.recall) == pytest.approx(max(scores), abs=1e-12)


def test_an_interval_is_one_condition():
    values = np.arange(160.0)
    rule = describe([Variable("x")], values[:, None], (values > 50) & (values <= 100))
    low, _, _, _, high = rule.text.split()
    # Bounds are sixteenths of the samples, ten apart.
    assert abs(float(low) - 50) <= 10 and abs(float(high) - 100) <= 10 and min(rule.precision, rule.recall) > 0.8


def test_all_outside_of_an_interval_is_one_condition():
    values = np.arange(160.0)
    rule = describe([Variable("x")], values[:, None], (values < 49.5) | (values > 99.5))
    assert rule.text.startswith("x not in (") and min(rule.precision, rule.recall) > 0.8


def test_a_difference_that_chooses_the_context_is_in_the_rules():
    """In the environment's units, whatever the scale and the mean of the encoded numbers."""
    model = FCDL("MlpPolicy", GatedEnv(), exploration_rate=1, learning_starts=1000, planner_kwargs={"horizon": 2}, seed=0)
    model.learn(200)
    tree, moments = model.dynamics.tree, model.policy.world.factorization.moments
    (x, y), offset = moments.std[2:].tolist(), float(moments.mean[2] - moments.mean[3])
    tree.split(0, th.tensor([0, 0, 1, -y / x, 0]), (-5.05 - offset) / x, (-4.95 - offset) / x)
    assert model.dynamics.context_variables == ("x", "y") and model.dynamics.context_features == (("x", "y"),)
    inside = next(code for code in model.codes() if code.code == 1)
    low, *middle, high = inside.rule.text.split()
    assert middle == ["<", "x", "-", "y", "<="] and min(inside.rule.precision, inside.rule.recall) > 0.7
    assert float(low) == pytest.approx(-5.05, abs=0.05) and float(high) == pytest.approx(-4.95, abs=0.05)
    assert all(-5.05 < sample["x"] - sample["y"] <= -4.95 for sample in inside.samples)


def test_rule_that_is_not_exact_tells_precision_and_recall():
    is_member = np.array([1, 1, 1, 0, 1, 0, 0, 0], dtype=bool)
    rule = describe([Variable("k", 2)], np.array([0, 0, 0, 0, 1, 1, 1, 1])[:, None], is_member)
    assert str(rule) == "k = 0 (right for 75 %, covers 75 %)"


@pytest.fixture(scope="module")
def model():
    return tiny_fcdl(tiny_vec_env(2)).learn(100)


def test_codes_are_those_of_the_recorded_transitions(model):
    codes = model.codes()
    assert sum(code.share for code in codes) == pytest.approx(1)
    assert [code.share for code in codes] == sorted((code.share for code in codes), reverse=True)
    for code in codes:
        for sample in code.samples:
            values = th.tensor([sample[f"obj{index}"] for index in range(4)]).long()
            observation = {"state": th.nn.functional.one_hot(values, 3).flatten().numpy(), "goal": np.zeros(12)}
            assert model.local_graph(observation, int(sample["action"])).label == f"code {code.code}" == code.graph.label


def test_looking_at_codes_leaves_training_alone(model):
    state = model._window_rng.bit_generator.state
    assert str(model.codes()[0]) == str(model.codes()[0])
    assert model._window_rng.bit_generator.state == state


def test_causal_graph_is_the_union_of_the_contexts_met(model, tmp_path):
    graph = model.causal_graph()
    assert np.array_equal(graph.edges, np.any([code.graph.edges for code in model.codes()], axis=0))
    assert graph.label == f"union of the {len(model.codes())} contexts met" and len(graph.parts) == len(model.codes())
    model.save(tmp_path / "model")
    loaded = FCDL.load(tmp_path / "model", env=tiny_env())
    # Of four that it may have, there is one; then two.
    assert loaded.causal_graph().label == "all contexts" and loaded.dynamics.contexts == [0]
    loaded.dynamics.tree.split(0, th.ones_like(loaded.dynamics.tree.weights[0]), 0.5)
    assert loaded.causal_graph().label == "union of all 2 contexts" and loaded.dynamics.contexts == [0, 1]
    with pytest.raises(ValueError, match="load_replay_buffer"):
        loaded.codes()


def test_a_model_without_contexts_says_so():
    cdl = tiny_fcdl(dynamics="cdl", dynamics_kwargs={"hidden_dim": 8}).learn(40)
    with pytest.raises(ValueError, match="CDLDynamics has no contexts"):
        codes_of(cdl.policy.world, cdl.experience.recorded(10).windows)
    assert np.array_equal(cdl.causal_graph().edges, cdl.dynamics.graph.numpy())
    mlp = tiny_fcdl(dynamics="mlp", dynamics_kwargs={"hidden_dim": 8})
    with pytest.raises(ValueError, match="no graph"):
        mlp.causal_graph()
