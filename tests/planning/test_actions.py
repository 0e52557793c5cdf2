"""What a planner knows of an action."""

import itertools

import pytest
import torch as th

from sb3_fcdl.planning import MultiDiscreteActions


def test_multi_discrete_actions_need_a_value_in_each_dimension() -> None:
    for sizes in ((), (2, 0)):
        with pytest.raises(ValueError, match="sizes must hold at least one number, and none below 1"):
            MultiDiscreteActions(sizes)


def test_multi_discrete_action_is_encoded_as_its_one_hots_one_after_the_other() -> None:
    actions = MultiDiscreteActions((3, 1, 2))
    encoded = actions.encode(th.tensor([[2, 0, 0], [0, 0, 1]]), th.float64)
    assert encoded.tolist() == [[0, 0, 1, 1, 1, 0], [1, 0, 0, 1, 0, 1]]
    assert encoded.dtype == th.float64


def test_multi_discrete_actions_are_numbered_without_gaps() -> None:
    actions = MultiDiscreteActions((3, 1, 2))
    every_action = th.tensor(list(itertools.product(range(3), range(1), range(2))))
    assert actions.number(every_action).tolist() == list(range(6)) == list(range(actions.n))
    assert th.equal(actions.numbered(th.arange(6)), every_action)
