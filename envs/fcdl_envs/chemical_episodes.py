"""Episodes of Chemical, many at once: tasks, noise, rewards and randomness, without the Gym API."""

from copy import deepcopy
from typing import Any, Literal, get_args

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from fcdl_envs.arguments import Flag, check, integer, number, one_of, refuse
from fcdl_envs.chemical_render import render_ansi, render_rgb
from fcdl_envs.chemical_system import ChemicalSystem, Colors
from fcdl_envs.variables import Factors, Variable

Task = Literal["train", "test"]
Noise = Literal["scale", "color", "none"]

# Bounds of the `state` box in both tasks, so that an agent can move from one to the other. Noise beyond them is clipped.
STATE_BOUND = 1000.0
# Five standard deviations of the strongest noise lie within the bounds.
MAX_NOISE_SCALE = STATE_BOUND / 5
MAX_EPISODE_STEPS = 25
N_GOAL_INTERVENTIONS = 10
# The randomness of so many steps is drawn at once: enough for an episode, whose last observation is one more.
BLOCK = MAX_EPISODE_STEPS + 1


class ChemicalEpisodes:
    """
    ``B`` independent episodes of one :class:`ChemicalSystem`, each with its own random generator.

    :param n_episodes: ``B``
    :param system: the dynamics
    :param task: where episodes start and what their goal is
    :param n_noisy: objects ``1 .. n_noisy`` are observed with noise and do not count for the reward
    :param noise: what is observed of them
    :param noise_scale: standard deviation of the noise ``scale``
    :param forbid_root: whether the action mask excludes actions on object 0
    :raises ValueError: if an argument is out of range
    """

    def __init__(
        self,
        n_episodes: int,
        system: ChemicalSystem,
        task: Task,
        n_noisy: int,
        noise: Noise,
        noise_scale: float,
        forbid_root: bool,
    ) -> None:
        n_objects, n_colors = system.n_objects, system.n_colors
        check(
            task=(task, one_of(*get_args(Task))),
            n_noisy=(n_noisy, integer(0, n_objects - 4, "n_objects - 4")),
            noise=(noise, one_of(*get_args(Noise))),
            noise_scale=(noise_scale, number(at_least=0, at_most=MAX_NOISE_SCALE)),
            forbid_root=(forbid_root, Flag()),
        )
        if task == "train" and n_noisy:
            refuse("n_noisy", n_noisy, "0 with task='train'")
        self.system = system
        self.task = task
        self.n_noisy, self.noise, self.noise_scale = n_noisy, noise, noise_scale
        self.action_mask = np.ones(system.n_actions, dtype=bool)
        self.action_mask[:n_colors] = not forbid_root
        self.match_set = np.arange(n_objects)
        self.match_set = self.match_set[(self.match_set == 0) | (self.match_set > n_noisy)]
        self.generators = [np.random.default_rng() for _ in range(n_episodes)]
        self.colors = np.zeros((n_episodes, n_objects), dtype=np.int64)
        self.goals = np.zeros((n_episodes, n_objects), dtype=np.int64)
        self.steps = np.zeros(n_episodes, dtype=np.int64)
        self.has_started = np.zeros(n_episodes, dtype=bool)
        self.succeeded = np.zeros(n_episodes, dtype=bool)
        width = n_objects * n_colors
        self._goal_observations = np.zeros((n_episodes, width), dtype=np.float32)
        self._uniforms = np.zeros((n_episodes, BLOCK, n_objects))
        self._normals = np.zeros((n_episodes, BLOCK, n_noisy))
        self.observation_space = spaces.Dict(
            state=spaces.Box(-STATE_BOUND, STATE_BOUND, (width,)), goal=spaces.Box(0.0, 1.0, (width,))
        )
        self.action_space = spaces.Discrete(system.n_actions)
        self.factorization = Factors(
            state={"state": tuple(Variable(f"obj{index}", n_colors) for index in range(n_objects))},
            action=(Variable("action", system.n_actions),),
            goal=("goal",),
        )

    def reset(self, rows: np.ndarray) -> None:
        """Starts new episodes in these rows."""
        colors, goals = self._training_task(rows) if self.task == "train" else self._test_task(rows)
        self.colors[rows], self.goals[rows] = colors, goals
        self._goal_observations[rows] = self._observe_goals(goals)
        self.steps[rows] = 0
        self.has_started[rows] = True
        self.succeeded[rows] = False
        self._draw_block(rows)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """
        Moves all episodes one step.

        :param actions: ``[B]``
        :return: rewards, ``[B]``, and infos by name
        :raises ValueError: if there is not one action for each episode, or one is not in the action space
        :raises ResetNeeded: if an episode has not started
        """
        if not self.has_started.all():
            raise ResetNeeded("there is no episode yet: call reset before step")
        actions = np.asarray(actions)
        if actions.shape != self.steps.shape or actions.dtype.kind not in "iu":
            raise ValueError(
                f"actions={actions} are not allowed; they must be one integer for each environment, "
                f"shape {self.steps.shape}, got shape {actions.shape} of {actions.dtype}"
            )
        if actions.min() < 0 or actions.max() >= self.system.n_actions:
            raise ValueError(f"actions={actions} are not allowed; they must be within 0 .. {self.system.n_actions - 1}")
        self.colors = self.system.step(self.colors, actions, self._uniforms[np.arange(len(actions)), self.steps % BLOCK])
        self.steps += 1
        used_up = self.steps % BLOCK == 0
        if used_up.any():
            self._draw_block(np.flatnonzero(used_up))
        matched = (self.colors == self.goals)[:, self.match_set].sum(axis=1)
        self.succeeded |= matched == len(self.match_set)
        regime = self.system.regime(self.colors)
        infos = {
            "local_graph": self.system.local_graph(regime),
            "transition_graph": self.system.transition_graph(regime, actions),
            "is_success": self.succeeded.copy(),
        }
        return matched / len(self.match_set), infos

    def observe(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """
        What these episodes show now.

        :return: by key of the observation space, ``[len(rows), V * C]`` float32
        """
        state = self._one_hot(self.colors[rows])
        if self.n_noisy:
            noisy = state.reshape(len(rows), -1, self.system.n_colors)[:, 1 : self.n_noisy + 1]
            self._corrupt(noisy, self._normals[rows, self.steps[rows] % BLOCK])
        return {"state": state, "goal": self._goal_observations[rows]}

    def get_state(self, row: int) -> dict[str, Any]:
        """All that decides how this episode, and those after it, go on."""
        return {
            "colors": self.colors[row].copy(),
            "goal": self.goals[row].copy(),
            "steps": int(self.steps[row]),
            "succeeded": bool(self.succeeded[row]),
            "uniforms": self._uniforms[row].copy(),
            "normals": self._normals[row].copy(),
            "generator": deepcopy(self.generators[row].bit_generator.state),
        }

    def set_state(self, row: int, state: dict[str, Any]) -> None:
        """Goes on from what :meth:`get_state` returned."""
        self.colors[row], self.goals[row] = state["colors"], state["goal"]
        self._goal_observations[row] = self._observe_goals(self.goals[row : row + 1])
        self.steps[row], self.succeeded[row] = state["steps"], state["succeeded"]
        self.has_started[row] = True
        self._uniforms[row], self._normals[row] = state["uniforms"], state["normals"]
        self.generators[row].bit_generator.state = state["generator"]

    def render(self, row: int, mode: str | None) -> Any:
        """:return: an image ``[height, width, 3]`` uint8, a text, or nothing"""
        if mode is None:
            return None
        colors, goals = self.colors[row], np.full(self.system.n_objects, -1)
        goals[self.match_set] = self.goals[row][self.match_set]
        edges = self.system.instantaneous_graph(colors[None])[0]
        if mode == "rgb_array":
            return render_rgb(colors, goals, edges, self.system.n_colors)
        return render_ansi(colors, goals, edges)

    def _draw(self, rows: np.ndarray, n_uniforms: int) -> np.ndarray:
        return np.stack([self.generators[row].random(n_uniforms) for row in rows])

    def _draw_block(self, rows: np.ndarray) -> None:
        # each episode from its own generator, so that its draws do not depend on the others in its batch
        for row in rows:
            self.generators[row].random(out=self._uniforms[row])
            self.generators[row].standard_normal(out=self._normals[row])

    def _one_hot(self, colors: Colors) -> np.ndarray:
        """:return: ``[len(colors), V * C]`` float32"""
        encoded = np.zeros((colors.size, self.system.n_colors), dtype=np.float32)
        encoded[np.arange(colors.size), colors.ravel()] = 1.0
        return encoded.reshape(len(colors), -1)

    def _corrupt(self, noisy: np.ndarray, normals: np.ndarray) -> None:
        """
        Every kind of noise uses up the same random numbers, so that the episodes behind it are the same.

        :param noisy: one-hot colours of the noisy objects, ``[R, n_noisy, C]``, replaced by what is observed of them
        :param normals: ``[R, n_noisy]``
        """
        if self.noise == "scale":
            factors = np.clip(self.noise_scale * normals, -STATE_BOUND, STATE_BOUND)
            noisy *= factors[:, :, None].astype(np.float32)
        elif self.noise == "color":
            # The far digits of a normal number are uniform.
            colors = np.abs(1e6 * normals).astype(np.int64) % self.system.n_colors
            noisy[:] = self._one_hot(colors).reshape(noisy.shape)

    def _observe_goals(self, goals: Colors) -> np.ndarray:
        in_match_set = np.zeros(self.system.n_objects, dtype=np.float32)
        in_match_set[self.match_set] = 1.0
        return self._one_hot(goals) * in_match_set.repeat(self.system.n_colors)

    def _training_task(self, rows: np.ndarray) -> tuple[Colors, Colors]:
        """Starts anywhere; the goal is what random interventions below the root lead to."""
        n_objects, n_colors = self.system.n_objects, self.system.n_colors
        uniforms = self._draw(rows, n_objects + N_GOAL_INTERVENTIONS * (n_objects + 2))
        start = self.system.sample(uniforms[:, :n_objects])
        goal = start
        for draws in np.split(uniforms[:, n_objects:], N_GOAL_INTERVENTIONS, axis=1):
            node = 1 + (draws[:, 0] * (n_objects - 1)).astype(np.int64)
            color = (draws[:, 1] * n_colors).astype(np.int64)
            goal = self.system.step(goal, node * n_colors + color, draws[:, 2:])
        return start, goal

    def _test_task(self, rows: np.ndarray) -> tuple[Colors, Colors]:
        """Starts in the local regime; the goal changes some objects to their next colour and keeps the others."""
        n_objects, n_colors = self.system.n_objects, self.system.n_colors
        start = (self._draw(rows, n_objects) * n_colors).astype(np.int64)
        start[:, 0] = 0
        n_kept = self.n_noisy + 1
        if self.system.rule == "full_chain":
            n_kept = n_objects - (n_objects - self.n_noisy) // 2
        goal = start.copy()
        goal[:, n_kept:] = (goal[:, n_kept:] + 1) % n_colors
        return start, goal
