"""What every planner promises, for every kind of action."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch as th
from optima import LinearQuadratic, Tables, generators
from problems import problem

from sb3_fcdl.planning import (
    CEM,
    ICEM,
    MPPI,
    PLANNERS,
    Actions,
    BoxActions,
    DiscreteActions,
    MultiDiscreteActions,
    Plan,
    Planner,
    Problem,
    Step,
    planner,
)

DISCRETE, MULTI_DISCRETE, MULTI_BINARY = DiscreteActions(6), MultiDiscreteActions((3, 2)), MultiDiscreteActions((2, 2, 2))
BOX = BoxActions(low=(-1.0, -2.0), high=(1.0, 4.0))
CATEGORICAL = {"discrete": DISCRETE, "multi-discrete": MULTI_DISCRETE, "multi-binary": MULTI_BINARY}
SPACES: dict[str, Actions] = {**CATEGORICAL, "box": BOX}

every_planner = pytest.mark.parametrize("name", PLANNERS)
every_space = pytest.mark.parametrize("actions", SPACES.values(), ids=SPACES)
every_categorical_space = pytest.mark.parametrize("actions", CATEGORICAL.values(), ids=CATEGORICAL)


def make(name: str, actions: Actions, *, n_elites: int = 8, **kwargs: Any) -> Planner:
    """A planner, with that many elites if it has elites."""
    return PLANNERS[name](actions, **({} if name == "mppi" else {"n_elites": n_elites}), **kwargs)


def stay(state: th.Tensor, action: th.Tensor) -> th.Tensor:
    return state


@every_planner
@every_categorical_space
def test_best_of_all_sequences(name: str, actions: Actions) -> None:
    tables = Tables(actions)
    plan = tables.plan(make(name, actions, horizon=2, n_candidates=1000))
    for row in range(8):
        value, sequence = tables.best(row)
        assert plan.actions[row].tolist() == sequence
        assert plan.value[row].item() == pytest.approx(value, abs=1e-6)


@every_planner
def test_optimum_of_a_linear_system_with_quadratic_cost(name: str) -> None:
    system = LinearQuadratic()
    state = th.tensor([[0.5, -0.4], [-0.3, -1.0], [0.6, 0.2]], dtype=th.float64)
    found = make(name, BOX, horizon=3, n_iterations=30, n_candidates=300, n_elites=30).plan(
        problem(system.step, system.reward), state, state[:, :0], generators=generators(3)
    )
    for row in range(3):
        value, expected = system.riccati(state[row].numpy(), horizon=3)
        assert ((expected > BOX.low) & (expected < BOX.high)).all()  # or Riccati would not know of the bounds
        np.testing.assert_allclose(found.actions[row].numpy(), expected, rtol=0, atol=2e-2)
        assert found.value[row].item() == pytest.approx(value, abs=1e-3)


def plan_box(planner: Planner, rows: range, options: dict[str, Any] | None = None, **kwargs: Any) -> Plan:
    """For some of eight states; ``options`` are of the problem, ``kwargs`` of the call."""
    system, state = LinearQuadratic(), th.randn(8, 2, generator=th.Generator().manual_seed(5))[rows.start : rows.stop]
    costs = problem(system.step, system.reward, **options or {})
    return planner.plan(costs, state, state[:, :0], generators=generators(len(rows), rows.start), **kwargs)


@every_planner
@every_space
def test_batch_of_eight_gives_the_plans_of_eight_single_calls(name: str, actions: Actions) -> None:
    # far from converged, so that noise matters
    planner = make(name, actions, horizon=2, n_iterations=2, n_candidates=10)
    mask = None
    if not isinstance(actions, BoxActions):
        width = sum(Tables(actions).sizes)
        mask = th.rand(8, width, generator=th.Generator().manual_seed(9)) < 0.5
        mask |= actions.encode(th.zeros(8, *actions.shape, dtype=th.int64), th.float32).bool()

    def rare_end(state: th.Tensor, action: th.Tensor, next_state: th.Tensor) -> th.Tensor:
        return (next_state[:, -1] % 3 / 3).clamp(0, 1)

    def plan(rows: range, warm_start: th.Tensor | None) -> Plan:
        options = {"termination": rare_end, "discount": 0.9}
        if isinstance(actions, BoxActions):
            return plan_box(planner, rows, options, warm_start=warm_start)
        of_rows = mask[rows.start : rows.stop]
        return Tables(actions).plan(planner, rows, options, action_mask=of_rows, warm_start=warm_start)

    warm_start = plan(range(8), None).warm_start
    if warm_start is not None:
        warm_start[2:4] = th.nan  # some start anew
    batch = plan(range(8), warm_start)
    for row in range(8):
        single = plan(range(row, row + 1), None if warm_start is None or row in (2, 3) else warm_start[row : row + 1])
        for one, all_of_them in zip(single, batch, strict=True):
            assert one is all_of_them is None or th.equal(one.nan_to_num(7)[0], all_of_them.nan_to_num(7)[row])


@every_planner
@every_space
@pytest.mark.parametrize("bad", [th.nan, th.inf, -th.inf])
def test_not_finite_sequence_counts_for_nothing_while_there_are_finite_ones(name: str, actions: Actions, bad: float) -> None:
    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        # most actions fail; those that do not pay badly
        return th.where(action[:, 0] >= (0.4 if actions is BOX else 1), -100.0, bad)

    # the middle of the finite boxes is finite, too
    planner = make(name, actions, horizon=2, n_iterations=2, n_candidates=200)
    plan = planner.plan(problem(stay, reward), th.zeros(3, 1), th.zeros(3, 0), generators=generators(3))
    assert plan.value.tolist() == [-200.0] * 3
    first = plan.actions if actions is DISCRETE else plan.actions[..., 0]
    assert ((first >= 0.4) if actions is BOX else (first == 0)).all()


@every_planner
@every_space
def test_plan_is_possible_if_no_sequence_is_finite(name: str, actions: Actions) -> None:
    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return th.full((len(state),), th.nan)

    plan = make(name, actions).plan(problem(stay, reward), th.zeros(3, 1), th.zeros(3, 0))
    low, high = (BOX.low, BOX.high) if actions is BOX else (0, th.tensor(Tables(actions).sizes) - 1)
    assert ((plan.actions >= th.as_tensor(low)) & (plan.actions <= th.as_tensor(high))).all()
    assert plan.value.tolist() == [-th.inf] * 3


@every_planner
@every_categorical_space
def test_mask_holds_for_the_first_step_and_only_there(name: str, actions: Actions) -> None:
    tables = Tables(actions)
    planner = make(name, actions, horizon=2, n_candidates=1000)
    # forbid the first value that the best plan has; of several dimensions, in the last
    mask = th.ones(8, sum(tables.sizes), dtype=th.bool)
    favourites = []
    for row in range(8):
        _, sequence = tables.best(row)
        favourites.append(sequence[0] if len(tables.sizes) == 1 else sequence[0][-1])
        mask[row, sum(tables.sizes[:-1]) + favourites[row]] = False
    plan = tables.plan(planner, action_mask=mask)
    for row in range(8):
        digits = [np.unravel_index(number, tables.sizes) for number in range(tables.n)]
        allowed = [number for number in range(tables.n) if digits[number][-1] != favourites[row]]
        value, sequence = tables.best(row, allowed)
        assert plan.actions[row].tolist() == sequence
        assert plan.value[row].item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("name", ["icem", "mppi"])
@every_categorical_space
def test_mask_holds_against_the_warm_start(name: str, actions: Actions) -> None:
    planner = make(name, actions, horizon=2, n_candidates=20)
    sizes = Tables(actions).sizes
    # the best sequence of all begins with value 1 in every dimension, which is forbidden
    warm_start = th.ones(8, planner.n_kept, 2, *actions.shape)
    mask = ~actions.encode(th.ones(8, *actions.shape, dtype=th.int64), th.float32).bool()
    plan = planner.plan(
        problem(stay, lambda state, action, *_: (action * mask[0].logical_not()).sum(dim=1)),
        th.zeros(8, 1),
        th.zeros(8, 0),
        generators=generators(8),
        action_mask=mask,
        warm_start=warm_start,
    )
    assert (plan.actions[:, 0] != 1).all()
    assert (plan.actions[:, 1] == 1).all()
    assert plan.value.tolist() == [float(len(sizes))] * 8


@every_planner
def test_single_allowed_action_of_each_dimension_is_taken(name: str) -> None:
    actions = MultiDiscreteActions((3, 1, 2))
    for wanted in itertools.product(range(3), range(1), range(2)):
        mask = actions.encode(th.tensor([wanted]), th.float32).bool()
        plan = make(name, actions, horizon=1, n_candidates=8).plan(
            problem(stay, lambda state, *_: th.ones(len(state))), th.zeros(1, 1), th.zeros(1, 0), action_mask=mask
        )
        assert plan.actions.tolist() == [[list(wanted)]]


@every_planner
def test_mask_must_allow_a_value_of_each_dimension(name: str) -> None:
    tables = Tables(MULTI_DISCRETE)
    planner = make(name, MULTI_DISCRETE, horizon=2)
    with pytest.raises(ValueError, match=r"action_mask must have shape \(2, 5\), got \(2, 6\)"):
        tables.plan(planner, range(2), action_mask=th.ones(2, 6, dtype=th.bool))
    with pytest.raises(ValueError, match="action_mask must allow every environment at least one action"):
        tables.plan(planner, range(2), action_mask=th.tensor([[True] * 5, [True, True, True, False, False]]))
    with pytest.raises(ValueError, match="action masks are for discrete actions"):
        plan_box(make(name, BOX), range(1), action_mask=th.ones(1, 2, dtype=th.bool))


def count(state: th.Tensor, action: th.Tensor) -> th.Tensor:
    """Number of steps, and whether action 1 was ever taken."""
    return th.stack([state[:, 0] + 1, state[:, 1].maximum(action[:, 1])], dim=1)


@every_planner
def test_reward_after_the_end_does_not_count(name: str) -> None:
    # action 1 pays 3 at once and ends the episode, others pay 1.25 a step: 3 against 3.75 in three steps, 2.5 in two. After
    # the end the model pays what it likes
    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return th.where(state[:, 1] == 1, goal[:, 0], th.where(action[:, 1] == 1, 3.0, 1.25))

    def ended(state: th.Tensor, action: th.Tensor, next_state: th.Tensor) -> th.Tensor:
        return next_state[:, 1] == 1

    args = problem(count, reward, termination=ended), th.zeros(3, 2), th.tensor([[100.0], [-100.0], [th.nan]])
    for horizon, value in ((1, 3.0), (2, 4.25), (3, 5.5)):  # whoever ends the episode does so with the last step
        planner = make(name, DiscreteActions(2), horizon=horizon)
        plan = planner.plan(*args, generators=generators(3))
        assert plan.actions.tolist() == [[0] * (horizon - 1) + [1]] * 3
        assert plan.value.tolist() == [value] * 3


@every_planner
def test_reward_counts_with_the_probability_that_the_episode_goes_on(name: str) -> None:
    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return th.where(action[:, 1] == 1, goal[:, 0], 1.0)

    def ended(state: th.Tensor, action: th.Tensor, next_state: th.Tensor) -> th.Tensor:
        return 0.5 * action[:, 1]

    # action 1 pays more than 1, but each of the later rewards counts half: of three steps with 1, 1 and 1, taking it first is
    # worth r + 1 against 3, in the middle 1 + r + 0.5, at last 2 + r
    halved = problem(count, reward, termination=ended, discount=0.5)
    goal = th.tensor([[1.25], [8.0]])
    plan = make(name, DiscreteActions(2)).plan(halved, th.zeros(2, 2), goal, generators=generators(2))
    assert plan.actions.tolist() == [[0, 0, 1], [1, 1, 1]]
    # with half the weight a step by the discount, and another half by each end that is likely
    assert plan.value.tolist() == pytest.approx([1 + 0.5 + 0.25 * 1.25, 8 + 8 / 4 + 8 / 16])


@every_planner
@pytest.mark.parametrize(("discount", "best"), [(1.0, [0, 0]), (0.5, [1, 1])])
def test_discount_prefers_what_is_soon(name: str, discount: float, best: list[int]) -> None:
    # 2 now, or 3 in the next step
    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return th.where(state[:, 0] == 0, 2 * action[:, 1], th.where(state[:, 1] == 0, 3 * action[:, 0], 0.1 * action[:, 1]))

    planner, discounted = make(name, DiscreteActions(2), horizon=2), problem(count, reward, discount=discount)
    plan = planner.plan(discounted, th.zeros(1, 2), th.zeros(1, 0), generators=generators(1))
    assert plan.actions.tolist() == [best]
    assert plan.value.item() == pytest.approx({1.0: 3.0, 0.5: 2.05}[discount])


@every_planner
@pytest.mark.parametrize(("milliseconds", "n_iterations"), [(None, 6), (0.001, 1), (25, 3), (1000, 6)])
def test_time_budget_ends_the_search_after_an_iteration(
    name: str, milliseconds: float | None, n_iterations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(planner, "perf_counter", lambda: now)
    n_iterations_seen = 0
    evaluate = planner.Rollout.evaluate

    def slow(self: Any, sequences: th.Tensor, asks_policy: bool = False) -> th.Tensor:
        nonlocal now, n_iterations_seen
        now += 0.01  # seconds
        n_iterations_seen += sequences.shape[1] > 1  # MPPI also asks for the value of its plan
        return evaluate(self, sequences, asks_policy)

    monkeypatch.setattr(planner.Rollout, "evaluate", slow)
    plan = plan_box(make(name, BOX, n_iterations=6, time_budget_ms=milliseconds), range(2))
    assert n_iterations_seen == n_iterations
    assert plan.value.isfinite().all()


@every_planner
@every_space
def test_row_of_a_warm_start_that_is_filled_with_nan_starts_anew(name: str, actions: Actions) -> None:
    planner = make(name, actions, horizon=2, n_iterations=2, n_candidates=10)

    def plan_of(warm_start: th.Tensor | None) -> Plan:
        plan = plan_box if actions is BOX else Tables(actions).plan
        return plan(planner, rows=range(3), warm_start=warm_start)

    anew = plan_of(None)
    if name == "cem":
        assert anew.warm_start is None
        with pytest.raises(ValueError, match="CEM always starts anew: warm_start must be None"):
            plan_of(th.zeros(3, 1, 2))
        return
    again = plan_of(th.full_like(anew.warm_start, th.nan))
    assert th.equal(again.actions, anew.actions) and th.equal(again.value, anew.value)
    with pytest.raises(ValueError, match="warm_start must have shape"):
        plan_of(anew.warm_start[:, :, :1])


@pytest.mark.parametrize("name", ["icem", "mppi"])
@every_space
def test_warm_start_is_the_plan_one_step_on(name: str, actions: Actions) -> None:
    planner = make(name, actions, horizon=2, n_candidates=20)
    plan = plan_box(planner, range(4)) if actions is BOX else Tables(actions).plan(planner, range(4))
    assert plan.warm_start.shape == (4, planner.n_kept, 2, *actions.shape)
    assert plan.warm_start.dtype == th.float32
    assert th.equal(plan.warm_start[:, 0, 0], plan.actions[:, 1].float())
    assert plan.warm_start[:, :, 1].isnan().all()


@pytest.mark.parametrize("name", ["icem", "mppi"])
@every_space
def test_warm_start_finds_what_a_single_look_would_miss(name: str, actions: Actions) -> None:
    # six actions that eight candidates would hit by luck alone
    secret = th.ones(6, *actions.shape, dtype=th.int64)
    if actions is BOX:
        secret = th.rand(6, 2, generator=th.Generator().manual_seed(1)) / 2
    encoded = actions.encode(secret, th.float32)

    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return -(action - encoded[state[:, 0].long()]).abs().sum(dim=1)

    def plan(warm_start: th.Tensor | None) -> Plan:
        planner = make(name, actions, horizon=6, n_elites=4, n_iterations=1, n_candidates=8)
        args = problem(lambda state, action: state + 1, reward), th.zeros(1, 1), th.zeros(1, 0)
        return planner.plan(*args, generators=generators(1), warm_start=warm_start)

    # it travels as SB3 carries it, in NumPy
    warm_start = th.as_tensor(secret.float()[None, None].numpy().copy())
    assert plan(None).value.item() < -2
    assert plan(warm_start).value.item() > -0.5


@every_planner
@every_categorical_space
def test_ties_favour_no_value(name: str, actions: Actions) -> None:
    planner = make(name, actions, horizon=2, n_iterations=2, n_candidates=9)
    n_envs = 2000
    plan = planner.plan(
        problem(stay, lambda state, *_: th.ones(len(state))),
        th.zeros(n_envs, 1),
        th.zeros(n_envs, 0),
        generators=generators(n_envs),
    )
    assert plan.value.tolist() == [2.0] * n_envs
    sizes = Tables(actions).sizes
    for column, size in zip(plan.actions.reshape(n_envs, -1).T, sizes * 2, strict=True):
        expected = n_envs / size
        # chi-square with at most 5 degrees of freedom: above 25.7 once in 10 000
        assert ((th.bincount(column, minlength=size) - expected) ** 2 / expected).sum() < 25.7


@every_planner
@every_space
def test_plan_never_waits_for_the_device(name: str, actions: Actions) -> None:
    # a tensor on the meta device has no content: whatever asks for it raises
    state = th.zeros(4, 2, device="meta")
    with pytest.raises(RuntimeError, match="meta"):
        bool(state.any())

    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return (next_state - goal).square().sum(dim=1)

    planner = make(name, actions)
    plan = planner.plan(
        Problem(
            lambda state, action: Step(state + action[:, :2], state[:, 0].square()),
            reward,
            termination=lambda state, action, next_state: next_state[:, 0] > 3,
            value=lambda state, goal: (state * goal).sum(dim=1),
            discount=0.9,
            uncertainty_coef=0.1,
        ),
        state,
        th.zeros(4, 2, device="meta"),
        generators=generators(4),
        warm_start=th.zeros(4, planner.n_kept, 3, *actions.shape, device="meta") if planner.n_kept else None,
    )
    assert plan.actions.shape == (4, 3, *actions.shape) and plan.value.shape == (4,)
    assert plan.actions.device == plan.value.device == state.device


@every_planner
@every_space
def test_generators_leave_the_global_one_alone(name: str, actions: Actions) -> None:
    before = th.get_rng_state()
    planner = make(name, actions, horizon=2)
    plan_box(planner, range(2)) if actions is BOX else Tables(actions).plan(planner, range(2))
    assert th.equal(th.get_rng_state(), before)


@every_planner
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"horizon": 0}, "horizon=0 is not allowed; horizon must be an integer, at least 1"),
        ({"n_iterations": -1}, "n_iterations=-1 is not allowed; n_iterations must be an integer, at least 1"),
        ({"n_candidates": 0}, "n_candidates=0 is not allowed; n_candidates must be an integer, at least 1"),
        ({"time_budget_ms": 0}, "time_budget_ms=0 is not allowed; time_budget_ms must be a number, above 0, or None"),
    ],
)
def test_wrong_argument_is_named(name: str, kwargs: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PLANNERS[name](DISCRETE, **kwargs)


@pytest.mark.parametrize(
    ("planner_class", "n_candidates", "n_elites"),
    [
        *[(CEM, 64, 32), (CEM, 200, 32), (CEM, 63, 31), (CEM, 8, 4), (CEM, 3, 1), (CEM, 2, 1), (CEM, 1, 1)],
        *[(ICEM, 64, 10), (ICEM, 128, 10), (ICEM, 20, 10), (ICEM, 19, 9), (ICEM, 8, 4), (ICEM, 1, 1)],
    ],
)
def test_elites_follow_the_candidates_unless_they_are_given(
    planner_class: type[Planner], n_candidates: int, n_elites: int
) -> None:
    assert planner_class(DISCRETE, n_candidates=n_candidates).n_elites == n_elites
    assert planner_class(DISCRETE, n_candidates=n_candidates, n_elites=n_candidates).n_elites == n_candidates
    Tables(DISCRETE).plan(planner_class(DISCRETE, horizon=2, n_iterations=2, n_candidates=n_candidates))


@pytest.mark.parametrize(
    ("planner_class", "kwargs", "message"),
    [
        (ICEM, {"n_elites": 0}, "n_elites=0 is not allowed; .* at least 1 and at most n_candidates = 64, or None"),
        (ICEM, {"n_elites": 65}, "n_elites=65 is not allowed; .* at least 1 and at most n_candidates = 64, or None"),
        (ICEM, {"noise_exponent": -1.0}, "noise_exponent=-1.0 is not allowed; .* at least 0"),
        (MPPI, {"temperature": 0.0}, "temperature=0.0 is not allowed; .* above 0"),
        (CEM, {"n_elites": 65}, "n_elites=65 is not allowed; .* at least 1 and at most n_candidates = 64, or None"),
    ],
)
def test_wrong_argument_of_one_planner_is_named(planner_class: type[Planner], kwargs: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planner_class(DISCRETE, **kwargs)
