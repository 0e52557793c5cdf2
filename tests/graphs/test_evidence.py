"""Graphs that say how sure their edges are."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sb3_fcdl.graphs import CausalGraph, EdgeEvidence

EVIDENCE = EdgeEvidence(
    gain=[[0.5, 0.01, -0.2], [0.0, 0.3, 0.1]],
    standard_error=[[0.1, 0.005, 0.1], [np.inf, 0.05, 0.06]],
    q_values=[[0.001, 0.04, 1.0], [1.0, 0.001, 0.2]],
    is_tested=[[True, True, True], [False, True, True]],
    n=40,
)
GRAPH = CausalGraph(np.array([[1, 1, 0], [1, 1, 0.0]]), ("x", "y"), ("x", "y", "a"), label="code 3", evidence=EVIDENCE)


@pytest.mark.parametrize(("alpha", "edges"), [
    (0.05, [[1, 1, 0], [1, 1, 0]]),
    (0.01, [[1, 0, 0], [1, 1, 0]]),  # y -> y was given and stays
    (0.5, [[1, 1, 0], [1, 1, 1]]),
])  # fmt: skip
def test_significant_edges(alpha, edges):
    graph = GRAPH.significant(alpha)
    assert graph.edges.astype(int).tolist() == edges and graph.evidence is EVIDENCE and graph.label == "code 3"


@pytest.mark.parametrize("alpha", [0, 1, -0.1, float("nan"), "0.05", None])
def test_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\), got"):
        GRAPH.significant(alpha)


def test_a_graph_without_evidence_says_so():
    graph = replace(GRAPH, evidence=None)
    with pytest.raises(ValueError, match="carries no evidence: learn it with dynamics='fcdl_tree'"):
        graph.significant()
    with pytest.raises(ValueError, match="carries no evidence, so there is no gain"):
        graph.to_frame("gain")


def test_evidence_survives_json():
    text = GRAPH.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    restored = CausalGraph.from_json(text).evidence
    for name in ("gain", "standard_error", "q_values", "is_tested", "n"):
        assert np.array_equal(getattr(restored, name), getattr(EVIDENCE, name)), name


def test_json_of_a_graph_without_evidence_reads_with_and_without_the_key():
    values = json.loads(replace(GRAPH, evidence=None).to_json())
    assert values.pop("evidence") is None
    assert CausalGraph.from_json(json.dumps(values)).evidence is None


def test_frames_of_the_evidence():
    assert GRAPH.to_frame("gain").loc["x", "a"] == -0.2
    assert GRAPH.to_frame("q_values").loc["y", "y"] == 0.001
    assert GRAPH.to_frame().loc["x", "a"] == 0
    with pytest.raises(ValueError, match="what must be one of probabilities, gain"):
        GRAPH.to_frame("gains")


def test_graphs_made_of_several_have_no_evidence():
    assert CausalGraph.union([GRAPH, GRAPH]).evidence is None
    stability = CausalGraph.stability([GRAPH, GRAPH])
    assert stability.evidence is None and stability.parts[0].evidence is EVIDENCE


def test_heatmap_shows_the_gain_of_an_edge_and_a_dot_where_nothing_was_seen():
    pytest.importorskip("matplotlib")
    axes = GRAPH.plot().axes[0]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {(0, 0): "0.50", (1, 0): "0.01", (1, 1): "0.30"}
    assert axes.collections[0].get_offsets().tolist() == [[0, 1]]
    large = replace(GRAPH, evidence=replace(EVIDENCE, gain=EVIDENCE.gain * 60))
    assert [text.get_text() for text in large.plot().axes[0].texts] == ["30", "0.60", "18"]
    assert len(replace(GRAPH, evidence=None).plot().axes[0].texts) == 0


def test_score_and_difference_do_not_depend_on_the_evidence():
    bare, truth = replace(GRAPH, evidence=None), np.eye(2, 3, dtype=bool)
    assert not GRAPH.diff(bare) and GRAPH.score(truth).shd == bare.score(truth).shd == 2


@pytest.mark.parametrize(("changes", "message"), [
    ({"gain": np.full((2, 3), np.nan)}, "gain must be finite, got nan"),
    ({"gain": np.full((2, 3), -np.inf)}, "gain must be finite, got -inf"),
    ({"gain": [[0.1, 0.2], [0.3]]}, r"gain must be numbers \[child, parent\]"),
    ({"gain": [["a", "b", "c"]] * 2}, r"gain must be numbers \[child, parent\]"),
    ({"standard_error": np.full((2, 3), np.nan)}, r"standard_error must be in \[0, inf\], got nan"),
    ({"standard_error": np.full((2, 3), -1.0)}, r"standard_error must be in \[0, inf\], got -1.0"),
    ({"q_values": np.full((2, 3), np.nan)}, r"q_values must be in \[0, 1\], got nan"),
    ({"q_values": np.full((2, 3), 1.1)}, r"q_values must be in \[0, 1\], got 1.1"),
    ({"is_tested": [True]}, r"is_tested must be bool \[child, parent\], got \[True\]"),
    ({"is_tested": np.ones((2, 3))}, r"is_tested must be bool \[child, parent\]"),
    ({"is_tested": [[True]]}, r"is_tested has shape \(1, 1\), the gain has \(2, 3\)"),
    ({"n": -1}, "n must be a whole number of at least 0, got -1"),
    ({"n": 2.5}, "n must be a whole number of at least 0, got 2.5"),
    ({"n": True}, "n must be a whole number of at least 0, got True"),
])  # fmt: skip
def test_impossible_evidence_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(EVIDENCE, **changes)


def test_evidence_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"evidence has shape \(2, 3\), the graph has \(1, 3\)"):
        CausalGraph(np.zeros((1, 3)), ("x",), ("x", "y", "a"), evidence=EVIDENCE)


def test_printed_edges_have_what_they_are_worth():
    assert str(GRAPH) == "code 3\nx' <- x (0.5), y (0.01)\ny' <- x, y (0.3)"


def test_a_graph_says_that_nothing_was_tested():
    untested = replace(EVIDENCE, is_tested=np.zeros((2, 3), dtype=bool))
    assert str(replace(GRAPH, evidence=untested)).splitlines() == [
        "code 3",
        "nothing has been tested yet in this context",
        "x' <- x, y",
        "y' <- x, y",
    ]
