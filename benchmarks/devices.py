"""
From how many rows on a device is faster than one core, and whether the host ever waits for it inside a plan.

``python benchmarks/devices.py --device cuda`` prints, for each environment and model,

* the median time of an update with a batch of 10 to 10 000 rows, and of a plan with as many candidates at each step, on one
  core and on the device,
* the least number of rows from which on the device is faster,
* what the host waits for inside a plan, which should be nothing.

``--device cpu`` needs no GPU. It counts the reads of numbers that would be waits on one. For that count a plan uses neither
tables nor the memo, as on a GPU.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch as th
from speed import dense_path

from sb3_fcdl import FCDL
from sb3_fcdl.dynamics import DYNAMICS
from sb3_fcdl.evaluation.markdown import markdown
from sb3_fcdl.runs.profile import fill_replay_buffer, median_ms, random_observation
from sb3_fcdl.runs.waits import host_waits

ROWS = (10, 100, 1000, 10_000)
ENVIRONMENTS = ("Pendulum-v1", "FCDL/Chemical-v0")
HORIZON = 10
CORE = "cpu"


@dataclass(frozen=True)
class Timing:
    """
    :param what: environment, model, and ``update`` or ``plan``
    :param n_rows: of a batch, or candidates at each step
    :param core_ms: median time on one core
    :param device_ms: on the device; None: there is none besides
    """

    what: str
    n_rows: int
    core_ms: float
    device_ms: float | None


def make_model(env_id: str, dynamics: str, device: str) -> FCDL:
    """With default settings but a shorter horizon, and random transitions to learn from."""
    policy = "MultiInputPolicy" if env_id.startswith("FCDL/") else "MlpPolicy"
    model = FCDL(policy, env_id, dynamics=dynamics, planner_kwargs={"horizon": HORIZON}, device=device, seed=0)
    fill_replay_buffer(model, np.random.default_rng(0))
    return model


def plan_of(model: FCDL, n_candidates: int) -> Callable[[], object]:
    """A plan for one environment, up to and without the copy of its action to the host."""
    policy = model.policy
    policy.planner = replace(policy.planner, n_candidates=n_candidates)
    policy.set_training_mode(False)
    observation, _ = policy.obs_to_tensor(random_observation(model, 1, np.random.default_rng(1)))
    state, goal = policy.world.encode(observation), policy.world.goal(observation)
    return th.no_grad()(lambda: policy.planner.plan(policy.problem(), state, goal))


def timings(env_id: str, dynamics: str, device: str, rows: Sequence[int], seconds: float) -> Iterator[Timing]:
    """Updates, then plans."""
    models = [make_model(env_id, dynamics, each) for each in dict.fromkeys((CORE, device))]
    kinds: dict[str, Callable[[FCDL, int], Callable[[], object]]] = {
        "update": lambda model, n_rows: partial(model.train, 1, n_rows),
        "plan": plan_of,
    }
    for kind, call in kinds.items():
        for n_rows in rows:
            core_ms, *others = [median_ms(call(model, n_rows), seconds, min_repeats=2) for model in models]
            yield Timing(f"{env_id}, {dynamics}, {kind}", n_rows, core_ms, others[0] if others else None)


def crossover(measured: Sequence[Timing]) -> int | None:
    """
    :param measured: of one thing, by number of rows
    :return: the least number of rows from which on the device is faster at each number that was measured; None: there is none
    """
    least = None
    for timing in sorted(measured, key=lambda each: each.n_rows, reverse=True):
        if timing.device_ms is None or timing.device_ms >= timing.core_ms:
            break
        least = timing.n_rows
    return least


def table(measured: Sequence[Timing], device: str) -> str:
    """Markdown, times in ms."""
    lines = []
    for each in measured:
        device_ms = [] if each.device_ms is None else [f"{each.device_ms:.2f}", f"{each.core_ms / each.device_ms:.2f}"]
        lines.append([each.what, f"{each.n_rows:,}", f"{each.core_ms:.2f}", *device_ms])
    has_device = any(each.device_ms is not None for each in measured)
    return markdown(["", "rows", "one core", *([device, "times as fast"] if has_device else [])], lines)


def in_words(waits: dict[str, int]) -> str:
    return ", ".join(f"{name} {count} times" for name, count in sorted(waits.items())) or "nothing"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="(default: %(default)s)")
    parser.add_argument("--envs", nargs="+", default=ENVIRONMENTS)
    parser.add_argument("--dynamics", nargs="+", choices=DYNAMICS, default=["fcdl_tree", "mlp"])
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (default: %(default)s)")
    arguments = parser.parse_args(argv)
    device = arguments.device
    if th.device(device).type == "cuda" and not th.cuda.is_available():
        parser.error("torch finds no CUDA device; --device cpu counts the reads of a plan all the same")
    th.set_num_threads(1)
    name = th.cuda.get_device_name(device) if th.device(device).type == "cuda" else device
    print(f"{name}, torch {th.__version__}\n")
    for env_id in arguments.envs:
        for dynamics in arguments.dynamics:
            measured = list(timings(env_id, dynamics, device, arguments.rows, arguments.seconds))
            print(table(measured, device))
            for what in dict.fromkeys(each.what for each in measured):
                least = crossover([each for each in measured if each.what == what])
                if device != CORE:
                    print(f"{what}: {device} is faster " + ("nowhere" if least is None else f"from {least:,} rows on"))
            with dense_path():
                waits = host_waits(plan_of(make_model(env_id, dynamics, device), n_candidates=64))
            print(f"{env_id}, {dynamics}: inside a plan the host waits for {in_words(waits)}\n", flush=True)


if __name__ == "__main__":
    main()
