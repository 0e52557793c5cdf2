"""Categories that need the same edges."""

import torch as th

from sb3_fcdl.dynamics.graph.categories import clusters
from sb3_fcdl.dynamics.graph.evidence import Evidence


def partition(groups: th.Tensor) -> list[list[int]]:
    return sorted(group.nonzero().flatten().tolist() for group in groups)


def evidence(gain: th.Tensor, error: float, n: int = 50) -> Evidence:
    gain = gain.double() + error * th.randn(gain.shape, dtype=th.float64)
    return Evidence(gain, th.full_like(gain, error), th.full((len(gain), 1), float(n)).double())


def test_categories_are_merged_that_need_the_same_edges():
    """Nine categories in three groups; the strong edges tell them apart, twenty edges of noise do not matter."""
    th.manual_seed(0)
    needed = th.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1]]).repeat_interleave(3, 0)
    for _ in range(10):
        of_edges = [evidence(needed, 0.05), evidence(th.full((9, 20), 0.05), 0.1)]
        both = Evidence(*(th.cat([each[i] for each in of_edges], dim=1) for i in (0, 1)), of_edges[0].n)
        partitions = clusters(both)
        assert [len(each) for each in partitions] == [9, 8, 7, 6, 5, 4, 3, 2]
        assert partition(partitions[-2]) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_it_does_not_matter_how_much_a_needed_edge_is_worth():
    gain = th.tensor([[3.0, 0.0], [1.0, 0.0], [0.9, 1.0], [3.0, 1.0]])
    assert partition(clusters(evidence(gain, 0.01))[-1]) == [[0, 1], [2, 3]]


def test_a_category_that_was_not_seen_is_in_no_group():
    gain = evidence(th.tensor([[1.0], [0.0], [1.0]]), 0.01)
    gain.n[1] = 0
    assert partition(clusters(gain)[-1]) == [[0], [2]]
