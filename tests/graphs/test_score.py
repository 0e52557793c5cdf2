import math

import numpy as np

from sb3_fcdl.graphs.score import f1_score, hamming_distance, wrong_edges

GRAPHS = np.array([[[1, 0], [1, 1]], [[0, 0], [0, 1]]], dtype=bool)
TRUTH = np.array([[[1, 1], [0, 1]], [[0, 0], [1, 1]]], dtype=bool)
ALL, LOWER_LEFT = np.ones((2, 2), dtype=bool), np.array([[0, 0], [1, 0]], dtype=bool)


def test_hamming_distance_counts_wrong_entries_that_can_be_learned():
    # Wrong: two in the first graph, one in the second; of these only the lower left entry is free.
    assert hamming_distance(GRAPHS, TRUTH, ALL) == 1.5
    assert hamming_distance(GRAPHS, TRUTH, LOWER_LEFT) == 1.0


def test_missing_and_extra_edges_are_told_apart():
    missing, extra = wrong_edges(GRAPHS, TRUTH, ALL)
    assert (missing.tolist(), extra.tolist()) == ([1, 1], [1, 0])
    assert wrong_edges(GRAPHS[0], TRUTH[0], LOWER_LEFT) == (0, 1)


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    # Four chosen, five true, three in common: precision 3/4, recall 3/5.
    assert f1_score(GRAPHS, TRUTH) == 2 / (4 / 3 + 5 / 3)
    nothing = np.zeros(3, dtype=bool)
    assert math.isnan(f1_score(nothing, nothing)) and f1_score(~nothing, nothing) == 0
