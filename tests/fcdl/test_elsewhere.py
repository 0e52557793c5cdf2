"""What users of SB3 look for and FCDL has in another place."""

import warnings

import gymnasium as gym
import pytest
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv

from sb3_fcdl import FCDL
from sb3_fcdl.callbacks import DynamicsCallback
from sb3_fcdl.dynamics import MLPDynamics
from sb3_fcdl.planning import ICEM


@pytest.mark.parametrize(
    ("name", "value", "where"),
    [
        ("action_noise", None, "exploration_rate"),
        ("use_sde", True, "exploration_rate"),
        ("sde_sample_freq", 4, "exploration_rate"),
        ("ent_coef", "auto", "exploration_rate"),
        ("exploration_fraction", 0.1, "exploration_rate"),
        ("n_steps", 5, "train_horizon"),
        ("tau", 0.005, "average_decay"),
        ("target_update_interval", 1, "average_decay"),
        ("net_arch", [64], r"dynamics_kwargs=.*hidden_dim"),
        ("hidden_dim", 64, r"dynamics_kwargs=.*hidden_dim"),
        ("horizon", 3, r"planner_kwargs=.*horizon"),
    ],
)
def test_a_knob_of_sb3_says_where_it_is(name, value, where):
    with pytest.raises(TypeError, match=f"FCDL has an unknown key '{name}': .*{where}"):
        FCDL("MlpPolicy", "CartPole-v1", **{name: value})
    with pytest.raises(TypeError, match=f"DynamicsCallback has an unknown key '{name}': .*{where}"):
        DynamicsCallback(**{name: value})


def test_a_knob_in_the_wrong_dictionary_says_where_it_is():
    for kwargs, where in (
        ({"policy_kwargs": {"net_arch": [64]}}, "FCDLPolicy has an unknown key 'net_arch': .*dynamics_kwargs"),
        ({"planner_kwargs": {"discount": 0.9}}, r"planner_kwargs has an unknown key 'discount': it is FCDL\(gamma"),
        ({"dynamics_kwargs": {"net_arch": [64]}}, "dynamics_kwargs has an unknown key 'net_arch': .*hidden_dim"),
        ({"dynamics_kwargs": {"n_cods": 64}}, "dynamics_kwargs has an unknown key 'n_cods', allowed: graph_prior, hidden_dim"),
    ):
        with pytest.raises(TypeError, match=where):
            FCDL("MlpPolicy", "CartPole-v1", **kwargs)
    with pytest.raises(TypeError, match="FCDL has an unknown key 'polcy', allowed: policy, env, learning_rate"):
        FCDL("MlpPolicy", "CartPole-v1", polcy=1)


def test_planners_and_models_of_ones_own_take_what_they_name():
    class Planner(ICEM):
        pass

    class Model(MLPDynamics):
        def __init__(self, factors, net_arch):
            super().__init__(factors, hidden_dim=net_arch[0], n_layers=len(net_arch))

    model = FCDL(
        "MlpPolicy", "CartPole-v1", buffer_size=10, planner=Planner, dynamics=Model, dynamics_kwargs={"net_arch": [7, 7]}
    )
    assert [part.out_features for part in model.dynamics.network[::2]] == [7, 7, model.dynamics.layout.output_width]
    assert type(model.policy.planner) is Planner


def test_a_vector_env_of_gymnasium_gets_the_hint():
    envs = gym.make_vec("CartPole-v1", num_envs=2)
    with pytest.raises(ValueError, match=r"give FCDL sb3_fcdl\.vec_env\.GymVectorVecEnv\(env\)"):
        FCDL("MlpPolicy", envs)
    model = FCDL("MlpPolicy", "CartPole-v1", buffer_size=10)
    with pytest.raises(ValueError, match="GymVectorVecEnv"):
        model.set_env(envs)


def test_buffers_that_have_no_effect_are_told():
    kwargs = {"buffer_size": 100, "dynamics": "mlp"}
    with pytest.warns(UserWarning, match="HerReplayBuffer has no effect on FCDL"):
        FCDL("MultiInputPolicy", BitFlippingEnv(n_bits=4), replay_buffer_class=HerReplayBuffer, **kwargs)
    with pytest.warns(UserWarning, match="NStepReplayBuffer has no effect on FCDL"):
        FCDL("MlpPolicy", "CartPole-v1", replay_buffer_class=NStepReplayBuffer, **kwargs)
    for plain in (None, ReplayBuffer):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            FCDL("MlpPolicy", "CartPole-v1", replay_buffer_class=plain, **kwargs)
