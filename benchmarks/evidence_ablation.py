"""
``fcdl_tree`` without one of its parts at a time, on recorded transitions of Chemical's ``full_chain``.

``python benchmarks/evidence_ablation.py results.csv`` collects 40 000 random transitions of a system and trains each variant
on them, told nothing. It appends a line: edges between objects, counted as ``graphs.py`` counts them. Three to five minutes a
line on one core; interrupted, it goes on. ``--table`` prints the file.
"""
# ruff: noqa: SLF001  What is taken away has no public name.

import argparse
import csv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import process_time
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import torch as th
from graphs import counted_edges
from stable_baselines3.common.logger import configure

from sb3_fcdl import FCDL, FCDLPolicy, GymVectorVecEnv
from sb3_fcdl.dynamics import ContextTreeDynamics, Losses, Windows
from sb3_fcdl.dynamics.graph import judgement
from sb3_fcdl.evaluation.markdown import markdown, over_seeds
from sb3_fcdl.presets import preset

ENV_ID, RULE, N_ENVS = "FCDL/Chemical-v0", "full_chain", 10


@dataclass(frozen=True)
class Line:
    """
    :param variant: what is missing
    :param seed: of the system and the model
    :param transitions: that it learned from
    :param updates: of the model
    :param contexts: how many it has
    :param context_variables: what their choice reads
    :param precision: outside the local regime
    :param recall: likewise
    :param needless: edges inside it, mean over transitions
    :param nll: of a held-out transition, nats
    :param cpu_s: of the training, seconds
    """

    variant: str
    seed: int
    transitions: int
    updates: int
    contexts: int
    context_variables: str
    precision: float
    recall: float
    needless: float
    nll: float
    cpu_s: float


def own_samples(model: ContextTreeDynamics, windows: Windows) -> Losses:
    """The loss of a model that follows its windows on its own samples, as the others do."""
    bound = model._bind(windows.needs_state_gradient)

    def predict(state: th.Tensor, action: th.Tensor) -> Any:
        inputs = bound.features.read(state, action)
        code = model.tree(inputs.columns.detach())
        return model.layout.distribution(bound.masked(inputs, model._nearly(model.graphs[code]), code), state)

    nll = model.unrolled_nll(windows, predict)
    return Losses(nll, {"dynamics": nll.detach()})


def weigh_one(name: str) -> Any:
    """Edges that need only one of the two gains."""
    weigh = judgement._weigh

    def weighed(by_mask: th.Tensor, by_value: th.Tensor, code: th.Tensor, n_contexts: int) -> Any:
        one = by_mask if name == "mask" else by_value
        return weigh(one, one, code, n_contexts)

    return patch.object(judgement, "_weigh", weighed)


VARIANTS: dict[str, list[Any]] = {
    "complete": [],
    "follows its own samples": [patch.object(ContextTreeDynamics, "loss", own_samples)],
    "no other graphs in training": [patch.object(ContextTreeDynamics, "_nearly", lambda self, graphs: graphs)],
    "judges while it improves": [patch.object(ContextTreeDynamics, "IMPROVES", 1e9)],
    "edges by the mask alone": [weigh_one("mask")],
    "edges by the value alone": [weigh_one("value")],
    "nothing is needless": [patch.object(judgement, "NEEDLESS_ODDS", float("inf"))],
    "one context": [],
}


@contextmanager
def without(variant: str) -> Iterator[None]:
    with ExitStack() as stack:
        for each in VARIANTS[variant]:
            stack.enter_context(each)
        yield


def recorded(seed: int, n_transitions: int, **dynamics_kwargs: Any) -> FCDL:
    """A new model with random transitions in its buffer."""
    env = GymVectorVecEnv(gym.make_vec(ENV_ID, num_envs=N_ENVS, rule=RULE, dynamics_seed=seed))
    settings = preset(ENV_ID) | {"dynamics_kwargs": dynamics_kwargs, "learning_rate": 3e-4}
    model = FCDL(FCDLPolicy, env, **settings, learning_starts=10**9, exploration_rate=1.0, seed=seed, device="cpu")
    model.set_logger(configure(None, []))
    return model.learn(n_transitions)


def measured(variant: str, seed: int, n_transitions: int, n_updates: int) -> Line:
    model = recorded(seed, n_transitions, **({"n_codes": 1} if variant == "one context" else {}))
    start = process_time()
    with without(variant):
        model.train(n_updates, model.batch_size)
    seconds = process_time() - start
    dynamics = model.policy.world.eval().dynamics
    assert isinstance(dynamics, ContextTreeDynamics)
    with th.no_grad():
        held_out = dynamics.held_out(model.experience.judged(dynamics.N_JUDGED))
        nll = float(dynamics._nll(held_out))
    needed, _, used, true, _, needless = counted_edges(model, {"rule": RULE, "dynamics_seed": seed})
    return Line(
        variant,
        seed,
        n_transitions,
        n_updates,
        len(dynamics.tree.leaves),
        " ".join(dynamics.context_variables),
        *(round(each, 3) for each in (true / used if used else float("nan"), true / needed, needless, nll, seconds)),
    )


def table(lines: list[dict[str, str]]) -> str:
    """A row for each variant: mean over seeds [lowest, highest]."""
    shares = {"precision, %": "precision", "recall, %": "recall"}
    columns = {"needless inside": "needless", "held-out nats": "nll", "CPU s": "cpu_s"}
    rows = []
    for variant in dict.fromkeys(line["variant"] for line in lines):
        of_variant = [line for line in lines if line["variant"] == variant]
        chosen_by = ", ".join(dict.fromkeys(line["context_variables"] or "none" for line in of_variant))
        percent = [over_seeds([100 * float(line[name]) for line in of_variant]) for name in shares.values()]
        values = [over_seeds([float(line[name]) for line in of_variant]) for name in columns.values()]
        rows.append([variant, chosen_by, *percent, *values])
    return markdown(["", "chosen by", *shares, *columns], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--transitions", type=int, default=40_000)
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--table", action="store_true", help="print what the file has")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for variant in arguments.variants:
            with arguments.file.open("a+", newline="") as file:
                file.seek(0)
                lines = list(csv.DictReader(file))
                if arguments.table:
                    print(table(lines))
                    return
                what = (variant, *map(str, (seed, arguments.transitions, arguments.updates)))
                if what not in {(line["variant"], line["seed"], line["transitions"], line["updates"]) for line in lines}:
                    line = measured(variant, seed, arguments.transitions, arguments.updates)
                    print(line, flush=True)
                    writer = csv.DictWriter(file, [field.name for field in fields(Line)], lineterminator="\n")
                    if not lines:
                        writer.writeheader()
                    writer.writerow(asdict(line))


if __name__ == "__main__":
    main()
