"""Whether tables are used."""

import torch as th


def uses_tables(device: th.device) -> bool:
    """
    Whether what follows from the category of a variable is computed once and looked up: on a CPU.

    On other devices matrix products are cheap, and to ask whether inputs are one-hot is to wait for the device. Tests and the
    speed benchmark replace this function, to compare both ways of computing the same thing.

    :param device: of the weights
    """
    return device.type == "cpu"
