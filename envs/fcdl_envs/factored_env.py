"""What the Gymnasium environments of factored systems share: episodes, information on graphs, saving."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from fcdl_envs.arguments import OrNone, check, integer, number, one_of, refuse
from fcdl_envs.factored_render import render_rgb
from fcdl_envs.factored_system import FactoredSystem, one_hot
from fcdl_envs.variables import Factors


class FactoredEnv(gym.Env[Any, Any], ABC):
    """
    One episode at a time of a :class:`FactoredSystem`: a batch of one. A subclass says what is observed and rewarded.

    ``reset(options=)`` gives state variables by name the values that they start with, categories by index; the other draws
    stay as they are.

    :param system: the true dynamics
    :param observation_space: of the observations
    :param action_space: ``MultiDiscrete``, or a ``Box`` whose actions are clipped to it
    :param render_mode: ``rgb_array``, ``ansi`` or nothing
    :raises ValueError: if there is no such render mode
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "ansi"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's way)
    reward_fn: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        system: FactoredSystem,
        observation_space: spaces.Space,
        action_space: spaces.MultiDiscrete | spaces.Box,
        render_mode: str | None,
    ) -> None:
        check(render_mode=(render_mode, OrNone(one_of(*self.metadata["render_modes"]))))
        self.system = system
        self.observation_space = observation_space
        self.action_space = action_space
        self.render_mode = render_mode
        self._variables = system.factors.state_variables
        self._state: np.ndarray | None = None  # [1, V]

    @property
    def factorization(self) -> Factors:
        """What the columns of observations and actions mean."""
        return self.system.factors

    @property
    def global_graph(self) -> np.ndarray:
        """The union of all transition graphs, ``[V, P]`` bool, ``graph[child, parent]``."""
        return self.system.global_graph

    @property
    def context_variables(self) -> tuple[str, ...]:
        """Names of the variables that choose the context."""
        return self.system.context_variables

    @property
    def context(self) -> str:
        """
        The context of the state now, in words.

        :raises ResetNeeded: before the first ``reset``
        """
        return self.system.context(self._now())[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """
        :raises ValueError: if ``options`` names an unknown variable, or a value that is not allowed
        :raises TypeError: if a value is of a wrong type
        """
        super().reset(seed=seed)
        state = self.system.draw_start(self.np_random)
        for name, value in (options or {}).items():
            names = self.factorization.state_names
            if name not in names:
                refuse("option", name, f"one of {', '.join(names)}")
            variable = self._variables[names.index(name)]
            check(**{name: (value, integer(0, variable.n_categories - 1) if variable.is_categorical else number())})
            state[names.index(name)] = value
        self._state = state[None]
        return self._observe(state), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """
        :raises ValueError: if the action is not in the action space; numbers of a ``Box`` out of its bounds are clipped
        :raises ResetNeeded: before the first ``reset``
        """
        state, actions = self._now(), self._checked(action)[None]
        self._state = self.system.step(state, actions, self.system.draw_noise(self.np_random)[None])
        info = {
            "local_graph": self.system.local_graph(state)[0],
            "transition_graph": self.system.transition_graph(state, actions)[0],
            "context": self.system.context(state)[0],
        }
        before, after = (one_hot(self._variables, each) for each in (state, self._state))
        reward = self.reward_fn(before, one_hot(self.system.factors.action, actions), after, None)
        return self._observe(self._state[0]), float(reward[0]), False, False, info

    def render(self) -> Any:
        """
        :return: a picture, see :func:`fcdl_envs.factored_render.render_rgb`, or with ``ansi`` the variables and the context in
            words; None without a render mode
        """
        if self.render_mode is None:
            return None
        if self.render_mode == "rgb_array":
            return render_rgb(self._variables, self._now()[0], self.system.ranges)
        values = zip(self._variables, self._now()[0], strict=True)
        words = ", ".join(f"{variable.name}={variable.in_words(value, 3)}" for variable, value in values)
        return f"{words}\n{self.context}\n"

    def get_state(self) -> dict[str, Any]:
        """The whole state of the simulator and the generator; the time limit of ``gym.make`` is not part of it."""
        return {"state": self._now()[0].copy(), "generator": deepcopy(self.np_random.bit_generator.state)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from what :meth:`get_state` returned, here or in another environment with the same arguments."""
        self._state = np.array(state["state"], dtype=np.float64)[None]
        self.np_random.bit_generator.state = state["generator"]

    @abstractmethod
    def _observe(self, state: np.ndarray) -> Any:
        """:param state: ``[V]``"""

    def _now(self) -> np.ndarray:
        if self._state is None:
            raise ResetNeeded("there is no episode yet: call reset before step")
        return self._state

    def _checked(self, action: Any) -> np.ndarray:
        """:return: ``[n]``, see :class:`FactoredSystem`"""
        values, space = np.asarray(action), self.action_space
        if isinstance(space, spaces.Box):
            if values.shape != space.shape or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
                refuse("action", action, f"finite numbers of shape {space.shape}")
            return np.clip(values.astype(np.float64), space.low, space.high)
        assert isinstance(space, spaces.MultiDiscrete)
        is_integer = values.shape == space.shape and values.dtype.kind in "iu"
        if not is_integer or (values < 0).any() or (values >= space.nvec).any():
            refuse("action", action, f"integers of shape {space.shape} below {space.nvec.tolist()}")
        return values.astype(np.float64)
