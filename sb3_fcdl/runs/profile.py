"""Times of a saved model on each device of this machine: of an action and of an update."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import Logger

from fcdl_envs.variables import Variable
from sb3_fcdl.evaluation.markdown import markdown
from sb3_fcdl.fcdl import FCDL
from sb3_fcdl.observations import Observations

# Steps of random experience that updates are measured on.
N_STEPS = 100


@dataclass(frozen=True)
class DeviceSpeed:
    """
    A model on one device.

    :param device: torch's name of it
    :param predict_ms: median time of one ``predict``, for each number of environments, in ms
    :param update_ms: median time of one update of the model, in ms
    """

    device: str
    predict_ms: dict[int, float]
    update_ms: float


def median_ms(function: Callable[[], object], seconds: float = 1.0, min_repeats: int = 3) -> float:
    """
    Median time of a call. The first call is not counted.

    :param function: what to call
    :param seconds: total time after which no call is added
    :param min_repeats: least number of calls that are counted
    :return: in ms; with CUDA it includes the wait for the device
    """
    durations: list[float] = []
    _finish(function)
    while len(durations) < min_repeats or sum(durations) < seconds:
        start = time.perf_counter()
        _finish(function)
        durations.append(time.perf_counter() - start)
    return 1000 * statistics.median(durations)


def _finish(function: Callable[[], object]) -> None:
    function()
    if th.cuda.is_available():
        th.cuda.synchronize()


def available_devices() -> tuple[str, ...]:
    """The devices of this machine that a model can run on."""
    return ("cpu", "cuda") if th.cuda.is_available() else ("cpu",)


def load_on(path: Path, device: str) -> FCDL:
    """
    A saved model without its environment and with a small replay buffer.

    :param path: of ``model.zip``
    :param device: where to
    :raises FileNotFoundError: if there is no such file
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    return FCDL.load(path, device=device, custom_objects={"buffer_size": 10_000})


def measure_model(model: FCDL, n_envs: Sequence[int], seconds: float = 1.0) -> DeviceSpeed:
    """
    Measure on random observations, so that no environment is needed. The model is trained on them: do not use it afterwards.

    :param model: where it is to be measured
    :param n_envs: numbers of environments that ``predict`` is measured for
    :param seconds: how long each measurement lasts
    """
    rng = np.random.default_rng(0)
    predict_ms = {n: median_ms(partial(model.predict, random_observation(model, n, rng)), seconds) for n in n_envs}
    fill_replay_buffer(model, rng)
    update_ms = median_ms(lambda: model.train(1, model.batch_size), seconds)
    return DeviceSpeed(str(model.device), predict_ms, update_ms)


def random_observation(model: FCDL, n_envs: int, rng: np.random.Generator) -> Observations:
    """
    A random point of the observation space. In a ``Box`` a categorical variable is one-hot, and a continuous one is normally
    distributed and clipped to its bounds, because bounds may be infinite or absurdly large.

    :param model: gives the spaces and the variables
    :param n_envs: how many, ``B``
    :param rng: source of the values
    :return: ``[B, *shape]``, or that by key
    """
    space, state = model.observation_space, model.policy.world.factors.state
    space.seed(int(rng.integers(2**31)))
    if isinstance(state, tuple):
        return _random_values(space, state, n_envs, rng)
    assert isinstance(space, spaces.Dict)
    return {key: _random_values(part, state.get(key, ()), n_envs, rng) for key, part in space.items()}


def _random_values(space: spaces.Space, variables: Sequence[Variable], n_rows: int, rng: np.random.Generator) -> np.ndarray:
    if not (isinstance(space, spaces.Box) and variables):
        return np.stack([space.sample() for _ in range(n_rows)])
    columns = [
        np.eye(variable.n_categories)[rng.integers(variable.n_categories, size=n_rows)]
        if variable.is_categorical
        else rng.normal(size=(n_rows, 1))
        for variable in variables
    ]
    values = np.concatenate(columns, axis=1).reshape(n_rows, *space.shape)
    return values.clip(space.low, space.high).astype(space.dtype)


def fill_replay_buffer(model: FCDL, rng: np.random.Generator) -> None:
    """
    Store random transitions, which agree with no reward function: they are not compared with one. The model can then be
    trained, which it should not be for any other purpose than to measure.

    :param model: learns from them
    :param rng: source of the values
    """
    model.trainer.has_checked_outcomes = True
    model.set_logger(Logger(None, []))
    assert model.replay_buffer is not None
    n_envs = model.n_envs
    observation = random_observation(model, n_envs, rng)
    for _ in range(N_STEPS):
        successor = random_observation(model, n_envs, rng)
        action = np.stack([model.action_space.sample() for _ in range(n_envs)])
        nothing = np.zeros(n_envs)
        model.replay_buffer.add(observation, successor, action, nothing, nothing, [{} for _ in range(n_envs)])  # type: ignore[arg-type]
        observation = successor


def format_speeds(speeds: Sequence[DeviceSpeed]) -> str:
    """
    A Markdown table, times in ms.

    :param speeds: of the same model on different devices
    """
    n_envs = list(speeds[0].predict_ms)
    rows = [
        [speed.device, *(f"{time_ms:.1f}" for time_ms in (*speed.predict_ms.values(), speed.update_ms))] for speed in speeds
    ]
    return markdown(["device", *(f"predict, {_environments(n)}" for n in n_envs), "update"], rows)


def recommendation(speeds: Sequence[DeviceSpeed]) -> str:
    """
    One sentence: which device to train on (most environments; one ``predict`` and one update per step) and which to act on
    (fewest environments).

    :param speeds: of the same model on different devices
    """
    many, few = max(speeds[0].predict_ms), min(speeds[0].predict_ms)

    def train_ms(speed: DeviceSpeed) -> float:
        return speed.predict_ms[many] + speed.update_ms

    ranking = sorted(speeds, key=train_ms)
    actor = min(speeds, key=lambda speed: speed.predict_ms[few])
    best = ranking[0]
    reason = f"a predict for {_environments(many)} and an update take {train_ms(best):.0f} ms"
    if len(ranking) == 1:
        return f"Choose {best.device}, torch finds no other device here: {reason}."
    reason += f" there, {train_ms(ranking[1]):.0f} ms on {ranking[1].device}"
    if actor.device == best.device:
        return f"Choose {best.device}: {reason}."
    return f"Choose {best.device} to train: {reason}; {actor.device} is faster at acting in {_environments(few)}."


def _environments(number: int) -> str:
    return f"{number} environment{'s' if number > 1 else ''}"
