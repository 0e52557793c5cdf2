"""
The graphs of trained models on Chemical, between different objects; and which of these edges held-out data can show at all.

``python benchmarks/graphs.py results.csv RUN ...`` appends a line for each run: a folder of ``sb3-fcdl train`` that has ended.
An *edge* here is one from an object to another one, at one transition. Needed ones are those of ``info["transition_graph"]``.
Used and needed ones are counted over random transitions, as ``evaluate_transitions`` counts, inside and outside the local
regime.

Some edges are worth so little that no sample of the size shows them. An edge counts as *visible* if a perfect model, judged by
the run's own held-out transitions, would find it at least every other time: outside the local regime, over the transitions
that act on the same object, its gain by value exceeds ``MIN_GAIN`` by 1.645 standard errors. The perfect model is the
simulator: the distribution of a child is the mean over ``N_PATHS`` draws of what lies between.
"""

import argparse
import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from fcdl_envs.chemical_system import ChemicalSystem
from sb3_fcdl import FCDL
from sb3_fcdl.dynamics.graph.held_out import HeldOut
from sb3_fcdl.dynamics.graph.judgement import MIN_GAIN
from sb3_fcdl.dynamics.graph.splits import Z_ALPHA
from sb3_fcdl.evaluation.paired import joined, one_step, paired_envs, random_steps, true_graphs
from sb3_fcdl.evaluation.returns import Task, make_env
from sb3_fcdl.runs.record import TrainRecord

ENV_ID, N_OBJECTS, N_COLORS = "FCDL/Chemical-v0", 10, 5
N_STEPS, N_ENVS = 200, 10
# Transitions a model judges by, those whose gains are computed for each object acted on, and draws for each of these.
N_JUDGED, N_ROWS, N_PATHS = 16384, 200, 400
# Of a probability, as a judgement counts at most ten nats.
SMALLEST = np.exp(-HeldOut.MOST)


@dataclass(frozen=True)
class Line:
    """
    :param rule: of the system
    :param seed: of the system and the run
    :param timesteps: of the run
    :param contexts: how many the model has
    :param context_variables: what their choice reads
    :param needed: outside the local regime, mean over transitions, as all that follow
    :param visible: of these
    :param used: outside
    :param true: needed and used
    :param visible_and_used: visible and used
    :param needless: used inside the local regime, where none is needed
    """

    rule: str
    seed: int
    timesteps: int
    contexts: int
    context_variables: str
    needed: float
    visible: float
    used: float
    true: float
    visible_and_used: float
    needless: float

    @property
    def precision(self) -> float:
        return self.true / self.used if self.used else float("nan")

    @property
    def recall(self) -> float:
        return self.true / self.needed

    @property
    def recall_of_visible(self) -> float:
        return self.visible_and_used / self.visible if self.visible else float("nan")


def held_out(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """:return: the colours and actions of transitions that a run never trained on, ``[R, V]`` and ``[R]``"""
    record = TrainRecord.load(folder)
    env = make_env(record.env, record.arguments["n_envs"], record.env_kwargs)
    model = FCDL.resume(next(folder.glob("end_*")), env, device="cpu")
    windows = model.experience.judged(N_JUDGED)
    state, action = windows.state[:, 0].numpy(), windows.action[:, 0].numpy()
    return state.reshape(len(state), N_OBJECTS, N_COLORS).argmax(-1), action.argmax(-1)


def next_colors(system: ChemicalSystem, colors: np.ndarray, actions: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """
    :param colors: ``[R, V]``
    :param actions: ``[R]``
    :param uniforms: of the draws, ``[R, M, V]``
    :return: the distribution of each object's next colour, ``[R, V, C]``
    """
    n_rows, n_paths, n_objects = uniforms.shape
    present, acts = np.repeat(colors, n_paths, axis=0), np.repeat(actions, n_paths)
    reached = system.step(present, acts, uniforms.reshape(-1, n_objects))
    nodes, new_colors = np.divmod(actions, system.n_colors)
    regime = system.regime(np.where(nodes == 0, new_colors, colors[:, 0])[:, None])
    # What is redrawn does not depend on itself.
    is_drawn = ~np.diagonal(system.transition_graph(regime, actions), axis1=1, axis2=2)
    is_drawn[np.arange(n_rows), nodes] = False
    result = np.eye(system.n_colors)[reached.reshape(n_rows, n_paths, n_objects)].mean(1)
    for node in range(n_objects):
        # Given the drawn colours of its parents its own distribution is known, and need not be drawn.
        exact = system.conditional(node, reached).reshape(n_rows, n_paths, -1).mean(1)
        result[:, node] = np.where(is_drawn[:, node, None], exact, result[:, node])
    return result


def visible_edges(system: ChemicalSystem, colors: np.ndarray, actions: np.ndarray, seed: int = 0) -> np.ndarray:
    """
    :param colors: of the held-out transitions, ``[R, V]``
    :param actions: likewise, ``[R]``
    :return: by the object acted on, outside the local regime, ``[V, V, V]`` bool, ``[object, child, parent]``
    """
    rng = np.random.default_rng(seed)
    n_objects = colors.shape[1]
    nodes, new_colors = np.divmod(actions, system.n_colors)
    root = np.where(nodes == 0, new_colors, colors[:, 0])
    visible = np.zeros((n_objects, n_objects, n_objects), dtype=bool)
    for node in range(n_objects):
        of_node = np.flatnonzero((nodes == node) & (root != 0))
        if len(of_node) < 2:
            continue
        rows = rng.permutation(of_node)[:N_ROWS]
        uniforms = rng.random((len(rows), N_PATHS, n_objects))
        right = next_colors(system, colors[rows], actions[rows], uniforms).clip(SMALLEST)
        for parent in range(n_objects):
            other = colors[rows].copy()
            # Inside the regime: the model's context knows which one it is.
            other[:, parent] = colors[rng.permutation(of_node)[: len(rows)], parent]
            wrong = next_colors(system, other, actions[rows], uniforms).clip(SMALLEST)
            ratio = np.log(right / wrong)
            gain = (right * ratio).sum(-1)
            variance = (right * ratio**2).sum(-1).mean(0) - gain.mean(0) ** 2
            error = np.sqrt(variance.clip(0) / len(of_node))
            visible[node, :, parent] = gain.mean(0) - MIN_GAIN > Z_ALPHA * error
    return visible


def counted_edges(model: FCDL, env_kwargs: dict[str, Any], is_visible: np.ndarray | None = None) -> tuple[float, ...]:
    """
    :param model: trained
    :param env_kwargs: of the environment
    :param is_visible: see ``visible_edges``; None: all are
    :return: the numbers of ``Line``, from ``needed`` on
    """
    predict, between = one_step(model), ~np.eye(N_OBJECTS, dtype=bool)
    outside, inside = [], []
    for step in joined(random_steps(paired_envs(ENV_ID, env_kwargs, Task("train", {}), None, N_ENVS), N_STEPS, 0)):
        graph = predict(step.observations[0], step.actions).graph
        assert graph is not None
        used = (graph.numpy() > 0)[..., :N_OBJECTS] & between
        local, needed = (
            true_graphs(step.infos[0], name)[..., :N_OBJECTS] & between for name in ("local_graph", "transition_graph")
        )
        visible = needed if is_visible is None else needed & is_visible[step.actions // N_COLORS]
        counts = np.stack([each.sum((1, 2)) for each in (needed, visible, used, needed & used, visible & used)], axis=1)
        is_inside = ~local.any((1, 2))
        outside.append(counts[~is_inside])
        inside.append(used.sum((1, 2))[is_inside])
    means = [*np.concatenate(outside).mean(0), np.concatenate(inside).mean()]
    return tuple(round(float(mean), 3) for mean in means)


def measured(folder: Path) -> Line:
    """:param folder: of a run that has ended"""
    record, model = TrainRecord.load(folder), FCDL.load(folder / "model.zip", device="cpu")
    system = ChemicalSystem(record.env_kwargs["rule"], dynamics_seed=record.env_kwargs["dynamics_seed"])
    counts = counted_edges(model, record.env_kwargs, visible_edges(system, *held_out(folder)))
    chosen_by = " ".join(model.policy.dynamics.context_variables)
    return Line(
        record.env_kwargs["rule"], record.seed, record.timesteps, len(model.policy.dynamics.contexts), chosen_by, *counts
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of `sb3-fcdl train`")
    arguments = parser.parse_args()
    for folder in arguments.runs:
        line = measured(folder)
        print(f"{folder.name}: {line}")
        print(f"  precision {line.precision:.2f}, recall {line.recall:.2f}, of visible ones {line.recall_of_visible:.2f}")
        with arguments.file.open("a", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Line)], lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(asdict(line))


if __name__ == "__main__":
    main()
