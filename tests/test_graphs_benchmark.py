"""The benchmark of Chemical's graphs: its perfect model, and what that can see."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from fcdl_envs.chemical_system import ChemicalSystem

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def graphs(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("graphs")


@pytest.mark.parametrize("rule", ["full_chain", "full_fork"])
def test_distribution_of_the_next_colours_is_that_of_many_steps(graphs, rule):
    """Counted over 20 000 draws of the simulator, whose standard error is at most 0.004; that of 4000 paths is 0.008."""
    rng, system = np.random.default_rng(0), ChemicalSystem(rule, n_objects=4, n_colors=3)
    colors, actions = rng.integers(3, size=(12, 4)), rng.integers(12, size=12)
    found = graphs.next_colors(system, colors, actions, rng.random((12, 4000, 4)))
    for row in range(12):
        many = system.step(
            np.repeat(colors[row : row + 1], 20_000, 0), np.repeat(actions[row], 20_000), rng.random((20_000, 4))
        )
        counted = np.stack([np.bincount(node, minlength=3) / 20_000 for node in many.T])
        np.testing.assert_allclose(found[row], counted, atol=0.03)


def test_only_edges_that_exist_are_visible_and_only_with_enough_data(graphs, monkeypatch):
    monkeypatch.setattr(graphs, "N_PATHS", 200)
    rng, system = np.random.default_rng(0), ChemicalSystem("full_chain", n_objects=4, n_colors=3)
    colors, actions = rng.integers(3, size=(4000, 4)), rng.integers(12, size=4000)
    visible = graphs.visible_edges(system, colors, actions)
    exist = system.transition_graph(np.zeros(4, dtype=int), 3 * np.arange(4))[..., :4]
    between = ~np.eye(4, dtype=bool)
    assert not (visible & ~exist & between).any() and (visible & exist & between).sum() >= 0.8 * (exist & between).sum()
    fewer = graphs.visible_edges(system, colors[:40], actions[:40])
    assert (fewer & between).sum() < (visible & between).sum()
