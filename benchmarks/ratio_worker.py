"""
Times calls of the library of one source tree, one at a time, on request: what ``ratio.py`` starts for each of two commits.

``python ratio_worker.py TREE`` writes the names of what it can time as a line of JSON. For each name that it then reads, it
writes how many seconds of processor time one call took. All code but this file, ``speed.py`` included, is that of the tree.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

Calls = dict[str, Callable[[], object]]

N_NUMBERS = 30
N_ROWS = 256
HORIZON = 50


def chemical_calls(dynamics: str) -> Calls:
    """An update, and plans for one environment and for ten."""
    import speed

    model = speed.trained_model(speed.QUICK.size, 20, dynamics)
    one, ten = (speed.first_observations(speed.QUICK.size, n_envs) for n_envs in (1, speed.N_ENVS))
    return {
        f"update, Chemical, {dynamics}": lambda: model.train(1, model.batch_size),
        f"plan, Chemical, {dynamics}, 1 environment": lambda: model.predict(one),
        f"plan, Chemical, {dynamics}, 10 environments": lambda: model.predict(ten),
    }


def numbers_calls() -> Calls:
    """An update of the default model on a system of numbers."""
    import torch as th

    from fcdl_envs.variables import Factors, Variable
    from sb3_fcdl.dynamics import DEFAULT_DYNAMICS, DYNAMICS, Windows

    th.manual_seed(0)
    factors = Factors(tuple(Variable(f"x{index}") for index in range(N_NUMBERS)), (Variable("action"),))
    model = DYNAMICS[DEFAULT_DYNAMICS](factors).train()
    shape = (N_ROWS, 1, N_NUMBERS)
    windows = Windows(th.randn(shape), th.randn(N_ROWS, 1, 1), th.randn(shape), th.ones(N_ROWS, 1) > 0)
    return {f"gradient, {N_NUMBERS} numbers": lambda: model.loss(windows).total.backward()}


def planner_calls() -> Calls:
    """A plan of box actions by each planner, with a small network as model."""
    import torch as th

    from sb3_fcdl.planning import PLANNERS, BoxActions, Problem, Step

    th.manual_seed(0)
    network = th.nn.Sequential(th.nn.Linear(4, 64), th.nn.ReLU(), th.nn.Linear(64, 3)).requires_grad_(False)
    problem = Problem(
        lambda state, action: Step(state + network(th.cat([state, action], dim=1))),
        lambda state, action, next_state: next_state[:, 0],
    )
    state = th.randn(1, 3)
    planners = {name: planner(BoxActions((-1.0,), (1.0,)), HORIZON, n_iterations=1) for name, planner in PLANNERS.items()}
    return {
        f"plan, Box, {name}, 1 environment": lambda planner=planner: planner.plan(problem, state, state[:, :0])
        for name, planner in planners.items()
    }


def simulator_calls() -> Calls:
    """Ten environments, an episode."""
    import gymnasium as gym

    env = gym.make_vec("FCDL/Chemical-v0", num_envs=10)
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(25)]
    return {"episode, Chemical, 10 environments": lambda: [env.step(action) for action in actions]}


def all_calls() -> Calls:
    """What this tree can do; what it cannot, because it is too old, is left out and named on stderr."""
    calls: Calls = {}
    for make in (
        lambda: chemical_calls("fcdl_tree"),
        lambda: chemical_calls("fcdl"),
        numbers_calls,
        planner_calls,
        simulator_calls,
    ):
        try:
            calls |= make()
        except (ImportError, AttributeError, KeyError, TypeError, ValueError) as error:
            print(f"left out: {error}", file=sys.stderr)
    return calls


def seconds_of(call: Callable[[], object]) -> float:
    """Processor time, which depends less on other processes than wall-clock time."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main(tree: Path) -> None:
    sys.path[:1] = [str(tree / folder) for folder in ("benchmarks", ".", "envs")]
    import torch as th

    import sb3_fcdl

    assert Path(sb3_fcdl.__file__).is_relative_to(tree), f"{sb3_fcdl.__file__} is not of {tree}"
    th.set_num_threads(1)
    calls = all_calls()
    print(json.dumps(list(calls)), flush=True)
    for line in sys.stdin:
        print(seconds_of(calls[line.strip()]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
