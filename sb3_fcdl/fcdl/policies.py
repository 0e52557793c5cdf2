"""The policy: a learned dynamics model and a planner that acts on it."""

import pathlib
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.utils import get_device

from fcdl_envs.arguments import refuse
from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics import DEFAULT_DYNAMICS, DynamicsModel, dynamics_class
from sb3_fcdl.fcdl import portable
from sb3_fcdl.fcdl.actor import Actor
from sb3_fcdl.fcdl.arguments import check_arguments
from sb3_fcdl.fcdl.elsewhere import check_keywords, tells_where
from sb3_fcdl.fcdl.reading import read_observations
from sb3_fcdl.graphs import CausalGraph
from sb3_fcdl.inspection.explain import Explanation, Question, explain
from sb3_fcdl.observations import Observations
from sb3_fcdl.planning import Plan, Planner, Problem, RewardFn, TerminationFn, generators_of, planner_class
from sb3_fcdl.world.factorization import Factorization
from sb3_fcdl.world.precision import in_float32
from sb3_fcdl.world.values import ValueTable
from sb3_fcdl.world.world_model import WorldModel

SelfFCDLPolicy = TypeVar("SelfFCDLPolicy", bound="FCDLPolicy")


class FCDLPolicy(BasePolicy):
    """
    Model-predictive control on a learned causal model of the environment: a world and a planner.

    The functions that it is given see a flat state in the environment's units, in the order of ``factors.state_variables``
    (categorical variables one-hot), likewise the action, and the task description: ``reward_fn(state [R, D], action [R, A],
    next_state [R, D], goal [R, G])`` and ``termination_fn(state, action, next_state, goal)`` return ``[R]``. Both may leave
    out the goal.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param factors: what observation and action mean; ``FCDL`` takes it from the environment's ``factorization``. None: a
        variable for each entry of the spaces
    :param reward_fn: what the planner maximises, a function or ``"package.module:function"``; None: learned
    :param termination_fn: whether, or how likely, an episode ended with a step, likewise; None: learned
    :param heads: what is learned beside the dynamics, of ``"reward"`` and ``"termination"``, though a function may go before
        it; None: what no function is given for
    :param dynamics: the model: a name in ``DYNAMICS`` or a class
    :param dynamics_kwargs: keyword arguments of its class
    :param planner: a name in ``PLANNERS`` or a class
    :param planner_kwargs: keyword arguments of its class; unless it says otherwise a plan has ``HORIZON`` steps, one
        where all states are listed, and ``HORIZON_WITHOUT_VALUE`` with a ``gamma`` of 1
    :param gamma: discount of the rewards that the planner adds up, per environment step, in (0, 1]. Below 1 the value of a
        state is learned too: a plan counts what comes after it, and how new it is, while data are collected
    :param clip_obs: largest absolute value of a continuous variable, in its standard deviations in the data; None: no limit
    :param average_decay: of the running average of the weights that predicts and is planned with, per update, in [0, 1);
        0: the last weights, as published. Adam's last steps are noise, which adds up along a plan
    :param uncertainty_coef: price of what the model is unsure of, in units of the reward, see ``WorldModel.problem``; 0: none.
        It keeps plans where the model can tell what happens: InvertedPendulum's cart off the ends of its rail, say
    :param normalize_images: for SB3's sake; there are no images
    :param optimizer_class: optimizer of the dynamics model and the learned heads
    :param optimizer_kwargs: its keyword arguments, without the learning rate
    :raises ValueError: if the spaces are not supported, ``dynamics``, ``planner`` or a function is unknown, or a number is out
        of range
    :raises TypeError: if an argument is of a wrong type, or ``dynamics_kwargs`` or ``planner_kwargs`` have an unknown key
    """

    optimizer: th.optim.Optimizer
    # What the optimizer moves, and its running average, which predicts, is planned with and looked at.
    learner: WorldModel
    world: WorldModel

    # Environment steps. What comes after them is in the value of the last state.
    HORIZON = 15
    # A table holds the best that can be done from every state by the model. A longer plan is one of the sequences that were
    # tried, which are not the best.
    HORIZON_OF_TABLE = 1
    # Without a value, which has no bound without a discount. Before the edge of CartPole's track is in sight all plans pay
    # alike (benchmarks/results/README.md, "Horizon and discount").
    HORIZON_WITHOUT_VALUE = 50

    # The heads are small and their tasks simple, but the edge beyond which an episode ends is sharp and rarely met: with less
    # it is learned too late (benchmarks/results/README.md, "Learned heads").
    HEAD_SPEED = 10
    # A value learns from itself, and is overestimated with more (docs/value.md).
    VALUE_LIMIT = 1e-3

    @tells_where
    @in_float32
    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        factors: Factors | None = None,
        reward_fn: RewardFn | str | None = None,
        termination_fn: TerminationFn | str | None = None,
        heads: Sequence[str] | None = None,
        dynamics: str | type[DynamicsModel] = DEFAULT_DYNAMICS,
        dynamics_kwargs: dict[str, Any] | None = None,
        planner: str | type[Planner] = "icem",
        planner_kwargs: dict[str, Any] | None = None,
        gamma: float = 0.99,
        clip_obs: float | None = None,
        average_decay: float = 0.99,
        uncertainty_coef: float = 0.0,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        check_arguments(locals())
        if optimizer_class is th.optim.Adam and not {"foreach", "differentiable"} & (optimizer_kwargs or {}).keys():
            # One pass over the weights instead of one a parameter: six times faster on a CPU, same numbers.
            optimizer_kwargs = {"fused": True, **(optimizer_kwargs or {})}
        super().__init__(
            observation_space,
            action_space,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        self.dynamics_name = dynamics
        self.dynamics_kwargs = dynamics_kwargs or {}
        self.planner_name = planner
        self.planner_kwargs = planner_kwargs or {}
        self.gamma = gamma
        self.clip_obs = clip_obs
        self.average_decay = average_decay
        self.uncertainty_coef = uncertainty_coef
        model, search = dynamics_class(dynamics), planner_class(planner)
        check_keywords("dynamics_kwargs", model, self.dynamics_kwargs)
        check_keywords("planner_kwargs", search, self.planner_kwargs)
        factorization = Factorization(observation_space, action_space, factors, clip_obs)
        dynamics_model = model(factorization.factors, **self.dynamics_kwargs)
        self.learner = WorldModel(factorization, dynamics_model, reward_fn, termination_fn, heads, gamma)
        self.world = self.learner.average()
        self.planner = search(factorization.actions, **{"horizon": self._default_horizon, **self.planner_kwargs})
        learner = self.learner
        learned = (learner.dynamics, *learner.heads.values(), learner.values)
        groups = [{"params": list(module.parameters())} for module in learned]
        self.optimizer = self.optimizer_class(groups, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]
        self.set_learning_rate(lr_schedule(1))

    @property
    def _default_horizon(self) -> int:
        if not self.world.has_value:
            return self.HORIZON_WITHOUT_VALUE
        return self.HORIZON_OF_TABLE if isinstance(self.world.values, ValueTable) else self.HORIZON

    @property
    def dynamics(self) -> DynamicsModel:
        """The model that is planned with."""
        return self.world.dynamics

    @property
    def actor(self) -> Actor:
        """
        What the model would do without a plan, a policy of its own.

        :raises ValueError: if the model learns no values, because ``gamma`` is 1
        """
        return Actor(self.world)

    def set_learning_rate(self, learning_rate: float) -> None:
        """
        :param learning_rate: of the dynamics model; what is learned beside it has ``HEAD_SPEED`` times as much, values up to
            ``VALUE_LIMIT``
        """
        dynamics, *heads, value = self.optimizer.param_groups
        dynamics["lr"] = learning_rate
        for head in heads:
            head["lr"] = self.HEAD_SPEED * learning_rate
        value["lr"] = min(self.HEAD_SPEED * learning_rate, self.VALUE_LIMIT)

    def give(self, reward_fn: RewardFn | str | None, termination_fn: TerminationFn | str | None) -> None:
        """See ``WorldModel.give``."""
        for world in (self.learner, self.world):
            world.give(reward_fn, termination_fn)

    def forward(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self._predict(observation, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self.plan(observation, deterministic).actions[:, 0]

    @in_float32
    def plan(
        self,
        observation: PyTorchObs,
        deterministic: bool = False,
        action_masks: th.Tensor | None = None,
        warm_start: th.Tensor | None = None,
        explores: bool = False,
    ) -> Plan:
        """
        :param observation: observations, a batch of ``B``
        :param deterministic: whether the planner's randomness is a function of the observation
        :param action_masks: allowed actions, ``[B, A]``, bool; all if None
        :param warm_start: of the last plan; None: every environment starts anew
        :param explores: whether a bonus is paid for what is new
        :return: the plan, in the planner's units: whole numbers from 0, or a box scaled to [-1, 1]
        """
        state, goal = self.world.encode(observation), self.world.goal(observation)
        generators = generators_of(state, goal) if deterministic else None
        return self.planner.plan(
            self.problem(explores), state, goal, generators=generators, action_mask=action_masks, warm_start=warm_start
        )

    def problem(self, explores: bool = False) -> Problem:
        """What the planner is given, for as long as the weights stay as they are."""
        return self.world.problem(self.uncertainty_coef, explores)

    def predict(
        self,
        observation: Observations,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
        explores: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Plan, and return the first action of the plan.

        :param observation: one observation or a batch of ``B``
        :param state: what the last call returned: the rest of its plans, ``([B, L, H, *],)``. None: start anew
        :param episode_start: which environments start anew, ``[B]``, bool; none if None
        :param deterministic: whether the action is a function of weights, observation, state and mask alone
        :param action_masks: allowed actions, ``[A]`` or ``[B, A]``, bool; all if None. Of several dimensions those of the
            first, then those of the second and so on, as sb3-contrib has them
        :param explores: whether a bonus is paid for what is new, as while data are collected
        :return: actions, shape ``action_space.shape`` or ``[B, *action_space.shape]``, and the ``state`` of the next
            call, None if the planner always starts anew
        :raises ValueError: if an observation is NaN or infinite, or is a tuple, as ``env.reset()`` of Gymnasium returns it, or
            ``state`` or the masks have another shape
        """
        self.set_training_mode(False)
        tensors, is_batch = self._read(observation, "predict()")
        with th.no_grad():
            known = warm_start_of(state, episode_start)
            plan = self.plan(tensors, deterministic, self._masks(action_masks), known, explores)
        actions = self.world.factorization.env_actions(plan.actions[:, 0])
        return (actions if is_batch else actions.squeeze(axis=0)), state_of(plan)

    def unscale_action(self, scaled_action: np.ndarray) -> np.ndarray:
        """See ``BasePolicy.unscale_action``; never outside the bounds by a rounding."""
        return self.world.factorization.unscaled(scaled_action)

    @in_float32
    def local_graph(self, observation: Observations, action: np.ndarray | int) -> CausalGraph:
        """
        The graph that the model uses for one observation and action.

        :param observation: one observation
        :param action: one action
        :return: the graph, labelled with its context
        :raises ValueError: if a batch was given, the action is not one of the action space, or the model has no graph
        """
        tensors, is_batch = self._read(observation, "local_graph()")
        if is_batch:
            raise ValueError("local_graph() explains one observation, it was given a batch")
        world = self.world
        _check_action(self.action_space, action)
        stored = world.factorization.buffer_actions(np.asarray(action)[np.newaxis])
        with th.no_grad():
            state, encoded = world.encode(tensors), world.encode_action(th.as_tensor(stored, device=self.device))
            graph = world.dynamics.local_graph(state, encoded)
            code = world.step(state, encoded).code
        if code is not None:
            return world.dynamics.context_graphs()[int(code[0])]
        return CausalGraph(graph[0].cpu().numpy(), world.factors.state_names, world.factors.parent_names)

    @in_float32
    def explain(self, observation: Observations, action_masks: np.ndarray | None = None) -> Explanation:
        """
        Explain the action that ``predict(observation, deterministic=True, action_masks=...)`` returns, see
        ``sb3_fcdl.inspection.explain``.

        :param observation: one observation
        :param action_masks: allowed actions, see ``predict``
        :raises ValueError: if a batch was given
        """
        tensors, is_batch = self._read(observation, "explain()")
        if is_batch:
            raise ValueError("explain() is about one observation, it was given a batch: pick a row")
        state, goal = self.world.encode(tensors), self.world.goal(tensors)
        return explain(Question(self.world, self.planner, self.problem, state, goal, self._masks(action_masks)))

    def _read(self, observation: Observations, who: str) -> tuple[PyTorchObs, bool]:
        """See ``read_observations``."""
        return read_observations(self, self.world.factorization, observation, who)

    def _masks(self, action_masks: np.ndarray | None) -> th.Tensor | None:
        """Masks of one environment or a batch, as ``plan`` takes them."""
        if action_masks is None:
            return None
        masks = th.as_tensor(action_masks, dtype=th.bool, device=self.device)
        return masks.reshape(-1, masks.shape[-1])

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            lr_schedule=self._dummy_schedule,
            factors=self.world.factors,
            reward_fn=self.world.reward_fn,
            termination_fn=self.world.termination_fn,
            heads=list(self.world.heads),
            dynamics=self.dynamics_name,
            dynamics_kwargs=self.dynamics_kwargs,
            planner=self.planner_name,
            planner_kwargs=self.planner_kwargs,
            gamma=self.gamma,
            clip_obs=self.clip_obs,
            average_decay=self.average_decay,
            uncertainty_coef=self.uncertainty_coef,
            optimizer_class=self.optimizer_class,
            optimizer_kwargs=self.optimizer_kwargs,
        )
        return data

    def save(self, path: str | pathlib.Path) -> None:
        """
        Weights and configuration, as ``load`` reads them.

        :param path: the file
        :raises ValueError: if ``reward_fn`` or ``termination_fn`` is no function of a module
        """
        arguments = self._get_constructor_parameters()
        del arguments["lr_schedule"]
        portable.save_policy(path, self.state_dict(), arguments)

    @classmethod
    def load(
        cls: type[SelfFCDLPolicy],
        path: str | pathlib.Path,
        device: th.device | str = "auto",
        trusted: bool = True,
        **kwargs: Any,
    ) -> SelfFCDLPolicy:
        """
        Load a policy. Nothing is unpickled.

        :param path: the file
        :param device: to load to
        :param trusted: whether to import the functions and classes of one's own that the file names. False: nothing is
            imported, and they must be passed
        :param kwargs: arguments of the constructor that replace the saved ones
        :raises ValueError: if it is another kind of file, or something must be passed; says what
        """
        device = get_device(device)
        state_dict, arguments = portable.load_policy(path, device, trusted, kwargs)
        policy = cls(**arguments, lr_schedule=cls._dummy_schedule)
        policy.load_state_dict(state_dict)
        return policy.to(device)


def _check_action(space: spaces.Space, action: Any) -> None:
    """
    :raises ValueError: if it is not one action of the space
    """
    array = np.asarray(action)
    fits = array.dtype.kind in "biuf" and array.shape == space.shape and bool(np.isfinite(array).all())
    if fits and isinstance(space, spaces.Box):
        # As near as its type can tell.
        fits = bool((array.astype(space.dtype) >= space.low).all() and (array.astype(space.dtype) <= space.high).all())
    elif fits:
        fits = bool((array == array.astype(np.int64)).all()) and space.contains(array.astype(space.dtype)[()])
    if not fits:
        what = f"one action of shape {space.shape}" if space.shape else "one number, no array"
        refuse("action", action, f"{what}, of {space}")


def warm_start_of(state: tuple[np.ndarray, ...] | None, episode_start: np.ndarray | None) -> th.Tensor | None:
    """
    The warm start of a planner out of what SB3 hands to ``predict``.

    :param state: what the last call returned, ``([B, L, H, *],)``; None: there is none
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
