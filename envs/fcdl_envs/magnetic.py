"""Magnetic as a Gymnasium environment."""

from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from fcdl_envs.arguments import Flag, OrNone, Several, check, integer, number, one_of, refuse
from fcdl_envs.magnetic_simulator import BLACK, RED, MagneticSimulator
from fcdl_envs.magnetic_task import ball_and_eef, distance, reach_reward
from fcdl_envs.variables import Factors, Variable

Task = Literal["train", "test"]

START_RANGE = np.array([0.20, 0.35])  # [m], ball and box start within this much of the table's centre
JOINT_NOISE = 0.02  # [rad], standard deviation of where the arm starts
SUCCESS_DISTANCE = 0.05  # [m]

_BALL = ("ball_x", "ball_y", "ball_vx", "ball_vy")
# By number, as BLACK and RED are.
_COLOR_NAMES = ("black", "red")
_ONE_HOT = np.eye(2, dtype=np.float32)


class MagneticEnv(gym.Env[np.ndarray, np.ndarray]):
    """
    ## Description

    A robot arm over a table with a ball and a box, each of them red or black. If both are red, a magnetic force pulls the ball
    to the box. The aim is to bring the end effector to the ball.

    In training a ball beside a box is often one that the box pulls. In the ``test`` task ball or box is black and the box
    is somewhere else altogether, usually a hundred metres away. An agent that knows that a black ball does not depend on the
    box is not disturbed.

    The task is that of Hwang et al. (2024). The force law, the arm and every constant but the table's size, the colours, the
    reward and the tasks are ours, since no code was published: returns do not compare with theirs.

    ## Variables and ground-truth graph

    | variables                    | columns | parents, besides itself                              |
    |------------------------------|---------|------------------------------------------------------|
    | `ball_color`                 | 2       | none                                                  |
    | `ball_x`, `ball_y`           | 2       | if both are red: `ball_x`, `ball_y`, `box_x`, `box_y` |
    | `box_color`                  | 2       | none                                                  |
    | `box_x`, `box_y`             | 2       | none                                                  |
    | `eef_x`, `eef_y`, `eef_z`    | 3       | `move_x`, `move_y`, `move_z`, respectively            |

    ``info["local_graph"]`` is ``[V, P]`` bool, ``graph[child, parent]``, ``P = V + 3``, and holds for this episode's colours.
    ``global_graph`` is the union over all colours, and there both colours are parents of the ball's variables.
    ``info["transition_graph"]`` is the same as ``info["local_graph"]``: while the colours are known, some other value of each
    of these parents changes the child at every state and action, except where a cross term of the force vanishes (both on one
    line along an axis), or a box that was put off the table is out of reach. These exceptions are not told.

    With ``observe_velocity`` two variables ``ball_vx``, ``ball_vy`` follow ``ball_y``. Then each position also has its own
    velocity as a parent, and if both are red, all four of the ball's variables depend on all four, and on the box's place.

    The graph is exact for colours and box. For the ball it is so while the ball does not touch a rim, which stops it near the
    table's edge (with a velocity, the bounce). For the end effector it is an approximation: it moves up to 1 % of a step
    across the direction of an action, and not at all out of its workspace.

    ## Action

    ``Box(-1, 1, (3,))``: the end effector is servoed to ``0.05 m * action`` from where it is, within a box of
    0.54 x 0.84 x 0.25 m over the table. It gets about 4 cm of these 5 cm. Larger actions are clipped. The arm touches nothing.

    ## Observation

    ``Box(-inf, inf, (11,))`` float32, or 13 with ``observe_velocity``: the columns above in this order, positions in metres
    from the table's centre (``eef_z`` from the floor), velocities in metres a second. Colours are one-hot, (1, 0) for black
    and (0, 1) for red. There are no bounds because a normal distribution has none; Gymnasium's ``check_env`` warns of that.

    ## Reward

    ``1 - tanh(5 d)``, ``d`` the L1 distance of the end effector from ``(ball_x, ball_y, 0.8)`` after the step. ``reward_fn``
    is the same reward as a function of batched observations. ``info`` holds

    | key             | content                                                                  |
    |-----------------|--------------------------------------------------------------------------|
    | `distance`      | `d` in metres                                                            |
    | `is_success`    | whether `d` is below 0.05 after this step                                 |
    | `magnetic`      | whether both are red                                                     |
    | `local_graph`, `transition_graph` | see above                                              |
    | `ball_velocity` | ``[2]`` in metres a second, which the observation may not show           |

    ## Start

    * ``train``: each colour is red or black with equal chance. Ball and box are uniform within 0.20 m (x) and 0.35 m (y)
      of the table's centre.
    * ``test``: at least one of them is black, all three pairs alike. Each coordinate of the box is ``N(0, box_std^2)``.

    The ball's speed is uniform in ``ball_speed``, its direction uniform. The arm starts with its joints ``N(0, 0.02^2)`` rad
    from home, where the end effector is 0.15 m above the ball's plane, over the table's centre.

    ``reset(options=)`` overrides what is drawn, and leaves the other draws as they are: ``ball_color`` and ``box_color``
    (0 black, 1 red), ``ball_position``, ``ball_velocity`` and ``box_position`` (``[2]``). The magnet's drag does not depend on
    the distance, so a red box that is put off the table brakes a rolling red ball all the same.

    ## End

    An episode does not terminate; ``gym.make`` truncates it after 25 steps.

    ## Arguments

    :param task: ``train`` or ``test``
    :param box_std: standard deviation of the box's coordinates in the ``test`` task, in metres
    :param ball_speed: lowest and highest speed of the ball at the start, in metres a second
    :param observe_velocity: whether the observation shows the ball's velocity; without it, a ball that moves is not Markov
    :param render_mode: ``rgb_array`` or nothing; without a display it needs EGL
    :raises ValueError: if an argument is out of range
    :raises TypeError: if an argument is of a wrong type

    ## Version history

    * v0: first version
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's way)
    reward_fn = staticmethod(reach_reward)
    context_variables = ("ball_color", "box_color")

    def __init__(
        self,
        task: Task = "train",
        box_std: float = 100.0,
        ball_speed: tuple[float, float] = (0.0, 0.0),
        observe_velocity: bool = False,
        render_mode: str | None = None,
    ) -> None:
        check(
            task=(task, one_of(*get_args(Task))),
            box_std=(box_std, number(at_least=0)),
            ball_speed=(ball_speed, Several(number(at_least=0), 2, is_rising=True)),
            observe_velocity=(observe_velocity, Flag()),
            render_mode=(render_mode, OrNone(one_of(*self.metadata["render_modes"]))),
        )
        self.task, self.box_std, self.ball_speed = task, box_std, ball_speed
        self.observe_velocity = observe_velocity
        self.render_mode = render_mode
        self.simulator = MagneticSimulator()
        self._has_started = False
        self._factors = _factors(observe_velocity)
        self._local_graphs = tuple(_local_graph(self._factors, is_magnetic) for is_magnetic in (False, True))
        self.observation_space = spaces.Box(-np.inf, np.inf, (self._factors.state_width,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (3,), np.float32)

    @property
    def factorization(self) -> Factors:
        """What the columns of observations and actions mean."""
        return self._factors

    @property
    def global_graph(self) -> np.ndarray:
        """``[V, P]`` bool, ``graph[child, parent]``: the union of the local graphs, and what chooses among them."""
        graph = self._local_graphs[True].copy()
        names = self._factors.state_names
        of_ball = [row for row, name in enumerate(names) if name in _BALL]
        graph[np.ix_(of_ball, [names.index("ball_color"), names.index("box_color")])] = True
        return graph

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :raises ValueError: if ``options`` has an unknown key, or a value that is not allowed
        :raises TypeError: if a value is of a wrong type
        """
        super().reset(seed=seed)
        start = self._draw_start()
        for key, value in (options or {}).items():
            if key not in start:
                refuse("option", key, f"one of {', '.join(start)}")
            check(**{key: (value, integer(BLACK, RED) if "color" in key else Several(number(), 2))})
            start[key] = value if "color" in key else np.asarray(value, dtype=np.float64)
        self.simulator.reset(**start, joint_offsets=self.np_random.normal(0.0, JOINT_NOISE, 6))
        self._has_started = True
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        :raises ValueError: if the action is not three finite numbers
        :raises ResetNeeded: before the first ``reset``
        """
        if not self._has_started:
            raise ResetNeeded("there is no episode yet: call reset before step")
        action = np.asarray(action, dtype=np.float64)
        # MuJoCo would reset itself and go on
        if action.shape != (3,) or not np.isfinite(action).all():
            raise ValueError(f"action={action} is not allowed; it must be three finite numbers")
        self.simulator.step(action)
        observation = self._observe()
        to_ball = float(distance(*ball_and_eef(observation)))
        info = {
            "distance": to_ball,
            "is_success": to_ball < SUCCESS_DISTANCE,
            "magnetic": self.simulator.is_magnetic,
            "local_graph": self._local_graphs[self.simulator.is_magnetic].copy(),
            "transition_graph": self._local_graphs[self.simulator.is_magnetic].copy(),
            "ball_velocity": self.simulator.ball_velocity,
        }
        return observation, float(reach_reward(None, None, observation, None)), False, False, info

    def render(self) -> Any:
        """
        :return: ``[480, 480, 3]`` uint8, or None without a render mode
        :raises RuntimeError: if there is no OpenGL to render with
        """
        return None if self.render_mode is None else self.simulator.render("front")

    def close(self) -> None:
        self.simulator.close()

    def get_state(self) -> dict[str, Any]:
        """The whole state of the simulator and the generator; the time limit of ``gym.make`` is not part of it."""
        return {"physics": self.simulator.get_state(), "generator": self.np_random.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """
        Goes on from what :meth:`get_state` returned, here or in another environment with the same arguments.

        A planner that simulates needs no generator: ``simulator.set_state(state["physics"])`` is faster.
        """
        self.simulator.set_state(state["physics"])
        self._has_started = True
        self.np_random.bit_generator.state = state["generator"]

    def _draw_start(self) -> dict[str, Any]:
        """Arguments of :meth:`MagneticSimulator.reset`, in a fixed order of draws."""
        rng = self.np_random
        # the last of the four pairs is red and red
        ball_color, box_color = divmod(int(rng.integers(4 if self.task == "train" else 3)), 2)
        ball_position = rng.uniform(-START_RANGE, START_RANGE)
        if self.task == "train":
            box_position = rng.uniform(-START_RANGE, START_RANGE)
        else:
            box_position = rng.normal(0.0, self.box_std, 2)
        speed, direction = rng.uniform(*self.ball_speed), rng.uniform(0.0, 2 * np.pi)
        return {
            "ball_color": ball_color,
            "box_color": box_color,
            "ball_position": ball_position,
            "ball_velocity": speed * np.array([np.cos(direction), np.sin(direction)]),
            "box_position": box_position,
        }

    def _observe(self) -> np.ndarray:
        simulator = self.simulator
        ball = [_ONE_HOT[simulator.ball_color], simulator.ball_position]
        if self.observe_velocity:
            ball.append(simulator.ball_velocity)
        box = [_ONE_HOT[simulator.box_color], simulator.box_position]
        return np.concatenate([*ball, *box, simulator.eef_position], dtype=np.float32, casting="same_kind")


def _factors(observe_velocity: bool) -> Factors:
    names = ["ball_x", "ball_y", *(["ball_vx", "ball_vy"] if observe_velocity else [])]
    ball = (Variable("ball_color", 2, _COLOR_NAMES), *map(Variable, names))
    box = (Variable("box_color", 2, _COLOR_NAMES), Variable("box_x"), Variable("box_y"))
    eef = tuple(Variable(f"eef_{axis}") for axis in "xyz")
    return Factors(state=ball + box + eef, action=tuple(Variable(f"move_{axis}") for axis in "xyz"))


def _local_graph(factors: Factors, is_magnetic: bool) -> np.ndarray:
    """:return: ``[V, P]`` bool"""
    edges = [(f"eef_{axis}", f"move_{axis}") for axis in "xyz"]
    edges += [("ball_x", "ball_vx"), ("ball_y", "ball_vy")]
    if is_magnetic:
        edges += [(child, parent) for child in _BALL for parent in (*_BALL, "box_x", "box_y")]
    graph = np.eye(len(factors.state_names), len(factors.parent_names), dtype=bool)
    for child, parent in edges:
        if child in factors.state_names and parent in factors.state_names + factors.parent_names:
            graph[factors.state_names.index(child), factors.parent_names.index(parent)] = True
    return graph
