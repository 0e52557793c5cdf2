"""What the contexts of a model are: how often each is met, its graph, samples, and a rule in words that selects it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch as th

from fcdl_envs.variables import Variable
from sb3_fcdl.dynamics import Windows
from sb3_fcdl.graphs.graph import CausalGraph
from sb3_fcdl.graphs.score import f1_score
from sb3_fcdl.world.factorization import values_of
from sb3_fcdl.world.world_model import WorldModel

# Conditions of a rule, intervals that a number is looked at in, and what a condition must add to the F1 score of its rule.
MAX_CONDITIONS, N_INTERVALS, MIN_GAIN = 3, 16, 0.01


@dataclass(frozen=True)
class Rule:
    """
    A conjunction of conditions on variables, which describes a set of samples.

    :param text: the rule in words, such as ``obj0 = 0 and action in 5-49``; ``always`` without conditions
    :param precision: share of the samples that fulfil it which are in the set
    :param recall: share of the samples in the set which fulfil it
    """

    text: str
    precision: float
    recall: float

    def __str__(self) -> str:
        return f"{self.text} (right for {100 * self.precision:.0f} %, covers {100 * self.recall:.0f} %)"


@dataclass(frozen=True, eq=False)
class Code:
    """
    One context of a model.

    :param code: its number
    :param share: of the transitions that were looked at, in (0, 1]
    :param graph: the graph that holds in it
    :param rule: what selects it, among the variables that the model reads for that
    :param samples: some of its transitions: by name of each variable, state and action, the number of its category, or its
        number in the environment's units
    """

    code: int
    share: float
    graph: CausalGraph
    rule: Rule
    samples: tuple[dict[str, float], ...]

    def __str__(self) -> str:
        return f"code {self.code}: {100 * self.share:.1f} % of transitions, {self.graph.edges.sum()} edges; {self.rule}"


@th.no_grad()
def codes_of(world: WorldModel, windows: Windows, n_samples: int = 3) -> list[Code]:
    """
    The contexts of recorded transitions, the most frequent first.

    :param world: a trained one
    :param windows: encoded, of any length
    :param n_samples: samples shown of each
    :raises ValueError: if the model has no contexts, or there is no transition
    """
    state, action = (part[windows.valid] for part in windows[:2])
    if not len(state):
        raise ValueError("there are no recorded transitions: learn() first, or load_replay_buffer()")
    codes = world.step(state, action).code
    if codes is None:
        remedy = "causal_graph() shows its graph" if world.dynamics.has_graph else "dynamics='fcdl_tree' has both"
        raise ValueError(
            f"{type(world.dynamics).__name__} has no contexts{'' if world.dynamics.has_graph else ' and no graph'}; {remedy}"
        )
    variables = world.factors.parents
    raw = th.cat([world.decode(state), world.decode_action(action)], dim=-1)
    values = values_of(variables, raw)
    names = world.factors.parent_names
    features = [_feature(variables, values, [names.index(name) for name in of]) for of in world.dynamics.context_features]
    about = [variable for variable, _ in features]
    looked_at = np.stack([each for _, each in features], axis=1) if features else values[:, :0]
    graphs, found = world.dynamics.context_graphs(), codes.cpu().numpy()
    return [
        Code(
            code=int(code),
            share=float(count / len(found)),
            graph=graphs[code],
            rule=describe(about, looked_at, found == code),
            samples=tuple(dict(zip(names, row.tolist(), strict=True)) for row in values[found == code][:n_samples]),
        )
        for code, count in sorted(zip(*np.unique(found, return_counts=True), strict=True), key=lambda pair: -pair[1])
    ]


def _feature(variables: Sequence[Variable], values: np.ndarray, read: Sequence[int]) -> tuple[Variable, np.ndarray]:
    """A variable, or the difference of two, and its values, ``[R]``."""
    if len(read) == 1:
        return variables[read[0]], values[:, read[0]]
    first, second = read
    return Variable(f"{variables[first].name} - {variables[second].name}"), values[:, first] - values[:, second]


def describe(variables: Sequence[Variable], values: np.ndarray, is_member: np.ndarray) -> Rule:
    """
    A short rule that tells the members of a set of samples from the others.

    Conditions are added greedily, each the one that makes the F1 score of the rule largest: for a categorical variable a set
    of categories, for a number an interval between its quantiles, or all that is outside of one.

    :param variables: that conditions may be about
    :param values: ``[R, n]``
    :param is_member: ``[R]``, bool, at least one
    """
    fulfils, texts = np.ones(len(values), dtype=bool), []
    for _ in range(MAX_CONDITIONS):
        conditions = [
            condition
            for index, variable in enumerate(variables)
            for condition in _conditions(variable, values[:, index], fulfils, is_member)
        ]
        text, best = max(conditions, key=lambda condition: f1_score(fulfils & condition[1], is_member), default=("", fulfils))
        if f1_score(fulfils & best, is_member) < f1_score(fulfils, is_member) + MIN_GAIN:
            break
        fulfils = fulfils & best
        texts.append(text)
    n_right = (fulfils & is_member).sum()
    return Rule(" and ".join(texts) or "always", float(n_right / fulfils.sum()), float(n_right / is_member.sum()))


def _conditions(
    variable: Variable, values: np.ndarray, fulfils: np.ndarray, is_member: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """The best conditions on one variable, in words and as the samples that fulfil them, ``[R]``, bool."""
    if not variable.is_categorical:
        bounds = np.unique(np.quantile(values, np.linspace(0, 1, N_INTERVALS + 1)[1:-1]))
        for index, low in enumerate(bounds):
            yield f"{variable.name} <= {low:.3g}", values <= low
            yield f"{variable.name} > {low:.3g}", values > low
            for high in bounds[index + 1 :]:
                is_inside = (values > low) & (values <= high)
                yield f"{low:.3g} < {variable.name} <= {high:.3g}", is_inside
                yield f"{variable.name} not in ({low:.3g}, {high:.3g}]", ~is_inside
        return
    categories, category_of = np.unique(values, return_inverse=True)
    if len(categories) == 1:
        return
    # The set of categories with the largest F1 score holds those with the largest shares of members.
    n_met, n_members = (np.bincount(category_of[rows], minlength=len(categories)) for rows in (fulfils, fulfils & is_member))
    ranking = np.argsort(n_members / n_met.clip(1), kind="stable")[::-1]
    f1 = 2 * n_members[ranking].cumsum() / (n_met[ranking].cumsum() + is_member.sum())
    n_chosen = 1 + f1[:-1].argmax()
    chosen, rest = (np.sort(categories[part]) for part in np.split(ranking, [n_chosen]))
    yield _set_in_words(variable, chosen, rest), np.isin(values, chosen)


def _set_in_words(variable: Variable, chosen: np.ndarray, rest: np.ndarray) -> str:
    if len(chosen) == 1:
        return f"{variable.name} = {variable.in_words(chosen[0])}"
    if len(rest) == 1:
        return f"{variable.name} != {variable.in_words(rest[0])}"
    words = np.array([variable.in_words(category) for category in chosen])
    # Names are in no order, unless they are numbers.
    is_ordered = all(word.lstrip("-").isdigit() for word in words)
    starts = np.flatnonzero(np.diff(chosen) != 1) + 1 if is_ordered else np.arange(1, len(words))
    runs = [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in np.split(words, starts)]
    return f"{variable.name} in {', '.join(runs)}"
