"""Everything there is to see of a trained model, as one page for a browser."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.utils import obs_as_tensor

from fcdl_envs.arguments import check, integer
from sb3_fcdl.dynamics import Windows
from sb3_fcdl.evaluation import Shift, ShiftReport, Task, evaluate_shift, make_env
from sb3_fcdl.evaluation.paired import joined, paired_envs, random_steps
from sb3_fcdl.evaluation.returns import EVALUATION_SEED_OFFSET, AsInTraining
from sb3_fcdl.evaluation.shifted_env import shiftable
from sb3_fcdl.extras import needs
from sb3_fcdl.fcdl import FCDL
from sb3_fcdl.graphs import CausalGraph
from sb3_fcdl.inspection.codes import Code, codes_of
from sb3_fcdl.observations import Observations, given_to, map_observations
from sb3_fcdl.runs.record import TrainRecord
from sb3_fcdl.world.factorization import in_words, values_of

with needs("matplotlib", "plot"):
    from sb3_fcdl.plots import curves, page

# Random transitions that contexts are described by: steps of each of ten environments.
N_STEPS, N_ENVS = 100, 10
# Contexts whose graphs are drawn.
N_CONTEXTS = 6
# Columns of progress.csv: the returns of training and of evaluations.
TIMESTEPS, RETURNS = "time/total_timesteps", ("rollout/ep_rew_mean", "eval/mean_reward")


@dataclass(frozen=True)
class Episode:
    """
    What the model did in one episode.

    :param values: of the state variables, before each step and after the last, ``[T + 1, V]``: the category, or the number in
        the environment's units
    :param actions: in words, ``T``
    :param rewards: ``[T]``
    :param codes: the context of each step, ``[T]``; None for a model without contexts
    :param first: the first observation, of a batch of one
    """

    values: np.ndarray
    actions: tuple[str, ...]
    rewards: np.ndarray
    codes: np.ndarray | None
    first: Observations


def write_model_page(
    path: Path,
    model: FCDL,
    record: TrainRecord,
    folder: Path,
    shifts: Mapping[str, Shift] | None = None,
    n_episodes: int = 10,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
    progress_bar: bool = False,
) -> None:
    """
    Write a page about a model: contexts in words, graphs with their evidence, what chooses the context, the learning curve,
    what each corrupted variable does, and an episode. It loads nothing from anywhere.

    :param path: of the HTML file
    :param model: a trained one
    :param record: of its training
    :param folder: of its run, where the learning curve is, if there is one
    :param shifts: what is observed instead of a variable, by its name, one after the other; None: noise in each variable
    :param n_episodes: episodes for each shift, and as many without
    :param seed: of the environments, the random actions and the noise
    :param tell: is told what is being done
    :param progress_bar: see ``evaluate_shift``; a bar for each shift
    :raises ValueError: if there is no such variable, or a shift does not fit it
    """
    check(n_episodes=(n_episodes, integer(1)), seed=(seed, integer(0)))
    allowed = shiftable(model.policy.world.factors, model.observation_space)
    if unknown := [name for name in shifts or () if name not in allowed]:
        raise ValueError(f"unknown variable '{unknown[0]}', those that can be shifted are {', '.join(allowed) or 'none'}")
    chosen = dict.fromkeys(allowed, "noise") if shifts is None else shifts
    tell("contexts and graphs")
    windows = _random_windows(model, record, seed)
    sections = [("Contexts and graphs", _graphs(model, windows)), ("What chooses the context", _importance(model))]
    sections.append(("Learning curve", _learning_curve(folder)))
    sections.append(("Corrupted observations", _robustness(model, record, chosen, n_episodes, seed, tell, progress_bar)))
    tell("an episode")
    sections.append(("An episode", _episode(model, record, seed)))
    path.write_text(page.page(f"{record.algo} on {record.env}", _lead(model, record), sections), encoding="utf-8")


def _lead(model: FCDL, record: TrainRecord) -> str:
    facts = {
        "model": type(model.dynamics).__name__,
        "environment": f"{record.env} {record.env_kwargs or ''}",
        "timesteps": f"{record.timesteps}, seed {record.seed}, {record.wall_s:.0f} s",
        "variables": ", ".join(model.policy.world.factors.state_names),
        "action": ", ".join(variable.name for variable in model.policy.world.factors.action),
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
    }
    return page.table(("", ""), list(facts.items()))


def _encoded(model: FCDL, observations: Observations) -> th.Tensor:
    world = model.policy.world
    return world.encode(obs_as_tensor(given_to(model)(observations), world.device))


@th.no_grad()
def _random_windows(model: FCDL, record: TrainRecord, seed: int) -> Windows:
    """Transitions under random actions, as windows of one step."""
    world, parts = model.policy.world, []
    for step in joined(random_steps(paired_envs(record.env, record.env_kwargs, Task("train"), None, N_ENVS), N_STEPS, seed)):
        stored = th.as_tensor(world.factorization.buffer_actions(step.actions), device=world.device)
        (before,), (after,) = step.observations, step.next_observations
        parts.append((_encoded(model, before), world.encode_action(stored), _encoded(model, after)))
    state, action, next_state = (th.cat(part).unsqueeze(1) for part in zip(*parts, strict=True))
    return Windows(state, action, next_state, th.ones(len(state), 1, dtype=th.bool, device=state.device))


def _graphs(model: FCDL, windows: Windows) -> str:
    if not model.dynamics.has_graph:
        return page.paragraph(f"{type(model.dynamics).__name__} predicts every variable from all variables: it has no graph.")
    try:
        codes = codes_of(model.policy.world, windows)
    except ValueError:
        return _graph(model.causal_graph(), "The graph of this model, which has no contexts.")
    rows = [(str(code.code), f"{100 * code.share:.1f} %", str(code.graph.edges.sum()), str(code.rule)) for code in codes]
    text = (
        f"{N_STEPS * N_ENVS} transitions under random actions fall into {len(codes)} contexts. Each context has a graph: rows "
        "are variables at the next step, columns are variables now, a filled cell is an edge. The number in a cell is what "
        "the edge is worth on transitions that the model was not trained on, in nats."
    )
    parts = [page.paragraph(text), page.table(("code", "share", "edges", "rule"), rows)]
    union = CausalGraph.union([code.graph for code in codes], f"union of {len(codes)} contexts")
    parts += [_graph(union, "All edges that some context has."), *map(_context, codes[:N_CONTEXTS])]
    if len(codes) > N_CONTEXTS:
        parts.append(page.paragraph(f"The graphs of {len(codes) - N_CONTEXTS} rarer contexts are left out."))
    return "\n".join(parts)


def _context(code: Code) -> str:
    return f"<h3>Code {code.code}</h3>" + _graph(code.graph, f"{code.rule}; {100 * code.share:.1f} % of the transitions.")


def _graph(graph: CausalGraph, text: str) -> str:
    parts = [page.paragraph(text), page.picture(graph.plot(), str(graph))]
    evidence = graph.evidence
    if evidence is not None and evidence.is_tested.any():
        rows = []
        for child, parent in np.argwhere(graph.edges & evidence.is_tested):
            gain, error = evidence.gain[child, parent], evidence.standard_error[child, parent]
            edge = f"{graph.parent_names[parent]} → {graph.child_names[child]}'"
            rows.append((edge, f"{gain:.3g}", f"{error:.2g}", f"{evidence.q_values[child, parent]:.2g}"))
        head = ("edge", "gain, nats", "standard error", "adjusted p-value")
        parts.append(page.folded(f"Evidence, {evidence.n} held-out transitions", page.table(head, rows)))
    elif evidence is not None:
        parts.append(page.paragraph("Nothing has been tested yet in this context: every edge is still there."))
    return "\n".join(parts)


def _importance(model: FCDL) -> str:
    measured = {name: value for name, value in model.dynamics.variable_importance().items() if value}
    if not measured:
        return page.paragraph("No variable chooses the context, or the model does not measure which.")
    text = (
        "How much worse the prediction of one step gets if the choice of the context sees another value of the variable. If "
        "one of these variables is observed wrongly, the context can be wrong. No other variable can change it."
    )
    ordered = dict(sorted(measured.items(), key=lambda item: -item[1]))
    return page.paragraph(text) + page.picture(curves.importances(ordered), f"importance in nats: {ordered}")


def _learning_curve(folder: Path) -> str:
    file = folder / "progress.csv"
    if not file.is_file():
        return page.paragraph("There is no progress.csv beside the model: `sb3-fcdl train` writes one.")
    with file.open(newline="") as rows:
        logged = [row for row in csv.DictReader(rows) if row.get(TIMESTEPS)]
    found = {}
    for name in RETURNS:
        points = [(float(row[TIMESTEPS]), float(row[name])) for row in logged if row.get(name)]
        if points:
            timesteps, returns = np.array(points).T
            found[name] = timesteps, returns
    if not found:
        return page.paragraph("No return has been logged.")
    last = "; ".join(f"{name}: {returns[-1]:.3g}" for name, (_, returns) in found.items())
    return page.picture(curves.learning_curves(found), last) + page.paragraph(f"At the end: {last}.")


def _robustness(
    model: FCDL,
    record: TrainRecord,
    shifts: Mapping[str, Shift],
    n_episodes: int,
    seed: int,
    tell: Callable[[str], None],
    progress_bar: bool,
) -> str:
    def environments() -> Any:
        return make_env(record.env, min(N_ENVS, n_episodes), record.env_kwargs)

    reports: list[ShiftReport] = []
    for number, (name, shift) in enumerate(shifts.items(), start=1):
        tell(f"{name} observed as {shift} ({number} of {len(shifts)})")
        reports.append(evaluate_shift({record.algo: model}, environments, {name: shift}, n_episodes, seed, progress_bar))
    if not reports:
        return page.paragraph("No variable of this observation space can be shifted.")
    text = (
        f"One variable at a time is observed wrongly, in {n_episodes} episodes with deterministic actions. Noise is the value "
        "times 100 N(0, 1), or a random category. The error is that of predicting the other variables for one step, on the "
        "same transitions as they were and as they were shown. If it does not change, and the graph is the same in 100 %, the "
        "predictions are not disturbed. The return may still fall: if the task is about this variable, or if a value function "
        "was learned, which reads all variables."
    )
    head = ("observed wrongly", "return", "error", "error, corrupted", "same context", "same graph")
    plain = reports[0].results[0]
    rows = [("nothing", f"{plain.mean:.3g} [{plain.ci[0]:.3g}, {plain.ci[1]:.3g}]", "", "", "", "")]
    for report in reports:
        (result,), ((name, shift),) = report.results, report.shifts.items()
        returned = f"{result.shifted_mean:.3g} [{result.shifted_ci[0]:.3g}, {result.shifted_ci[1]:.3g}]"
        shares = (_share(result.same_code), _share(result.same_graph))
        rows.append((f"{name}: {shift}", returned, f"{result.error:.3g}", f"{result.shifted_error:.3g}", *shares))
    return page.paragraph(text) + page.table(head, rows)


def _share(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.0%}"


def _episode(model: FCDL, record: TrainRecord, seed: int) -> str:
    done = run_episode(model, record, seed)
    variables = model.policy.world.factors.state_variables
    categories = [
        [variable.in_words(category) for category in range(variable.n_categories)] if variable.is_categorical else []
        for variable in variables
    ]
    figure = curves.episode([variable.name for variable in variables], done.values, categories, done.rewards, done.codes)
    codes: Sequence[str] = [""] * len(done.rewards) if done.codes is None else [str(code) for code in done.codes]
    steps = [
        (str(number), action, f"{reward + 0.0:.3g}", code)
        for number, (action, reward, code) in enumerate(zip(done.actions, done.rewards, codes, strict=True), start=1)
    ]
    description = f"variables, rewards and contexts over {len(steps)} steps"
    explained = model.explain(map_observations(lambda array: array[0], given_to(model)(done.first)))
    return "\n".join(
        (
            page.paragraph(f"{len(steps)} steps with deterministic actions, return {done.rewards.sum():.4g}."),
            page.picture(figure, description),
            page.folded("Actions and rewards", page.table(("step", "action", "reward", "code"), steps)),
            "<h3>Why the first action</h3>",
            page.preformatted(str(explained)),
        )
    )


@th.no_grad()
def run_episode(model: FCDL, record: TrainRecord, seed: int) -> Episode:
    """
    :param model: acts deterministically
    :param record: says in which environment
    :param seed: of the environment
    """
    world, env = model.policy.world, make_env(record.env, 1, record.env_kwargs)
    env.seed(EVALUATION_SEED_OFFSET + seed)
    acting = AsInTraining(model, env)
    first: Any = env.reset()
    observation: Any = first
    state, is_over = None, False
    states, actions = [_encoded(model, first)], []
    rewards: list[float] = []
    codes: list[int] = []
    while not is_over:
        chosen, state = acting.predict(observation, state, np.array([not rewards]), deterministic=True)
        action = world.encode_action(th.as_tensor(world.factorization.buffer_actions(chosen), device=world.device))
        code = world.step(states[-1], action).code
        codes += [] if code is None else [int(code)]
        actions.append(in_words(world.factors.action, values_of(world.factors.action, world.decode_action(action))[0]))
        observation, reward, dones, infos = env.step(chosen)
        rewards.append(float(reward[0]))
        is_over = bool(dones[0])
        # The environment has begun another episode already.
        shown = map_observations(lambda row: row[None], infos[0]["terminal_observation"]) if is_over else observation
        states.append(_encoded(model, shown))
    env.close()
    values = values_of(world.factors.state_variables, world.decode(th.cat(states)))
    return Episode(values, tuple(actions), np.array(rewards), np.array(codes) if codes else None, first)
