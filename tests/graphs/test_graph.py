import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from sb3_fcdl.graphs.graph import CausalGraph

GRAPH = CausalGraph(np.array([[0.9, 0.2, 0.6], [0.5, 1.0, 0.0]]), ("x", "y"), ("x", "y", "push"), label="code 3")


def test_rows_are_children_and_columns_are_parents():
    assert GRAPH.edges.tolist() == [[True, False, True], [False, True, False]]
    assert GRAPH.parents_of("x") == ("x", "push")


def test_text_names_the_parents_of_every_child():
    assert str(GRAPH) == "code 3\nx' <- x, push\ny' <- y"


def test_shape_must_fit_the_names():
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        CausalGraph(np.zeros((2, 3)), ("x", "y"), ("x", "y"))


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": [[0.0, NAN, 1.0], [0.0] * 3]}, r"in \[0, 1\], got nan for x' <- y"),
        ({"probabilities": [[0.0] * 3, [0.0, 0.0, 1.0001]]}, r"in \[0, 1\], got 1.0001 for y' <- push"),
        ({"probabilities": [[-1e-9, 0.0, 0.0], [0.0] * 3]}, r"in \[0, 1\], got -1e-09 for x' <- x"),
        ({"probabilities": [[math.inf, 0.0, 0.0], [0.0] * 3]}, r"in \[0, 1\], got inf for x' <- x"),
        ({"probabilities": [["1", "0", "0"], ["0"] * 3]}, "must be numbers"),
        ({"probabilities": [[None] * 3] * 2}, "must be numbers"),
        ({"probabilities": [[0.0] * 3, [0.0] * 2]}, "must be numbers"),
        ({"probabilities": [0.0] * 6}, r"shape \(6,\), the names ask for \(2, 3\)"),
        ({"probabilities": [[0.0] * 2] * 3}, r"shape \(3, 2\), the names ask for \(2, 3\)"),
        ({"threshold": "0.5"}, "threshold must be a number in .* got '0.5'"),
        ({"threshold": NAN}, "threshold must be a number in .* got nan"),
        ({"threshold": 1.5}, "threshold must be a number in .* got 1.5"),
        ({"threshold": -0.1}, "threshold must be a number in .* got -0.1"),
        ({"threshold": None}, "threshold must be a number in .* got None"),
        ({"label": 5}, "label must be text, got 5"),
        ({"child_names": ["x", "x"]}, "child_names must be unique, got x more than once"),
        ({"parent_names": ["push", "y", "push"]}, "parent_names must be unique, got push more than once"),
        ({"child_names": [1, 2]}, r"child_names must be a list of names, at least one, got \[1, 2\]"),
        ({"child_names": "xy"}, "child_names must be a list of names, at least one, got 'xy'"),
        ({"child_names": None}, "child_names must be a list of names, at least one, got None"),
        ({"child_names": [], "probabilities": []}, r"child_names must be a list of names, at least one, got \[\]"),
    ],
)
def test_what_is_no_graph_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(GRAPH, **changes)
    with pytest.raises(ValueError, match=message):
        CausalGraph.from_json(json.dumps({**json.loads(GRAPH.to_json()), **changes}))


def test_bounds_and_lists_are_taken():
    graph = CausalGraph([[0, 1]], ["x"], ["x", "y"], threshold=0)
    assert graph.edges.tolist() == [[False, True]]
    assert graph.diff(CausalGraph(np.array([[True, True]]), ("x",), ("x", "y"), threshold=1)).removed == (("y", "x"),)


def test_parts_are_graphs_of_the_same_variables():
    with pytest.raises(ValueError, match="parts must be CausalGraphs, got 'x'"):
        replace(GRAPH, parts=("x",))
    with pytest.raises(ValueError, match="different variables"):
        replace(GRAPH, parts=(replace(GRAPH, child_names=("x", "z")),))


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "3", "null", "{", '{"label": ""}'])
def test_what_is_no_json_of_a_graph_is_refused(text):
    with pytest.raises(ValueError, match="not the JSON of a CausalGraph"):
        CausalGraph.from_json(text)


def test_unknown_variable_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'z'.*'x', 'y'"):
        GRAPH.parents_of("z")


def test_union_has_the_highest_probability_of_each_edge_and_keeps_its_parts():
    other = replace(GRAPH, probabilities=np.array([[0.1, 0.7, 0.6], [0.4, 0.3, 0.9]]))
    union = CausalGraph.union([GRAPH, other])
    assert union.probabilities.tolist() == [[0.9, 0.7, 0.6], [0.5, 1.0, 0.9]] and union.parts == (GRAPH, other)
    with pytest.raises(ValueError, match="at least one"):
        CausalGraph.union([])
    with pytest.raises(ValueError, match="different variables"):
        CausalGraph.union([GRAPH, replace(GRAPH, parent_names=("x", "y", "pull"))])


def test_stability_is_the_share_of_graphs_that_have_an_edge():
    other = replace(GRAPH, probabilities=np.array([[0.1, 0.7, 0.6], [0.4, 0.3, 0.9]]))
    stability = CausalGraph.stability([GRAPH, GRAPH, other])
    assert stability.probabilities == pytest.approx(np.array([[2, 1, 3], [0, 2, 1]]) / 3)
    # More than half of the seeds.
    assert stability.edge_names == (("x", "x"), ("push", "x"), ("y", "y")) and stability.label == "share of 3 graphs"


def test_difference_names_what_was_added_and_removed():
    # Edges of GRAPH: x -> x, push -> x, y -> y; of the other: x -> x, y -> x, y -> y.
    other = replace(GRAPH, probabilities=np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]]))
    difference = GRAPH.diff(other)
    assert difference.added == (("y", "x"),) and difference.removed == (("push", "x"),)
    assert str(difference) == "+ y -> x'\n- push -> x'"
    assert not GRAPH.diff(GRAPH) and str(GRAPH.diff(GRAPH)) == "no difference"


def test_score_by_hand():
    truth = np.array([[1, 1, 0], [0, 1, 0]], dtype=bool)
    score = GRAPH.score(truth)
    # Edges: 0.9, 0.6, 1.0; true: 0.9, 0.2, 1.0. Two hits, one extra (0.6), one missing (0.2).
    assert score.shd == 2 and score.precision == pytest.approx(2 / 3) and score.recall == pytest.approx(2 / 3)
    assert score.f1 == pytest.approx(2 / 3)
    # Positives 0.9, 0.2, 1.0 against negatives 0.6, 0.5, 0.0: of nine pairs 3 + 1 + 3 are in order.
    assert score.auroc == pytest.approx(7 / 9)
    wrong = [(edge.parent, edge.child, edge.is_true) for edge in score.edges if edge.is_edge != edge.is_true]
    assert wrong == [("y", "x", True), ("push", "x", False)]
    assert "missing: y -> x' (0.20)" in str(score) and "extra: push -> x' (0.60)" in str(score)
    assert GRAPH.score(replace(GRAPH, probabilities=truth.astype(float))).shd == 2


def test_only_the_entries_that_count_are_scored_and_ties_count_half():
    entries = np.array([[0, 1, 0], [1, 0, 0]], dtype=bool)
    truth = np.array([[0, 1, 0], [0, 0, 0]], dtype=bool)
    tied = replace(GRAPH, probabilities=np.full((2, 3), 0.3))
    score = tied.score(truth, entries)
    assert (score.shd, score.recall, score.f1, score.auroc) == (1, 0.0, 0.0, 0.5) and math.isnan(score.precision)
    assert len(score.edges) == 2
    nothing = tied.score(np.zeros((2, 3), dtype=bool))
    assert nothing.shd == 0 and all(math.isnan(value) for value in (nothing.f1, nothing.recall, nothing.auroc))


def test_score_refuses_another_shape():
    with pytest.raises(ValueError, match=r"truth has shape \(3, 2\)"):
        GRAPH.score(np.zeros((3, 2), dtype=bool))
    with pytest.raises(ValueError, match=r"entries has shape \(2, 2\)"):
        GRAPH.score(GRAPH.edges, np.ones((2, 2), dtype=bool))


def test_json_brings_back_every_bit(tmp_path):
    awkward = replace(GRAPH, probabilities=np.array([[1 / 3, 0.1, 1.0], [5e-324, 0.0, 0.7]]), threshold=0.1)
    union = CausalGraph.union([awkward, replace(awkward, label='a "quoted" one')])
    (tmp_path / "graph.json").write_text(union.to_json())
    for read in (CausalGraph.from_json(union.to_json()), CausalGraph.from_json(tmp_path / "graph.json")):
        for one, other in zip((read, *read.parts), (union, *union.parts), strict=True):
            assert np.array_equal(one.probabilities, other.probabilities)
            assert (one.label, one.threshold, one.parent_names) == (other.label, other.threshold, other.parent_names)
            assert one.child_names == other.child_names
    for text in ("{}", "[]", "no json"):
        with pytest.raises(ValueError, match="to_json"):
            CausalGraph.from_json(text)


def test_frames_have_a_row_a_child_and_a_row_an_edge():
    pytest.importorskip("pandas")
    frame = GRAPH.to_frame()
    assert frame.loc["x", "push"] == 0.6 and frame.loc["y", "x"] == 0.5 and frame.shape == (2, 3)
    table = GRAPH.score(GRAPH.edges).to_frame()
    assert list(table.columns) == ["parent", "child", "probability", "is_edge", "is_true"]
    assert table.query("is_edge")[["parent", "child"]].values.tolist() == [["x", "x"], ["push", "x"], ["y", "y"]]


def test_networkx_points_from_parents_to_children():
    graph = GRAPH.to_networkx()
    assert set(graph.edges) == {("x", "x"), ("push", "x"), ("y", "y")}
    assert graph.edges["push", "x"]["probability"] == 0.6
    assert graph.nodes["push"]["kind"] == "action" and graph.nodes["x"]["kind"] == "state"


def test_dot_quotes_names():
    graph = CausalGraph(np.array([[0.0, 1.0]]), ("a b",), ("a b", 'say "go"'))
    assert graph.to_dot().splitlines()[4] == '  "say \\"go\\"" -> "a b\'";'


def test_heatmap_shows_probabilities_and_names():
    pytest.importorskip("matplotlib")
    axes = GRAPH.plot().axes[0]
    assert np.array_equal(axes.images[0].get_array(), GRAPH.probabilities)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y", "push"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x'", "y'"]
    # The dots: column and row of each edge.
    assert axes.collections[0].get_offsets().tolist() == [[0, 0], [2, 0], [1, 1]]


def test_nodes_have_a_line_an_edge():
    pytest.importorskip("matplotlib")
    lines = [line.get_ydata() for line in GRAPH.plot("nodes").axes[0].lines]
    # From the parent's row on the left to the child's on the right.
    assert [tuple(line) for line in lines] == [(0, 0), (2, 0), (1, 1)]
    with pytest.raises(ValueError, match="'tree'"):
        GRAPH.plot("tree")  # type: ignore[arg-type]


def test_a_grid_has_every_graph_in_a_tile_of_its_own():
    pytest.importorskip("matplotlib")
    other = replace(GRAPH, probabilities=np.array([[0.1, 0.7, 0.6], [0.4, 0.3, 0.9]]))
    axes = CausalGraph.plot_grid([GRAPH, other], ["one", "two"]).axes[0]
    # A row for the titles above the tiles, a column between them.
    tiles = axes.images[0].get_array()
    assert np.array_equal(tiles[1:3, 0:3], GRAPH.probabilities) and np.array_equal(tiles[1:3, 4:7], other.probabilities)
    assert [text.get_text() for text in axes.texts] == ["one", "two"]
    dots = [collection.get_offsets().tolist() for collection in axes.collections[::2]]
    assert dots == [[[0, 1], [2, 1], [1, 2]], [[5, 1], [6, 1], [6, 2]]]
    with pytest.raises(ValueError, match="different variables"):
        CausalGraph.plot_grid([GRAPH, replace(GRAPH, parent_names=("x", "y", "pull"))], ["one", "two"])


@pytest.mark.parametrize(("library", "call"), [("matplotlib", GRAPH.plot), ("pandas", GRAPH.to_frame)])
def test_what_is_not_installed_says_how_to_install_it(monkeypatch, library, call):
    for module in [name for name in sys.modules if name.partition(".")[0] == library or name.startswith("sb3_fcdl.plots")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("sb3_fcdl.plots", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Without(library), *sys.meta_path])
    with pytest.raises(ImportError, match=rf"this needs {library}: pip install 'sb3_fcdl\[plot\]'"):
        call()


class _Without:
    """An importer that finds everything but one library."""

    def __init__(self, library):
        self.library = library

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
