"""The cross-entropy method over whole numbers."""

import itertools
from collections import Counter

import pytest
import torch as th
from problems import problem

from sb3_fcdl.planning import CEM, BoxActions, DiscreteActions, MultiDiscreteActions, Plan

N_ACTIONS = 5
ARMS = DiscreteActions(N_ACTIONS)
BOX = BoxActions(low=(-1.0, -2.0), high=(1.0, 4.0))


def seeded(seed: int = 0) -> th.Generator:
    return th.Generator().manual_seed(seed)


def generators(n_envs: int, first_seed: int = 0) -> list[th.Generator]:
    return [seeded(first_seed + row) for row in range(n_envs)]


def remember(state: th.Tensor, action: th.Tensor) -> th.Tensor:
    """The state is the number of steps and the last action, each as a number."""
    return th.stack([state[:, 0] + 1, action.argmax(dim=1).to(state)], dim=1)


def additive_reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
    """The goal holds the reward of each action at each step, whatever was done before."""
    table = goal.view(len(goal), -1, N_ACTIONS)
    return table[th.arange(len(goal)), state[:, 0].long(), action.argmax(dim=1)]


def constant_reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
    return th.ones(len(state))


def random_rewards(n_envs: int, horizon: int, seed: int) -> th.Tensor:
    """Goals for :func:`additive_reward`."""
    return th.rand(n_envs, horizon * N_ACTIONS, generator=seeded(seed))


def plan_additive(cem: CEM, goal: th.Tensor, **kwargs: object) -> Plan:
    return cem.plan(problem(remember, additive_reward), th.zeros(len(goal), 2), goal, **kwargs)


@pytest.mark.parametrize("select", ["elites", "best"])
def test_best_arm_of_a_bandit(select: str) -> None:
    goal = random_rewards(n_envs=8, horizon=1, seed=0)
    actions, value, _ = plan_additive(CEM(ARMS, horizon=1, select=select), goal, generators=generators(8))
    assert actions[:, 0].tolist() == goal.argmax(dim=1).tolist()
    assert th.allclose(value, goal.max(dim=1).values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("select", ["elites", "best"])
def test_best_sequence_of_additive_rewards(select: str) -> None:
    # at each step the actions pay 0, 1, 2, 3 and 4, in some order
    goal = random_rewards(n_envs=8, horizon=3, seed=1).view(8, 3, N_ACTIONS).argsort(dim=2).float()
    actions, value, _ = plan_additive(CEM(ARMS, n_elites=8, select=select), goal.flatten(1), generators=generators(8))
    assert actions.tolist() == goal.argmax(dim=2).tolist()
    assert value.tolist() == [12.0] * 8


def locked_reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
    """Action 4 pays a little at once; action 2 pays nothing, but after it action 3 pays much."""
    before, now, is_second = state[:, 1], next_state[:, 1], state[:, 0] == 1
    return 0.3 * (now == 4) + 1.0 * (is_second & (before == 2) & (now == 3))


@pytest.mark.parametrize("select", ["elites", "best"])
def test_gives_up_a_small_reward_now_for_a_large_one_later(select: str) -> None:
    state, goal = th.zeros(4, 2), th.zeros(4, 0)
    returns = {}
    for sequence in itertools.product(range(N_ACTIONS), repeat=2):
        now, total = th.zeros(1, 2), 0.0
        for action in sequence:
            following = remember(now, th.eye(N_ACTIONS)[[action]])
            total += locked_reward(now, th.eye(N_ACTIONS)[[action]], following, th.zeros(1, 0)).item()
            now = following
        returns[sequence] = total
    best = max(returns, key=lambda sequence: returns[sequence])
    assert best == (2, 3)  # while 4 is best for one step

    one_step = CEM(ARMS, horizon=1, select=select).plan(problem(remember, locked_reward), state, goal)
    assert one_step.actions.tolist() == [[4]] * 4
    # 128 candidates: each of the 25 sequences is in the first iteration, in all likelihood
    cem = CEM(ARMS, horizon=2, n_candidates=128, n_elites=16, select=select)
    two_steps = cem.plan(problem(remember, locked_reward), state, goal, generators=generators(len(state)))
    assert two_steps.actions.tolist() == [list(best)] * 4
    assert two_steps.value.tolist() == pytest.approx([returns[best]] * 4)


@pytest.mark.parametrize("seed", range(10))
def test_best_returns_the_best_sequence_ever_evaluated(seed: int) -> None:
    seen: dict[tuple[int, ...], float] = {}

    def step(state: th.Tensor, action: th.Tensor) -> th.Tensor:
        # the state is the sequence so far, written in base 10 with a leading one
        return state * 10 + action.argmax(dim=1, keepdim=True)

    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        is_last = next_state[:, 0] >= 1000
        rewards = th.where(is_last, (next_state[:, 0] * 7919) % 1009, 0.0)  # as good as random
        for number, value in zip(next_state[is_last, 0].tolist(), rewards[is_last].tolist(), strict=True):
            seen[tuple(int(digit) for digit in str(int(number))[1:])] = value
        return rewards

    # so few candidates that the last iteration often misses the best sequence of the first
    cem = CEM(ARMS, n_iterations=2, n_candidates=8, n_elites=8, select="best")
    state = th.ones(1, 1, dtype=th.float64)
    actions, value, _ = cem.plan(problem(step, reward), state, th.zeros(1, 0), generators=generators(1, seed))
    assert len(seen) > 8
    assert value.item() == max(seen.values()) == seen[tuple(actions[0].tolist())]


def test_elites_choose_the_favourite_of_the_elites_at_each_step() -> None:
    # one iteration whose elites are all candidates: the choice is the most frequent draw, whatever it pays
    cem = CEM(ARMS, horizon=1, n_iterations=1, n_candidates=201, n_elites=201)
    goal = random_rewards(n_envs=1, horizon=1, seed=3)
    noise = th.rand(201, 1, generator=seeded(5))
    draws = (noise.flatten() * N_ACTIONS).long()
    actions, value, _ = plan_additive(cem, goal, generators=generators(1, 5))
    assert actions.item() == Counter(draws.tolist()).most_common(1)[0][0]
    assert value.item() == pytest.approx(goal[0, draws].mean().item(), rel=1e-5)


@pytest.mark.parametrize("select", ["elites", "best"])
def test_not_finite_sequence_is_never_elite_while_there_are_finite_ones(select: str) -> None:
    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        # all but one action fails; the one that does not pays badly
        return th.where(action[:, 3] == 1, -100.0, th.nan)

    cem = CEM(ARMS, horizon=2, n_iterations=2, n_candidates=200, n_elites=100, select=select)
    actions, value, _ = cem.plan(problem(remember, reward), th.zeros(3, 2), th.zeros(3, 0))
    assert actions.tolist() == [[3, 3]] * 3
    assert value.tolist() == [-200.0] * 3


@pytest.mark.parametrize("select", ["elites", "best"])
def test_plan_exists_if_no_sequence_is_finite(select: str) -> None:
    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return th.full((len(state),), th.nan)

    actions, value, _ = CEM(ARMS, select=select).plan(problem(remember, reward), th.zeros(3, 2), th.zeros(3, 0))
    assert ((actions >= 0) & (actions < N_ACTIONS)).all()
    assert value.tolist() == [-th.inf] * 3


@pytest.mark.parametrize("select", ["elites", "best"])
def test_mask_holds_for_the_first_step_and_only_there(select: str) -> None:
    goal = random_rewards(n_envs=6, horizon=2, seed=2)
    best = goal.view(6, 2, N_ACTIONS).argmax(dim=2)
    mask = th.ones(6, N_ACTIONS, dtype=th.bool)
    for step in range(2):  # the favourites of both steps
        mask[th.arange(6), best[:, step]] = False
    first = goal.view(6, 2, N_ACTIONS)[:, 0].masked_fill(~mask, -1).argmax(dim=1)

    evaluated = []

    def spy(state: th.Tensor, action: th.Tensor) -> th.Tensor:
        evaluated.append(action[state[:, 0] == 0])
        return remember(state, action)

    def key(state: th.Tensor) -> th.Tensor:
        return (state[:, 0] * N_ACTIONS + state[:, 1]).long()

    cem = CEM(ARMS, horizon=2, select=select)
    state, noise = th.zeros(6, 2), generators(6)
    actions, _, _ = cem.plan(problem(spy, additive_reward, key=key), state, goal, generators=noise, action_mask=mask)
    assert actions[:, 0].tolist() == first.tolist()
    assert actions[:, 1].tolist() == best[:, 1].tolist()
    # each allowed pair of environment and action once, no other
    assert th.cat(evaluated).sum(dim=0).tolist() == mask.sum(dim=0).tolist()


def test_single_allowed_action_is_taken() -> None:
    for action in range(N_ACTIONS):
        mask = th.eye(N_ACTIONS, dtype=th.bool)[[action]]
        plan = CEM(ARMS, horizon=1).plan(problem(remember, constant_reward), th.zeros(1, 2), th.zeros(1, 0), action_mask=mask)
        assert plan.actions.item() == action


@pytest.mark.parametrize("masked", [False, True])
def test_batch_of_five_gives_the_plans_of_five_single_calls(masked: bool) -> None:
    goal = random_rewards(n_envs=5, horizon=3, seed=4)
    mask = th.rand(5, N_ACTIONS, generator=seeded(9)) < 0.6
    mask[:, 0] = True
    cem = CEM(ARMS, n_iterations=2, n_candidates=8, n_elites=4)  # far from converged, so that noise matters
    batch = plan_additive(cem, goal, generators=generators(5), action_mask=mask if masked else None)
    for row in range(5):
        row_mask = mask[row : row + 1] if masked else None
        single = plan_additive(cem, goal[row : row + 1], generators=generators(1, row), action_mask=row_mask)
        assert th.equal(single.actions[0], batch.actions[row]) and th.equal(single.value[0], batch.value[row])


def test_environments_draw_their_own_noise() -> None:
    th.manual_seed(0)
    cem = CEM(DiscreteActions(50), horizon=1)
    args = problem(remember, constant_reward), th.zeros(20, 2), th.zeros(20, 0)
    first = cem.plan(*args).actions
    assert len(set(first.flatten().tolist())) > 5
    assert len(set(cem.plan(*args, generators=generators(20)).actions.flatten().tolist())) > 5
    assert len(set(cem.plan(*args, generators=[seeded() for _ in range(20)]).actions.flatten().tolist())) == 1
    th.manual_seed(0)
    assert th.equal(cem.plan(*args).actions, first)


@pytest.mark.parametrize("select", ["elites", "best"])
@pytest.mark.parametrize("sizes", [(1, 2, 2), (3, 16, 8)])  # two elites: they are as frequent as each other unless they agree
def test_ties_favour_no_action(select: str, sizes: tuple[int, int, int]) -> None:
    n_iterations, n_candidates, n_elites = sizes
    cem = CEM(ARMS, 2, n_iterations=n_iterations, n_candidates=n_candidates, n_elites=n_elites, select=select)
    args = problem(remember, constant_reward), th.zeros(1, 2), th.zeros(1, 0)
    n_seeds = 500
    chosen = th.cat([cem.plan(*args, generators=generators(1, seed)).actions for seed in range(n_seeds)])
    for step in range(2):
        counts = th.bincount(chosen[:, step], minlength=N_ACTIONS)
        expected = n_seeds / N_ACTIONS
        # chi-square with 4 degrees of freedom: above 23.5 once in 10 000
        assert ((counts - expected) ** 2 / expected).sum() < 23.5
    assert th.equal(cem.plan(*args, generators=generators(1, 7)).actions, chosen[7:8])


def test_uniform_number_next_to_one_draws_an_allowed_action(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 1 - 2**-24  # of all that th.rand can return in float32
    monkeypatch.setattr(th, "rand", lambda *shape, generator=None: th.full(shape, largest))
    for n_allowed in range(1, 200, 3):
        mask = (th.arange(200) < n_allowed)[None]
        plan = CEM(DiscreteActions(200), horizon=1, n_candidates=4, n_elites=3).plan(
            problem(remember, constant_reward), th.zeros(1, 2), th.zeros(1, 0), action_mask=mask
        )
        assert plan.actions.item() == n_allowed - 1


def test_first_iteration_draws_every_action_equally_often() -> None:
    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return action @ th.arange(N_ACTIONS, dtype=th.float32)

    th.manual_seed(0)
    # the value is the mean reward of uniformly drawn actions, since all are elites
    plan = CEM(ARMS, horizon=1, n_iterations=1, n_candidates=20_000, n_elites=20_000).plan(
        problem(remember, reward), th.zeros(4, 2), th.zeros(4, 0)
    )
    assert plan.value.tolist() == pytest.approx([2.0] * 4, abs=4 * 2**0.5 / 20_000**0.5)


def test_plan_records_no_gradient() -> None:
    weight = th.nn.Parameter(th.ones(()))

    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return weight * action[:, 0]

    plan = CEM(ARMS).plan(problem(remember, reward), th.zeros(1, 2), th.zeros(1, 0))
    assert not plan.value.requires_grad


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_elites": 0}, "n_elites=0 is not allowed; .* at least 1 and at most n_candidates = 64, or None"),
        ({"n_elites": 65}, "n_elites=65 is not allowed; .* at least 1 and at most n_candidates = 64, or None"),
        ({"select": "worst"}, "select='worst' is not allowed; select must be one of elites, best"),
    ],
)
def test_wrong_argument_is_named(kwargs: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CEM(ARMS, **kwargs)


def test_wrong_actions_are_named() -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        DiscreteActions(0)
    for low, high, message in (
        ((), (), "equally long and not empty"),
        ((0.0,), (1.0, 1.0), "equally long and not empty"),
        ((-th.inf,), (1.0,), "must be finite"),
        ((0.0,), (th.nan,), "must be finite"),
        ((0.0, 1.0), (1.0, 0.5), "nowhere be above high"),
    ):
        with pytest.raises(ValueError, match=message):
            BoxActions(low, high)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (th.ones(2, N_ACTIONS + 1, dtype=th.bool), r"action_mask must have shape \(2, 5\), got \(2, 6\)"),
        (th.tensor([[True] * N_ACTIONS, [False] * N_ACTIONS]), "action_mask must allow every environment at least one action"),
    ],
)
def test_wrong_mask_is_rejected(mask: th.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_additive(CEM(ARMS), random_rewards(2, 3, seed=0), action_mask=mask)


def test_wrong_number_of_generators_is_named() -> None:
    with pytest.raises(ValueError, match="each of 3 environments, got 2"):
        plan_additive(CEM(ARMS), random_rewards(3, 3, seed=0), generators=generators(2))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sizes", [(5,), (3, 1, 4)])
def test_plan_of_whole_numbers_is_that_of_a_program_without_tensors(sizes: tuple[int, ...], masked: bool) -> None:
    """The method in lists: a value is drawn by its place among the sorted values of the elites."""
    actions = DiscreteActions(*sizes) if len(sizes) == 1 else MultiDiscreteActions(sizes)
    horizon, n_candidates, n_elites = 3, 20, 7
    n_columns = horizon * len(sizes)

    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        waves = (3 * action.sum(dim=1) - action @ th.arange(1.0, action.shape[1] + 1)).sin()
        # in 64ths, so that equal returns are equal in every bit, however many rows are asked for at once
        return (action * goal).sum(dim=1) + (64 * waves).round() / 64

    for seed in range(20):
        goal = th.randint(4, (1, sum(sizes)), generator=seeded(seed)).float()
        mask = th.rand(1, sum(sizes), generator=seeded(seed + 50)) < 0.6
        mask |= actions.encode(th.zeros(1, *actions.shape, dtype=th.int64), th.float32).bool()
        lists = [list(range(size)) for _ in range(horizon) for size in sizes]
        if masked:
            lists[: len(sizes)] = [[i for i, allowed in enumerate(part[0]) if allowed] for part in mask.split(sizes, dim=1)]
        generator = seeded(seed)
        for _ in range(4):
            uniform = th.rand(n_candidates, n_columns, generator=generator).numpy()
            candidates = [[values[int(u * len(values))] for u, values in zip(row, lists, strict=True)] for row in uniform]
            returns = []
            for row in candidates:
                sequence = th.tensor(row).view(horizon, *actions.shape)
                encoded = actions.encode(sequence, th.float32)
                returns.append(float(sum(reward(goal, each[None], goal, goal) for each in encoded)))
            ranking = sorted(range(n_candidates), key=lambda index, returns=returns: -returns[index])[:n_elites]
            lists = [sorted(candidates[index][column] for index in ranking) for column in range(n_columns)]
        tie_break = th.rand(n_columns, max(sizes), generator=generator)
        expected = [
            max(values, key=lambda value, values=values, column=column: (values.count(value), tie_break[column, value]))
            for column, values in enumerate(lists)
        ]
        cem = CEM(actions, horizon, n_iterations=4, n_candidates=n_candidates, n_elites=n_elites)
        stay = problem(lambda state, action: state, reward)
        plan = cem.plan(stay, goal, goal, generators=[seeded(seed)], action_mask=mask if masked else None)
        assert plan.actions.flatten().tolist() == expected
        assert plan.value.item() == pytest.approx(sum(returns[index] for index in ranking) / n_elites, abs=1e-4)
