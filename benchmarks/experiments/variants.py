"""Environments of Gymnasium in another form, registered for the experiments beside this file: ``variants:NAME``."""

from typing import Any

import gymnasium as gym
import numpy as np


def factored_taxi(**kwargs: Any) -> gym.Env:
    """Taxi, whose 500 states are shown as what they are: row, column, place of the passenger (4: on board), destination."""
    taxi = gym.make("Taxi-v4", **kwargs).unwrapped
    space = gym.spaces.MultiDiscrete([5, 5, 5, 4])
    return gym.wrappers.TransformObservation(taxi, lambda state: np.array(list(taxi.decode(state))), space)


if "FactoredTaxi-v4" not in gym.registry:  # this file may be run twice in one process
    gym.register("FactoredTaxi-v4", factored_taxi, max_episode_steps=200)
    # CliffWalking itself never cuts an episode off: one that does not arrive would never be evaluated.
    gym.register("LimitedCliffWalking-v1", gym.spec("CliffWalking-v1").entry_point, max_episode_steps=200)
