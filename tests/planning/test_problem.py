"""What a planner is given: what a plan of each problem must be, by hand."""

import math
from typing import Any

import pytest
import torch as th
from problems import problem

from sb3_fcdl.planning import ICEM, PLANNERS, DiscreteActions, MultiDiscreteActions, Problem, Step, planner_class

DOUBT = {-1: 0.25, 1: 2.0}  # by the sign of the position that a step leads to


def walk(state: th.Tensor, action: th.Tensor) -> Step:
    """Action 0 goes left, action 1 goes right, where the model is unsure."""
    after = state + 2 * action[:, 1:] - 1
    return Step(after, th.where(after[:, 0] > 0, DOUBT[1], DOUBT[-1]))


def right_pays_more(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
    return 1 + 0.5 * next_state[:, 0].sign()


@pytest.mark.parametrize("key", [None, lambda state: state[:, 0].long()], ids=["plain", "memo"])
@pytest.mark.parametrize(("price", "best"), [(0.0, [1, 1, 1]), (0.4, [1, 0, 1]), (0.7, [0, 1, 0])])
def test_plan_keeps_off_where_the_model_is_unsure_if_the_price_is_high(price: float, best: list[int], key: Any) -> None:
    # A step to the right of 0 pays 1.5 less 2 prices, to 0 it pays 1 and to the left of it 0.5, each less 0.25 prices.
    pays = {1: 1.5 - 2 * price, 0: 1 - price / 4, -1: 0.5 - price / 4}
    state = th.zeros(4, 1)
    priced = Problem(walk, right_pays_more, key=key, uncertainty_coef=price)
    plan = ICEM(DiscreteActions(2), horizon=3).plan(priced, state, state[:, :0], generators=[th.Generator()] * 4)
    assert plan.actions.tolist() == [best] * 4
    places = th.tensor(best).mul(2).sub(1).cumsum(dim=0).sign().tolist()
    assert plan.value.tolist() == pytest.approx([sum(pays[place] for place in places)] * 4, abs=1e-6)


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_plan_gives_up_rewards_for_a_last_state_that_is_worth_more(name: str, discount: float) -> None:
    """Staying pays 1 a step; going on pays nothing, but the third place is worth 5."""
    towards = problem(
        lambda state, action: state + action[:, 1:],
        lambda state, action, *_: action[:, 0],
        value=lambda state, goal: 5.0 * (state[:, 0] == 3),
        discount=discount,
    )
    elites = {} if name == "mppi" else {"n_elites": 8}
    search = PLANNERS[name](DiscreteActions(2), horizon=3, n_candidates=200, **elites)
    plan = search.plan(towards, th.tensor([[0.0], [-1.0]]), th.zeros(2, 0), generators=[th.Generator()] * 2)
    # With a discount of 1/2 the place is worth 5/8 from here, staying 1 + 1/2 + 1/4; who is four steps away stays anyhow.
    stays = sum(discount**step for step in range(3))
    expected = max(5 * discount**3, stays)
    assert plan.actions.tolist() == [[1, 1, 1] if expected > stays else [0, 0, 0], [0, 0, 0]]
    assert plan.value.tolist() == pytest.approx([expected, stays])


@pytest.mark.parametrize("discount", [0.0, -0.5, 1.5, math.nan])
def test_discount_must_be_one(discount: float) -> None:
    with pytest.raises(ValueError, match=f"discount={discount} is not allowed; .* a finite number, above 0 and at most 1"):
        problem(walk, right_pays_more, discount=discount)


@pytest.mark.parametrize("uncertainty_coef", [-0.1, math.nan, math.inf])
def test_price_must_be_a_finite_number(uncertainty_coef: float) -> None:
    with pytest.raises(ValueError, match="uncertainty_coef must be a finite number, at least 0"):
        problem(walk, right_pays_more, uncertainty_coef=uncertainty_coef)


def test_planners_are_found_by_name_or_are_classes() -> None:
    class Own(ICEM):
        pass

    assert [planner_class(name) for name in PLANNERS] == list(PLANNERS.values())
    assert planner_class(Own) is Own
    for unknown in ("shooting", MultiDiscreteActions):
        with pytest.raises(ValueError, match="planner must be one of cem, icem, mppi, or a subclass of Planner"):
            planner_class(unknown)
