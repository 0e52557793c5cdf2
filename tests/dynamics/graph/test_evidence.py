"""What held-out transitions say of an edge, and false discoveries among many."""

import numpy as np
import pytest
import torch as th

from sb3_fcdl.dynamics.graph.evidence import Evidence, GraphEvidence, adjusted, by_value


def test_mean_and_standard_error_of_each_group():
    gains = th.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0], [7.0, 2.0]])
    evidence = Evidence.of(gains, th.tensor([0, 0, 0, 2]), 3)
    assert evidence.n.flatten().tolist() == [3, 0, 1]
    assert evidence.gain.tolist() == [[3, 0], [0, 0], [7, 2]]
    # Of 1, 3 and 5 the variance is 4.
    assert evidence.standard_error[0].tolist() == pytest.approx([(4 / 3) ** 0.5, 0])
    assert evidence.standard_error[1:].isinf().all()


@pytest.mark.parametrize(("t", "n", "p_value"), [  # from tables of Student's t
    (2.015, 6, 0.05), (3.365, 6, 0.01), (1.812, 11, 0.05), (2.764, 11, 0.01), (1.699, 30, 0.05), (2.358, 121, 0.01),
    (-1.699, 30, 0.95), (0.0, 30, 0.5),
])  # fmt: skip
def test_p_values_are_those_of_students_t(t, n, p_value):
    evidence = Evidence(th.tensor(t), th.tensor(1.0), th.tensor(float(n)))
    assert evidence.p_value.item() == pytest.approx(p_value, abs=1.5e-3)


def test_nothing_seen_and_no_spread_are_no_evidence():
    evidence = Evidence(th.tensor([0.0, 1.0, 0.0]), th.tensor([th.inf, th.inf, 0.0]), th.tensor([0.0, 1.0, 50.0]))
    assert evidence.p_value.tolist() == [0.5, 0.5, 1.0]
    assert evidence.above(0.5).gain.tolist() == [-0.5, 0.5, -0.5]


def test_p_values_of_no_gain_are_uniform():
    th.manual_seed(0)
    gains = th.randn(40, 20_000, dtype=th.float64)
    p_values = Evidence.of(gains, th.zeros(40, dtype=th.int64), 1).p_value[0]
    for level in (0.01, 0.05, 0.5):
        expected = level * 20_000
        assert (p_values <= level).sum().item() == pytest.approx(expected, abs=4 * expected**0.5)


def test_adjusted_p_values_by_hand():
    # Sorted: 0.01 * 4 / 1, 0.03 * 4 / 2, 0.04 * 4 / 3, 0.5; none larger than one behind it.
    assert adjusted(th.tensor([0.01, 0.04, 0.03, 0.5])).tolist() == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert adjusted(th.tensor([[0.9, 1.0]])).tolist() == [[1.0, 1.0]]
    assert adjusted(th.zeros(0)).shape == (0,)
    # Two are tested together: 0.01 counts twice, the third not at all.
    family = th.tensor([True, True, False])
    assert adjusted(th.tensor([[0.01, 0.04, 0.001]]), family)[0].tolist() == pytest.approx([0.02, 0.04, 1.0])


def test_share_of_false_discoveries_is_as_promised():
    th.manual_seed(1)
    shares = []
    for _ in range(200):
        effect = th.zeros(100, dtype=th.float64)
        effect[:30] = 0.8
        gains = effect + th.randn(25, 100, dtype=th.float64)
        is_found = adjusted(Evidence.of(gains, th.zeros(25, dtype=th.int64), 1).p_value[0]) <= 0.05
        assert is_found[:30].sum() > 20
        shares.append(float(is_found[30:].sum()) / max(1, int(is_found.sum())))
    # Benjamini and Hochberg: at most 0.05 times the share of true null hypotheses, 0.7.
    assert sum(shares) / 200 == pytest.approx(0.035, abs=0.012)


def test_the_value_of_a_parent_is_compared_with_that_of_another_transition():
    """
    A child is its parent, half of the rows each way. Predicted so, with 1 nat for a wrong one, half of the rows lose it where
    they see the parent of another row: 0.5 nats, of variance 0.25. The second parent is not looked at.
    """
    th.manual_seed(0)
    value = th.arange(4000) % 2
    columns = th.stack([value, 1 - value, th.rand(4000)], dim=1).float()

    def nll(seen):
        return th.stack([(seen[:, 0] != value).float(), th.zeros(4000)], dim=1)

    evidence = by_value(nll, columns, [slice(0, 2), slice(2, 3)])
    assert evidence.gain.shape == (1, 2, 2) and evidence.n.flatten().tolist() == [4000]
    assert evidence.gain[0].flatten().tolist() == pytest.approx([0.5, 0, 0, 0], abs=0.03)
    assert evidence.standard_error[0, 0, 0] == pytest.approx(0.5 / 4000**0.5, rel=0.01)
    assert evidence.p_value[0].lt(0.05).tolist() == [[True, False], [False, False]]


def test_of_a_parent_that_never_varies_there_is_no_evidence():
    columns = th.stack([th.rand(50), th.ones(50)], dim=1)
    evidence = by_value(lambda seen: seen[:, :1], columns, [slice(0, 1), slice(1, 2)])
    assert evidence.standard_error[0, 0].isfinite().tolist() == [True, False]


def test_what_is_kept_of_a_graph_can_be_forgotten():
    known = GraphEvidence((2, 1, 2))
    assert [each.n for each in known.of_edges()] == [0, 0] and not known.of_edges()[0].is_tested.any()
    gain = th.tensor([[[0.1, 0.2]], [[0.3, 0.4]]])
    known.keep(Evidence(gain, gain / 10, th.tensor([[[5]], [[7]]])), gain / 100, th.tensor([[True, False]]))
    first, second = known.of_edges()
    assert (first.n, second.n) == (5, 7) and second.gain.tolist() == [pytest.approx([0.3, 0.4])]
    assert second.is_tested.tolist() == [[True, False]]
    known.forget(th.tensor([1]))
    first, second = known.of_edges()
    assert first.n == 5 and second.n == 0 and np.isinf(second.standard_error).all() and (second.q_values == 1).all()
