"""Returns of sequences: the plain loop, and the one that computes no step twice."""

import gc
import itertools
import weakref
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from problems import problem
from torch.overrides import TorchFunctionMode

from sb3_fcdl.planning import (
    CEM,
    ICEM,
    MPPI,
    Actions,
    BoxActions,
    DiscreteActions,
    MultiDiscreteActions,
    Planner,
    Problem,
    Step,
    planner,
)
from sb3_fcdl.planning.rollout import MemoRollout, PlainRollout, Rollout, make_rollout
from sb3_fcdl.world.factorization import Factorization

N_STATES, N_ACTIONS, N_ENVS, HORIZON = 6, 4, 3, 3
ACTIONS = DiscreteActions(N_ACTIONS)


class LookupWorld:
    """Random deterministic transitions between one-hot states; from any other state, the one with the highest number."""

    def __init__(self, seed: int = 0) -> None:
        generator = th.Generator().manual_seed(seed)
        self.table = th.randint(N_STATES, (N_STATES, N_ACTIONS), generator=generator)
        self.rewards = th.rand(N_STATES, N_ACTIONS, N_STATES, 2, generator=generator, dtype=th.float64)
        self.n_rows = 0
        self.seen: list[tuple[float, ...]] = []

    def step(self, state: th.Tensor, action: th.Tensor) -> th.Tensor:
        self.n_rows += len(state)
        self.seen += [tuple(row) for row in th.cat([state, action], dim=1).tolist()]
        return th.nn.functional.one_hot(self.table[state.argmax(1), action.argmax(1)], N_STATES).to(state)

    def reward(self, state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        values = self.rewards[state.argmax(1), action.argmax(1), next_state.argmax(1)]
        return (values * goal).sum(dim=1) + state[:, 0] / 7

    def key(self, state: th.Tensor) -> th.Tensor:
        return state.argmax(dim=1)

    def problem(self, **options: Any) -> Problem:
        return problem(self.step, self.reward, **options)


def make(kind: type[Rollout], given: Problem, state: th.Tensor, goal: th.Tensor, actions: Actions = ACTIONS) -> Rollout:
    """A rollout of that kind; states without a key are told apart by their largest column."""
    if kind is MemoRollout:
        return MemoRollout(given, state, goal, actions, key=given.key or (lambda states: states.argmax(dim=1)))
    return PlainRollout(given, state, goal, actions)


every_rollout = pytest.mark.parametrize("kind", [PlainRollout, MemoRollout])


def root_states(generator: th.Generator) -> tuple[th.Tensor, th.Tensor]:
    """States that are no one-hots, as a noisy environment shows them, and goals."""
    state = th.randn(N_ENVS, N_STATES, generator=generator, dtype=th.float64)
    return state, th.rand(N_ENVS, 2, generator=generator, dtype=th.float64)


@pytest.fixture
def generator() -> th.Generator:
    return th.Generator().manual_seed(1)


def test_plain_rollout_adds_the_rewards_of_every_step(generator: th.Generator) -> None:
    world = LookupWorld()
    state, goal = root_states(generator)
    actions = th.randint(N_ACTIONS, (N_ENVS, 5, HORIZON), generator=generator)
    returns = PlainRollout(world.problem(), state, goal, ACTIONS).evaluate(actions)

    for env, candidate in itertools.product(range(N_ENVS), range(5)):
        number, offset, expected = int(state[env].argmax()), float(state[env, 0]) / 7, 0.0
        for action in actions[env, candidate].tolist():
            following = int(world.table[number, action])
            expected += float(world.rewards[number, action, following] @ goal[env]) + offset
            number, offset = following, float(following == 0) / 7
        assert returns[env, candidate].item() == pytest.approx(expected, abs=1e-12)


def test_memo_rollout_equals_plain_rollout_in_every_bit(generator: th.Generator) -> None:
    world = LookupWorld()
    state, goal = root_states(generator)
    plain = PlainRollout(world.problem(), state, goal, ACTIONS)
    memo = MemoRollout(world.problem(), state, goal, ACTIONS, key=world.key)
    for horizon in (HORIZON, 1, 5):  # a longer call goes on from what a shorter one knows
        for _ in range(3):
            actions = th.randint(N_ACTIONS, (N_ENVS, 40, horizon), generator=generator)
            assert th.equal(memo.evaluate(actions), plain.evaluate(actions))


def test_memo_rollout_makes_room_when_it_is_full(generator: th.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoRollout, "NODES_PER_ENV", 1)
    test_memo_rollout_equals_plain_rollout_in_every_bit(generator)


def test_memo_is_freed_as_soon_as_the_plan_is_made(generator: th.Generator) -> None:
    """It may have a hundred megabytes, and a plan makes a new one."""
    world = LookupWorld()
    memo = MemoRollout(world.problem(), *root_states(generator), ACTIONS, key=world.key)
    memo.evaluate(th.zeros(N_ENVS, 1, 2, dtype=th.int64))
    still_there = weakref.ref(memo)
    gc.disable()
    del memo
    gc.enable()
    assert still_there() is None


def test_plan_is_the_same_with_and_without_memo(generator: th.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    state, goal = root_states(generator)
    cem = CEM(ACTIONS, horizon=4, n_candidates=20, n_elites=5)

    def plan(seed: int) -> list[th.Tensor]:
        world = LookupWorld(seed)
        generators = [generator.manual_seed(seed)] * N_ENVS
        plan = cem.plan(world.problem(key=world.key), state, goal, generators=generators)
        return [plan.actions, plan.value]

    memoised = [plan(seed) for seed in range(10)]
    monkeypatch.setattr(planner, "make_rollout", PlainRollout)
    for seed, (actions, value) in enumerate(memoised):
        plain_actions, plain_value = plan(seed)
        assert th.equal(actions, plain_actions) and th.equal(value, plain_value)


def test_memo_rollout_never_steps_twice_from_equal_states(generator: th.Generator) -> None:
    # one environment, so that a row of step is a pair (state, action) of it
    world = LookupWorld()
    state, goal = (tensor[:1] for tensor in root_states(generator))
    memo = MemoRollout(world.problem(), state, goal, ACTIONS, key=world.key)
    sequences = th.randint(N_ACTIONS, (5, 1, 64, HORIZON), generator=generator)
    for actions in sequences:
        memo.evaluate(actions)

    met = set()
    for sequence in sequences.flatten(0, 2).tolist():
        number: int | str = "root"
        for action in sequence:
            met.add((number, action))
            number = int(world.table[int(state.argmax()) if number == "root" else number, action])
    assert world.n_rows == len(met)
    assert len(set(world.seen)) == world.n_rows


def test_equal_states_of_two_environments_keep_their_own_goals() -> None:
    world = LookupWorld()
    state = th.eye(N_STATES, dtype=th.float64)[[2, 2]]
    goal = th.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=th.float64)
    actions = th.arange(N_ACTIONS).view(1, -1, 1).repeat(2, 1, HORIZON)
    memo = MemoRollout(world.problem(), state, goal, ACTIONS, key=world.key)
    plain = PlainRollout(world.problem(), state, goal, ACTIONS)
    returns = memo.evaluate(actions)
    assert th.equal(returns, plain.evaluate(actions))
    assert not th.equal(returns[0], returns[1])


def test_current_state_is_not_taken_for_a_modelled_one() -> None:
    # the key cannot tell the noisy current state from state 0, but their rewards differ
    state = th.tensor([[5.0, 0.0]])

    def stay(state: th.Tensor, action: th.Tensor) -> th.Tensor:
        return th.tensor([[1.0, 0.0]]).expand_as(state)

    def height(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return state[:, 0]

    memo = make(MemoRollout, problem(stay, height), state, th.zeros(1, 0), DiscreteActions(2))
    actions = th.zeros(1, 1, 3, dtype=th.int64)
    assert memo.evaluate(actions).tolist() == [[5.0 + 1.0 + 1.0]]
    assert memo.evaluate(actions).tolist() == [[7.0]]


@every_rollout
@pytest.mark.parametrize("bad", [th.nan, th.inf, -th.inf])
def test_return_that_is_not_finite_is_the_worst(kind: type[Rollout], bad: float) -> None:
    def blow_up(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return th.where(action[:, 1] == 1, bad, 2.0)

    stay = problem(lambda state, action: state, blow_up)
    rollout = make(kind, stay, th.zeros(1, 1), th.zeros(1, 0), DiscreteActions(2))
    actions = th.tensor([[[0, 0], [0, 1], [1, 0]]])
    assert rollout.evaluate(actions).tolist() == [[4.0, -th.inf, -th.inf]]


def test_plain_rollout_gives_the_model_continuous_actions_as_they_are(generator: th.Generator) -> None:
    state = th.randn(N_ENVS, 2, generator=generator, dtype=th.float64)
    weight = th.rand(N_ENVS, 2, generator=generator, dtype=th.float64)
    sequences = th.rand(N_ENVS, 5, HORIZON, 2, generator=generator)  # float32 for a model in float64

    def step(state: th.Tensor, action: th.Tensor) -> th.Tensor:
        assert action.dtype == state.dtype
        return state + action

    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return (next_state * goal).sum(dim=1)

    rollout = PlainRollout(problem(step, reward), state, weight, BoxActions(low=(0, 0), high=(1, 1)))
    visited = state[:, None, None] + sequences.double().cumsum(dim=2)
    expected = (visited * weight[:, None, None]).sum(dim=(2, 3))
    assert th.allclose(rollout.evaluate(sequences), expected, rtol=0, atol=1e-12)


def leave(state: th.Tensor, action: th.Tensor, next_state: th.Tensor) -> th.Tensor:
    """How likely a step of :class:`LookupWorld` ends the episode: never, sometimes or certainly."""
    return ((next_state.argmax(dim=1) + action.argmax(dim=1)) % 4).double() / 3


def test_rewards_are_discounted_and_weighted_with_the_probability_of_being_alive(generator: th.Generator) -> None:
    world = LookupWorld()
    state, goal = th.eye(N_STATES, dtype=th.float64)[[0, 3, 5]], root_states(generator)[1]
    actions = th.randint(N_ACTIONS, (N_ENVS, 40, HORIZON), generator=generator)
    returns = PlainRollout(world.problem(termination=leave, discount=0.8), state, goal, ACTIONS).evaluate(actions)

    for env, candidate in itertools.product(range(N_ENVS), range(40)):
        number, alive, expected = int(state[env].argmax()), 1.0, 0.0
        for depth, action in enumerate(actions[env, candidate].tolist()):
            following = int(world.table[number, action])
            reward = float(world.rewards[number, action, following] @ goal[env]) + (number == 0) / 7
            expected += 0.8**depth * alive * reward
            alive *= 1 - (following + action) % 4 / 3
            number = following
        assert returns[env, candidate].item() == pytest.approx(expected, abs=1e-12)


def worth(state: th.Tensor, goal: th.Tensor) -> th.Tensor:
    """Of the last state of :class:`LookupWorld`, by its number and the goal."""
    return (3 * state.argmax(dim=1) - 4) * goal[:, 0] + goal[:, 1]


@every_rollout
def test_last_state_counts_with_what_it_is_worth(kind: type[Rollout], generator: th.Generator) -> None:
    world = LookupWorld()
    state, goal = th.eye(N_STATES, dtype=th.float64)[[0, 3, 5]], root_states(generator)[1]
    options: dict[str, Any] = {"termination": leave, "discount": 0.8}
    rollouts = [make(kind, world.problem(**options, value=value), state, goal) for value in (None, worth)]
    for horizon in (1, 2, 5):  # the memo goes on from what it knows
        actions = th.randint(N_ACTIONS, (N_ENVS, 40, horizon), generator=generator)
        earned, returns = (rollout.evaluate(actions) for rollout in rollouts)
        for env, candidate in itertools.product(range(N_ENVS), range(40)):
            number, alive = int(state[env].argmax()), 1.0
            for action in actions[env, candidate].tolist():
                number = int(world.table[number, action])
                alive *= 1 - (number + action) % 4 / 3
            last = float((3 * number - 4) * goal[env, 0] + goal[env, 1])
            expected = earned[env, candidate].item() + 0.8**horizon * alive * last
            assert returns[env, candidate].item() == pytest.approx(expected, abs=1e-12)


@every_rollout
@pytest.mark.parametrize("dtype", [th.float32, th.float64])
@pytest.mark.parametrize("chance", [None, 0.0, 0.25, 1.0])
def test_value_in_closed_form(kind: type[Rollout], dtype: th.dtype, chance: float | None) -> None:
    """Nothing is paid, an end has the same chance at each step, and the last state is worth its goal, in any dtype."""
    ends = None if chance is None else lambda state, action, next_state: th.full((len(state),), chance)
    nothing = problem(
        lambda state, action: state,
        lambda state, action, next_state, goal: th.zeros(len(state)),
        termination=ends,
        value=lambda state, goal: goal[:, 0].double(),
        discount=0.9,
    )
    goal = th.tensor([[7.0], [-2.0]], dtype=dtype)
    rollout = make(kind, nothing, th.ones(2, 1, dtype=dtype), goal, DiscreteActions(2))
    for horizon in (1, 4, 50):
        returns = rollout.evaluate(th.zeros(2, 3, horizon, dtype=th.int64))
        share = (0.9 * (1 - (chance or 0.0))) ** horizon
        assert returns.dtype == dtype
        assert returns.tolist() == [pytest.approx([7 * share] * 3, rel=1e-5), pytest.approx([-2 * share] * 3, rel=1e-5)]


@every_rollout
@pytest.mark.parametrize("bad", [th.nan, th.inf, -th.inf])
def test_last_state_without_a_finite_value_is_the_worst(kind: type[Rollout], bad: float) -> None:
    def value(state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return th.where(state[:, 1] == 1, bad, 3.0)

    follow = problem(lambda state, action: action, lambda state, *_: th.ones(len(state)), value=value)
    rollout = make(kind, follow, th.zeros(1, 2), th.zeros(1, 0), DiscreteActions(2))
    assert rollout.evaluate(th.tensor([[[0, 1], [1, 0]]])).tolist() == [[-th.inf, 5.0]]


def doubt(state: th.Tensor, action: th.Tensor) -> th.Tensor:
    """Uncertainty of a step of :class:`LookupWorld`."""
    return (1 + state.argmax(dim=1) + 2 * action.argmax(dim=1)).to(state.dtype) / 16


@every_rollout
def test_uncertainty_has_its_price(kind: type[Rollout], generator: th.Generator) -> None:
    """It is discounted and weighted as the reward is."""
    world = LookupWorld()

    def step(state: th.Tensor, action: th.Tensor) -> Step:
        return Step(world.step(state, action), doubt(state, action))

    state, goal = th.eye(N_STATES, dtype=th.float64)[[0, 3, 5]], root_states(generator)[1]
    prices = (0.0, 0.3)
    problems = [Problem(step, world.reward, leave, discount=0.8, uncertainty_coef=price) for price in prices]
    rollouts = [make(kind, problem, state, goal) for problem in problems]
    for horizon in (1, 5):
        actions = th.randint(N_ACTIONS, (N_ENVS, 40, horizon), generator=generator)
        free, priced = (rollout.evaluate(actions) for rollout in rollouts)
        for env, candidate in itertools.product(range(N_ENVS), range(40)):
            number, alive, cost = int(state[env].argmax()), 1.0, 0.0
            for depth, action in enumerate(actions[env, candidate].tolist()):
                cost += 0.8**depth * alive * 0.3 * (1 + number + 2 * action) / 16
                number = int(world.table[number, action])
                alive *= 1 - (number + action) % 4 / 3
            assert priced[env, candidate].item() == pytest.approx(free[env, candidate].item() - cost, abs=1e-12)


@pytest.mark.parametrize("actions", [ACTIONS, MultiDiscreteActions((2, 1, 2))])
@pytest.mark.parametrize("dtype", [th.float32, th.float64])
@pytest.mark.parametrize("value", [None, worth])
@pytest.mark.parametrize("price", [0.0, 0.7])
def test_memo_rollout_equals_plain_rollout_in_every_bit_with_all_that_a_problem_has(
    actions: DiscreteActions | MultiDiscreteActions, dtype: th.dtype, value: Any, price: float, generator: th.Generator
) -> None:
    world = LookupWorld()

    def flat(action: th.Tensor) -> th.Tensor:
        """One-hot of the number of an action."""
        if actions is ACTIONS:
            return action
        first, last = action[:, :2].argmax(dim=1), action[:, 3:].argmax(dim=1)
        return th.nn.functional.one_hot(2 * first + last, N_ACTIONS)

    everything = Problem(
        lambda state, action: Step(world.step(state, flat(action)), doubt(state, flat(action)) if price else None),
        lambda state, action, next_state, goal: world.reward(state, flat(action), next_state, goal),
        termination=lambda state, action, next_state: leave(state, flat(action), next_state),
        value=value,
        discount=0.9,
        uncertainty_coef=price,
    )
    state, goal = (tensor.to(dtype) for tensor in root_states(generator))
    plain, memo = (make(kind, everything, state, goal, actions) for kind in (PlainRollout, MemoRollout))
    for horizon in (HORIZON, 1, 5):
        sequences = actions.numbered(th.randint(N_ACTIONS, (N_ENVS * 40 * horizon,), generator=generator))
        sequences = sequences.view(N_ENVS, 40, horizon, *actions.shape)
        returns = plain.evaluate(sequences)
        assert returns.dtype == dtype and th.equal(memo.evaluate(sequences), returns)
        assert len(returns.unique()) > 10


@every_rollout
@pytest.mark.parametrize("ended", [th.ones(2), th.ones(2, dtype=th.bool)])
def test_what_follows_the_end_need_not_be_a_number(kind: type[Rollout], ended: th.Tensor) -> None:
    def break_down(state: th.Tensor, action: th.Tensor) -> th.Tensor:
        return th.full_like(state, th.nan)

    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return state[:, 0] + action[:, 1]

    def end(state: th.Tensor, action: th.Tensor, next_state: th.Tensor) -> th.Tensor:
        return ended[:1].expand(len(state)).logical_and(state[:, 0] == 5).to(ended.dtype)

    state, actions = th.tensor([[5.0]]), th.tensor([[[0, 0, 1], [1, 0, 0]]])
    rest = state, th.zeros(1, 0), DiscreteActions(2)
    for value in (None, lambda state, goal: state[:, 0]):  # the last state is no number, either
        ends = problem(break_down, reward, termination=end, value=value)
        assert make(kind, ends, *rest).evaluate(actions).tolist() == [[5.0, 6.0]]
    assert make(kind, problem(break_down, reward), *rest).evaluate(actions).tolist() == [[-th.inf, -th.inf]]


@pytest.mark.parametrize(
    ("actions", "rollout_class"),
    [
        (DiscreteActions(1024), MemoRollout),
        (DiscreteActions(1025), PlainRollout),
        (MultiDiscreteActions((2,) * 10), MemoRollout),
        (MultiDiscreteActions((2,) * 11), PlainRollout),
        (BoxActions((0.0,), (1.0,)), PlainRollout),
    ],
)
def test_memo_is_for_few_actions_and_states_that_can_be_numbered(actions: Actions, rollout_class: type) -> None:
    world = LookupWorld()
    state = th.zeros(1, N_STATES)
    assert type(make_rollout(world.problem(key=world.key), state, state, actions)) is rollout_class
    without_key = make_rollout(world.problem(), state, state, actions)
    on_device = make_rollout(world.problem(key=world.key), state.to("meta"), state.to("meta"), actions)
    assert type(without_key) is type(on_device) is PlainRollout


class NoUploads(TorchFunctionMode):
    """Refuses to make a tensor of numbers that the host has: on another device each is a copy that the host waits for."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        assert func not in (th.tensor, th.as_tensor, th.from_numpy, th.Tensor.new_tensor), func
        return func(*args, **(kwargs or {}))


def test_a_rollout_in_environment_units_uploads_nothing() -> None:
    space = spaces.Box(np.array([-2, 0], dtype=np.float32), np.array([2, 10], dtype=np.float32))
    raw = Factorization(spaces.Box(-1, 1, (2,)), space)

    def reward(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return raw.decode_action(action).sum(-1)

    halved = problem(lambda state, action: state, reward, discount=0.5)
    rollout = PlainRollout(halved, th.zeros(1, 2), th.zeros(1, 0), BoxActions((-1, -1), (1, 1)))
    sequences = th.tensor([[[[-1.0, -1.0], [1.0, 0.0]], [[0.0, 0.0], [0.5, 1.0]]]])
    with NoUploads():
        returns = rollout.evaluate(sequences)
    # -2 + 0, then 2 + 5; 0 + 5, then 1 + 10
    assert returns.tolist() == [[-2 + 0.5 * 7, 5 + 0.5 * 11]]


@every_rollout
def test_first_sequence_becomes_what_the_policy_does(kind: type[Rollout], generator: th.Generator) -> None:
    world = LookupWorld()
    state, goal = root_states(generator)

    def policy(states: th.Tensor, goals: th.Tensor) -> th.Tensor:
        assert goals.equal(goal)
        return ACTIONS.encode((states.argmax(1) + 1) % N_ACTIONS, states.dtype)

    sequences = th.randint(N_ACTIONS, (N_ENVS, 5, HORIZON), generator=generator)
    given = sequences.clone()
    rollout = make(kind, world.problem(policy=policy), state, goal)
    returns = rollout.evaluate(sequences, asks_policy=True)
    for env in range(N_ENVS):
        number = int(state[env].argmax())
        for action in sequences[env, 0].tolist():
            assert action == (number + 1) % N_ACTIONS
            number = int(world.table[number, action])
    assert sequences[:, 1:].equal(given[:, 1:])
    assert PlainRollout(world.problem(), state, goal, ACTIONS).evaluate(sequences).equal(returns)
    # Nobody is asked without being told so, and a problem without a policy changes nothing.
    again = given.clone()
    rollout.evaluate(again)
    make(kind, world.problem(), state, goal).evaluate(again, asks_policy=True)
    assert again.equal(given)


@every_rollout
def test_first_action_of_the_policy_is_left_out_where_it_is_forbidden(kind: type[Rollout], generator: th.Generator) -> None:
    state, goal = root_states(generator)
    last = ACTIONS.encode(th.tensor(N_ACTIONS - 1), th.float64)
    given = LookupWorld().problem(policy=lambda states, _: last.expand(len(states), -1))
    sequences = th.zeros(N_ENVS, 2, HORIZON, dtype=th.int64)
    rollout = make(kind, given, state, goal)
    rollout.action_mask = th.ones(N_ENVS, N_ACTIONS, dtype=th.bool)
    rollout.action_mask[1, -1] = False
    rollout.evaluate(sequences, asks_policy=True)
    of_policy = [N_ACTIONS - 1] * HORIZON
    assert sequences[:, 0].tolist() == [of_policy, [0, *of_policy[1:]], of_policy]


@pytest.mark.parametrize("planner_class", [ICEM, MPPI])
def test_a_planner_follows_a_policy_that_finds_what_it_would_not_draw(planner_class: type[Planner]) -> None:
    """Of 4^12 sequences one pays, at its end; the policy knows it."""
    length = 12

    def step(state: th.Tensor, action: th.Tensor) -> th.Tensor:
        # The place and whether all actions so far were right: action n % 4 in place n.
        right = action.argmax(1) == state[:, 0].long() % N_ACTIONS
        return th.stack([state[:, 0] + 1, state[:, 1] * right], dim=1)

    def paid(state: th.Tensor, action: th.Tensor, after: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return after[:, 1] * (after[:, 0] == length)

    given = problem(step, paid, policy=lambda state, _: ACTIONS.encode(state[:, 0].long() % N_ACTIONS, state.dtype))
    planner = planner_class(ACTIONS, length, n_iterations=1)
    plan = planner.plan(given, th.tensor([[0.0, 1.0]] * 2), th.zeros(2, 0))
    assert plan.value.tolist() == [1, 1] and plan.actions.tolist() == [[n % N_ACTIONS for n in range(length)]] * 2
