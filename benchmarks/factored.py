"""
What the default model finds in Thermostat, Workshop and Contact, told nothing, and what it does with what does not matter.

``python benchmarks/factored.py results.csv`` collects random transitions, trains a model on them, and appends a line for each
environment and seed; an MLP learns from the same transitions. About a minute a line on one core; interrupted, it goes on.

* *Precision* is against the local graph and *recall* against the transition graph, over 1000 other random transitions, without
  the columns of the variables that choose the model's contexts.
* *Noise parents*: variables that influence themselves alone; how many other parents the model gives them, over its contexts.
* *Corrupted*: one variable after the other takes the value of another transition. In the transitions where the variable is no
  parent of a child, the child is predicted as well as before by a model that knows that. The loss in nats a variable, mean.
"""

import argparse
import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import obs_as_tensor

from sb3_fcdl import FCDL
from sb3_fcdl.dynamics.graph.held_out import HeldOut
from sb3_fcdl.evaluation.paired import paired_envs, random_steps, true_graphs
from sb3_fcdl.evaluation.returns import Task
from sb3_fcdl.graphs.score import precision_and_recall

ENVIRONMENTS = ("Thermostat", "Workshop", "Contact")
N_STEPS, N_ENVS, N_UPDATES, BATCH_SIZE = 100, 10, 1200, 256


@dataclass(frozen=True)
class Line:
    """
    :param env: name of the environment
    :param seed: of the transitions and the model
    :param transitions: that it learned from
    :param linear: whether it was made with ``linear_evidence``
    :param contexts: how many it has
    :param context_variables: what their choice reads
    :param precision: see above, as all that follow
    :param recall: see above
    :param noise_parents: see above
    :param loss: of a prediction where a variable is corrupted that does not matter, nats
    :param mlp_loss: that of the MLP
    """

    env: str
    seed: int
    transitions: int
    linear: bool
    contexts: int
    context_variables: str
    precision: float
    recall: float
    noise_parents: int
    loss: float
    mlp_loss: float


def trained(env: str, seed: int, n_transitions: int, dynamics: str, **dynamics_kwargs: bool) -> FCDL:
    """:return: a model of random transitions, the same ones whatever the dynamics"""
    env_id = f"FCDL/{env}-v0"
    kind = "MultiInputPolicy" if isinstance(gym.spec(env_id).make().observation_space, gym.spaces.Dict) else "MlpPolicy"
    model = FCDL(
        kind,
        env_id,
        dynamics=dynamics,
        dynamics_kwargs=dynamics_kwargs,
        exploration_rate=1,
        learning_starts=10**9,
        seed=seed,
        device="cpu",
    )
    model.set_logger(configure(None, []))
    model.learn(n_transitions)
    model.train(N_UPDATES, BATCH_SIZE)
    return model


class Others(NamedTuple):
    """
    Transitions that no model learned from.

    :param state: encoded, ``[R, D]``, as the other two
    :param action: ``[R, A]``
    :param next_state: ``[R, D]``
    :param local: the local graphs, ``[R, V, P]``, bool
    :param transition: the transition graphs, likewise
    """

    state: th.Tensor
    action: th.Tensor
    next_state: th.Tensor
    local: np.ndarray
    transition: np.ndarray

    @staticmethod
    def of(env: str, model: FCDL, seed: int) -> "Others":
        world, parts = model.policy.world, []
        for step in random_steps(paired_envs(f"FCDL/{env}-v0", {}, Task("train", {}), None, N_ENVS), N_STEPS, seed):
            now, then = (obs_as_tensor(each[0], world.device) for each in (step.observations, step.next_observations))
            action = th.as_tensor(world.factorization.buffer_actions(step.actions))
            graphs = (true_graphs(step.infos[0], name) for name in ("local_graph", "transition_graph"))
            parts.append((world.encode(now), world.encode_action(action), world.encode(then), *map(th.as_tensor, graphs)))
        state, action, next_state, local, transition = (th.cat(each) for each in zip(*parts, strict=True))
        return Others(state, action, next_state, local.numpy(), transition.numpy())


@th.no_grad()
def loss_by_corruption(model: FCDL, others: Others) -> float:
    """:return: nats a variable, see the top of the file"""
    world = model.policy.world.eval()
    step, generator = world.dynamics.stepper(), th.Generator().manual_seed(0)

    def nll(state: th.Tensor) -> th.Tensor:
        return -step(state, others.action).next_state.log_prob(others.next_state).clamp(min=-HeldOut.MOST)

    before, losses = nll(others.state), []
    for parent, columns in enumerate(world.factors.state_slices):
        corrupted = others.state.clone()
        rows = th.randperm(len(corrupted), generator=generator)
        corrupted[:, columns] = others.state[rows, columns]
        does_not_matter = th.as_tensor(~others.transition[:, :, parent])
        # A number is predicted as a change of what is seen of it.
        does_not_matter[:, parent] = False
        losses.append((nll(corrupted) - before)[does_not_matter])
    return float(th.cat(losses).mean())


@th.no_grad()
def measured(env: str, seed: int, n_transitions: int, model: FCDL, mlp: FCDL) -> Line:
    """:param model: trained, as the MLP"""
    dynamics, others = model.policy.world.eval().dynamics, Others.of(env, model, seed)
    graph = dynamics.local_graph(others.state, others.action).numpy() > 0
    counts = ~np.isin(dynamics.factors.parent_names, dynamics.context_variables)
    precision, _ = precision_and_recall(graph[..., counts], others.local[..., counts])
    _, recall = precision_and_recall(graph[..., counts], others.transition[..., counts])
    is_itself = np.eye(*graph.shape[1:], dtype=bool)
    is_noise = ~(others.local & ~is_itself).any((0, 2)) & (others.local & is_itself).any((0, 2))
    given_to_noise = (graph & ~is_itself).any(0)[is_noise][:, counts]
    return Line(
        env,
        seed,
        n_transitions,
        dynamics.linear_evidence,
        len(dynamics.tree.leaves),
        " ".join(dynamics.context_variables),
        *(round(each, 3) for each in (precision, recall)),
        int(given_to_noise.sum()),
        *(round(loss_by_corruption(each, others), 4) for each in (model, mlp)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--environments", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--transitions", type=int, default=2500)
    parser.add_argument("--linear", action="store_true", help="with linear_evidence")
    arguments = parser.parse_args()
    columns = [field.name for field in fields(Line)]
    for env in arguments.environments:
        for seed in arguments.seeds:
            with arguments.file.open("a+", newline="") as file:
                file.seek(0)
                done = {tuple(line[name] for name in columns[:4]) for line in csv.DictReader(file)}
                if (env, str(seed), str(arguments.transitions), str(arguments.linear)) not in done:
                    mlp = trained(env, seed, arguments.transitions, "mlp")
                    tree = trained(env, seed, arguments.transitions, "fcdl_tree", linear_evidence=arguments.linear)
                    line = measured(env, seed, arguments.transitions, tree, mlp)
                    print(line, flush=True)
                    writer = csv.DictWriter(file, columns, lineterminator="\n")
                    if not done:
                        writer.writeheader()
                    writer.writerow(asdict(line))


if __name__ == "__main__":
    main()
