"""Chemical as Gymnasium environments: one of them, or many that step together."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector.utils import batch_space

from fcdl_envs.arguments import OrNone, check, integer, one_of, refuse
from fcdl_envs.chemical_episodes import MAX_EPISODE_STEPS, ChemicalEpisodes, Noise, Task
from fcdl_envs.chemical_system import ChemicalSystem, Rule
from fcdl_envs.variables import Factors


def goal_match_reward(state: Any, action: Any, next_state: Any, goal: Any) -> Any:
    """
    Share of the objects in the match set whose next colour is their goal colour.

    :param state: not used, ``[B, D]``
    :param action: not used, ``[B, A]``
    :param next_state: one-hot colours, ``[B, D]``
    :param goal: one-hot goal colours, zero for objects outside the match set, ``[B, D]``
    :return: ``[B]``, of the type that is given: torch or NumPy
    """
    return (next_state * goal).sum(-1) / goal.sum(-1)


class _Published:
    """What both environments tell an agent about themselves."""

    reward_fn = staticmethod(goal_match_reward)
    _episodes: ChemicalEpisodes

    @property
    def system(self) -> ChemicalSystem:
        """The true dynamics."""
        return self._episodes.system

    @property
    def factorization(self) -> Factors:
        """What the columns of observations and actions mean."""
        return self._episodes.factorization

    @property
    def global_graph(self) -> np.ndarray:
        """``[V, V+1]`` bool, ``graph[child, parent]``, the action last."""
        return self.system.global_graph


class ChemicalEnv(_Published, gym.Env[Any, np.int64]):
    """
    ## Description

    Coloured objects influence each other's colours along a causal graph, as substances in a reaction. An action paints one
    object; the paint may change the colours of the objects that depend on it, in the same step. The aim is to bring the
    objects to given colours and keep them there.

    Which object depends on which changes with the context: while the root, object 0, has colour 0, most dependencies vanish.
    An agent that knows this *local* graph is not disturbed by objects that do not matter in it. The ``test`` task asks for
    just that: it takes place in the local regime, and shows some objects with noise.

    The environment follows Ke et al. (2021), with the local rules of Hwang et al. (2024).

    ## Variables and ground-truth graph

    The state is ``n_objects`` categorical variables ``obj0, obj1, ...`` with ``n_colors`` values each. Painting object ``k``
    redraws, in causal order, each later object that is reachable from ``k``: its new colour is drawn from a fixed random
    network of the *new* colours of its parents. All other objects persist. With ``dynamics_seed`` one chooses the networks.

    While object 0 has colour 0 after the action, the ``rule`` leaves a parent only if it is

    | rule         | remaining parents                                                                   |
    |--------------|-------------------------------------------------------------------------------------|
    | `full_fork`  | the root: unless the root is painted, only the painted object changes                 |
    | `full_chain` | the predecessor: all objects after the painted one are redrawn, as a Markov chain      |
    | `none`       | all of them: there is no local regime                                                 |

    ``global_graph`` and ``info["local_graph"]`` are ``[V, V+1]`` with ``graph[child, parent]``: which next colour (row)
    depends on which colour now, and on the action (last column). Effects within a step pass on, so an object's ancestors
    count, and so does the root wherever its colour changes the parents. In the local regime, when the action is known,
    an object depends on itself and the action alone.

    ``info["transition_graph"]`` is finer: what the next colours depend on while the regime and the painted object are known,
    see ``ChemicalSystem.transition_graph``. What is repainted or redrawn no longer depends on the colour that it had.

    ## Action

    ``Discrete(n_objects * n_colors)``: ``object * n_colors + color`` paints the object. ``action_masks()`` allows all actions,
    or with ``forbid_root`` all but the root's; the environment itself accepts every action.

    ## Observation

    A ``Dict`` of two flat float32 boxes of ``n_objects * n_colors``, the objects' one-hot colours in order:

    | key     | bounds          | content                                                              |
    |---------|-----------------|----------------------------------------------------------------------|
    | `state` | -1000 .. 1000   | colours now; of noisy objects what the noise makes of them             |
    | `goal`  | 0 .. 1          | goal colours, without noise; zero for objects outside the match set     |

    | noise   | a noisy object shows, in each observation anew                                       |
    |---------|---------------------------------------------------------------------------------------|
    | `scale` | its one-hot colour times one number, `noise_scale * N(0, 1)`, clipped to the bounds      |
    | `color` | any colour, each with the same chance: nothing in it tells that it is wrong             |
    | `none`  | its colour: the same task without corruption                                           |

    Noise changes what is observed and nothing else: with the same seed and actions, episodes are the same under each.

    ## Reward

    The share of the objects in the match set that have their goal colour after the step. At most 25 an episode.
    ``info["is_success"]`` tells whether all of them matched after some step of the episode so far. ``reward_fn`` is the same
    reward as a function of torch tensors.

    ## Start

    * ``train``: the root's colour is uniform, the others are drawn in causal order. The goal is the state after 10 random
      interventions below the root. All objects are in the match set.
    * ``test``: the root has colour 0, the others' colours are uniform. Objects ``1 .. n_noisy`` are noisy; all others are in
      the match set. Goal with ``full_chain``: the last ``(n_objects - n_noisy) // 2`` objects shall take their next colour,
      all others keep theirs. With the other rules: all objects after ``n_noisy`` shall take their next colour, the root
      keep its own.

    ``reset(seed=)`` decides the episodes, not the dynamics.

    ## End

    An episode does not terminate; ``gym.make`` truncates it after 25 steps.

    ## Arguments

    :param rule: ``full_fork``, ``full_chain`` or ``none``
    :param graph: the graph outside the local regime: ``full``, ``chain``, ``fork``, ``collider``, ``tree``, ``jungle``,
        ``bidiag``, or a strictly lower triangular matrix ``[V, V]`` with ``graph[child, parent]``
    :param n_objects: ``V``, at least 4
    :param n_colors: ``C``, at least 2
    :param dynamics_seed: of the networks; the same number is the same system
    :param task: ``train`` or ``test``
    :param n_noisy: how many objects are noisy, ``0 .. n_objects - 4``; 0 in the ``train`` task
    :param noise: ``scale``, ``color`` or ``none``
    :param noise_scale: of the noise ``scale``, ``0 .. 200``
    :param forbid_root: whether ``action_masks`` excludes the root
    :param render_mode: ``rgb_array``, ``ansi`` or nothing
    :raises ValueError: if an argument is out of range
    :raises TypeError: if an argument is of a wrong type

    ## Version history

    * v0: first version
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "ansi"], "render_fps": 4}  # noqa: RUF012 (Gymnasium's way)

    def __init__(
        self,
        rule: Rule = "full_fork",
        graph: str | np.ndarray = "full",
        n_objects: int = 10,
        n_colors: int = 5,
        dynamics_seed: int = 0,
        task: Task = "train",
        n_noisy: int = 0,
        noise: Noise = "scale",
        noise_scale: float = 100.0,
        forbid_root: bool = False,
        render_mode: str | None = None,
    ) -> None:
        system = ChemicalSystem(rule, graph, n_objects, n_colors, dynamics_seed)
        self._episodes = ChemicalEpisodes(1, system, task, n_noisy, noise, noise_scale, forbid_root)
        self._row = np.arange(1)
        self.observation_space = self._episodes.observation_space
        self.action_space = self._episodes.action_space
        self.render_mode = _check_render_mode(render_mode)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self._episodes.generators = [self.np_random]
        self._episodes.reset(self._row)
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """
        :raises ValueError: if the action is not in the action space
        :raises ResetNeeded: before the first ``reset``
        """
        rewards, infos = self._episodes.step(np.array([action]))
        graphs = {name: infos[name][0] for name in ("local_graph", "transition_graph")}
        info = {**graphs, "is_success": bool(infos["is_success"][0])}
        return self._observe(), float(rewards[0]), False, False, info

    def render(self) -> Any:
        return self._episodes.render(0, self.render_mode)

    def action_masks(self) -> np.ndarray:
        """:return: which actions are allowed, ``[n_objects * n_colors]`` bool"""
        return self._episodes.action_mask.copy()

    def get_state(self) -> dict[str, Any]:
        """The whole state of the simulator and its generator; the time limit of ``gym.make`` is not part of it."""
        return self._episodes.get_state(0)

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from what :meth:`get_state` returned, here or in another environment with the same arguments."""
        self._episodes.generators = [self.np_random]
        self._episodes.set_state(0, state)

    def _observe(self) -> dict[str, np.ndarray]:
        return {key: values[0] for key, values in self._episodes.observe(self._row).items()}


class ChemicalVectorEnv(_Published, gym.vector.VectorEnv):
    """
    Many :class:`ChemicalEnv`, stepped together: the same episodes, bit for bit, as that many single environments.

    Episodes restart within the step that ends them (``AutoresetMode.SAME_STEP``), and share one system.

    :param num_envs: how many
    :param max_episode_steps: after how many steps an episode is truncated
    :param render_mode: ``rgb_array``, ``ansi`` or nothing
    :param task: see :class:`ChemicalEnv`, as the next four and all other arguments
    :param n_noisy: how many objects are noisy
    :param noise: ``scale``, ``color`` or ``none``
    :param noise_scale: standard deviation of the noise ``scale``
    :param forbid_root: whether ``action_masks`` excludes the root
    :param system_kwargs: arguments of :class:`ChemicalSystem`
    :raises ValueError: if an argument is out of range
    :raises TypeError: if an argument is of a wrong type
    """

    metadata: dict[str, Any] = {**ChemicalEnv.metadata, "autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int = MAX_EPISODE_STEPS,
        render_mode: str | None = None,
        task: Task = "train",
        n_noisy: int = 0,
        noise: Noise = "scale",
        noise_scale: float = 100.0,
        forbid_root: bool = False,
        **system_kwargs: Any,
    ) -> None:
        check(num_envs=(num_envs, integer(1)), max_episode_steps=(max_episode_steps, integer(1)))
        system = ChemicalSystem(**system_kwargs)
        self._episodes = ChemicalEpisodes(num_envs, system, task, n_noisy, noise, noise_scale, forbid_root)
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.render_mode = _check_render_mode(render_mode)
        self.single_observation_space = self._episodes.observation_space
        self.single_action_space = self._episodes.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rows = np.arange(num_envs)
        self._seeds = [0] * num_envs
        self._seed(dict.fromkeys(range(num_envs)))

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generators of the environments, as ``SyncVectorEnv`` has them."""
        return tuple(self._episodes.generators)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """What each of them was seeded with last; a random number if ``reset`` was given no seed."""
        return tuple(self._seeds)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """
        :param seed: of the first environment, the others count on from it; or one for each
        :param options: not used
        :return: observations, ``[num_envs, ...]`` by key, and no infos
        :raises ValueError: if there is not one seed for each environment, or one is no non-negative integer
        """
        seeds = [seed + row for row in range(self.num_envs)] if isinstance(seed, int | np.integer) else seed
        if seeds is not None:
            is_list = not isinstance(seeds, str) and np.asarray(seeds).shape == (self.num_envs,)
            is_valid = is_list and all(each is None or (isinstance(each, int | np.integer) and each >= 0) for each in seeds)
            if not is_valid:
                refuse("seed", seed, f"a non-negative integer or {self.num_envs} of them, shape ({self.num_envs},)")
            self._seed({row: int(each) for row, each in enumerate(seeds) if each is not None})
        self._episodes.reset(self._rows)
        return self._episodes.observe(self._rows), {}

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """
        :param actions: ``[num_envs]``
        :return: observations, ``[num_envs, ...]`` by key; rewards, terminated and truncated, ``[num_envs]``; infos
        :raises ValueError: if there is not one action for each environment, or one is not in the action space
        :raises ResetNeeded: before the first ``reset``
        """
        rewards, infos = self._episodes.step(actions)
        observations = self._episodes.observe(self._rows)
        truncated = self._episodes.steps >= self.max_episode_steps
        if truncated.any():
            observations, infos = self._restart(truncated, observations, infos)
        else:
            infos = _masked(infos, ~truncated)
        return observations, rewards, np.zeros(self.num_envs, dtype=bool), truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        if self.render_mode is None:
            return None
        return tuple(self._episodes.render(row, self.render_mode) for row in range(self.num_envs))

    def action_masks(self) -> np.ndarray:
        """:return: which actions are allowed, ``[num_envs, n_objects * n_colors]`` bool"""
        return np.tile(self._episodes.action_mask, (self.num_envs, 1))

    def get_state(self) -> list[dict[str, Any]]:
        """The whole state of the simulator and its generators, of each environment, as :meth:`ChemicalEnv.get_state`."""
        return [self._episodes.get_state(row) for row in range(self.num_envs)]

    def set_state(self, states: Sequence[dict[str, Any]]) -> None:
        """Goes on from what :meth:`get_state` returned."""
        for row, state in enumerate(states):
            self._episodes.set_state(row, state)

    def _seed(self, seeds: Mapping[int, int | None]) -> None:
        """
        :param seeds: by environment; None: a random one
        """
        for row, seed in seeds.items():
            self._episodes.generators[row], self._seeds[row] = seeding.np_random(seed)

    def _restart(
        self, done: np.ndarray, observations: dict[str, np.ndarray], infos: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """New episodes where they are done; the last observations and infos move to ``final_obs`` and ``final_info``."""
        rows = np.flatnonzero(done)
        final_observations = np.full(self.num_envs, None, dtype=object)
        for row in rows:
            final_observations[row] = {key: values[row].copy() for key, values in observations.items()}
        self._episodes.reset(rows)
        for key, values in self._episodes.observe(rows).items():
            observations[key][rows] = values
        final = {"final_obs": final_observations, "final_info": _masked(infos, done)}
        return observations, {**_masked(infos, ~done), **final, "_final_obs": done.copy(), "_final_info": done.copy()}


def _masked(infos: dict[str, np.ndarray], present: np.ndarray) -> dict[str, np.ndarray]:
    """Gymnasium's form of infos that only some environments have; as there, nothing if none has them."""
    if not present.any():
        return {}
    masked = {}
    for key, values in infos.items():
        masked[key] = np.zeros_like(values)
        masked[key][present] = values[present]
        masked[f"_{key}"] = present.copy()
    return masked


def _check_render_mode(render_mode: str | None) -> str | None:
    check(render_mode=(render_mode, OrNone(one_of(*ChemicalEnv.metadata["render_modes"]))))
    return render_mode
