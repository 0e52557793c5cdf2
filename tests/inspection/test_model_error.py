import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from tiny import tiny_fcdl, tiny_vec_env

from sb3_fcdl import FCDL, FCDLPolicy
from sb3_fcdl.dynamics import Windows
from sb3_fcdl.inspection.model_error import imagine, prediction_errors


def test_imagined_windows_follow_the_model_on_recorded_actions():
    model = tiny_fcdl(tiny_vec_env(2)).learn(60)
    windows = model.experience.recorded(8, length=3).windows
    imagined = imagine(model.policy.world, windows)
    state = windows.state[:, 0]
    for step in range(3):
        with th.no_grad():
            state = model.dynamics.step(state, windows.action[:, step]).next_state.mode()
        assert th.equal(imagined[:, step], state)


def test_errors_count_wrong_categories_and_measure_numbers():
    model = FCDL(FCDLPolicy, GatedEnv(), learning_starts=20, seed=0, dynamics="mlp", dynamics_kwargs={"hidden_dim": 8}).learn(
        30
    )
    windows = model.experience.recorded(6, length=2).windows
    imagined = imagine(model.policy.world, windows)
    # Recorded: what is imagined, but for a gate that is the other way and an x that is half a standard deviation larger.
    next_state = imagined.clone()
    next_state[0, 0, :2] = 1 - next_state[0, 0, :2]
    next_state[1, 1, 2] += 0.5
    valid = th.ones(6, 2, dtype=th.bool)
    valid[2, 1] = False
    errors = prediction_errors(model.policy.world, Windows(windows.state, windows.action, next_state, valid)).numpy()
    expected = np.zeros((6, 2, 3))
    expected[0, 0, 0], expected[1, 1, 1], expected[2, 1] = 1, 0.5, np.nan
    assert errors == pytest.approx(expected, abs=1e-6, nan_ok=True)
