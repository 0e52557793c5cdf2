"""Observations as SB3 hands them round: an array, or of a ``Dict`` space an array for each key."""

from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import PolicyPredictor

Observations = np.ndarray | dict[str, np.ndarray]


def map_observations(function: Callable[..., Any], *observations: Any) -> Any:
    """
    :param function: of as many arrays as observations are given
    :param observations: all arrays, or all with the same keys
    :return: what the function makes of them, by key where they have keys
    """
    if isinstance(observations[0], dict):
        return {key: function(*(each[key] for each in observations)) for key in observations[0]}
    return function(*observations)


def given_to(model: PolicyPredictor) -> Callable[[Observations], Observations]:
    """
    :param model: anything with SB3's ``predict``
    :return: from observations of the environment to what the model is given of them: what its ``VecNormalize`` makes of them,
        if it still has one
    """
    normalizer = model.get_vec_normalize_env() if isinstance(model, BaseAlgorithm) else None
    return (lambda observations: observations) if normalizer is None else normalizer.normalize_obs
