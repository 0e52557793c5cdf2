import pytest

pytest.importorskip("matplotlib")


def test_a_single_seed_is_not_on_the_edge_of_the_picture():
    """Its interval has no width. A bar alone would hold the axis to its ends."""
    from sb3_fcdl.plots.statistics import draw_intervals

    (axes,) = draw_intervals({"ours": (3.0, 3.0, 3.0), "theirs": (1.0, 1.0, 1.0)}, "return").axes
    low, high = axes.get_xlim()
    assert low == pytest.approx(0.9) and high == pytest.approx(3.1)
