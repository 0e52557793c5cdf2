from collections.abc import Callable

import numpy as np
import pytest
import torch as th
from problems import problem

from sb3_fcdl.planning import ICEM, BoxActions, DiscreteActions, Plan
from sb3_fcdl.planning.noise import Noise

BOX = BoxActions(low=(-1.0,), high=(3.0,))


def seeded(seed: int = 0) -> th.Generator:
    return th.Generator().manual_seed(seed)


def stay(state: th.Tensor, action: th.Tensor) -> th.Tensor:
    return state


class Spy:
    """A reward of the action, for one environment and step; remembers the candidates of each iteration."""

    def __init__(self, reward_of: Callable[[th.Tensor], th.Tensor]) -> None:
        self.reward_of = reward_of
        self.candidates: list[th.Tensor] = []

    def reward(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        self.candidates.append(action)
        return self.reward_of(action)

    def plan(self, planner: ICEM, seed: int = 0) -> Plan:
        return planner.plan(problem(stay, self.reward), th.zeros(1, 2), th.zeros(1, 0), generators=[seeded(seed)])


def rugged(action: th.Tensor) -> th.Tensor:
    """As good as random."""
    return (action * 1e4).sin().sum(dim=1)


def test_each_iteration_draws_fewer_sequences_but_never_less_than_the_elites() -> None:
    spy = Spy(rugged)
    spy.plan(ICEM(BOX, horizon=1, n_iterations=6, n_candidates=100, n_elites=40))
    # 100 / 1.25 ** (0 .. 5), rounded down
    assert [len(candidates) for candidates in spy.candidates] == [100, 80, 64, 51, 40, 40]


def test_best_elites_stay_candidates() -> None:
    spy = Spy(rugged)
    spy.plan(ICEM(BOX, horizon=1, n_iterations=4, n_candidates=30, n_elites=10))
    for before, after in zip(spy.candidates, spy.candidates[1:], strict=False):
        best = before[rugged(before).argsort(descending=True)[:3]]  # 0.3 of the elites
        assert th.equal(after[-3:], best)


def test_mean_of_the_elites_is_a_candidate() -> None:
    spy = Spy(rugged)
    spy.plan(ICEM(BOX, horizon=1, n_iterations=4, n_candidates=30, n_elites=10))
    for before, after in zip(spy.candidates, spy.candidates[1:], strict=False):
        elites = before[rugged(before).argsort(descending=True)[:10]]
        assert after[0].item() == pytest.approx(elites.mean().item(), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_best_sequence_ever_evaluated_is_chosen(seed: int) -> None:
    spy = Spy(rugged)
    plan = spy.plan(ICEM(BOX, horizon=1, n_iterations=4, n_candidates=8, n_elites=4), seed)
    candidates = th.cat(spy.candidates)
    assert plan.value.item() == rugged(candidates).max().item()
    assert th.equal(plan.actions[0, 0], candidates[rugged(candidates).argmax()])


def test_favourite_of_the_elites_is_chosen_among_equal_sequences() -> None:
    # where nothing within the horizon tells sequences apart, the majority is far from what would soon be worse
    planner = ICEM(DiscreteActions(2), horizon=1, n_iterations=2, n_candidates=21, n_elites=21)
    args = problem(stay, lambda state, *_: th.ones(len(state))), th.zeros(1, 1), th.zeros(1, 0)
    for seed in range(50):
        draws = (th.rand(21, 1, generator=seeded(seed)) * 2).long()
        assert planner.plan(*args, generators=[seeded(seed)]).actions.item() == (draws.sum() > 10).item()


@pytest.mark.parametrize("horizon", [1, 2, 7, 12])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_power_of_the_noise_falls_with_the_frequency(horizon: int, exponent: float) -> None:
    noise = Noise(1, th.device("cpu"), [seeded()]).correlated(exponent)
    samples = noise.normal(40_000, horizon, 2)[0].numpy()
    assert samples.std(axis=(0, 2)).tolist() == pytest.approx([1.0] * horizon, abs=0.02)
    power = (np.abs(np.fft.rfft(samples, axis=1)) ** 2).mean(axis=(0, 2))
    frequency = np.fft.rfftfreq(horizon)
    frequency[0] = 1 / horizon  # the mean counts as the lowest
    expected = frequency**-exponent
    # the power of all H frequencies is H times the variances, by Parseval
    n_times = np.array([1 if 2 * wave % horizon == 0 else 2 for wave in range(len(frequency))])
    np.testing.assert_allclose(power, expected * horizon**2 / (n_times * expected).sum(), rtol=0.04)
    assert abs(np.mean(samples[:, :, 0] * samples[:, :, 1])) < 0.02  # dimensions know nothing of each other


def test_noise_is_as_given_without_an_exponent() -> None:
    noise = Noise(1, th.device("cpu"), [seeded()]).correlated(0.0)
    assert th.equal(noise.normal(4, 3, 2)[0], th.randn(4, 3, 2, generator=seeded()))


def test_noise_of_the_first_candidates_falls_geometrically() -> None:
    spy = Spy(lambda action: action[:, 0])
    planner = ICEM(BOX, horizon=2000, n_iterations=2, n_candidates=5, n_elites=2, noise_exponent=0.0)
    spy.plan(planner)
    first, second = th.cat(spy.candidates).split((5 * 2000, 4 * 2000))
    # the box is [-1, 3], around 1; the two largest are clipped, the last place is the warm start's, which holds a bound now
    assert first.view(2000, 5).sub(1).std(dim=0)[2:4].tolist() == pytest.approx([0.2, 0.2 * 0.1**0.5], rel=0.05)
    assert first.view(2000, 5)[:, -1].unique().tolist() in ([-1], [3])
    # then all are alike, and as wide as they may be
    assert (second.view(2000, 4)[:, 1:-1].std(dim=0) > 1).all()


@pytest.mark.parametrize("bound", [-1.0, 3.0])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_a_cold_plan_of_one_iteration_holds_a_bound_where_that_is_best(bound: float, n_envs: int) -> None:
    """Eight steps of ``x' = x + action``, each paid by where it leads: the sum over them is 36 times the bound."""
    reach = problem(lambda state, action: state + action, lambda _, __, after, *___: after[:, 0] * np.sign(bound))
    for seed in range(10):
        generators = [seeded(seed + index) for index in range(n_envs)]
        plan = ICEM(BOX, horizon=8).plan(reach, th.zeros(n_envs, 1), th.zeros(n_envs, 0), generators=generators)
        assert (plan.actions == bound).all() and plan.value.tolist() == pytest.approx([36 * abs(bound)] * n_envs)


def test_opposite_corners_of_a_box_are_held_and_all_are_drawn() -> None:
    planner, corners = ICEM(BoxActions(low=(0.0, -2.0), high=(1.0, 2.0)), horizon=3), set()
    for seed in range(40):
        spy = Spy(lambda action: action[:, 0])
        spy.plan(planner, seed)
        first, opposite, small = th.stack(spy.candidates).view(3, 64, 2)[:, -3:].transpose(0, 1)
        assert (first == first[0]).all() and (opposite == opposite[0]).all() and not (small == small[0]).all()
        assert (first[0] + opposite[0]).tolist() == [1, 0]
        corners.add(tuple(first[0].tolist()))
    assert corners == {(x, y) for x in (0, 1) for y in (-2, 2)}


def test_a_warm_plan_holds_no_bound() -> None:
    """Environments with and without a last plan, side by side: candidates of the first are those of the last plan."""
    spy, planner = Spy(lambda action: action[:, 0]), ICEM(BOX, horizon=3, n_candidates=16)
    warm = th.full((2, planner.n_kept, 3, 1), th.nan)
    warm[0, :, :2] = 0.5
    args = problem(stay, spy.reward), th.zeros(2, 1), th.zeros(2, 0)
    planner.plan(*args, generators=[seeded(0), seeded(1)], warm_start=warm)
    candidates = th.stack(spy.candidates).view(3, 2, 16)[:, :, -planner.n_kept :]
    assert (candidates[:2, 0] == 0.5).all() and candidates[2, 0].sub(0.5).abs().max() < 1
    assert set(candidates[:, 1, :2].unique().tolist()) == {-1, 3}


def test_small_actions_are_found_in_one_iteration() -> None:
    # ten actions that cost their square: with equal noise the best of 64 sequences costs about one
    planner = ICEM(BoxActions(low=(-1.0,), high=(1.0,)), horizon=10)
    cost = problem(stay, lambda _, action, *__: -action[:, 0].square())
    plan = planner.plan(cost, th.zeros(1, 2), th.zeros(1, 0), generators=[seeded()])
    assert -0.01 < plan.value.item() < 0


@pytest.mark.parametrize("exponent", [0.0, 2.0])
def test_first_candidates_are_correlated_as_the_noise(exponent: float) -> None:
    spy = Spy(lambda action: action[:, 0])
    spy.plan(ICEM(BOX, horizon=4, n_iterations=1, n_candidates=5000, n_elites=10, noise_exponent=exponent))
    drawn = th.cat(spy.candidates)[:, 0].view(4, 5000).T
    correlation = np.corrcoef(drawn[:, 0].numpy(), drawn[:, 1].numpy())[0, 1]
    # of the noise: 0.6 in closed form for four steps and power 1, 1, 1/4: (1 + 0 - 1/4) / (1 + 2 + 1/4) = 0.23
    assert correlation == pytest.approx({0.0: 0.0, 2.0: 0.23}[exponent], abs=0.05)
