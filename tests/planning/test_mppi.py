import numpy as np
import pytest
import torch as th
from problems import problem

from sb3_fcdl.planning import MPPI, BoxActions, DiscreteActions, MultiDiscreteActions

BOX = BoxActions(low=(-1.0, -2.0), high=(1.0, 4.0))


def seeded(seed: int = 0) -> th.Generator:
    return th.Generator().manual_seed(seed)


def stay(state: th.Tensor, action: th.Tensor) -> th.Tensor:
    return state


def weights_by_hand(returns: np.ndarray, temperature: float) -> np.ndarray:
    spread = returns.max() - np.sort(returns)[(len(returns) - 1) // 2]  # the lower of two medians
    return np.exp((returns - returns.max()) / (temperature * spread))


def first_action_reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
    return goal[:, 0] * (action[:, 0] - (action[:, -1] - 0.3).square())


def test_plan_is_the_weighted_mean_of_all_candidates() -> None:
    planner = MPPI(BOX, horizon=1, n_iterations=1, n_candidates=30, temperature=0.5)
    plan = planner.plan(problem(stay, first_action_reward), th.zeros(1, 1), th.ones(1, 1), generators=[seeded()])
    standard = th.randn(30, 1, 2, generator=seeded())[:, 0].numpy()
    candidates = np.clip(np.array([0.0, 1.0]) + np.array([1.0, 3.0]) * standard, BOX.low, BOX.high)
    returns = candidates[:, 0] - (candidates[:, 1] - 0.3) ** 2
    weights = weights_by_hand(returns, 0.5)
    expected = weights @ candidates / weights.sum()
    np.testing.assert_allclose(plan.actions[0, 0].numpy(), expected, rtol=0, atol=1e-4)
    assert plan.value.item() == pytest.approx(expected[0] - (expected[1] - 0.3) ** 2, abs=1e-3)


def test_plan_of_whole_numbers_has_the_values_of_the_greatest_weight() -> None:
    actions = MultiDiscreteActions((3, 2))
    planner = MPPI(actions, horizon=1, n_iterations=1, n_candidates=15, temperature=0.5)
    plan_of = []
    for seed in range(20):
        table = th.rand(3, 2, generator=seeded(100 + seed))

        def reward(state: th.Tensor, action: th.Tensor, *_: th.Tensor, table: th.Tensor = table) -> th.Tensor:
            return table[action[:, :3].argmax(dim=1), action[:, 3:].argmax(dim=1)]

        plan = planner.plan(problem(stay, reward), th.zeros(1, 1), th.zeros(1, 0), generators=[seeded(seed)])
        draws = (th.rand(15, 2, generator=seeded(seed)) * th.tensor([3, 2])).long().numpy()
        weights = weights_by_hand(table.numpy()[draws[:, 0], draws[:, 1]], 0.5)
        expected = [np.bincount(draws[:, column], weights=weights).argmax() for column in (0, 1)]
        assert plan.actions[0, 0].tolist() == expected
        assert plan.value.item() == table[expected[0], expected[1]].item()
        plan_of.append(expected)
    assert len({tuple(plan) for plan in plan_of}) > 3


@pytest.mark.parametrize("actions", [BOX, DiscreteActions(4)])
@pytest.mark.parametrize("scale", [1e-3, 1e6])
def test_scale_of_the_rewards_makes_no_difference(actions: BoxActions | DiscreteActions, scale: float) -> None:
    plans = [
        MPPI(actions, horizon=2).plan(
            problem(stay, first_action_reward),
            th.zeros(2, 1).double(),
            th.full((2, 1), goal).double(),
            generators=[seeded(), seeded(1)],
        )
        for goal in (1.0, scale)
    ]
    assert th.allclose(plans[0].actions.double(), plans[1].actions.double(), rtol=0, atol=1e-6)


def test_weights_are_whole_numbers_whose_sum_is_exact() -> None:
    planner = MPPI(BOX, n_candidates=1000)
    weights = planner._weights(th.randn(3, 1000, generator=seeded()))
    assert th.equal(weights, weights.round())
    assert weights.amax(dim=1).tolist() == [2**24 // 1000] * 3
    assert th.equal(weights.sum(dim=1).double(), weights.double().sum(dim=1))


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0], [1, 1, 1, 1]),  # nothing to choose
        ([-th.inf, 3.0, 3.0, -th.inf], [0, 1, 1, 0]),
        ([-th.inf, -th.inf, 5.0, -th.inf], [0, 0, 1, 0]),
        ([-th.inf, -3e38, 3e38, -3e38], [0, 0, 1, 0]),  # further from each other than a float32 can tell
        ([2.0, 2.0, 2.0, 1.0], [1, 1, 1, 0]),  # the median is the best
        ([-1e30, 0.0, 1.0, 1.0], [0, np.exp(-1), 1, 1]),  # a catastrophe does not make the others equal
    ],
)
def test_weights_of_special_returns(returns: list[float], expected: list[float]) -> None:
    weights = MPPI(BOX, n_candidates=4, temperature=1.0)._weights(th.tensor([returns]))
    assert (weights / weights.max())[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_all_sequences_count_the_same_if_none_is_finite() -> None:
    assert MPPI(BOX, n_candidates=3)._weights(th.full((1, 3), -th.inf)).tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("actions", [BOX, DiscreteActions(4)])
@pytest.mark.parametrize(("temperature", "flushes"), [(1e-8, False), (0.1, True)])
def test_equal_returns_choose_nothing_at_any_precision(
    actions: BoxActions | DiscreteActions, temperature: float, flushes: bool
) -> None:
    def nothing(state: th.Tensor, *_: th.Tensor) -> th.Tensor:
        return th.zeros(len(state))

    mask = {} if isinstance(actions, BoxActions) else {"action_mask": th.tensor([[True, True, False, False]])}
    planner = MPPI(actions, horizon=2, temperature=temperature)
    th.set_flush_denormal(flushes)
    try:
        plan = planner.plan(problem(stay, nothing), th.zeros(1, 1), th.zeros(1, 0), generators=[seeded(2)], **mask)
        assert planner._weights(th.ones(1, 4)).unique().numel() == 1
    finally:
        th.set_flush_denormal(False)
    assert plan.actions.isfinite().all()
    assert isinstance(actions, BoxActions) or plan.actions[0, 0] < 2
