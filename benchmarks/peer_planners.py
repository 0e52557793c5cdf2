"""
The planners of other libraries behind one call: plan from these states with this model, return the first actions.

A library is imported when its planners are made, so that those that are not installed can be left out. Where a planner has a
choice, it has the one that is nearest to ours and fastest: normal samples that are clipped to the bounds, ten elites.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from torch import nn

Plan = Callable[[], th.Tensor]
"""Plans once for every environment, and returns the first action of each, ``[B, A]``."""

N_ELITES = 10


@dataclass(frozen=True)
class Shape:
    """
    How much is planned.

    :param n_envs: environments, B
    :param n_candidates: sequences of an iteration for each environment, N
    :param horizon: length of a sequence, H
    :param n_iterations: how often sequences are drawn
    """

    n_envs: int
    n_candidates: int
    horizon: int
    n_iterations: int


class Model(nn.Module):
    """
    What everybody plans with: two hidden layers that predict the change of the state, and the reward of a pendulum without
    angles to unwrap. Weights are small, so that states stay finite along any plan.

    :param n_actions: width of an action
    :param hidden_dim: units of a hidden layer
    """

    STATE_DIM = 3
    LIMIT = 2.0

    def __init__(self, n_actions: int = 1, hidden_dim: int = 256) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(self.STATE_DIM + n_actions, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, self.STATE_DIM),
        )
        self.requires_grad_(False)
        self.network[-1].weight.mul_(0.1)

    def forward(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        """
        :param state: ``[R, 3]``
        :param action: ``[R, A]``
        :return: the next state, ``[R, 3]``
        """
        return state + self.network(th.cat([state, action], dim=-1))

    @staticmethod
    def reward(action: th.Tensor, next_state: th.Tensor) -> th.Tensor:
        """:return: ``[R]``"""
        return next_state[..., 0] - 0.1 * next_state[..., 2].square() - 0.001 * action[..., 0].square()


def torchrl_planners(model: Model, state: th.Tensor, shape: Shape) -> dict[str, Plan]:
    """CEMPlanner and MPPIPlanner; they plan for a batch. MPPI needs a value function: a linear one."""
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.data import Bounded, Composite, Unbounded
    from torchrl.envs.model_based import ModelBasedEnvBase
    from torchrl.modules import CEMPlanner, MPPIPlanner, ValueOperator, WorldModelWrapper
    from torchrl.objectives.value import TDLambdaEstimator

    class ModelledEnv(ModelBasedEnvBase):
        def __init__(self, world_model: nn.Module) -> None:
            super().__init__(world_model)
            self.observation_spec = Composite(state=Unbounded((Model.STATE_DIM,)))
            self.state_spec = Composite(state=Unbounded((Model.STATE_DIM,)))
            self.action_spec = Bounded(-Model.LIMIT, Model.LIMIT, (1,))
            self.reward_spec = Unbounded((1,))

        def _reset(self, tensordict: Any, **kwargs: Any) -> Any:
            raise NotImplementedError("a planner never resets")

    world_model = WorldModelWrapper(
        TensorDictModule(model, in_keys=["state", "action"], out_keys=["state"]),
        TensorDictModule(
            lambda action, state: Model.reward(action, state)[..., None], in_keys=["action", "state"], out_keys=["reward"]
        ),
    )
    env = ModelledEnv(world_model)
    size = {
        "planning_horizon": shape.horizon,
        "optim_steps": shape.n_iterations,
        "num_candidates": shape.n_candidates,
        "top_k": N_ELITES,
    }
    value = ValueOperator(nn.Linear(Model.STATE_DIM, 1), in_keys=["state"])
    advantage = TDLambdaEstimator(gamma=1.0, lmbda=1.0, value_network=value)
    observed = TensorDict({"state": state}, [shape.n_envs])

    def plan_with(planner: nn.Module) -> Plan:
        @th.no_grad()
        def plan() -> th.Tensor:
            return planner(observed.clone())["action"]

        return plan

    return {"CEM": plan_with(CEMPlanner(env, **size)), "MPPI": plan_with(MPPIPlanner(env, advantage, temperature=0.1, **size))}


def pytorch_mppi_planners(model: Model, state: th.Tensor, shape: Shape) -> dict[str, Plan]:
    """MPPI, and MPPI_Batched where there is a batch. An iteration is a command; a new plan starts from the last one."""
    from pytorch_mppi import MPPI
    from pytorch_mppi.mppi import MPPI_Batched

    def cost(state: th.Tensor, action: th.Tensor) -> th.Tensor:
        return -Model.reward(action, state)

    variance = th.tensor([[Model.LIMIT**2]])
    size = {
        "num_samples": shape.n_candidates,
        "horizon": shape.horizon,
        "u_min": th.tensor([-Model.LIMIT]),
        "u_max": th.tensor([Model.LIMIT]),
    }

    def plan_with(controller: Any, state: th.Tensor) -> th.Tensor:
        for iteration in range(shape.n_iterations):
            action = controller.command(state, shift_nominal_trajectory=iteration == 0)
        return action

    controllers = [MPPI(model, cost, Model.STATE_DIM, variance, **size) for _ in range(shape.n_envs)]
    planners = {"MPPI": lambda: th.stack([plan_with(*each) for each in zip(controllers, state, strict=True)])}
    if shape.n_envs > 1:
        batched = MPPI_Batched(model, cost, Model.STATE_DIM, variance, num_envs=shape.n_envs, **size)
        planners["MPPI_Batched"] = lambda: plan_with(batched, state)
    return planners


def mbrl_planners(model: Model, state: th.Tensor, shape: Shape) -> dict[str, Plan]:
    """CEM, iCEM and MPPI of mbrl-lib, through ModelEnv; one environment after the other, each with its own last plan."""
    import mbrl.models
    from mbrl.env.termination_fns import no_termination
    from mbrl.planning import create_trajectory_optim_agent_for_model
    from omegaconf import OmegaConf

    class Wrapped(mbrl.models.Model):
        """The model under mbrl-lib's interface: it keeps the state, and nothing is learned."""

        def reset(self, obs: Any, rng: Any = None) -> dict[str, th.Tensor]:
            return {"obs": th.as_tensor(obs)}

        def sample(self, act: th.Tensor, model_state: dict[str, th.Tensor], **kwargs: Any) -> tuple[Any, ...]:
            next_state = model(model_state["obs"], act)
            return next_state, None, None, {"obs": next_state}

        def forward(self, x: Any, **kwargs: Any) -> Any:
            raise NotImplementedError("it is only planned with")

        loss = eval_score = save = load = forward

    def reward(action: th.Tensor, next_state: th.Tensor) -> th.Tensor:
        return Model.reward(action, next_state)[:, None]

    bounds = np.full(1, Model.LIMIT, np.float32)
    spaces = SimpleNamespace(action_space=gym.spaces.Box(-bounds, bounds), observation_space=gym.spaces.Box(-9, 9, (3,)))
    env = mbrl.models.ModelEnv(spaces, Wrapped(state.device), no_termination, reward)
    common = {
        "num_iterations": shape.n_iterations,
        "population_size": shape.n_candidates,
        "lower_bound": "???",
        "upper_bound": "???",
        "device": "cpu",
    }
    elites = {"elite_ratio": N_ELITES / shape.n_candidates, "alpha": 0.0}
    optimizers = {
        "CEM": {"_target_": "mbrl.planning.CEMOptimizer", **elites, "clipped_normal": True},
        "iCEM": {
            "_target_": "mbrl.planning.ICEMOptimizer",
            **elites,
            "population_decay_factor": 1.25,
            "colored_noise_exponent": 2.0,
            "keep_elite_frac": 0.3,
        },
        "MPPI": {"_target_": "mbrl.planning.MPPIOptimizer", "gamma": 1.0, "sigma": 1.0, "beta": 0.5},
    }

    def plan_with(optimizer: dict[str, Any]) -> Plan:
        agent_kwargs = {
            "_target_": "mbrl.planning.TrajectoryOptimizerAgent",
            "_recursive_": False,  # as it was in the hydra-core that mbrl-lib was written for
            "optimizer_cfg": {**common, **optimizer},
            "action_lb": [-Model.LIMIT],
            "action_ub": [Model.LIMIT],
            "planning_horizon": shape.horizon,
        }
        make = create_trajectory_optim_agent_for_model
        agents = [make(env, OmegaConf.create(agent_kwargs)) for _ in range(shape.n_envs)]
        observed = state.numpy()
        return lambda: th.as_tensor(np.stack([each.act(row) for each, row in zip(agents, observed, strict=True)]))

    return {name: plan_with(optimizer) for name, optimizer in optimizers.items()}


PEERS: Mapping[str, Callable[[Model, th.Tensor, Shape], dict[str, Plan]]] = {
    "mbrl": mbrl_planners,
    "torchrl": torchrl_planners,
    "pytorch-mppi": pytorch_mppi_planners,
}
