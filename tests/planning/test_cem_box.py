"""The cross-entropy method over a box."""

from collections.abc import Callable

import numpy as np
import pytest
import torch as th
from problems import problem

from sb3_fcdl.planning import CEM, BoxActions, Plan
from sb3_fcdl.planning.distributions import NormalSequences, initial_distribution

BOX = BoxActions(low=(-1.0, -2.0), high=(1.0, 4.0))


def seeded(seed: int = 0) -> th.Generator:
    return th.Generator().manual_seed(seed)


def generators(n_envs: int, first_seed: int = 0) -> list[th.Generator]:
    return [seeded(first_seed + row) for row in range(n_envs)]


def move(state: th.Tensor, action: th.Tensor) -> th.Tensor:
    """Linear dynamics: an action is a step."""
    return state + action


def quadratic_reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
    """Squared distance from the goal, and of the step, as costs."""
    return -(next_state - goal).square().sum(dim=1) - action.square().sum(dim=1)


def plan_box(cem: CEM, state: th.Tensor, goal: th.Tensor, first_seed: int = 0) -> Plan:
    return cem.plan(problem(move, quadratic_reward), state, goal, generators=generators(len(state), first_seed))


class Spy:
    """Linear dynamics and any reward of the action, for one environment and step; remembers the candidates and returns."""

    def __init__(self, reward_of: Callable[[th.Tensor], th.Tensor]) -> None:
        self.reward_of = reward_of
        self.candidates: list[th.Tensor] = []
        self.returns: list[th.Tensor] = []

    def reward(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        self.candidates.append(action)
        self.returns.append(self.reward_of(action))
        return self.returns[-1]

    def plan(self, cem: CEM, seed: int = 0) -> Plan:
        return cem.plan(problem(move, self.reward), th.zeros(1, 2), th.zeros(1, 0), generators=generators(1, seed))


@pytest.mark.parametrize("select", ["elites", "best"])
@pytest.mark.parametrize("horizon", [1, 3])
def test_box_optimum_of_a_quadratic(select: str, horizon: int) -> None:
    state = th.tensor([[0.2, 0.1], [0.0, 3.0], [-0.5, -1.0]])
    goal = th.tensor([[0.9, 1.3], [-0.7, 2.1], [-0.8, 1.0]])
    # the cost of steps a to a distance d is |La - d|^2 + |a|^2, where L sums up: it is least at (L'L + 1) a = L'd
    summed = th.ones(horizon, horizon).tril()
    expected = th.linalg.solve(summed.T @ summed + th.eye(horizon), summed.sum(dim=0))[:, None] * (goal - state)[:, None]
    assert ((expected > th.tensor(BOX.low)) & (expected < th.tensor(BOX.high))).all()

    cem = CEM(BOX, horizon, n_iterations=30, n_candidates=400, n_elites=40, select=select)
    actions, value, _ = plan_box(cem, state, goal)
    distance = summed @ expected - (goal - state)[:, None]
    assert actions.shape == (3, horizon, 2)
    assert th.allclose(actions, expected, rtol=0, atol=5e-3)
    assert th.allclose(value, -(distance.square() + expected.square()).sum(dim=(1, 2)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("select", ["elites", "best"])
@pytest.mark.parametrize("horizon", [1, 3])
def test_box_optimum_at_the_bounds(select: str, horizon: int) -> None:
    # so far away that the longest step always pays
    goal = th.tensor([[50.0, -50.0], [-50.0, 50.0]])
    cem = CEM(BOX, horizon, n_iterations=20, n_candidates=200, n_elites=20, select=select)
    actions, value, _ = plan_box(cem, th.zeros(2, 2), goal)
    expected = th.tensor([[1.0, -2.0], [-1.0, 4.0]])[:, None].repeat(1, horizon, 1)
    assert th.allclose(actions, expected, rtol=0, atol=1e-5)
    distance = expected.cumsum(dim=1) - goal[:, None]
    assert th.allclose(value, -(distance.square() + expected.square()).sum(dim=(1, 2)), rtol=1e-5)


def test_box_starts_with_normals_over_the_box() -> None:
    spy = Spy(lambda action: action[:, 0])
    actions, value, _ = spy.plan(CEM(BOX, horizon=1, n_iterations=1, n_candidates=20_000, n_elites=20_000))
    candidates = th.cat(spy.candidates)
    middle, half_range = th.tensor([0.0, 1.0]), th.tensor([1.0, 3.0])
    standard = th.randn(20_000, 1, 2, generator=seeded())[:, 0]
    assert th.equal(candidates, (middle + half_range * standard).clamp(th.tensor(BOX.low), th.tensor(BOX.high)))
    # a normal is further than a standard deviation above its mean with probability 0.1587, and below
    for bound in (BOX.low, BOX.high):
        assert (candidates == th.tensor(bound)).float().mean(dim=0).tolist() == pytest.approx([0.1587] * 2, abs=0.01)
    # all are elites
    assert actions[0, 0].tolist() == pytest.approx(candidates.mean(dim=0).tolist(), abs=1e-4)
    assert value.item() == pytest.approx(candidates[:, 0].mean().item(), abs=1e-4)


def test_box_is_refitted_to_mean_and_biased_deviation_of_the_elites() -> None:
    def reward_of(action: th.Tensor) -> th.Tensor:
        return action[:, 0] - action[:, 1].square()

    spy = Spy(reward_of)
    actions, value, _ = spy.plan(CEM(BOX, horizon=1, n_iterations=2, n_candidates=30, n_elites=7))
    elites, elite_returns = [], []
    for candidates, returns in zip(spy.candidates, spy.returns, strict=True):
        best = returns.numpy().argsort()[-7:]
        elites.append(candidates.numpy()[best])
        elite_returns.append(returns.numpy()[best])

    generator = seeded()
    th.randn(30, 1, 2, generator=generator)  # of the first iteration
    standard = th.randn(30, 1, 2, generator=generator)[:, 0].numpy()
    expected = np.clip(elites[0].mean(axis=0) + elites[0].std(axis=0) * standard, BOX.low, BOX.high)  # ddof=0: biased
    np.testing.assert_allclose(spy.candidates[1].numpy(), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(actions[0, 0].numpy(), elites[1].mean(axis=0), rtol=0, atol=1e-6)
    assert value.item() == pytest.approx(elite_returns[1].mean(), abs=1e-6)


def test_fit_of_a_normal_by_hand() -> None:
    start = initial_distribution(BOX, horizon=1, state=th.zeros(2, 1), action_mask=None, known=th.zeros(2, 0, 1, 2))
    elites = th.tensor([[[0.5, 1.0], [-0.5, 3.0], [1.0, 4.0]], [[0.25, 4.0], [0.25, 4.0], [0.25, 4.0]]])[:, :, None]
    fitted = start.fitted(elites, weights=th.tensor([[True, True, False], [True, True, True]]))
    assert isinstance(fitted, NormalSequences)
    assert fitted.mean[:, 0].tolist() == [[0.0, 2.0], [0.25, 4.0]]
    # where all elites are equal, what is left is a millionth of half the range
    assert fitted.std[0, 0].tolist() == [0.5, 1.0]
    assert fitted.std[1, 0].tolist() == pytest.approx([1e-6, 3e-6])


def test_box_best_is_the_best_sequence_ever_evaluated() -> None:
    for seed in range(10):
        spy = Spy(lambda action: (action * 1e4).sin().sum(dim=1))  # as good as random
        actions, value, _ = spy.plan(CEM(BOX, horizon=1, n_iterations=3, n_candidates=8, n_elites=4, select="best"), seed)
        candidates, returns = th.cat(spy.candidates), th.cat(spy.returns)
        assert value.item() == returns.max().item()
        assert th.equal(actions[0, 0], candidates[returns.argmax()])


@pytest.mark.parametrize("select", ["elites", "best"])
def test_box_batch_of_eight_gives_the_plans_of_eight_single_calls(select: str) -> None:
    state, goal = th.randn(2, 8, 2, generator=seeded(4))
    cem = CEM(BOX, n_iterations=3, n_candidates=16, n_elites=5, select=select)  # far from converged, so that noise matters
    batch = plan_box(cem, state, goal)
    for row in range(8):
        single = plan_box(cem, state[row : row + 1], goal[row : row + 1], first_seed=row)
        assert th.equal(single.actions[0], batch.actions[row]) and th.equal(single.value[0], batch.value[row])


@pytest.mark.parametrize("bad", [th.nan, th.inf, -th.inf])
def test_box_sequence_that_is_not_finite_is_never_elite_while_there_are_finite_ones(bad: float) -> None:
    # a third of the candidates is finite, while half are to be elites
    spy = Spy(lambda action: th.where(action[:, 0] < -0.5, action[:, 1], bad))
    actions, value, _ = spy.plan(CEM(BOX, horizon=1, n_iterations=1, n_candidates=200, n_elites=100))
    finite = spy.candidates[0][spy.returns[0].isfinite()]
    assert 1 < len(finite) < 100
    assert actions[0, 0].tolist() == pytest.approx(finite.mean(dim=0).tolist(), abs=1e-5)
    assert value.item() == pytest.approx(finite[:, 1].mean().item(), abs=1e-5)
    best = spy.plan(CEM(BOX, horizon=1, n_iterations=1, n_candidates=200, n_elites=100, select="best"))
    assert best.value.item() == finite[:, 1].max().item()


@pytest.mark.parametrize("select", ["elites", "best"])
def test_box_plan_is_within_bounds_if_no_sequence_is_finite(select: str) -> None:
    spy = Spy(lambda action: th.full((len(action),), th.nan))
    actions, value, _ = spy.plan(CEM(BOX, horizon=1, select=select))
    assert ((actions >= th.tensor(BOX.low)) & (actions <= th.tensor(BOX.high))).all()  # hence finite
    assert value.tolist() == [-th.inf]


def test_dimension_of_a_box_without_range_keeps_its_value() -> None:
    box = BoxActions(low=(-1.0, 0.3), high=(1.0, 0.3))
    actions, _, _ = plan_box(CEM(box), th.zeros(2, 2, dtype=th.float64), th.ones(2, 2, dtype=th.float64))
    assert actions.dtype == th.float64
    assert actions[:, :, 1].tolist() == [[0.3] * 3] * 2


def test_box_without_generators_draws_for_each_environment_from_the_global_one() -> None:
    args = problem(move, quadratic_reward), th.zeros(5, 2), th.zeros(5, 2)
    th.manual_seed(0)
    first = CEM(BOX).plan(*args).actions
    assert len(set(first[:, 0, 0].tolist())) == 5
    th.manual_seed(0)
    assert th.equal(CEM(BOX).plan(*args).actions, first)


def test_box_actions_take_no_mask() -> None:
    with pytest.raises(ValueError, match="action masks are for discrete actions"):
        CEM(BOX).plan(
            problem(move, quadratic_reward), th.zeros(1, 2), th.zeros(1, 2), action_mask=th.ones(1, 2, dtype=th.bool)
        )
