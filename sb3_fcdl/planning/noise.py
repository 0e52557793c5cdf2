"""The only source of randomness of a planner."""

from collections.abc import Callable, Sequence

import torch as th


class Noise:
    """
    Random numbers for B environments: for each from its own generator, or for all from torch's global one. They are drawn on
    the CPU, hence equal on every device.

    :param n_envs: number of environments, B
    :param device: where the numbers are wanted
    :param generators: a CPU generator for each environment; None: the global one
    :raises ValueError: if there is not one generator for each environment
    """

    def __init__(self, n_envs: int, device: th.device, generators: Sequence[th.Generator] | None) -> None:
        if generators is not None and len(generators) != n_envs:
            raise ValueError(f"there must be one generator for each of {n_envs} environments, got {len(generators)}")
        self.n_envs = n_envs
        self.device = device
        self.generators = generators

    def uniform(self, *shape: int) -> th.Tensor:
        """:return: uniform in [0, 1), ``[B, *shape]``"""
        return self._draw(th.rand, shape)

    def normal(self, *shape: int) -> th.Tensor:
        """:return: standard normal, ``[B, *shape]``"""
        return self._draw(th.randn, shape)

    def _draw(self, draw: Callable[..., th.Tensor], shape: tuple[int, ...]) -> th.Tensor:
        if self.generators is None:
            return draw(self.n_envs, *shape).to(self.device)
        return th.stack([draw(*shape, generator=generator) for generator in self.generators]).to(self.device)
