"""The policy: a learned dynamics model and a planner that acts on it."""

import hashlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics import DynamicsModel, dynamics_class
from sb3_fcdl.fcdl.planning_model import PlanningModel
from sb3_fcdl.graphs.graph import CausalGraph
from sb3_fcdl.inspection.explain import Explanation, explain
from sb3_fcdl.observations import Observations
from sb3_fcdl.planning import PLANNERS, Plan, Planner, RewardFn, TerminationFn
from sb3_fcdl.world.factorization import Factorization, in_words, values_of
from sb3_fcdl.world.rewards import Outcomes, RewardHead, TerminationHead, disagreements, function_named, never_ends
from sb3_fcdl.world.world_model import WorldModel


class FCDLPolicy(BasePolicy):
    """
    Model-predictive control on a learned causal model of the environment.

    The functions that it is given see a flat state in the environment's units, in the order of ``factors.state_variables``
    (categorical variables one-hot), likewise the action, and the task description: ``reward_fn(state [R, D], action [R, A],
    next_state [R, D], goal [R, G])`` and ``termination_fn(state, action, next_state)`` return ``[R]``.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param factors: what observation and action mean; ``FCDL`` takes it from the environment's ``factorization``. None: a
        variable for each entry of the spaces
    :param reward_fn: what the planner maximises, a function or ``"package.module:function"``; None: learned
    :param termination_fn: whether, or how likely, an episode ended with a step, likewise; None: learned
    :param dynamics: the model: a name in ``DYNAMICS`` or a class
    :param dynamics_kwargs: keyword arguments of its class
    :param planner: a name in ``PLANNERS`` or a class
    :param planner_kwargs: keyword arguments of its class; ``HORIZON`` and ``DISCOUNT`` hold unless it says otherwise
    :param clip_obs: largest absolute value of a continuous variable, in its standard deviations in the data; None: no limit
    :param average_decay: of the running average of the weights that predicts and is planned with, per update, in [0, 1);
        0: the last weights, as published. Adam's last steps are noise: after 2400 updates on 5000 transitions of CartPole a
        prediction 50 steps ahead was off by 0.18 m and 0.035 rad, with the average by 0.010 m and 0.003 rad (MLP: 0.088 and
        0.135, 0.013 and 0.027); 0.998 is no better
    :param uncertainty_coef: price of what the model is unsure of, in units of the reward, see ``PlanningModel``; 0: none. It
        keeps plans where the model can tell what happens: InvertedPendulum's cart off the ends of its rail, say
    :param normalize_images: for SB3's sake; there are no images
    :param optimizer_class: optimizer of the dynamics model and the learned heads
    :param optimizer_kwargs: its keyword arguments, without the learning rate
    :raises ValueError: if the spaces are not supported, ``dynamics``, ``planner`` or a function is unknown,
        ``average_decay`` is not in [0, 1), or ``uncertainty_coef`` negative or not finite
    :raises TypeError: if ``dynamics_kwargs`` or ``planner_kwargs`` have an unknown key
    """

    optimizer: th.optim.Optimizer
    # What the optimizer moves, and its running average, which predicts, is planned with and looked at.
    learner: WorldModel
    world_model: WorldModel

    # Environment steps, and a discount a step; the planners' own defaults are the published ones of Chemical. What goes wrong
    # can show late: on CartPole's true dynamics icem has 266 of 500 with 20 steps, 252 with 30, 500 with 50, since before the
    # edge of the track is in sight all plans pay alike. And a learned model is wrong further ahead: on Pendulum (mlp, 4000
    # transitions) the return is -124 with 30 steps, -175 with 50, and -130 with 50 and this discount. All ten episodes.
    HORIZON = 50
    DISCOUNT = 0.99

    # The heads are small and their tasks simple, but the edge beyond which an episode ends is sharp and rarely met: after 1000
    # updates on 2500 transitions of CartPole the next 10 cm beyond it had a probability of 0.44 at 10/3 times the dynamics'
    # rate and 0.67 at 10 times (mean of six; 0.03 and 0.02 for the 8 cm before it).
    HEAD_SPEED = 10

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        factors: Factors | None = None,
        reward_fn: RewardFn | str | None = None,
        termination_fn: TerminationFn | str | None = None,
        dynamics: str | type[DynamicsModel] = "fcdl",
        dynamics_kwargs: dict[str, Any] | None = None,
        planner: str | type[Planner] = "icem",
        planner_kwargs: dict[str, Any] | None = None,
        clip_obs: float | None = None,
        average_decay: float = 0.99,
        uncertainty_coef: float = 0.0,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if optimizer_kwargs is None and optimizer_class is th.optim.Adam:
            # One pass over the weights instead of one a parameter: six times faster on a CPU, same numbers.
            optimizer_kwargs = {"fused": True}
        super().__init__(
            observation_space,
            action_space,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        self.reward_fn: RewardFn | None = function_named(reward_fn)
        self.termination_fn: TerminationFn | None = function_named(termination_fn)
        self.dynamics_name = dynamics
        self.dynamics_kwargs = dynamics_kwargs or {}
        self.planner_name = planner
        self.planner_kwargs = planner_kwargs or {}
        self.clip_obs = clip_obs
        if not 0 <= average_decay < 1:
            raise ValueError(f"average_decay must be in [0, 1), got {average_decay}")
        self.average_decay = average_decay
        if not 0 <= uncertainty_coef < math.inf:
            raise ValueError(f"uncertainty_coef must be a finite number, at least 0, got {uncertainty_coef}")
        self.uncertainty_coef = uncertainty_coef
        self.factorization = Factorization(observation_space, action_space, factors, clip_obs)
        self.factors = self.factorization.factors
        model = dynamics_class(dynamics)
        search = planner_class(planner)
        check_keywords("dynamics_kwargs", model, self.dynamics_kwargs)
        check_keywords("planner_kwargs", search, self.planner_kwargs)
        self.planner = search(
            self.factorization.actions, **{"horizon": self.HORIZON, "discount": self.DISCOUNT, **self.planner_kwargs}
        )
        n_inputs = 2 * self.factors.state_width + self.factors.action_width
        self.learner = WorldModel(
            model(self.factors, **self.dynamics_kwargs),
            None if self.reward_fn else RewardHead(n_inputs + self.factorization.goal_width),
            None if self.termination_fn else TerminationHead(self.factors.state_variables, n_inputs),
        )
        self.world_model = self.learner.average()
        groups = [{"params": list(module.parameters())} for module in self.learner.children()]
        self.optimizer = self.optimizer_class(groups, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]
        self.set_learning_rate(lr_schedule(1))

    @property
    def dynamics(self) -> DynamicsModel:
        """The model that is planned with."""
        return self.world_model.dynamics

    def set_learning_rate(self, learning_rate: float) -> None:
        """
        :param learning_rate: of the dynamics model; the learned heads have ``HEAD_SPEED`` times as much
        """
        dynamics, *heads = self.optimizer.param_groups
        dynamics["lr"] = learning_rate
        for head in heads:
            head["lr"] = self.HEAD_SPEED * learning_rate

    def follow_learner(self, n_updates: int) -> None:
        """
        Takes an update of the learner into the average that is planned with.

        :param n_updates: so far
        """
        self.world_model.follow(self.learner, n_updates, self.average_decay)

    def forward(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self._predict(observation, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self.plan(observation, deterministic).actions[:, 0]

    def plan(
        self,
        observation: PyTorchObs,
        deterministic: bool = False,
        action_masks: th.Tensor | None = None,
        warm_start: th.Tensor | None = None,
    ) -> Plan:
        """
        :param observation: observations, a batch of ``B``
        :param deterministic: whether the planner's randomness is a function of the observation
        :param action_masks: allowed actions, ``[B, A]``, bool; all if None
        :param warm_start: of the last plan; None: every environment starts anew
        :return: the plan, in the planner's units: whole numbers from 0, or a box scaled to [-1, 1]
        """
        state, goal = self.factorization.encode_state(observation), self.factorization.encode_goal(observation)
        return self.plan_from(state, goal, deterministic, action_masks, warm_start)

    def plan_from(
        self,
        state: th.Tensor,
        goal: th.Tensor,
        deterministic: bool = False,
        action_masks: th.Tensor | None = None,
        warm_start: th.Tensor | None = None,
    ) -> Plan:
        """See ``plan``; from encoded states ``[B, D]`` and goals ``[B, G]``."""
        generators = observation_generators(state, goal) if deterministic else None
        return self.planning_model().plan(
            self.planner, state, goal, generators=generators, action_mask=action_masks, warm_start=warm_start
        )

    def planning_model(self) -> PlanningModel:
        """The model as the planner is given it, for as long as the weights stay as they are."""
        return PlanningModel(
            self.dynamics.stepper(),
            self._reward,
            None if self.termination_fn is never_ends else self._termination,
            self.factorization.state_key,
            self.uncertainty_coef,
        )

    def _reward(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        """The reward of encoded states and actions."""
        if self.reward_fn is None:
            assert self.world_model.reward_head is not None
            return self.world_model.reward_head(state, action, next_state, goal)
        raw = self.factorization
        return self.reward_fn(raw.decode_state(state), raw.decode_action(action), raw.decode_state(next_state), goal)

    def _termination(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor) -> th.Tensor:
        """How likely encoded states and actions ended their episodes."""
        if self.termination_fn is None:
            assert self.world_model.termination_head is not None
            return self.world_model.termination_head(state, action, next_state)
        raw = self.factorization
        return self.termination_fn(raw.decode_state(state), raw.decode_action(action), raw.decode_state(next_state))

    @th.no_grad()
    def check_outcomes(self, outcomes: Outcomes) -> list[str]:
        """
        :param outcomes: recorded transitions
        :return: a sentence for each given function that disagrees with them
        :raises ValueError: if a function has not returned one number for each row
        """
        raw, transition = self.factorization, (outcomes.state, outcomes.action, outcomes.next_state)
        numbers = (raw.decode_state(transition[0]), raw.decode_action(transition[1]), raw.decode_state(transition[2]))
        variables = (self.factors.state_variables, self.factors.action, self.factors.state_variables)

        def describe(row: int) -> str:
            rows = (values_of(of, each[row : row + 1])[0] for of, each in zip(variables, numbers, strict=True))
            state, action, next_state = map(in_words, variables, rows)
            return f"state {state}, action {action}, next state {next_state}"

        return disagreements(
            outcomes,
            None if self.reward_fn is None else self._reward(*transition, outcomes.goal),
            None if self.termination_fn is None else self._termination(*transition),
            describe,
        )

    def predict(
        self,
        observation: Observations,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Plan, and return the first action of the plan.

        :param observation: one observation or a batch of ``B``
        :param state: what the last call returned: the rest of its plans, ``([B, K, H, *],)``. None: start anew
        :param episode_start: which environments start anew, ``[B]``, bool; none if None
        :param deterministic: whether the action is a function of weights, observation, state and mask alone
        :param action_masks: allowed actions, ``[A]`` or ``[B, A]``, bool; all if None. Of several dimensions those of the
            first, then those of the second and so on, as sb3-contrib has them
        :return: actions, shape ``action_space.shape`` or ``[B, *action_space.shape]``, and the ``state`` of the next
            call, None if the planner always starts anew
        :raises ValueError: if the observation is a tuple, as ``env.reset()`` of Gymnasium returns it, or ``state`` or the
            masks have another shape
        """
        self.set_training_mode(False)
        if isinstance(observation, tuple):
            raise ValueError(
                "predict() was given a tuple instead of an observation. You are probably mixing the Gym and the SB3 VecEnv "
                "API: `obs, info = env.reset()` (Gym) vs `obs = vec_env.reset()` (SB3 VecEnv)."
            )
        tensors, is_batch = self.obs_to_tensor(observation)
        masks = None
        if action_masks is not None:
            masks = th.as_tensor(action_masks, dtype=th.bool, device=self.device)
            masks = masks.reshape(-1, masks.shape[-1])
        with th.no_grad():
            plan = self.plan(tensors, deterministic, masks, warm_start_of(state, episode_start))
        actions = self.factorization.buffer_action(plan.actions[:, 0])
        if isinstance(self.action_space, spaces.Box):
            actions = self.unscale_action(actions)
        return (actions if is_batch else actions.squeeze(axis=0)), state_of(plan)

    def local_graph(self, observation: Observations, action: np.ndarray | int) -> CausalGraph:
        """
        The graph that the model uses for one observation and action.

        :param observation: one observation
        :param action: one action
        :return: the graph, labelled with its context
        :raises ValueError: if a batch was given, or the model has no graph
        """
        tensors, is_batch = self.obs_to_tensor(observation)
        if is_batch:
            raise ValueError("local_graph() explains one observation, it was given a batch")
        with th.no_grad():
            state_and_action = self.encode(tensors, self.buffer_actions(np.asarray(action)[np.newaxis]))
            graph = self.dynamics.local_graph(*state_and_action)
            code = self.dynamics.step(*state_and_action).code
        if code is not None:
            return self.dynamics.context_graphs()[int(code[0])]
        return CausalGraph(graph[0].cpu().numpy(), self.factors.state_names, self.factors.parent_names)

    def explain(self, observation: Observations, action_masks: np.ndarray | None = None) -> Explanation:
        """See ``sb3_fcdl.inspection.explain.explain``."""
        return explain(self, observation, action_masks)

    def encode(self, observation: PyTorchObs, action: np.ndarray) -> tuple[th.Tensor, th.Tensor]:
        """
        :param observation: observations
        :param action: actions as SB3's buffers hold them, ``[..., action_dim]``
        :return: encoded states ``[..., D]`` and actions ``[..., A]``
        """
        columns = th.as_tensor(action, device=self.device)
        return self.factorization.encode_state(observation), self.factorization.encode_action(columns)

    def buffer_actions(self, actions: np.ndarray) -> np.ndarray:
        """
        :param actions: as environments take them, ``[B, *action_space.shape]``
        :return: as SB3's buffers hold them, ``[B, action_dim]``: those of a ``Box`` scaled to [-1, 1]
        """
        scaled = self.scale_action(actions) if isinstance(self.action_space, spaces.Box) else actions
        return scaled.reshape(len(actions), -1)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            lr_schedule=self._dummy_schedule,
            factors=self.factors,
            reward_fn=self.reward_fn,
            termination_fn=self.termination_fn,
            dynamics=self.dynamics_name,
            dynamics_kwargs=self.dynamics_kwargs,
            planner=self.planner_name,
            planner_kwargs=self.planner_kwargs,
            clip_obs=self.clip_obs,
            average_decay=self.average_decay,
            uncertainty_coef=self.uncertainty_coef,
            optimizer_class=self.optimizer_class,
            optimizer_kwargs=self.optimizer_kwargs,
        )
        return data


def observation_generators(state: th.Tensor, goal: th.Tensor) -> list[th.Generator]:
    """
    A generator for each row, seeded by a hash of what was observed.

    One seed for all would be as deterministic, but every step of every episode would then search among the same candidates:
    on the true dynamics that costs 2 to 7 points of return.

    :param state: as observed, ``[B, D]``
    :param goal: ``[B, G]``
    """
    rows = th.cat([state, goal], dim=-1).cpu().numpy()
    digests = [hashlib.blake2b(row.tobytes(), digest_size=7).digest() for row in rows]
    return [th.Generator().manual_seed(int.from_bytes(digest, "big")) for digest in digests]


def warm_start_of(state: tuple[np.ndarray, ...] | None, episode_start: np.ndarray | None) -> th.Tensor | None:
    """
    The warm start of a planner out of what SB3 hands to ``predict``.

    :param state: what the last call returned, ``([B, K, H, *],)``; None: there is none
    :param episode_start: which environments start anew, ``[B]``, bool; none if None
    """
    if state is None:
        return None
    warm_start = th.as_tensor(state[0])
    if episode_start is None:
        return warm_start
    starts = th.as_tensor(episode_start, dtype=th.bool)
    return warm_start.where(~starts.view(-1, *(1,) * (warm_start.dim() - 1)), th.nan)


def state_of(plan: Plan) -> tuple[np.ndarray, ...] | None:
    """What ``predict`` returns for the next call: the rest of the plan, None if the planner always starts anew."""
    return None if plan.warm_start is None else (plan.warm_start.cpu().numpy(),)


def planner_class(planner: str | type[Planner]) -> type[Planner]:
    """
    :param planner: a name in ``PLANNERS``, or a class of one's own
    :raises ValueError: if there is no such name
    """
    if isinstance(planner, type) and issubclass(planner, Planner):
        return planner
    if planner not in PLANNERS:
        raise ValueError(f"unknown planner {planner!r}, allowed: {', '.join(PLANNERS)}, or a subclass of Planner")
    return PLANNERS[planner]


def check_keywords(argument: str, target: Callable[..., Any], keywords: dict[str, Any]) -> None:
    """
    :param argument: what the user calls the dictionary
    :param target: what the keywords are for; its first parameter is not the user's
    :param keywords: what the user gave
    :raises TypeError: if a keyword is unknown; names it and the known ones
    """
    known = list(inspect.signature(target).parameters)[1:]
    for keyword in keywords:
        if keyword not in known:
            raise TypeError(f"{argument} has an unknown key '{keyword}', allowed: {', '.join(known)}")
