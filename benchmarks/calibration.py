"""
How often the evidence of ``fcdl_tree`` is wrong: synthetic systems whose graphs are known.

``python benchmarks/calibration.py results.csv`` trains a model on each of 200 random systems, seconds each on one core. It
appends a line for each to results.csv; an interrupted run goes on there. ``--table`` prints what the lines say:

* the share of false edges among those that are significant at 0.05, mean over the systems that have any;
* in how many of the intervals of two standard errors about a gain the true gain lies: that of 20 000 other transitions.

A system has three numbers, a switch of two categories and a category that is noise; an action of three categories, one of two
that sets the switch, and one that does nothing. Each possible edge of the numbers exists with probability 0.3; half of them
need the switch to be on.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch as th

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics import ContextTreeDynamics, Windows
from sb3_fcdl.dynamics.graph.evidence import Evidence

FACTORS = Factors(
    state=(Variable("x0"), Variable("x1"), Variable("x2"), Variable("switch", 2), Variable("noise", 3)),
    action=(Variable("push", 3), Variable("set", 2), Variable("nothing", 2)),
)
N_LEARNED, N_HELD_OUT, N_FRESH, N_UPDATES = 1600, 400, 20_000, 400
COLUMNS = ("system", "n_significant", "n_false", "n_true", "n_found", "n_intervals", "n_covering")


class System:
    """
    :param seed: of its graph and weights
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        exists = rng.random((3, 6)) < 0.3  # of x0, x1, x2, noise, push, nothing
        exists[:, [3, 5]] = False
        exists[range(3), range(3)] = True
        self.needs_switch = exists & (rng.random((3, 6)) < 0.5)
        self.needs_switch[range(3), range(3)] = False
        self.weights = exists * rng.choice([-1, 1], (3, 6)) * rng.uniform(0.2, 0.8, (3, 6))

    def graph(self, switch: int) -> np.ndarray:
        """What each variable depends on while the switch is as it is; where edges need it, on it, too: ``[5, 8]``, bool."""
        graph = np.zeros((5, 8), dtype=bool)
        graph[:3, [0, 1, 2, 4, 5, 7]] = (self.weights != 0) & (~self.needs_switch | (switch == 1))
        graph[:3, 3] = self.needs_switch.any(1)
        graph[3, [3, 6]] = True
        return graph

    def transitions(self, n: int, seed: int) -> Windows:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, 3))
        switch, noise, push, sets, nothing = (rng.integers(size, size=n) for size in (2, 3, 3, 2, 2))
        parents = np.column_stack([x, noise, push - 1, nothing])
        weights = self.weights * (~self.needs_switch | (switch[:, None, None] == 1))
        after = np.einsum("rcp,rp->rc", weights, parents) + 0.3 * rng.normal(size=(n, 3))
        switched = np.where(rng.random(n) < 0.8, sets, switch)
        parts = (
            np.column_stack([x, np.eye(2)[switch], np.eye(3)[noise]]),
            np.column_stack([np.eye(3)[push], np.eye(2)[sets], np.eye(2)[nothing]]),
            np.column_stack([after, np.eye(2)[switched], np.eye(3)[rng.integers(3, size=n)]]),
        )
        return Windows(*(th.as_tensor(part, dtype=th.float32).unsqueeze(1) for part in parts), th.ones(n, 1) > 0)


def some(windows: Windows, chosen: th.Tensor) -> Windows:
    return Windows(*(part[chosen] for part in windows))


def trained(system: System, seed: int, held_out: Windows) -> ContextTreeDynamics:
    th.manual_seed(seed)
    model = ContextTreeDynamics(FACTORS, hidden_dim=32, n_codes=8).train()
    learned = system.transitions(N_LEARNED, seed)
    optimizer = th.optim.Adam(model.parameters(), lr=1e-3)
    for update in range(1, N_UPDATES + 1):
        optimizer.zero_grad()
        model.loss(some(learned, th.randint(N_LEARNED, (256,)))).total.backward()
        optimizer.step()
        model.after_update(update, lambda n: some(held_out, th.randperm(N_HELD_OUT)[:n]))
    model.eval()
    model.last_nll.fill_(0.0)  # the last word is the evidence of the trained network
    model.judge(held_out)
    return model


@th.no_grad()
def gains(model: ContextTreeDynamics, windows: Windows) -> Evidence:
    """What each edge is worth by its mask, given all others, in each context, ``[K, V, P]``."""
    held_out = model.held_out(windows)
    code = held_out.context
    of_parents = []
    for parent in range(len(FACTORS.parents)):
        with_edge, without = model.graphs[code], model.graphs[code]
        with_edge[:, :, parent], without[:, :, parent] = 1, 0
        of_parents.append(held_out.nll(without) - held_out.nll(with_edge))
    return Evidence.of(th.stack(of_parents, dim=-1), code, len(model.graphs))


def judged(seed: int) -> dict[str, int]:
    """:return: a line of the file"""
    system = System(seed)
    held_out, fresh = system.transitions(N_HELD_OUT, seed + 10_000), system.transitions(N_FRESH, seed + 20_000)
    model = trained(system, seed, held_out)
    codes = model.held_out(fresh).context
    switch = fresh.state[:, 0, 4].int()
    counts = dict.fromkeys(COLUMNS, 0) | {"system": seed}
    graphs, stated, true = model.context_graphs(), gains(model, held_out), gains(model, fresh)
    for code in codes.unique().tolist():
        evidence = graphs[code].evidence
        assert evidence is not None
        in_any = np.any([system.graph(int(value)) for value in switch[codes == code].unique()], axis=0)
        significant = evidence.is_tested & (evidence.q_values <= 0.05)
        counts["n_significant"] += int(significant.sum())
        counts["n_false"] += int((significant & ~in_any).sum())
        counts["n_true"] += int((evidence.is_tested & in_any).sum())
        counts["n_found"] += int((significant & in_any).sum())
        tested = th.as_tensor(evidence.is_tested)
        off = (stated.gain[code] - true.gain[code]).abs() <= 1.96 * stated.standard_error[code]
        counts["n_intervals"] += int(tested.sum())
        counts["n_covering"] += int((off & tested).sum())
    return counts


def table(path: Path) -> str:
    with path.open() as file:
        lines = [{name: int(value) for name, value in line.items()} for line in csv.DictReader(file)]
    shares = np.array([line["n_false"] / line["n_significant"] for line in lines if line["n_significant"]])
    total = {name: sum(line[name] for line in lines) for name in COLUMNS}
    return (
        f"{len(lines)} systems\n"
        f"false among the significant: {shares.mean():.3f}, {total['n_false']} of {total['n_significant']} in all\n"
        f"true edges found: {total['n_found']} of {total['n_true']}, {total['n_found'] / total['n_true']:.2f}\n"
        f"intervals that hold the true gain: {total['n_covering']} of {total['n_intervals']}, "
        f"{total['n_covering'] / total['n_intervals']:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--systems", type=int, default=200)
    parser.add_argument("--table", action="store_true", help="only print what the file says")
    args = parser.parse_args()
    if not args.table:
        th.set_num_threads(1)
        n_done = len(args.path.read_text().splitlines()) - 1 if args.path.exists() else 0
        with args.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if file.tell() == 0:
                writer.writeheader()
            for seed in range(n_done, args.systems):
                writer.writerow(judged(seed))
                file.flush()
    print(table(args.path))


if __name__ == "__main__":
    main()
