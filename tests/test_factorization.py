import itertools

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from toy import factorization, one_hot_state

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.factorization import Factorization

FACTORS = Factors(
    state={"hand": (Variable("held", 3),), "table": (Variable("lamp", 2), Variable("door", 2))},
    action=(Variable("action", 4),),
    goal=("wish",),
)


def observation_space(**changes: spaces.Space) -> spaces.Dict:
    boxes = {"wish": (5,), "table": (4,), "hand": (3,)}
    return spaces.Dict({key: spaces.Box(-1, 1, shape) for key, shape in boxes.items()} | changes)


def test_encoding_follows_the_factors_not_the_order_of_the_space():
    factored = Factorization(observation_space(), spaces.Discrete(4), FACTORS)
    observation = {"wish": th.arange(5.0)[None], "table": th.tensor([[1.0, 2, 3, 4]]), "hand": th.tensor([[7.0, 8, 9]])}
    assert factored.encode_state(observation).tolist() == [[7, 8, 9, 1, 2, 3, 4]]
    assert factored.encode_goal(observation).tolist() == [[0, 1, 2, 3, 4]]
    assert factored.parent_names == ("held", "lamp", "door", "action")
    assert (factored.state_width, factored.action_width) == (7, 4)


def test_encoding_keeps_leading_dimensions():
    factored = Factorization(observation_space(), spaces.Discrete(4), FACTORS)
    observation = {key: th.zeros(6, 3, *space.shape) for key, space in observation_space().items()}
    assert factored.encode_state(observation).shape == (6, 3, 7)
    assert factored.encode_action(th.tensor([[0, 3]])).tolist() == [[[1, 0, 0, 0], [0, 0, 0, 1]]]


def test_corrupted_values_pass_through_unchanged():
    factored = Factorization(observation_space(), spaces.Discrete(4), FACTORS)
    observation = {"hand": th.tensor([[-123.0, 0, 0]]), "table": th.tensor([[0.0, 1, 1, 0]]), "wish": th.zeros(1, 5)}
    assert factored.encode_state(observation)[0, 0] == -123


def test_state_key_tells_all_states_apart():
    sizes = [2, 3, 4]
    values = th.tensor(list(itertools.product(*map(range, sizes))))
    key = factorization(sizes, 2).state_key
    assert sorted(key(one_hot_state(values, sizes)).tolist()) == list(range(24))


def test_no_state_key_where_it_would_not_be_exact():
    assert factorization([5] * 22, 2).state_key is not None
    assert factorization([5] * 23, 2).state_key is None


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (spaces.Box(-1, 1, (3,)), spaces.Discrete(4), "flat Dict observation space"),
        (spaces.Dict(hand=spaces.Box(-1, 1, (3,))), spaces.Discrete(4), "'table'; the space has"),
        (observation_space(hand=spaces.Box(-1, 1, (2,))), spaces.Discrete(4), "its variables take 3 columns"),
        (observation_space(hand=spaces.Discrete(3)), spaces.Discrete(4), "one-dimensional float Box"),
        (observation_space(), spaces.Box(-1, 1, (2,), np.float32), "Discrete action space"),
        (observation_space(), spaces.Discrete(5), "one variable of 5 categories"),
    ],
)
def test_what_does_not_fit_is_named(observation, action, message):
    with pytest.raises(ValueError, match=message):
        Factorization(observation, action, FACTORS)


def test_names_must_be_unique():
    twice = Factors(state={"hand": (Variable("held", 3),)}, action=(Variable("held", 4),))
    with pytest.raises(ValueError, match="unique"):
        Factorization(observation_space(), spaces.Discrete(4), twice)
