"""Why this action: what the model imagines, from which parents, what else was possible, and what if."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch as th

from fcdl_envs.arguments import OrNone, check, integer
from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.dynamics.distributions import StateDistribution
from sb3_fcdl.graphs.evidence import EdgeEvidence
from sb3_fcdl.planning import BoxActions, PlainRollout, Planner, Problem, generators_of
from sb3_fcdl.planning.actions import Actions
from sb3_fcdl.world.factorization import in_words, values_of
from sb3_fcdl.world.world_model import WorldModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Steps of a plan that print() shows.
N_STEPS_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Trajectory:
    """
    What the model expects of a sequence of ``H`` actions.

    :param factors: the variables
    :param values: of the state variables, now and after each action, ``[H + 1, V]``: the category, or the number in the
        environment's units
    :param uncertainty: of each prediction, ``[H, V]``: how probable all other categories together are, or the standard
        deviation in the environment's units
    :param actions: values of the action variables, likewise, ``[H, n]``
    :param rewards: of each step, ``[H]``
    :param value: what the planner makes of them: discounted, weighted with how likely the episode still goes on, and less the
        price of uncertainty; with what is expected after the last step
    :param value_beyond: the part of ``value`` that is expected after the last step, or after the first one that chance
        decides; 0 if no value is learned
    :param graphs: the parents that each prediction was made from, ``[H, V, P]``, bool; None for a model without graphs
    :param codes: the context of each step; None for a model without contexts
    :param evidence: of the graph of each context, by its code; empty for a model that does not test its edges
    """

    factors: Factors
    values: np.ndarray
    uncertainty: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    value: float
    value_beyond: float
    graphs: np.ndarray | None
    codes: tuple[int, ...] | None
    evidence: Mapping[int, EdgeEvidence] = field(default_factory=dict)

    def parents_of(self, child: str, step: int = 0) -> tuple[str, ...]:
        """
        :param child: name of a state variable
        :param step: which prediction, 0 is the next one
        :return: the variables that it was made from
        :raises ValueError: if there is no such variable
        """
        row = self.factors.state_index_of(child)
        if self.graphs is None:
            return self.factors.parent_names
        return tuple(name for name, used in zip(self.factors.parent_names, self.graphs[step, row], strict=True) if used)

    def action_in_words(self, step: int = 0) -> str:
        """The action of that step, by name."""
        return in_words(self.factors.action, self.actions[step])

    def __str__(self) -> str:
        return self.text()

    def text(self, n_steps: int | None = None) -> str:
        """
        :param n_steps: how many of the first steps are told; None: all
        """
        lines = []
        for step, reward in enumerate(self.rewards[:n_steps]):
            context = "" if self.codes is None else f", code {self.codes[step]}"
            lines.append(f"step {step + 1}: {self.action_in_words(step)}, reward {reward:.3g}{context}")
            for row, variable in enumerate(self.factors.state_variables):
                before, after = self.values[step, row], self.values[step + 1, row]
                if before != after:
                    doubt = self.uncertainty[step, row]
                    sure = f"p = {1 - doubt:.2f}" if variable.is_categorical else f"sd {doubt:.2g}"
                    change = f"{variable.name}: {variable.in_words(before)} -> {variable.in_words(after)} ({sure})"
                    lines.append(f"  {change}  <- {', '.join(self._parents_in_words(row, step)) or '-'}")
        return "\n".join(lines)

    def _parents_in_words(self, row: int, step: int) -> Sequence[str]:
        """The parents of a prediction; one that was tested with what it is worth, in nats."""
        names = self.parents_of(self.factors.state_names[row], step)
        evidence = self.evidence.get(self.codes[step]) if self.codes is not None else None
        if evidence is None:
            return names
        return [evidence.named(name, row, self.factors.parent_names.index(name)) for name in names]


@dataclass(frozen=True, eq=False)
class WhatIf:
    """
    The same actions from another state.

    :param values: what was set, by name
    :param trajectory: what the model expects then
    :param changed: which predictions are other than before, in any bit of their distribution, ``[H, V]``, bool
    :param cost: how much lower the value is
    :param action: what the planner would do instead, values of the action variables, ``[n]``
    """

    values: dict[str, float | str]
    trajectory: Trajectory
    changed: np.ndarray
    cost: float
    action: np.ndarray

    def __str__(self) -> str:
        factors = self.trajectory.factors
        names = [name for name, changed in zip(factors.state_names, self.changed[0], strict=True) if changed]
        setting = ", ".join(f"{name}={value}" for name, value in self.values.items())
        worth = f"{abs(self.cost):.3g} {'less' if self.cost > 0 else 'more'}" if self.cost else "as much"
        return (
            f"do({setting}): the next {', '.join(names) or '(nothing)'} would be predicted otherwise; the same plan would be "
            f"worth {worth}; the planner would choose {in_words(factors.action, self.action)}"
        )


@dataclass(frozen=True, eq=False)
class Question:
    """
    One state, and who is asked about it.

    :param world: the model
    :param planner: that acts on it
    :param make_problem: makes of the model, as it is when called, what the planner is given
    :param state: encoded, ``[1, D]``
    :param goal: ``[1, G]``
    :param masks: allowed actions, ``[1, A]``, bool; None: all
    """

    world: WorldModel
    planner: Planner
    make_problem: Callable[[], Problem]
    state: th.Tensor
    goal: th.Tensor
    masks: th.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Explanation:
    """
    Why ``predict(observation, deterministic=True)`` returns the action that it returns.

    :param plan: the chosen plan
    :param runner_up: the best plan that begins with another action; None if no other action is allowed
    :param cost: how much lower the runner-up is valued; below zero if the planner has overlooked it
    """

    plan: Trajectory
    runner_up: Trajectory | None
    cost: float
    _question: "Question" = field(repr=False)
    _sequence: th.Tensor = field(repr=False)

    def do(self, **values: float | str) -> WhatIf:
        """
        The same plan if variables had other values now. The intervention is on what the model is given: categories of a
        categorical variable, as they are shown, numbers in the environment's units of a continuous one. The model that is
        asked is the present one: if it has learned on since, it may no longer expect what ``plan`` shows.

        :param values: by name of the state variable, ``do(obj3=2)``, ``do(gate="open")`` or ``do(**{"obs[0]": 1.5})``
        :raises ValueError: if there is no such state variable, or no such category
        """
        return _Imagination(self._question).what_if(self._sequence, values)

    def plot(self) -> "Figure":
        """The imagined values and rewards as a figure. Needs matplotlib (extra ``plot``)."""
        from sb3_fcdl.plots import explanation

        plan, variables = self.plan, self.plan.factors.state_variables
        steps = []
        for step in range(len(plan.rewards)):
            context = "" if plan.codes is None else f"\ncode {plan.codes[step]}"
            steps.append(f"{plan.action_in_words(step)}{context}")
        plans = [plan] if self.runner_up is None else [plan, self.runner_up]
        return explanation.draw(
            plan.factors.state_names,
            [[of.in_words(value, digits=3) for value in row] for of, row in zip(variables, plan.values.T, strict=True)],
            np.diff(plan.values, axis=0, prepend=plan.values[:1]).T != 0,
            steps,
            [explanation.Rewards(f"{each.action_in_words()} ({each.value:.3g})", each.rewards) for each in plans],
        )

    def __str__(self) -> str:
        return self.text(N_STEPS_SHOWN)

    def text(self, n_steps: int | None = None) -> str:
        """
        The explanation in words, as ``print`` shows it with the first five steps.

        :param n_steps: how many of the first steps of the plan are told; None: all
        """
        check(n_steps=(n_steps, OrNone(integer(1))))
        n_all = len(self.plan.rewards)
        beyond = f" and beyond them, {self.plan.value_beyond:.3g} of it beyond" if self.plan.value_beyond else ""
        lines = [f"{self.plan.action_in_words()}: expected return {self.plan.value:.3g} in {n_all} steps{beyond}"]
        lines.append(self.plan.text(n_steps))
        if n_steps is not None and n_steps < n_all:
            lines.append(f"... {n_all - n_steps} more steps: explanation.text() tells all, text(n_steps=10) the first ten")
        if self.runner_up is not None:
            lines.append(
                f"runner-up: {self.runner_up.action_in_words()}, expected return {self.runner_up.value:.3g}, "
                + (
                    f"costs {self.cost:.3g}"
                    if self.cost >= 0
                    else f"better by {-self.cost:.3g}: the planner has overlooked it"
                )
            )
        return "\n".join(lines)


@th.no_grad()
def explain(question: Question) -> Explanation:
    """
    Explain the action that ``predict(observation, deterministic=True)`` returns.

    The runner-up is sought among the actions that differ from the chosen one in one variable: of a ``Discrete`` space these
    are all others; a number of a ``Box`` is set to the lowest, middle and highest. The planner continues each.

    :param question: about a trained model
    """
    imagination = _Imagination(question)
    sequence = imagination.planned(question.state)
    plan = imagination.follow(sequence).trajectory
    other = imagination.best_of(_neighbours(sequence[:, 0], question.planner.actions, question.masks))
    runner_up = None if other is None else imagination.follow(other).trajectory
    cost = float("nan") if runner_up is None else plan.value - runner_up.value
    return Explanation(plan, runner_up, cost, question, sequence)


@dataclass(frozen=True, eq=False)
class _Followed:
    """A trajectory, and the distributions that it is made of."""

    trajectory: Trajectory
    distributions: list[StateDistribution]


class _Imagination:
    """The model, asked about one state, for as long as the weights stay as they are."""

    def __init__(self, question: Question) -> None:
        self.world = question.world
        self.factors = question.world.factors
        self.planner = question.planner
        self.problem = question.make_problem()
        self.step = question.world.stepper()
        self.state, self.goal, self.masks = question.state, question.goal, question.masks
        graphs = enumerate(question.world.dynamics.context_graphs())
        self.evidence = {code: graph.evidence for code, graph in graphs if graph.evidence is not None}

    def planned(self, start: th.Tensor) -> th.Tensor:
        """The deterministic plan from an encoded state ``[1, D]``, ``[1, H, *]``."""
        generators = generators_of(start, self.goal)
        return self.planner.plan(self.problem, start, self.goal, generators=generators, action_mask=self.masks).actions

    def follow(self, sequence: th.Tensor, start: th.Tensor | None = None) -> _Followed:
        """
        :param sequence: one plan, ``[1, H, *]``
        :param start: encoded state that it begins in, ``[1, D]``; None: the observed one
        """
        world, state = self.world, self.state if start is None else start
        states, actions, predictions = [state], [], []
        for step in range(sequence.shape[1]):
            actions.append(self.planner.actions.encode(sequence[:, step], state.dtype))
            predictions.append(self.step(states[-1], actions[-1]))
            states.append(predictions[-1].next_state.mode())
        rewards = [world.reward(*each, self.goal) for each in zip(states, actions, states[1:], strict=False)]
        raw_states, raw_actions = world.decode(th.cat(states)), world.decode_action(th.cat(actions))
        distributions = [prediction.next_state for prediction in predictions]
        graphs, codes = [p.graph for p in predictions], [p.code for p in predictions]
        value = float(self.values(sequence, state))
        trajectory = Trajectory(
            factors=self.factors,
            values=values_of(self.factors.state_variables, raw_states),
            uncertainty=np.stack([self._uncertainty(each) for each in distributions]),
            actions=values_of(self.factors.action, raw_actions),
            rewards=th.cat(rewards).cpu().numpy(),
            value=value,
            value_beyond=value - float(self.values(sequence, state, beyond=False)),
            graphs=None if graphs[0] is None else th.cat(graphs).bool().cpu().numpy(),  # type: ignore[arg-type]
            codes=None if codes[0] is None else tuple(int(code) for code in codes),  # type: ignore[arg-type]
            evidence=self.evidence,
        )
        return _Followed(trajectory, distributions)

    def values(self, sequences: th.Tensor, state: th.Tensor, beyond: bool = True) -> th.Tensor:
        """
        What the planner makes of each of ``R`` sequences, ``[R]``, all from one state ``[1, D]``.

        :param beyond: whether what comes after them counts
        """
        problem = self.problem if beyond else replace(self.problem, value=None, expected=None)
        rollout = PlainRollout(problem, state, self.goal, self.planner.actions)
        return rollout.evaluate(sequences.unsqueeze(0)).squeeze(0)

    def best_of(self, first: th.Tensor) -> th.Tensor | None:
        """
        :param first: actions to begin with, ``[R, *]``
        :return: the best of the plans that begin with one of them, ``[1, H, *]``; None if there is none
        """
        if not len(first):
            return None
        planner, sequences = self.planner, first.unsqueeze(1)
        if planner.horizon > 1:
            action = planner.actions.encode(first, self.state.dtype)
            states = self.step(self.state.expand(len(first), -1), action).next_state.mode()
            rest = replace(planner, horizon=planner.horizon - 1).plan(
                self.problem,
                states,
                self.goal.expand(len(first), -1),
                generators=[th.Generator().manual_seed(row) for row in range(len(first))],
            )
            sequences = th.cat([sequences, rest.actions], dim=1)
        return sequences[self.values(sequences, self.state).argmax()].unsqueeze(0)

    @th.no_grad()
    def what_if(self, sequence: th.Tensor, values: dict[str, float | str]) -> WhatIf:
        """See ``Explanation.do``."""
        start = self.state.clone()
        for name, value in values.items():
            row = self.factors.state_index_of(name)
            columns = self.factors.state_slices[row]
            start[0, columns] = self._encoded(self.factors.state_variables[row], columns.start, value)
        before, after = self.follow(sequence), self.follow(sequence, start)
        changed = [_differ(one, other) for one, other in zip(before.distributions, after.distributions, strict=True)]
        return WhatIf(
            values=values,
            trajectory=after.trajectory,
            changed=np.stack(changed),
            cost=before.trajectory.value - after.trajectory.value,
            action=self.follow(self.planned(start), start).trajectory.actions[0],
        )

    def _encoded(self, variable: Variable, column: int, value: float | str) -> th.Tensor:
        """The columns of one variable that has that value."""
        if variable.is_categorical:
            return th.nn.functional.one_hot(th.tensor(variable.category(value)), variable.n_categories).to(self.state)
        if isinstance(value, str):
            raise ValueError(f"{variable.name} is a number, got {value!r}")
        raw = th.zeros(self.state.shape[1], dtype=th.float64, device=self.state.device)
        raw[column] = value
        return self.world.factorization.moments.normalize(raw)[column]

    def _uncertainty(self, distribution: StateDistribution) -> np.ndarray:
        """See ``Trajectory``, ``[V]``."""
        first_columns = [columns.start for columns in self.factors.state_slices]
        # A category's columns keep the standard deviation 1.
        units = self.world.factorization.moments.std[first_columns]
        return (distribution.uncertainty()[0] * units).to(self.state.dtype).cpu().numpy()


def _differ(one: StateDistribution, other: StateDistribution) -> np.ndarray:
    """Which variables are predicted otherwise, in any bit, ``[V]``, bool; a number is predicted as a change of itself."""
    of_categorical = (one.logits != other.logits).any(-1)
    of_continuous = (one.mean != other.mean) | (one.log_std != other.log_std)
    return one.layout.by_variable(of_categorical, of_continuous)[0].cpu().numpy()


def _neighbours(action: th.Tensor, actions: Actions, mask: th.Tensor | None) -> th.Tensor:
    """
    The allowed actions that differ from one in one variable.

    :param action: in the planner's units, ``[1, *]``
    :param actions: what an action is
    :param mask: allowed values, ``[1, A]``, bool
    :return: ``[R, *]``
    """
    flat = action.reshape(-1)
    if isinstance(actions, BoxActions):
        choices = [th.tensor([low, (low + high) / 2, high]) for low, high in zip(actions.low, actions.high, strict=True)]
    else:
        allowed = th.ones(sum(actions.sizes), dtype=th.bool) if mask is None else mask[0].cpu()
        choices = [part.nonzero().flatten() for part in allowed.split(actions.sizes)]
    rows = []
    for dimension, values in enumerate(choices):
        for value in values.to(flat):
            if value != flat[dimension]:
                other = flat.clone()
                other[dimension] = value
                rows.append(other.view(action.shape[1:]))
    return th.stack(rows) if rows else action[:0]
