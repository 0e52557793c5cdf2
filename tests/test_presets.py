"""The settings that users import."""

import inspect

import numpy as np
import pytest
from tiny import ENV_ID

from sb3_fcdl import FCDL, FCDLPolicy
from sb3_fcdl.dynamics import DEFAULT_DYNAMICS, DYNAMICS, MLPDynamics
from sb3_fcdl.planning import CEM, DiscreteActions
from sb3_fcdl.presets import PRESETS, preset, preset_planner, schedule


def test_one_call_builds_the_published_experiment():
    """Against the specification: Adam's rate, windows of 3, CEM of 3 steps, the causal order, latent codes at 0.001 nats."""
    model = FCDL(FCDLPolicy, ENV_ID, **preset(ENV_ID, "paper"), seed=0)
    planner, dynamics = model.policy.planner, model.dynamics
    assert (model.learning_rate, model.train_horizon, model.batch_size, model.exploration_rate) == (1e-4, 3, 256, 0.05)
    assert isinstance(planner, CEM)
    assert (planner.horizon, planner.n_iterations, planner.n_candidates, planner.n_elites) == (3, 5, 64, 32)
    assert (dynamics.sparsity_coef, dynamics.context_threshold) == (0.001, 0) and model.policy.average_decay == 0
    # Free is what stands before the child in the order; the action and the variable itself are given.
    assert np.array_equal(dynamics.free_entries, np.tri(10, 11, -1, dtype=bool))


@pytest.mark.parametrize("env_id", PRESETS)
@pytest.mark.parametrize("name", ["default", "paper"])
@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_every_model_is_built_with_every_preset(env_id, name, dynamics):
    arguments = preset(env_id, name, dynamics)
    assert type(FCDL(FCDLPolicy, env_id, **arguments).dynamics) is DYNAMICS[dynamics]


def test_the_module_in_front_of_a_name_changes_nothing():
    assert preset(f"sb3_fcdl:{ENV_ID}", "paper") == preset(ENV_ID, "paper")


def test_an_environment_without_presets_has_the_defaults_of_fcdl():
    assert preset("CartPole-v1", dynamics="mlp") == {"dynamics": "mlp", "dynamics_kwargs": {}}
    assert preset("CartPole-v1", dynamics=MLPDynamics, seed=3) == {"dynamics": MLPDynamics, "dynamics_kwargs": {}, "seed": 3}


@pytest.mark.parametrize(("env_id", "allowed"), [(ENV_ID, "default, paper"), ("CartPole-v1", "default")])
def test_an_unknown_name_is_refused_with_the_allowed_ones(env_id, allowed):
    with pytest.raises(ValueError, match=f"unknown preset 'mine' of {env_id}, allowed: {allowed}$"):
        preset(env_id, "mine")


def test_a_change_replaces_the_keys_that_it_has():
    before = preset(ENV_ID)
    changed = preset(ENV_ID, planner_kwargs={"horizon": 2}, learning_rate=1.0, policy_kwargs={"clip_obs": 5})
    assert changed["planner_kwargs"] == {**before["planner_kwargs"], "horizon": 2}
    assert (changed["learning_rate"], changed["policy_kwargs"]) == (1.0, {"clip_obs": 5})
    assert changed["dynamics_kwargs"] == before["dynamics_kwargs"]


def test_what_a_caller_changes_is_the_caller_s():
    mine = preset(ENV_ID, dynamics="fcdl")
    mine["planner_kwargs"]["horizon"] = 99
    mine["dynamics_kwargs"].clear()
    assert preset(ENV_ID)["planner_kwargs"]["horizon"] == 5 and preset(ENV_ID, dynamics="fcdl")["dynamics_kwargs"]


def test_a_planner_alone_is_that_of_the_preset():
    planner = preset_planner(ENV_ID, DiscreteActions(6), "paper")
    assert isinstance(planner, CEM) and (planner.horizon, planner.actions) == (3, DiscreteActions(6))


@pytest.mark.parametrize(
    ("env_id", "n_envs", "starts", "train_freq", "gradient_steps"),
    [
        ("CartPole-v1", 1, 500, 2, 1),
        ("CartPole-v1", 10, 500, 1, 5),
        ("mine:CartPole-v1", 2, 500, 1, 1),
        ("FCDL/Chemical-v0", 1, 10_000, 10, 1),
        ("FCDL/Chemical-v0", 10, 10_000, 1, 1),
        ("FCDL/Chemical-v0", 20, 10_000, 1, 2),
    ],
)
def test_only_the_published_experiments_have_the_published_schedule(env_id, n_envs, starts, train_freq, gradient_steps):
    expected = {"learning_starts": starts, "train_freq": train_freq, "gradient_steps": gradient_steps}
    assert schedule(env_id, n_envs) == expected


def test_the_schedule_of_ones_own_environment_is_fcdls():
    defaults = {name: each.default for name, each in inspect.signature(FCDL).parameters.items()}
    assert schedule("CartPole-v1", 1).items() <= defaults.items()


def test_the_published_preset_has_the_published_model():
    assert preset(ENV_ID)["dynamics"] == preset("CartPole-v1")["dynamics"] == DEFAULT_DYNAMICS
    assert preset(ENV_ID, "paper")["dynamics"] == "fcdl"
