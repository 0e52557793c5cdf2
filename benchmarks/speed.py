"""
How fast FCDL and its simulator are, beside our own dense, undeduplicated path in the same run.

``make bench-speed`` runs all of it, with one thread and with two, and keeps the numbers in
``benchmarks/results/speed/DATE-COMMIT.json``. ``python benchmarks/speed.py --quick --json FILE`` takes less than a minute.
Both paths give the same numbers (the tests hold them against each other); the dense one multiplies matrices in place of
looking up tables, and sends every step of every candidate of the planner through the model.

``--against FILE`` compares with such a file. ``--fail-below 0.7`` makes the program end with 1 if a ratio is less than that
share of the file's. Both paths are measured in one run, so the machine hardly matters to their ratio.

``--table FILE`` prints the table of such a file and measures nothing.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import Mock, patch

import gymnasium as gym
import numpy as np
import torch as th
from flops import Work
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl import FCDL, FCDLPolicy, GymVectorVecEnv
from sb3_fcdl.dynamics import DEFAULT_DYNAMICS, DYNAMICS, Windows
from sb3_fcdl.dynamics.lookup import rule
from sb3_fcdl.evaluation.markdown import markdown
from sb3_fcdl.planning import planner
from sb3_fcdl.planning.rollout import PlainRollout
from sb3_fcdl.presets import preset
from sb3_fcdl.runs.profile import measure_model, median_ms
from sb3_fcdl.runs.record import machine, package_versions

ENV_ID = "FCDL/Chemical-v0"
N_ENVS = 10
EPISODE_STEPS = 25
# Rows of an update on a system of numbers.
BATCH_SIZE = 256

Size = tuple[int, int]
"""Objects and colours of a system."""

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Scale:
    """
    How much is measured.

    :param threads: numbers of threads
    :param seconds: how long each measurement lasts; the slow ones are repeated three times
    :param n_updates: updates of the model on random actions, before anything is measured; the cost of a plan hardly depends
        on it (4100 to 4300 states and actions between none and 600)
    :param plan_envs: numbers of environments to plan for
    :param size: of the system
    :param growth: other sizes, measured with one thread
    :param models: dynamics models, measured with one thread
    :param numbers: systems of so many continuous variables, measured with one thread
    :param environments: measured with one thread, the default model with default settings
    """

    threads: Sequence[int] = (1, 2)
    seconds: float = 3.0
    n_updates: int = 100
    plan_envs: Sequence[int] = (1, N_ENVS, 100)
    size: Size = (10, 5)
    growth: Sequence[Size] = ((20, 5), (40, 5), (10, 10))
    models: Sequence[str] = tuple(DYNAMICS)
    numbers: Sequence[int] = (10, 30, 100)
    environments: Sequence[str] = (
        "CartPole-v1",
        "Pendulum-v1",
        "Acrobot-v1",
        "FCDL/Thermostat-v0",
        "FCDL/Contact-v0",
        "FCDL/Workshop-v0",
    )


FULL = Scale()
QUICK = Scale(threads=(1,), seconds=0.5, plan_envs=(1, N_ENVS), growth=(), models=(), numbers=(), environments=())


@dataclass(frozen=True)
class Row:
    """
    :param quantity: what was measured
    :param unit: of both numbers
    :param ours: with tables and memo
    :param dense: without; None where there is no such thing
    :param n_threads: threads that torch had
    """

    quantity: str
    unit: str
    ours: float
    dense: float | None = None
    n_threads: int = field(default_factory=th.get_num_threads)

    @property
    def ratio(self) -> float | None:
        """How much better ours is: less time, memory or work, or more per second."""
        if self.dense is None or self.unit.startswith("%"):
            return None
        return self.ours / self.dense if self.unit.endswith("/s") else self.dense / self.ours


def system(size: Size) -> dict[str, int]:
    """Keyword arguments of the environment."""
    return {"n_objects": size[0], "n_colors": size[1], "dynamics_seed": 0}


def update_name(size: Size) -> str:
    return f"update, {size[0]} objects, {size[1]} colours"


def plan_name(size: Size, n_envs: int = N_ENVS) -> str:
    return f"plan, {size[0]} objects, {size[1]} colours, {n_envs} envs"


def row_named(rows: Sequence[Row], quantity: str) -> Row:
    """The first, that is the one with the least threads."""
    return next(row for row in rows if row.quantity == quantity)


def trained_model(size: Size, n_updates: int, dynamics: str = "fcdl") -> FCDL:
    """A model as `sb3-fcdl train` makes it, ten environments, 1000 transitions of random actions, and updates on them."""
    env = GymVectorVecEnv(gym.make_vec(ENV_ID, num_envs=N_ENVS, **system(size)))
    warm_up = 4 * EPISODE_STEPS * N_ENVS
    of_model = preset(ENV_ID, dynamics=dynamics)["dynamics_kwargs"]
    model = FCDL(
        FCDLPolicy,
        env,
        **preset(ENV_ID, "paper", dynamics) | {"dynamics_kwargs": of_model, "learning_rate": 1e-3},
        learning_starts=warm_up,
        train_freq=1,
        seed=0,
        device="cpu",
    )
    model.set_logger(Logger(None, []))
    model.learn(warm_up)
    model.train(n_updates, model.batch_size)
    return model


def first_observations(size: Size, n_envs: int) -> dict[str, np.ndarray]:
    """Of episodes of the training task, by key, ``[n_envs, width]``."""
    return gym.make_vec(ENV_ID, num_envs=n_envs, **system(size)).reset(seed=0)[0]


@contextmanager
def dense_path() -> Iterator[None]:
    """The same results, from matrix products and without a memo."""

    def plain_rollout(*args: Any) -> PlainRollout:
        return PlainRollout(*args)

    with patch.object(rule, "uses_tables", lambda device: False), patch.object(planner, "make_rollout", plain_rollout):
        yield


def both_paths(model: FCDL, measure: Callable[[], Number]) -> tuple[Number, Number]:
    """:return: the number on our path, and on the dense one"""
    ours = measure()
    with dense_path():
        return ours, measure()


def cost_rows(model: FCDL, size: Size, plan_envs: Sequence[int], seconds: float) -> list[Row]:
    """Times of an update and of plans."""
    update = both_paths(model, lambda: median_ms(lambda: model.train(1, model.batch_size), seconds))
    rows = [Row(update_name(size), "ms", *update)]
    for n_envs in plan_envs:
        observation = first_observations(size, n_envs)
        plan = both_paths(model, partial(median_ms, partial(model.predict, observation), seconds))
        rows.append(Row(plan_name(size, n_envs), "ms", *plan))
    return rows


def model_rows(dynamics: str, scale: Scale) -> list[Row]:
    """An update and a plan of one dynamics model."""
    model = trained_model(scale.size, scale.n_updates, dynamics)
    update_ms = median_ms(lambda: model.train(1, model.batch_size), scale.seconds)
    plan_ms = median_ms(partial(model.predict, first_observations(scale.size, N_ENVS)), scale.seconds)
    return [Row(f"update, {dynamics}", "ms", update_ms), Row(f"plan, {dynamics}, {N_ENVS} envs", "ms", plan_ms)]


def training_row(model: FCDL, seconds: float) -> Row:
    """What a training run repeats: an environment step, a plan, storing, an update."""
    vector_step = partial(model.learn, N_ENVS, reset_num_timesteps=False)
    return Row("training, 10 envs", "vector steps/s", *both_paths(model, lambda: 1000 / median_ms(vector_step, seconds)))


def roofline_rows(model: FCDL, size: Size, costs: Sequence[Row], seconds: float) -> list[Row]:
    """The work that an update and a plan need, and how fast it is done beside a matrix product."""
    matrix = th.rand(1024, 1024)
    peak = 2 * 1024**3 / 1e6 / median_ms(lambda: matrix @ matrix, seconds)
    n_rows = both_paths(model, lambda: planned_rows(model, first_observations(size, N_ENVS)))
    work = Work(*size)
    rows = [Row("1024 x 1024 matrix product", "GFLOP/s", peak), Row("states and actions in a plan", "rows", *n_rows)]
    for quantity, multiply_adds in (
        (update_name(size), (work.table_update(), work.dense_update())),
        (plan_name(size), (work.table_plan(n_rows[0]), work.dense_plan(n_rows[1]))),
    ):
        cost = row_named(costs, quantity)
        assert cost.dense is not None
        gflop = [2 * count / 1e9 for count in multiply_adds]
        shares = [100 * 1000 * count / ms / peak for count, ms in zip(gflop, (cost.ours, cost.dense), strict=True)]
        rows += [Row(f"work: {quantity}", "GFLOP", *gflop), Row(f"speed: {quantity}", "% of product", *shares)]
    return rows


def planned_rows(model: FCDL, observation: dict[str, np.ndarray]) -> int:
    """How many states and actions go through the model in a plan: each asks once for its reward."""
    world = model.policy.world
    given, reward_fn = world.given, Mock(side_effect=world.reward_fn)
    world.give(reward_fn, given.termination_fn)
    model.predict(observation)
    world.give(*given)
    return sum(len(call.args[0]) for call in reward_fn.call_args_list)


def simulator_rows(size: Size, seconds: float) -> list[Row]:
    """Transitions with random actions, in whole episodes."""
    batches = {n: gym.make_vec(ENV_ID, num_envs=n, **system(size)) for n in (10, 100, 1000)}
    # The module is named for the processes, which have not imported it.
    single = partial(gym.make, f"sb3_fcdl:{ENV_ID}", **system(size))
    envs: dict[str, Any] = {f"ChemicalVectorEnv, {n} envs": env for n, env in batches.items()}
    envs |= {f"GymVectorVecEnv, {n} envs": GymVectorVecEnv(env) for n, env in batches.items()}
    envs |= {f"DummyVecEnv, {n} envs": DummyVecEnv([single] * n) for n in (10, 100)}
    envs["SubprocVecEnv, 10 envs"] = SubprocVecEnv([single] * 10)
    rows = []
    for name, env in envs.items():
        actions = np.random.default_rng(0).integers(size[0] * size[1], size=(EPISODE_STEPS, env.num_envs))
        env.reset()
        rate = 1000 * actions.size / median_ms(lambda env=env, actions=actions: list(map(env.step, actions)), seconds)
        rows.append(Row(name, "transitions/s", rate))
    envs["SubprocVecEnv, 10 envs"].close()
    return rows


def speed_rows(scale: Scale) -> list[Row]:
    """All measurements but that of memory."""
    model = trained_model(scale.size, scale.n_updates)
    costs = cost_rows(model, scale.size, scale.plan_envs, scale.seconds)
    rows = [*costs, training_row(model, scale.seconds)]
    rows += roofline_rows(model, scale.size, costs, scale.seconds)
    rows += simulator_rows(scale.size, scale.seconds)
    if th.get_num_threads() == 1:
        for size in scale.growth:
            rows += cost_rows(trained_model(size, scale.n_updates), size, (N_ENVS,), scale.seconds)
        for dynamics in scale.models:
            rows += model_rows(dynamics, scale)
    return rows


def peak_memory(size: Size, is_dense: bool) -> float:
    """:return: MiB that this process has taken so far, after an update and a plan"""
    model = trained_model(size, n_updates=0)
    with dense_path() if is_dense else nullcontext():
        model.train(1, model.batch_size)
        model.predict(first_observations(size, N_ENVS))
    return memory()


def numbers_rows(n_variables: int, seconds: float) -> list[Row]:
    """An update of the default model on a system of numbers, and the memory that the process took for it."""
    factors = Factors(tuple(Variable(f"x{index}") for index in range(n_variables)), (Variable("action"),))
    th.manual_seed(0)
    model = DYNAMICS[DEFAULT_DYNAMICS](factors).train()
    optimizer = th.optim.Adam(model.parameters(), fused=True)
    shape = (BATCH_SIZE, 1, n_variables)
    windows = Windows(th.randn(shape), th.randn(BATCH_SIZE, 1, 1), th.randn(shape), th.ones(BATCH_SIZE, 1) > 0)

    def update() -> None:
        optimizer.zero_grad()
        model.loss(windows).total.backward()
        optimizer.step()

    name = f"update, {DEFAULT_DYNAMICS}, {n_variables} numbers"
    return [Row(name, "ms", median_ms(update, seconds)), Row(f"peak memory, {n_variables} numbers", "MiB", memory())]


def environment_rows(env_id: str, seconds: float) -> list[Row]:
    """Of FCDL as it is made without any argument, on random observations and transitions."""
    is_dict = isinstance(gym.spec(env_id).make().observation_space, gym.spaces.Dict)
    model = FCDL("MultiInputPolicy" if is_dict else "MlpPolicy", env_id, device="cpu", seed=0)
    speed = measure_model(model, (1, N_ENVS), seconds)
    plans = [Row(f"plan, {env_id}, {n_envs} envs", "ms", ms) for n_envs, ms in speed.predict_ms.items()]
    return [Row(f"update, {env_id}", "ms", speed.update_ms), *plans]


def memory() -> float:
    """:return: most MiB that this process has had so far; the libraries take about 400 of them"""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def in_fresh_process(n_threads: int, function: Callable[..., Any], *args: Any) -> Any:
    """Calls the function where nothing else has taken memory, and where every library has that many threads."""
    os.environ["OMP_NUM_THREADS"] = str(n_threads)
    # Not multiprocessing.Pool, whose processes may not have any of their own, as SubprocVecEnv needs.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def measure(scale: Scale) -> list[Row]:
    """Everything, with each number of threads."""
    rows = []
    for n_threads in scale.threads:
        print(f"measuring, threads: {n_threads} ...", file=sys.stderr)
        rows += in_fresh_process(n_threads, speed_rows, scale)
        peaks = [in_fresh_process(n_threads, peak_memory, scale.size, is_dense) for is_dense in (False, True)]
        rows.append(Row("peak memory, update and plan", "MiB", *peaks, n_threads))
    for n_variables in scale.numbers:
        rows += in_fresh_process(1, numbers_rows, n_variables, scale.seconds)
    for env_id in scale.environments:
        rows += in_fresh_process(1, environment_rows, env_id, scale.seconds)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Markdown; ``ratio`` is how many times better ours is."""

    lines = [[row.quantity, row.unit, str(row.n_threads), *map(_shown, (row.ours, row.dense, row.ratio))] for row in rows]
    return markdown(["", "unit", "threads", "ours", "dense", "ratio"], lines)


def _shown(number: float | None) -> str:
    return "" if number is None else f"{number:,.{1 if number < 100 else 0}f}"


def report(scale: Scale, rows: Sequence[Row]) -> dict[str, Any]:
    """What the JSON file holds."""
    return {
        "ratio": {
            "update": row_named(rows, update_name(scale.size)).ratio,
            "plan": row_named(rows, plan_name(scale.size)).ratio,
        },
        "rows": [asdict(row) | {"ratio": row.ratio} for row in rows],
        "scale": asdict(scale),
        "versions": package_versions(),
        "machine": machine(),
    }


def rows_of(path: Path) -> list[Row]:
    """:param path: what ``report`` was written to"""
    names = {each.name for each in fields(Row)}
    return [
        Row(**{name: value for name, value in row.items() if name in names}) for row in json.loads(path.read_text())["rows"]
    ]


def comparison(before: Sequence[Row], now: Sequence[Row]) -> tuple[str, float]:
    """
    :param before: rows of an earlier run
    :param now: of this one
    :return: Markdown of what both have; and the smallest share of an earlier ratio that is left, infinite if there is none
    """
    earlier = {(row.quantity, row.n_threads): row for row in before}
    lines, shares = [], [float("inf")]
    for row in now:
        old = earlier.get((row.quantity, row.n_threads))
        if old is not None:
            times = Row("", row.unit, row.ours, old.ours).ratio
            lines.append(
                [row.quantity, row.unit, str(row.n_threads), *map(_shown, (old.ours, row.ours, times, old.ratio, row.ratio))]
            )
            if old.ratio and row.ratio:
                shares.append(row.ratio / old.ratio)
    columns = ["", "unit", "threads", "before", "now", "times better", "ratio before", "ratio now"]
    return markdown(columns, lines), min(shares)


def kept_name() -> str:
    """``DATE-COMMIT.json``, of now; a commit with changes that are not in it has a ``+``."""
    commit = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    name = subprocess.run(commit, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()
    return f"{date.today()}-{name}.json"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less than a minute: one thread, no growth, not 100 envs")
    help_json = "also write the rows, versions and machine to this file; in a folder it is called DATE-COMMIT.json"
    parser.add_argument("--json", type=Path, metavar="FILE", help=help_json)
    parser.add_argument("--against", type=Path, metavar="FILE", help="such a file: print how many times better the rows are")
    parser.add_argument("--fail-below", type=float, default=0.0, metavar="SHARE", help="of the ratios of that file")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of such a file, and measure nothing")
    arguments = parser.parse_args(argv)
    if arguments.table is not None:
        print(table(rows_of(arguments.table)))
        return
    if arguments.fail_below and arguments.against is None:
        parser.error("--fail-below is a share of the ratios of a file: give --against FILE")
    before = None if arguments.against is None else rows_of(arguments.against)
    path = arguments.json
    if path is not None and path.is_dir():
        path = path / kept_name()
    scale = QUICK if arguments.quick else FULL
    rows = measure(scale)
    print(table(rows))
    if path is not None:
        path.write_text(json.dumps(report(scale, rows), indent=2) + "\n")
    if before is not None:
        compared, share = comparison(before, rows)
        print(f"\n{compared}\n\nSmallest share of an earlier ratio: {share:.2f}")
        if arguments.fail_below and not arguments.fail_below <= share < float("inf"):
            sys.exit(1)


if __name__ == "__main__":
    main()
