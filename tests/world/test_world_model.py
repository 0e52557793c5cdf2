"""What is known of an environment, as a planner is given it; and the running average of it, which is planned with."""

import copy
from typing import Any

import numpy as np
import pytest
import torch as th
from gated import GatedEnv
from gymnasium import spaces
from known import known_world
from tiny import tiny_env, tiny_fcdl

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl import FCDL
from sb3_fcdl.dynamics import DYNAMICS, FCDLDynamics
from sb3_fcdl.dynamics.distributions import StateDistribution, StateLayout
from sb3_fcdl.planning import DiscreteActions, PlainRollout, with_goal
from sb3_fcdl.world.factorization import Factorization
from sb3_fcdl.world.rewards import never_ends
from sb3_fcdl.world.world_model import WorldModel


def gated_world(**outcomes: Any) -> WorldModel:
    """
    Of the environment's units, ``x`` has the mean 1 and the standard deviation 2, ``y`` -5 and 10. The gate stays with a
    probability of 0.7; encoded, ``x`` grows by the action with a standard deviation of 0.2, ``y`` stays within |x|.
    """

    def next_state(layout: StateLayout, state: th.Tensor, action: th.Tensor) -> StateDistribution:
        logits = (state[:, None, :2] * 0.4 + 0.3).log()
        mean = th.stack([state[:, 2] + action[:, 0], state[:, 3]], dim=1)
        return StateDistribution(layout, logits, mean, th.stack([th.full_like(state[:, 2], 0.2), state[:, 2].abs()], 1).log())

    world = known_world(GatedEnv(), next_state, **outcomes)
    world.factorization.observe(th.tensor([[1.0, 0, -1, -15], [1, 0, 3, 5]]))
    return world


def test_problem_takes_a_step_to_lead_to_its_most_likely_state() -> None:
    problem = gated_world().problem()
    state = th.tensor([[1.0, 0, 0.5, 2], [0, 1, -3, 1]])
    step = problem.step(state, th.tensor([[0.25], [-1.0]]))
    assert step.next_state.tolist() == [[1, 0, 0.75, 2], [0, 1, -4, 1]]
    assert step.uncertainty is None


def test_uncertainty_of_a_step_is_that_of_the_most_uncertain_variable() -> None:
    state = th.tensor([[1.0, 0, 0.1, 0], [0, 1, -0.9, 0]])
    step = gated_world().problem(uncertainty_coef=0.5).step(state, th.zeros(2, 1))
    # The gate is wrong with a probability of 0.3, x has a deviation of 0.2, and y of 0.1 and 0.9.
    assert step.uncertainty.tolist() == pytest.approx([0.3, 0.9])


def test_value_of_a_plan_is_the_reward_less_the_price_of_uncertainty() -> None:
    """A walk: action 1 goes right, where the model is unsure of where it is. The second variable is always sure."""

    class Walk:
        observation_space = spaces.Box(-9, 9, (2,))
        action_space = spaces.Discrete(2)

    def next_state(layout: StateLayout, state: th.Tensor, action: th.Tensor) -> StateDistribution:
        place = state[:, 0] + 2 * action[:, 1] - 1
        deviations = th.stack([th.where(place > 0, 2.0, 0.25), th.full_like(place, 0.01)], dim=1)
        return StateDistribution(
            layout, state.new_zeros(len(state), 0, 1), th.stack([place, state[:, 1]], dim=1), deviations.log()
        )

    def reward_fn(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return 1 + 0.5 * next_state[:, 0].sign()

    def beyond_one(state: th.Tensor, action: th.Tensor, next_state: th.Tensor) -> th.Tensor:
        return next_state[:, 0] > 1

    sequences = th.tensor([[[1, 1, 1], [0, 0, 0], [1, 0, 0]]])
    right, left, back = 1.5 - 0.3 * 2, 0.5 - 0.3 * 0.25, 1 - 0.3 * 0.25
    for termination_fn, third in ((never_ends, right / 4), (beyond_one, 0)):
        world = known_world(Walk(), next_state, reward_fn=reward_fn, termination_fn=termination_fn, discount=0.5)
        rollout = PlainRollout(world.problem(0.3), th.zeros(1, 2), th.zeros(1, 0), DiscreteActions(2))
        # The third sequence comes back to 0, which counts as the sure side and pays 1; only the first can go beyond 1.
        expected = [1.5 * right + third, 1.75 * left, right + back / 2 + left / 4]
        assert rollout.evaluate(sequences)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_functions_are_given_the_units_of_the_environment() -> None:
    given: list[list[list[float]]] = []

    def reward_fn(*tensors: th.Tensor) -> th.Tensor:
        given.append([tensor[0].tolist() for tensor in tensors])
        return th.tensor([3.0])

    def termination_fn(*tensors: th.Tensor) -> th.Tensor:
        given.append([tensor[0].tolist() for tensor in tensors])
        return th.tensor([True])

    problem = gated_world(reward_fn=reward_fn, termination_fn=termination_fn).problem()
    state, action, after = th.tensor([[1.0, 0, 0.5, 2]]), th.tensor([[0.25]]), th.tensor([[0.0, 1, -1, 0.1]])
    assert problem.reward(state, action, after, th.tensor([[7.0]])).tolist() == [3]
    assert problem.termination(state, action, after, th.tensor([[7.0]])).tolist() == [True]
    # x: 1 + 2 times, y: -5 + 10 times, and the action is in [-2, 2]; the goal stays as it is.
    in_units = [[1, 0, 2, 15], [0.5], [0, 1, -1, -4]]
    assert given == 2 * [[*in_units, [7]]]


def test_learned_reward_and_end_are_those_of_the_heads() -> None:
    world = gated_world()
    for head in (world.reward_head, world.termination_head):
        for parameter in head.parameters():
            th.nn.init.normal_(parameter, std=0.1)
    world.reward_head.moments.update(th.tensor([[4.0], [10.0]]))  # mean 7, standard deviation 3
    world.termination_head.n_ended += 5
    world.termination_head.n_others += 5
    state, action, after, goal = th.randn(6, 4), th.randn(6, 1), th.randn(6, 4), th.zeros(6, 0)
    problem = world.problem()
    network = world.reward_head.network(th.cat([state, action, after], dim=1)).squeeze(1)
    th.testing.assert_close(problem.reward(state, action, after, goal), 7 + 3 * network)
    chance = problem.termination(state, action, after, th.zeros(len(state), 0))
    assert th.equal(chance, world.termination_head(state, action, after)) and ((chance > 0) & (chance < 1)).any()


def test_problem_has_what_is_known_of_the_world() -> None:
    problem = gated_world(termination_fn=never_ends, discount=0.7).problem(0.2)
    assert (problem.discount, problem.uncertainty_coef) == (0.7, 0.2)
    assert problem.termination is None and problem.key is None and problem.value is not None
    without_discount = gated_world().problem()
    assert without_discount.termination is not None and without_discount.value is None and without_discount.expected is None
    # Four objects of three colours have 81 states, which are numbered.
    world = tiny_fcdl().policy.world
    states = th.nn.functional.one_hot(th.cartesian_prod(*[th.arange(3)] * 4), 3).flatten(1).float()
    assert sorted(world.problem().key(states).tolist()) == list(range(81))
    with pytest.raises(ValueError, match="must be"):
        world.problem(-1.0)


def one_number(**outcomes: Any) -> WorldModel:
    factors = Factors((Variable("x"),), (Variable("a", 2),))
    factorization = Factorization(spaces.Box(-9, 9, (1,)), spaces.Discrete(2), factors)
    return WorldModel(factorization, FCDLDynamics(factors), **outcomes)


def test_average_by_hand() -> None:
    """
    The decay is 2/11 after the first update, 3/12 after the second, and 0.99 from the 890th on; that of the values no more
    than 0.98.
    """
    learner = one_number()
    average = learner.average()
    for parameter in average.parameters():
        parameter.zero_()
    followed: list[tuple[float, float]] = []
    for n_updates, value in ((1, 11.0), (2, 10.0), (889, 2.0), (5000, 2.0)):
        for parameter in learner.parameters():
            parameter.data.fill_(value)
        average.follow(learner, n_updates, 0.99)
        of_values = {id(parameter) for parameter in average.values.parameters()}
        parts: tuple[set[float], set[float]] = (set(), set())
        for parameter in average.parameters():
            parts[id(parameter) in of_values].update(parameter.flatten().tolist())
        assert [len(part) for part in parts] == [1, 1]
        followed.append((parts[0].pop(), parts[1].pop()))
    third = 9.75 * 890 / 899 + 2 * 9 / 899
    assert [other for other, _ in followed] == pytest.approx([9, 9.75, third, 0.99 * third + 0.02])
    third = 0.98 * 9.75 + 0.02 * 2
    assert [value for _, value in followed] == pytest.approx([9, 9.75, third, 0.98 * third + 0.04])


def test_what_is_not_learned_by_gradient_is_taken_over_at_once() -> None:
    learner = one_number()
    average = learner.average()
    learner.dynamics.quantizer.codebook.embedding = learner.dynamics.quantizer.codebook.embedding + 1
    learner.dynamics.context_inputs[0] = 0
    learner.reward_head.moments.update(th.tensor([[4.0], [10.0]]))
    learner.termination_head.n_ended += 3
    average.follow(learner, 1000, 0.99)
    for (name, own), given in zip(average.named_buffers(), learner.buffers(), strict=True):
        assert th.equal(own, given), name
    assert average.reward_head.moments.mean.item() == 7 and average.termination_head.n_ended.item() == 3


def test_average_shares_what_has_been_observed_and_what_is_given() -> None:
    def paid(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
        return next_state[:, 0]

    learner = one_number(reward_fn=paid)
    average = learner.average()
    assert average.factorization is learner.factorization and average.reward_fn is learner.reward_fn is paid
    assert not average.training and not any(parameter.requires_grad for parameter in average.parameters())
    assert all(parameter.requires_grad for parameter in learner.parameters())
    learner.factorization.observe(th.tensor([[2.0], [6.0]]))
    average.follow(learner, 5, 0.99)
    # Mean 4 and standard deviation 2, observed once.
    assert average.factorization.moments.count.item() == 2
    assert average.encode(th.tensor([[7.0]])).tolist() == [[1.5]] and average.decode(th.tensor([[1.5]])).tolist() == [[7]]
    alone = copy.deepcopy(average)
    learner.factorization.observe(th.tensor([[100.0]]))
    assert alone.encode(th.tensor([[7.0]])).tolist() == [[1.5]] != average.encode(th.tensor([[7.0]])).tolist()


@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_without_a_decay_it_predicts_as_the_learner_does(dynamics: str) -> None:
    """Which it could not, if anything that a model learns were neither a parameter nor a buffer."""
    kwargs = {"dynamics_kwargs": {"hidden_dim": 16}, "policy_kwargs": {"average_decay": 0.0}}
    model = tiny_fcdl(dynamics=dynamics, exploration_rate=1.0, **kwargs).learn(60)
    state, action = th.eye(12)[:5], th.eye(12)[5:10]
    with th.no_grad():
        own, given = (each.step(state, action) for each in (model.dynamics, model.policy.learner.dynamics.eval()))
    assert model._n_updates == 20 and th.allclose(own.next_state.logits, given.next_state.logits, rtol=0, atol=1e-6)
    assert own.graph is None or th.equal(own.graph, given.graph)


def test_it_can_be_asked_at_any_time_without_eval(tmp_path: Any) -> None:
    """The average is never trained: it is in eval mode when it is made, after ``learn`` and after ``load``."""
    model = tiny_fcdl()
    state, action = th.eye(12)[:5], th.eye(12)[5:10]
    untrained = model.dynamics.step(state, action).next_state.logits
    trained = model.learn(60).dynamics.step(state, action).next_state.logits
    assert not th.equal(trained, untrained)
    model.save(tmp_path / "model")
    assert th.equal(FCDL.load(tmp_path / "model").dynamics.step(state, action).next_state.logits, trained)


def test_everything_a_user_sees_comes_from_the_average(tmp_path: Any) -> None:
    model = tiny_fcdl(learning_starts=20).learn(60)
    observation = tiny_env().reset(seed=0)[0]
    action, graph = model.predict(observation, deterministic=True)[0], model.local_graph(observation, 0)
    with th.no_grad():
        for parameter in model.policy.learner.parameters():
            parameter.fill_(np.nan)
    model.save(tmp_path / "model")
    for each in (model, FCDL.load(tmp_path / "model")):
        assert each.predict(observation, deterministic=True)[0] == action
        assert np.array_equal(each.local_graph(observation, 0).edges, graph.edges)


def test_average_of_a_learned_reward_has_its_units() -> None:
    """Moments are taken over, not averaged: else a reward of 700 would come in slowly."""
    model = FCDL("MlpPolicy", "Pendulum-v1", dynamics="mlp", learning_starts=100, device="cpu").learn(110)
    heads = model.policy.world.reward_head, model.policy.learner.reward_head
    assert th.equal(heads[0].moments.mean, heads[1].moments.mean) and heads[0].moments.mean.item() < -1


def three(state: th.Tensor, action: th.Tensor, next_state: th.Tensor) -> th.Tensor:
    return next_state[:, 0]


def four(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor) -> th.Tensor:
    return next_state[:, 0] + goal[:, 0]


def scaled(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, scale: float = 3.0) -> th.Tensor:
    return scale * next_state[:, 0]


def optional(state: th.Tensor, action: th.Tensor, next_state: th.Tensor, goal: th.Tensor | None = None) -> th.Tensor:
    assert goal is not None
    return four(state, action, next_state, goal)


@pytest.mark.parametrize(
    ("function", "paid"),
    [(three, 5.0), (four, 12.0), (scaled, 15.0), (optional, 12.0), (lambda *all_four: four(*all_four), 12.0)],
)
def test_functions_may_leave_out_the_goal(function, paid):
    state, action, next_state, goal = (th.full((1, 2), value) for value in (1.0, 2.0, 5.0, 7.0))
    assert with_goal("reward_fn", function)(state, action, next_state, goal).tolist() == [paid]


def test_functions_of_another_signature_are_refused_at_construction():
    for name in ("reward_fn", "termination_fn"):
        for wrong, takes in (
            (lambda state, action: state, r"\(state, action\)"),
            (lambda a, b, c, d, e: a, r"\(a, b, c, d, e\)"),
            ("math:isclose", r"\(a, b, \*, rel_tol=1e-09, abs_tol=0.0\)"),
        ):
            with pytest.raises(TypeError, match=rf"{name} must take \(state, action, next_state\) or .*takes {takes}"):
                FCDL("MlpPolicy", "CartPole-v1", buffer_size=10, **{name: wrong})
