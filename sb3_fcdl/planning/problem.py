"""What a planner is given and what it returns."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch as th

from fcdl_envs.arguments import check, number


class Step(NamedTuple):
    """
    What a model says of ``R`` steps.

    :param next_state: ``[R, D]``
    :param uncertainty: how unsure the model is of each step, at least 0, ``[R]``; None: nobody asked
    :param is_chance: whether the step may as well lead elsewhere, ``[R]``, bool; None: none does
    """

    next_state: th.Tensor
    uncertainty: th.Tensor | None = None
    is_chance: th.Tensor | None = None


StepFn = Callable[[th.Tensor, th.Tensor], Step]
"""``(state [R, D], encoded action [R, A]) -> Step``: deterministic, and each row by itself."""

RewardFn = Callable[..., th.Tensor]
"""
``(state [R, D], encoded action [R, A], next_state [R, D], goal [R, G]) -> reward [R]``: each row by itself. A function that
needs no goal may leave it out.
"""

TerminationFn = Callable[..., th.Tensor]
"""
``(state [R, D], encoded action [R, A], next_state [R, D], goal [R, G]) -> ended [R]``, likewise. Whether the episode ended
with this step, or how likely that is: bool, or a number in [0, 1].
"""

ValueFn = Callable[[th.Tensor, th.Tensor], th.Tensor]
"""``(state [R, D], goal [R, G]) -> value [R]``: the discounted return from that state on; each row by itself."""

PolicyFn = Callable[[th.Tensor, th.Tensor], th.Tensor]
"""``(state [R, D], goal [R, G]) -> encoded action [R, A]``: what seems best there, without a plan; each row by itself."""

ExpectedFn = Callable[[th.Tensor, th.Tensor, th.Tensor], th.Tensor]
"""
``(state [R, D], encoded action [R, A], goal [R, G]) -> [R]``: the expected reward of a step and discounted value of where it
leads; each row by itself.
"""

KeyFn = Callable[[th.Tensor], th.Tensor]
"""``state [R, D] -> int64 [R]``: equal for two states that ``step`` returns exactly when they are equal."""


@dataclass(frozen=True)
class _WithoutGoal:
    """A function that is asked with the goal, and does not read it."""

    function: Callable[..., th.Tensor]

    def __call__(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return self.function(state, action, next_state)


def with_goal(name: str, function: Callable[..., th.Tensor]) -> Callable[..., th.Tensor]:
    """
    :param name: what the user calls the function
    :param function: of state, action and next state, and of the goal if it has a fourth parameter that must be given, is
        called ``goal``, or takes any number of values
    :return: of all four
    :raises TypeError: if it takes neither three nor four
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return function  # it does not say
    takes = [count for count in (3, 4) if _takes(signature, count)]
    if not takes:
        raise TypeError(
            f"{name} must take (state, action, next_state) or (state, action, next_state, goal), "
            f"{getattr(function, '__name__', function)} takes {signature}"
        )
    is_any = any(each.kind is each.VAR_POSITIONAL for each in signature.parameters.values())
    reads_goal = 4 in takes and (takes == [4] or is_any or "goal" in signature.parameters)
    return function if reads_goal else _WithoutGoal(function)


def _takes(signature: inspect.Signature, n_values: int) -> bool:
    values: list[Any] = [None] * n_values
    try:
        signature.bind(*values)
    except TypeError:
        return False
    return True


@dataclass(frozen=True)
class Problem:
    """
    What is to be maximised: the expected discounted return under a model, for as long as the model stays as it is.

    The return of a sequence of ``H`` actions is ``sum_t gamma^t a_t (r_t - c u_t) + gamma^H a_H V(s_H)``, where ``a_t`` is the
    probability that the episode has not ended before step ``t``, ``u_t`` the uncertainty of the step and ``c`` its price.

    :param step: the model
    :param reward: reward of one modelled step
    :param termination: whether a modelled step ended the episode; the reward of that step counts, later ones as much as it is
        likely that the episode goes on. None: episodes never end
    :param value: what the last state is worth; None: nothing
    :param is_value_exact: whether the value is that of the best that can be done under the model: a plan of one step then
        compares all actions, as many whole numbers as there are
    :param policy: proposes a sequence among those that are compared: what it would do step by step. None: there is none
    :param expected: what a step that chance decides is worth, with all that comes after it: a sequence counts up to the first
        such step, because later actions would depend on where it leads. None: its likeliest state is taken for certain
    :param key: code of a state that ``step`` returned; makes planning faster where different actions often lead to equal
        states, and changes nothing else. None: there are too many states
    :param discount: of the rewards, per environment step, in (0, 1]
    :param uncertainty_coef: price of a step's uncertainty, in units of the reward, as MOPO has one of the predicted deviation
        (Yu et al., 2020); 0: none. With it a step must tell its uncertainty
    :raises ValueError: if ``discount`` is not in (0, 1], or ``uncertainty_coef`` negative or not finite
    """

    step: StepFn
    reward: RewardFn
    termination: TerminationFn | None = None
    value: ValueFn | None = None
    is_value_exact: bool = False
    policy: PolicyFn | None = None
    expected: ExpectedFn | None = None
    key: KeyFn | None = None
    discount: float = 1.0
    uncertainty_coef: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "reward", with_goal("reward", self.reward))
        if self.termination is not None:
            object.__setattr__(self, "termination", with_goal("termination", self.termination))
        check(
            discount=(self.discount, number(above=0, at_most=1)), uncertainty_coef=(self.uncertainty_coef, number(at_least=0))
        )


class Plan(NamedTuple):
    """
    The decision of a planner for each environment.

    :param actions: the chosen sequence, ``[B, H, *]``, where ``*`` is the shape of one action; int64, for a box with the dtype
        of the state. The first action is to be taken now
    :param value: the return that the planner expects under its model, ``[B]``
    :param warm_start: what the next call may be given, so that it does not start anew: L sequences, best first, one step on,
        ``[B, L, H, *]``, float for every kind of action; None from a planner that always starts anew. NaN stands for what
        is not known yet, such as the last step. Hence a row that is filled with NaN starts anew
    """

    actions: th.Tensor
    value: th.Tensor
    warm_start: th.Tensor | None
