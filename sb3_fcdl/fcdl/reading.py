"""How a policy reads what it is given."""

import numpy as np
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_fcdl.observations import Observations
from sb3_fcdl.world.factorization import Factorization
from sb3_fcdl.world.gate import check_observations


def read_observations(
    policy: BasePolicy, factorization: Factorization, observation: Observations, who: str
) -> tuple[PyTorchObs, bool]:
    """
    :param policy: that is given them
    :param factorization: knows the spaces and what their columns mean
    :param observation: one observation or a batch
    :param who: what errors call the one who was given them
    :return: a batch of tensors on the policy's device, and whether a batch was given
    :raises ValueError: if a number is NaN or infinite, or a category outside of its space, or it is a tuple, as
        ``env.reset()`` of Gymnasium returns it
    """
    if isinstance(observation, tuple):
        raise ValueError(
            f"{who} was given a tuple instead of an observation. You are probably mixing the Gym and the SB3 VecEnv "
            "API: `obs, info = env.reset()` (Gym) vs `obs = vec_env.reset()` (SB3 VecEnv)."
        )
    seen = observation if isinstance(observation, dict) else np.asarray(observation)
    remedy = "Give the policy what can be observed, such as what was observed last"
    check_observations(factorization, seen, f"{who} was given", remedy)
    return policy.obs_to_tensor(seen)
