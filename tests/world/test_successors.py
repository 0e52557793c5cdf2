"""What is counted of recorded steps, and what is made of it, against counts by hand."""

from collections import Counter

import numpy as np
import pytest
import torch as th
from chain import GAMMA, chain_world

from sb3_fcdl.world.enumeration import Enumeration
from sb3_fcdl.world.rewards import Outcomes
from sb3_fcdl.world.successors import Successors
from sb3_fcdl.world.values import ValueTable


def test_outcomes_of_each_pair_are_counted_over_any_batches() -> None:
    rng = np.random.default_rng(0)
    successors, told = Successors(6), Counter()
    for n in (1, 50, 300):
        pair, state, ended = rng.integers(0, 5, n), rng.integers(0, 3, n), rng.random(n) < 0.3
        told.update(zip(pair.tolist(), state.tolist(), ended.tolist(), strict=True))
        successors.add(*map(th.as_tensor, (pair, state, ended)))
    states, ends, shares = successors.of(th.arange(6))
    for pair in range(5):
        n = sum(count for key, count in told.items() if key[0] == pair)
        found = {
            (pair, int(state), bool(ended)): share
            for state, ended, share in zip(states[pair], ends[pair], shares[pair].tolist(), strict=True)
            if share
        }
        assert found == pytest.approx({key: count / n for key, count in told.items() if key[0] == pair})
    # Nothing was recorded of the last.
    assert not shares[5].any()
    successors.forget()
    assert not successors.of(th.arange(6))[2].any()


def test_outcomes_beyond_the_first_eight_are_told_apart_no_more() -> None:
    successors = Successors(1)
    states = th.cat([th.arange(8), th.arange(12)])
    successors.add(th.zeros(20, dtype=th.int64), states, th.zeros(20, dtype=th.bool))
    _, _, share = successors.of(th.tensor([0]))
    # Eight outcomes were met twice, four others once.
    assert share.sum().item() == pytest.approx(16 / 20)


def test_a_recorded_step_is_believed_more_than_a_prediction_with_each_visit() -> None:
    table = ValueTable(Enumeration((5,), (2,)), GAMMA)
    table.table.copy_(th.tensor([[0.0, 0], [1, 10], [2, 20], [3, 30], [4, 40]]))
    state, action = th.eye(5)[[0]], th.eye(2)[[1]]
    # Three times to the fourth place, once to the third, where the episode ended.
    after, ended = th.eye(5)[[3, 3, 2, 3]], th.tensor([False, False, True, False])
    every = [each.expand(4, -1) for each in (state, action)]
    table.observe(Outcomes(*every, after, th.zeros(4, 0), th.zeros(4), ended))
    # Something is done in each place, so none is an end.
    table.successors.n[2:] = 1
    table.successors.n[0] = 0
    predicted, novelty = th.tensor([[8.0, 80.0]]), th.tensor([0.5])
    beyond = table.beyond(state, action, novelty, predicted)
    recorded = [3 * 3 / 4, 3 * 30 / 4]
    assert beyond[0].tolist() == pytest.approx([recorded[0] + (8 - recorded[0]) / 16, recorded[1] + (80 - recorded[1]) / 2])
    # Of what was never recorded the prediction is believed, however well it is said to be known.
    assert table.beyond(state, th.eye(2)[[0]], novelty, predicted).equal(predicted)


def test_what_a_model_has_not_learned_is_planned_by_what_was_recorded() -> None:
    """The model says that nothing ever moves; every step to the right was recorded twenty times, and the last pays 1."""
    world = chain_world(success=0.0)
    state, goal = th.eye(5), th.zeros(5, 0)
    right = Outcomes(state[:4], th.eye(2)[[1] * 4], state[1:], goal[:4], th.tensor([0, 0, 0, 1.0]), th.arange(4) == 3)
    stays = Outcomes(state[:4], th.eye(2)[[0] * 4], state[:4], goal[:4], th.zeros(4), th.zeros(4, dtype=th.bool))
    every = Outcomes(*(th.cat(both) for both in zip(right, stays, strict=True)))
    learner = world.train()
    average = learner.average()
    for _ in range(20):
        world.novelty.add(every.state, every.action)
    for n in range(60):
        learner.value_losses(every, average)
        average.follow(learner, n + 1, 0.9)
    assert average.values.act(state[:4], goal[:4]).argmax(1).tolist() == [1] * 4
    # The given reward never pays: a chance of 1 / 21 is left to it, and of (1 / 21)^4 to a prediction, or to the worst.
    values = average.values(state, goal)[:4, 0]
    assert values.tolist() == pytest.approx([GAMMA**n * 20 / 21 for n in (3, 2, 1, 0)], abs=1e-3)
