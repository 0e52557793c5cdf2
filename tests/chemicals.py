"""What the tests of Chemical share."""

import numpy as np

NOISY_TEST = {"task": "test", "n_noisy": 4}
COLOR_TEST = NOISY_TEST | {"noise": "color"}


def decode(observation, key="state", n_colors=5):
    """Colours of clean objects, and -1 where all columns are zero, [..., V]."""
    one_hot = observation[key].reshape(*observation[key].shape[:-1], -1, n_colors)
    return np.where(one_hot.any(axis=-1), one_hot.argmax(axis=-1), -1)
