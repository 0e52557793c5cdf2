"""Fixtures for tests in several folders."""

import multiprocessing

import pytest

from sb3_fcdl import FCDLPolicy, presets

# Or each process of a SubprocVecEnv would import it anew, for seconds. Not the package: that it is imported there is tested.
if "forkserver" in multiprocessing.get_all_start_methods():
    multiprocessing.set_forkserver_preload(["stable_baselines3"])


@pytest.fixture
def quick_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pages and examples leave at its default plans two steps ahead with few candidates, and pictures are small."""
    monkeypatch.setattr(FCDLPolicy, "HORIZON", 2)
    monkeypatch.setattr(FCDLPolicy, "HORIZON_WITHOUT_VALUE", 2)
    for name, number in {"horizon": 2, "n_iterations": 1, "n_candidates": 8}.items():
        monkeypatch.setitem(presets.CHEMICAL_PLANNER["planner_kwargs"], name, number)
    monkeypatch.setattr("fcdl_envs.chemical_render.IMAGE_SIZE", 96)
