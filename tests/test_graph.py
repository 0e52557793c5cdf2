import numpy as np
import pytest

from sb3_fcdl.graph import CausalGraph, hamming_distance

GRAPH = CausalGraph(np.array([[0.9, 0.2, 0.6], [0.5, 1.0, 0.0]]), ("x", "y"), ("x", "y", "push"), label="code 3")


def test_rows_are_children_and_columns_are_parents():
    assert GRAPH.edges.tolist() == [[True, False, True], [False, True, False]]
    assert GRAPH.parents_of("x") == ("x", "push")


def test_text_names_the_parents_of_every_child():
    assert str(GRAPH) == "code 3\nx' <- x, push\ny' <- y"


def test_shape_must_fit_the_names():
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        CausalGraph(np.zeros((2, 3)), ("x", "y"), ("x", "y"))


def test_unknown_variable_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'z'.*'x', 'y'"):
        GRAPH.parents_of("z")


def test_hamming_distance_counts_wrong_entries_that_can_be_learned():
    graphs = np.array([[[1, 0], [1, 1]], [[0, 0], [0, 1]]], dtype=bool)
    truth = np.array([[[1, 1], [0, 1]], [[0, 0], [1, 1]]], dtype=bool)
    # Wrong: two in the first graph, one in the second; of these only the lower left entry is free.
    assert hamming_distance(graphs, truth, np.ones((2, 2), dtype=bool)) == 1.5
    assert hamming_distance(graphs, truth, np.array([[0, 0], [1, 0]], dtype=bool)) == 1.0
