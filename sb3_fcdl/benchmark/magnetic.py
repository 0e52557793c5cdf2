"""Magnetic's tasks, and policies that learn nothing: floors, a script and the planner on MuJoCo itself."""

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import PolicyPredictor

from fcdl_envs.magnetic_task import BALL_HEIGHT, STEP_SIZE, reward_of
from sb3_fcdl.benchmark.base import Benchmark, PlanningReference, RandomActions, ReferencePolicy
from sb3_fcdl.evaluation.returns import Task
from sb3_fcdl.planning import BoxActions, Plan, Planner, Problem, Step
from sb3_fcdl.presets import preset_planner

ENV_ID = "FCDL/Magnetic-v0"
CEILING = "planner on the true dynamics"


class GoTo(ReferencePolicy):
    """
    Moves the end effector straight to an object.

    :param first_column: of the object's x in the observation; y follows
    """

    def __init__(self, first_column: int) -> None:
        self.first_column = first_column

    def act(self, observation: Any) -> np.ndarray:
        """:param observation: ``[B, 11]`` or ``[B, 13]``"""
        target = np.full((len(observation), 3), BALL_HEIGHT, dtype=np.float32)
        target[:, :2] = observation[:, self.first_column : self.first_column + 2]
        return np.clip((target - observation[:, -3:]) / STEP_SIZE, -1, 1)


ACTIONS = BoxActions((-1.0,) * 3, (1.0,) * 3)


class TruePhysicsPlanner(PlanningReference):
    """
    The ceiling: a model's planner on the simulator itself.

    :param seed: of the planner
    :param planner: the planner; None: that of the default preset
    """

    def __init__(self, seed: int = 0, planner: Planner | None = None) -> None:
        # Imported here, because only an evaluation on Magnetic needs MuJoCo.
        from fcdl_envs.magnetic_simulator import MagneticSimulator

        super().__init__(planner or preset_planner(ENV_ID, ACTIONS), seed)
        self.simulator = MagneticSimulator()

    def plan(self, observation: Any, warm_start: th.Tensor | None) -> Plan:
        """:param observation: not used"""
        physics = [env_state["physics"] for env_state in self.env.env_method("get_state")]
        current = th.as_tensor(np.stack([self._row(each) for each in physics]))
        generators = [self.generator] * len(current)
        problem = Problem(self._step, _reward)
        plan = self.planner.plan(problem, current, current[:, :0], generators=generators, warm_start=warm_start)
        return plan._replace(actions=plan.actions.float())

    def _step(self, state: th.Tensor, action: th.Tensor) -> Step:
        """``[R, S + 5]``: the state of the physics, then the positions that the reward needs."""
        rows = zip(state.numpy()[:, :-5], action.numpy(), strict=True)
        return Step(th.as_tensor(np.stack([self._row(physics, each) for physics, each in rows])))

    def _row(self, physics: np.ndarray, action: np.ndarray | None = None) -> np.ndarray:
        """A state of the planner, ``[S + 5]``: the given physics, after an action if one is given."""
        simulator = self.simulator
        simulator.set_state(physics)
        if action is not None:
            simulator.step(action)
        return np.concatenate([simulator.get_state(), simulator.ball_position, simulator.eef_position])


def _reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
    """The reward of the environment; the last five columns are the ball's x and y and the end effector's x, y and z."""
    return reward_of(next_state[:, -5:-3], next_state[:, -3:])


def magnetic_references(
    env_id: str, env_kwargs: dict[str, Any], seed: int = 0, planner: Planner | None = None
) -> dict[str, PolicyPredictor]:
    """
    The floors, the script and the ceiling for Magnetic, from the lowest up.

    :param env_id: registered name of the environment
    :param env_kwargs: its keyword arguments, without the task
    :param seed: of the policies' own random choices
    :param planner: of the ceiling; None: that of the default preset
    :return: the policies by name
    """
    box_column = 8 if env_kwargs.get("observe_velocity") else 6
    return {
        "random": RandomActions(env_id, env_kwargs, seed),
        "go to the box": GoTo(box_column),
        CEILING: TruePhysicsPlanner(seed, planner),
        "chase the ball": GoTo(2),
    }


MAGNETIC = Benchmark(
    tasks=lambda env_kwargs: (Task("train"), Task("test", {"task": "test"})),
    references=magnetic_references,
    description=(
        "An episode has 25 steps. In the test task ball or box is black, so that the box does not pull the ball, and the box "
        "stands where training never puts it, usually some 100 m away."
    ),
    rows={
        "random": "uniform over all actions",
        "go to the box": "moves the end effector to the box, which in training is often where the ball is going",
        CEILING: "the model's planner with MuJoCo itself as its model: what a perfect model would reach",
        "chase the ball": "moves the end effector to the ball",
    },
    left_out=("ball_color", "box_color"),
)
