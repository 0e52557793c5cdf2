"""The same episodes observed in two ways, corrupted and not, and what a model predicts from either."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, overload

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import PolicyPredictor
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_fcdl.dynamics import Prediction
from sb3_fcdl.evaluation.returns import EVALUATION_SEED_OFFSET, Task, make_env
from sb3_fcdl.fcdl import FCDL, FCDLPolicy
from sb3_fcdl.observations import Observations, given_to, map_observations

# Transitions that are predicted at once: enough that the overhead of a call does not count, few enough for the memory.
N_TRANSITIONS = 500


class PairedStep(NamedTuple):
    """
    One step of B environments. The lists have an entry for each way of observing it.

    :param observations: before the step
    :param actions: the same for all, as ``env.step`` takes them, ``[B, *]``
    :param next_observations: after the step; where an episode has ended, its last observation
    :param infos: of the step, a list of ``B``
    """

    observations: list[Observations]
    actions: np.ndarray
    next_observations: list[Observations]
    infos: list[list[dict[str, Any]]]


def paired_envs(
    env_id: str, env_kwargs: dict[str, Any], task: Task, clean_kwargs: dict[str, Any] | None, n_envs: int
) -> list[VecEnv]:
    """
    :param env_id: registered name of the environment
    :param env_kwargs: its keyword arguments, without the task
    :param task: which one
    :param clean_kwargs: keyword arguments under which the environment shows the same episodes without corruption; None or
        empty: nothing is corrupted
    :param n_envs: number of environments
    :return: the environments and, with ``clean_kwargs``, the same without corruption
    """
    made_with = [{**env_kwargs, **task.env_kwargs}]
    if clean_kwargs:
        made_with.append({**made_with[0], **clean_kwargs})
    return [make_env(env_id, n_envs, each) for each in made_with]


def random_steps(envs: Sequence[VecEnv], n_steps: int, seed: int) -> Iterator[PairedStep]:
    """
    Take steps with random actions, the same in all environments; close the environments at the end.

    :param envs: see ``paired_envs``
    :param n_steps: how often each is stepped
    :param seed: of the environments and the actions
    """
    action_space = envs[0].action_space
    action_space.seed(seed)
    for env in envs:
        env.seed(EVALUATION_SEED_OFFSET + seed)
    observations: list[Any] = [env.reset() for env in envs]
    for _ in range(n_steps):
        actions = np.stack([action_space.sample() for _ in range(envs[0].num_envs)])
        moved = [env.step(actions) for env in envs]
        infos = [step[3] for step in moved]
        arrived: list[Any] = [step[0] for step in moved]
        yield PairedStep(observations, actions, list(map(_with_last_ones, arrived, infos)), infos)
        observations = arrived
    for env in envs:
        env.close()


def joined(steps: Iterable[PairedStep]) -> Iterator[PairedStep]:
    """Join consecutive steps into batches of about ``N_TRANSITIONS`` transitions."""
    part: list[PairedStep] = []
    for step in steps:
        part.append(step)
        if sum(len(each.actions) for each in part) >= N_TRANSITIONS:
            yield _as_one(part)
            part = []
    if part:
        yield _as_one(part)


def _as_one(steps: Sequence[PairedStep]) -> PairedStep:
    def concatenate(ways: Iterable[Sequence[Observations]]) -> list[Observations]:
        return [map_observations(lambda *arrays: np.concatenate(arrays), *way) for way in zip(*ways, strict=True)]

    return PairedStep(
        concatenate(step.observations for step in steps),
        np.concatenate([step.actions for step in steps]),
        concatenate(step.next_observations for step in steps),
        [list(chain.from_iterable(way)) for way in zip(*(step.infos for step in steps), strict=True)],
    )


@overload
def policy_of(model: FCDL | FCDLPolicy) -> FCDLPolicy: ...
@overload
def policy_of(model: PolicyPredictor) -> FCDLPolicy | None: ...
def policy_of(model: PolicyPredictor) -> FCDLPolicy | None:
    """
    :param model: anything with SB3's ``predict``
    :return: its policy with a dynamics model, which it may be itself; None if it has none
    """
    policy = getattr(model, "policy", model)
    return policy if isinstance(policy, FCDLPolicy) else None


@th.no_grad()
def one_step(model: FCDL | FCDLPolicy) -> Callable[[Observations, np.ndarray], Prediction]:
    """
    :param model: a trained model
    :return: a function from observations ``[B, *obs_shape]`` and actions as ``env.step`` takes them ``[B, *]`` to the model's
        prediction. It is valid until the weights change
    """
    policy, given = policy_of(model), given_to(model)
    step = policy.world.stepper()

    @th.no_grad()
    def predict(observations: Observations, actions: np.ndarray) -> Prediction:
        world = policy.world
        stored = th.as_tensor(world.factorization.buffer_actions(actions), device=world.device)
        return step(world.encode(obs_as_tensor(given(observations), world.device)), world.encode_action(stored))

    return predict


def same_code(one: Prediction, other: Prediction) -> np.ndarray:
    """
    :param one: predictions from ``B`` observations
    :param other: predictions for the same transitions, observed in another way
    :return: 1 where the contexts are the same, else 0, ``[B]``; a single NaN, ``[]``, if the model has no contexts
    """
    if one.code is None or other.code is None:
        return np.array(np.nan)
    return (one.code == other.code).double().cpu().numpy()


def same_graph(one: Prediction, other: Prediction) -> np.ndarray:
    """1 where the parents are the same, see ``same_code``."""
    if one.graph is None or other.graph is None:
        return np.array(np.nan)
    return (one.graph.bool() == other.graph.bool()).flatten(1).all(1).double().cpu().numpy()


def true_graphs(infos: list[dict[str, Any]], name: str) -> np.ndarray:
    """
    :param infos: of ``B`` transitions
    :param name: of the kind of graph, ``local_graph`` or ``transition_graph``
    :return: ``[B, V, P]`` bool
    :raises ValueError: if there is none
    """
    if name not in infos[0]:
        raise ValueError(f"the environment does not tell the true graph of a transition in info[{name!r}]")
    return np.stack([np.asarray(info[name], dtype=bool) for info in infos])


def _with_last_ones(observations: Any, infos: list[dict[str, Any]]) -> Any:
    """The observations after a step; where an episode has ended, its last one instead of the first one of the next."""
    ended = {row: info["terminal_observation"] for row, info in enumerate(infos) if "terminal_observation" in info}
    if not ended:
        return observations
    last = list(ended.values())
    return map_observations(lambda array, *rows: _with_rows(array, dict(zip(ended, rows, strict=True))), observations, *last)


def _with_rows(values: np.ndarray, rows: dict[int, np.ndarray]) -> np.ndarray:
    values = values.copy()
    for row, value in rows.items():
        values[row] = value
    return values
