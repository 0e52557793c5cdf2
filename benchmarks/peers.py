"""
Planning with one model: our planners beside those of mbrl-lib, TorchRL and pytorch_mppi, in one process.

The peers need an environment of their own:

    python -m venv .venv-peers
    .venv-peers/bin/python -m pip install -c constraints.txt -e . torchrl==0.14.1 pytorch-mppi==0.9.1 \\
        "hydra-core>=1.3" termcolor imageio matplotlib tqdm
    .venv-peers/bin/python -m pip install --no-deps mbrl==0.2.0
    OMP_NUM_THREADS=1 .venv-peers/bin/python benchmarks/peers.py --csv benchmarks/results/peers.csv

mbrl-lib is installed without its dependencies because it asks for exactly gymnasium 0.26.3, and sb3_fcdl needs 1.1; it plans
with the newer one too. A library that is not installed is left out, and named.

Everybody plans with the same network, reward, number of candidates, horizon and iterations. In each round every planner plans
once, in an order drawn anew. A ratio is the median over the rounds of a planner's time to that of ours of the same kind in the
same round, so a machine that gets slower slows both. Times are processor time of one thread. ``rows`` counts the states and
actions that went through the model. ``matrix products`` is the floor: the three products of the network alone, at every step
of every candidate.

Discrete actions are planned by ours alone. mbrl-lib and pytorch_mppi plan boxes only. TorchRL's planners draw normal numbers
of the action's dtype: with ``OneHot`` they end with ``"normal_kernel_cpu" not implemented for 'Bool'``.
"""

import argparse
import csv
import random
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from importlib.metadata import version
from pathlib import Path

import torch as th
from peer_planners import N_ELITES, PEERS, Model, Plan, Shape
from torch import nn

from sb3_fcdl.evaluation.markdown import markdown
from sb3_fcdl.planning import CEM, ICEM, MPPI, Actions, BoxActions, DiscreteActions, Planner, Problem, Step

OURS = "sb3_fcdl"
FLOOR = "matrix products"
N_ACTIONS = 3
SHAPES = tuple(Shape(n_envs, 64, *rest) for n_envs in (1, 32) for rest in ((50, 1), (15, 5)))
# What a peer's planner is compared with.
KIND = {"CEM": "CEM", "iCEM": "iCEM", "MPPI": "MPPI", "MPPI_Batched": "MPPI"}


@dataclass(frozen=True)
class Row:
    """
    :param actions: ``box`` or ``discrete``
    :param library: whose planner
    :param version: of the library
    :param planner: its name there
    :param rows: states and actions that went through the model in a plan
    :param ms: median time of a plan for all environments
    :param ratio: how many times as long it takes as our planner of the same kind; of ours and of the floor: as our iCEM
    :param n_rounds: how often each was timed

    The other fields are those of ``Shape``.
    """

    actions: str
    n_envs: int
    n_candidates: int
    horizon: int
    n_iterations: int
    library: str
    version: str
    planner: str
    rows: int
    ms: float
    ratio: float
    n_rounds: int


class Counted(nn.Module):
    """A model that counts the rows that it is asked for."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.n_rows = 0

    def forward(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        self.n_rows += state.shape[:-1].numel()
        return self.model(state, action)


def our_planners(model: nn.Module, state: th.Tensor, shape: Shape, actions: Actions) -> dict[str, Plan]:
    """CEM, iCEM and MPPI; they plan for a batch, iCEM and MPPI from their last plan on."""
    problem = Problem(
        lambda state, action: Step(model(state, action)), lambda state, action, next_state: Model.reward(action, next_state)
    )
    size = {"horizon": shape.horizon, "n_iterations": shape.n_iterations, "n_candidates": shape.n_candidates}
    goal = state.new_empty(shape.n_envs, 0)

    def plan_with(planner: Planner) -> Plan:
        last: list[th.Tensor | None] = [None]

        def plan() -> th.Tensor:
            decision = planner.plan(problem, state, goal, warm_start=last[0])
            last[0] = decision.warm_start
            return decision.actions[:, 0]

        return plan

    planners = {
        "CEM": CEM(actions, **size, n_elites=N_ELITES),
        "iCEM": ICEM(actions, **size, n_elites=N_ELITES),
        "MPPI": MPPI(actions, **size),
    }
    return {name: plan_with(planner) for name, planner in planners.items()}


def matrix_products(model: Model, shape: Shape) -> Plan:
    """The products of the network for as many rows as a plan has, and nothing else."""
    layers = [layer for layer in model.network if isinstance(layer, nn.Linear)]
    inputs = [th.rand(shape.n_envs * shape.n_candidates, layer.in_features) for layer in layers]

    def multiply() -> th.Tensor:
        for _ in range(shape.horizon * shape.n_iterations):
            outputs = [layer(rows) for layer, rows in zip(layers, inputs, strict=True)]
        return outputs[-1]

    return multiply


def interleaved(functions: dict[str, Callable[[], object]], n_rounds: int, rng: random.Random) -> dict[str, list[float]]:
    """
    :param functions: what to time, by name
    :param n_rounds: how often each is called, after one call that does not count
    :param rng: of the order in each round
    :return: seconds of processor time of each call by name, in the order of the rounds
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(n_rounds):
        for name in rng.sample(list(functions), len(functions)):
            start = time.process_time()
            functions[name]()
            seconds[name].append(time.process_time() - start)
    return seconds


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times as long theirs takes, by round."""
    return statistics.median(their / our for our, their in zip(ours, theirs, strict=True))


def measure(shape: Shape, kind: str, n_rounds: int, libraries: Sequence[str]) -> list[Row]:
    """A row for each planner that is there, with the floor first."""
    th.manual_seed(0)
    width, actions = (N_ACTIONS, DiscreteActions(N_ACTIONS)) if kind == "discrete" else (1, BoxActions((-2.0,), (2.0,)))
    model, state = Model(width), th.randn(shape.n_envs, Model.STATE_DIM)

    def planners_with(model: nn.Module) -> dict[tuple[str, str], Plan]:
        plans = {(OURS, name): plan for name, plan in our_planners(model, state, shape, actions).items()}
        for library in libraries:
            plans |= {(library, name): plan for name, plan in PEERS[library](model, state, shape).items()}
        return plans

    counts = {}
    for key, plan in planners_with(counted := Counted(model)).items():
        counted.n_rows = 0
        plan()
        counts[key] = counted.n_rows
    floor = ("torch", FLOOR)
    counts[floor] = shape.n_envs * shape.n_candidates * shape.horizon * shape.n_iterations
    seconds = interleaved({floor: matrix_products(model, shape), **planners_with(model)}, n_rounds, random.Random(0))
    rows = []
    for (library, name), durations in seconds.items():
        ours = seconds[OURS, KIND[name] if library in PEERS else "iCEM"]
        rows.append(
            Row(
                kind,
                *astuple(shape),
                library,
                version(library),
                name,
                counts[library, name],
                round(1000 * statistics.median(durations), 3),
                round(median_ratio(ours, durations), 3),
                n_rounds,
            )
        )
    return rows


def installed() -> list[str]:
    """The peers that can be imported; says which cannot, and why."""
    found = []
    for library, planners in PEERS.items():
        try:
            planners(Model(), th.zeros(1, Model.STATE_DIM), Shape(1, 2 * N_ELITES, 2, 1))
        except ImportError as error:
            print(f"{library} is left out: {error}")
        else:
            found.append(library)
    return found


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    header = ["actions", "envs", "candidates x steps x iterations", "library", "planner", "rows", "ms", "times ours"]
    return markdown(
        header,
        [
            [
                row.actions,
                str(row.n_envs),
                f"{row.n_candidates} x {row.horizon} x {row.n_iterations}",
                f"{row.library} {row.version}",
                row.planner,
                f"{row.rows:,}",
                f"{row.ms:.1f}",
                f"{row.ratio:.2f}",
            ]
            for row in rows
        ],
    )


def fastest(rows: Sequence[Row]) -> str:
    """A line for each shape that a peer plans: the fastest of them, and its time in times of ours and of the floor."""
    lines = []
    for shape in dict.fromkeys((row.actions, row.n_envs, row.horizon) for row in rows):
        of_shape = [row for row in rows if (row.actions, row.n_envs, row.horizon) == shape]
        ours = min((row for row in of_shape if row.library == OURS), key=lambda row: row.ms)
        floor = next(row for row in of_shape if row.planner == FLOOR)
        theirs = min((row for row in of_shape if row.library in PEERS), key=lambda row: row.ms, default=None)
        if theirs is not None:
            lines.append(
                f"{shape[1]} environments, horizon {shape[2]}: fastest peer {theirs.planner} of {theirs.library}, "
                f"{theirs.ratio:.2f} of our planner of its kind, {theirs.ms / ours.ms:.2f} of our {ours.planner}, "
                f"{theirs.ms / floor.ms:.2f} of the matrix products"
            )
    return "\n".join(lines)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """:param path: replaced"""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(each.name for each in fields(Row))
        writer.writerows(map(astuple, rows))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the rows to this file")
    parser.add_argument("--rounds", type=int, default=40, metavar="N", help="for one environment; a fifth of them for more")
    arguments = parser.parse_args(argv)
    th.set_num_threads(1)
    warnings.filterwarnings("ignore", module="(mbrl|torchrl|tensordict|hydra|pytorch_mppi).*")
    libraries = installed()
    rows = []
    for shape in SHAPES:
        n_rounds = arguments.rounds if shape.n_envs == 1 else max(1, arguments.rounds // 5)
        rows += measure(shape, "box", n_rounds, libraries)
        rows += measure(shape, "discrete", n_rounds, ())
    print(f"{table(rows)}\n\n{fastest(rows)}")
    if arguments.csv is not None:
        write_csv(arguments.csv, rows)


if __name__ == "__main__":
    main()
