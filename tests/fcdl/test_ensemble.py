"""FCDL plans with an ensemble."""

import numpy as np
import pytest
import torch as th
from gated import GatedEnv

from sb3_fcdl import FCDL
from sb3_fcdl.dynamics import CDLDynamics, MLPDynamics
from sb3_fcdl.dynamics.ensemble import Ensemble


@pytest.mark.parametrize("model", [MLPDynamics, CDLDynamics])
def test_an_ensemble_is_a_model_of_fcdl(model, tmp_path, monkeypatch):
    members = {"model": model, "model_kwargs": {"hidden_dim": 8}, "n_members": 3, "n_elites": 2}
    settings = {"batch_size": 8, "train_freq": 4, "planner_kwargs": {"horizon": 2, "n_candidates": 8}, "exploration_rate": 1.0}
    fcdl = FCDL("MlpPolicy", GatedEnv(), dynamics=Ensemble, dynamics_kwargs=members, seed=0, learning_starts=150, **settings)
    monkeypatch.setattr(Ensemble, "ELITES_EVERY", 2)
    # The tenth block of sixteen transitions is the first that is held out.
    fcdl.learn(168)
    dynamics = fcdl.dynamics
    assert dynamics.held_out_errors.isfinite().all() and not dynamics.has_graph
    assert dynamics.elites.tolist() == dynamics.held_out_errors.argsort()[:2].tolist()
    fcdl.save(tmp_path / "model.zip")
    loaded = FCDL.load(tmp_path / "model.zip", env=GatedEnv())
    observation = np.array([[0, 1, 0.5, 5], [1, 0, -0.5, 4]], dtype=np.float32)
    actions = [each.predict(observation, deterministic=True)[0] for each in (fcdl, loaded)]
    assert np.array_equal(*actions) and th.equal(dynamics.elites, loaded.dynamics.elites)
