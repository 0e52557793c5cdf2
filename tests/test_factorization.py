import itertools

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from toy import one_hot_state

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
    assert FACTORS.parent_names == ("held", "lamp", "door", "action")
    assert (FACTORS.state_width, FACTORS.action_width) == (7, 4)


def test_encoding_keeps_leading_dimensions():
    factored = Factorization(observation_space(), spaces.Discrete(4), FACTORS)
    observation = {key: th.zeros(6, 3, *space.shape) for key, space in observation_space().items()}
    assert factored.encode_state(observation).shape == (6, 3, 7)
    assert factored.encode_action(th.tensor([[0, 3]])).tolist() == [[[1, 0, 0, 0], [0, 0, 0, 1]]]


def test_corrupted_values_pass_through_unchanged():
    factored = Factorization(observation_space(), spaces.Discrete(4), FACTORS)
    observation = {"hand": th.tensor([[-123.0, 0, 0]]), "table": th.tensor([[0.0, 1, 1, 0]]), "wish": th.zeros(1, 5)}
    assert factored.encode_state(observation)[0, 0] == -123


def categorical(sizes: list[int]) -> Factorization:
    """A ``Box`` observation of one-hot variables."""
    factors = Factors(state=tuple(Variable(f"x{i}", size) for i, size in enumerate(sizes)), action=(Variable("action", 2),))
    return Factorization(spaces.Box(-1e4, 1e4, (sum(sizes),)), spaces.Discrete(2), factors)


def test_state_key_tells_all_states_apart():
    sizes = [2, 3, 4]
    values = th.tensor(list(itertools.product(*map(range, sizes))))
    key = categorical(sizes).state_key
    assert sorted(key(one_hot_state(values, sizes)).tolist()) == list(range(24))


def test_no_state_key_where_it_would_not_be_exact():
    assert categorical([5] * 22).state_key is not None
    assert categorical([5] * 23).state_key is None


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (spaces.Box(-1, 1, (3,)), spaces.Discrete(4), "flat Dict of them"),
        (spaces.Dict(hand=spaces.Box(-1, 1, (3,))), spaces.Discrete(4), "'table'; the space has"),
        (observation_space(hand=spaces.Box(-1, 1, (2,))), spaces.Discrete(4), "its variables take 3 columns"),
        (observation_space(hand=spaces.Discrete(3)), spaces.Discrete(4), "one-dimensional float Box"),
        (observation_space(), spaces.Box(-1, 1, (2,), np.float32), "2 continuous action variables"),
        (observation_space(), spaces.Box(-np.inf, 1, (2,), np.float32), "bounded"),
        (observation_space(), spaces.MultiDiscrete([2, 2]), "Discrete action space"),
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


MIXED = Factors(state=(Variable("gate", 2), Variable("x"), Variable("y")), action=(Variable("push"), Variable("pull")))


def mixed(**kwargs) -> Factorization:
    low, high = np.array([-1, 0], dtype=np.float32), np.array([1, 10], dtype=np.float32)
    return Factorization(spaces.Box(-np.inf, np.inf, (4,)), spaces.Box(low, high), MIXED, **kwargs)


def test_running_moments_of_batches_are_those_of_all_data():
    factored = mixed()
    data = np.random.default_rng(0).normal([0, 0, 3, -1e3], [1, 1, 0.1, 50], size=(70, 4))
    for batch in np.split(data, [10, 11, 40]):
        factored.observe(th.as_tensor(batch, dtype=th.float32))
    np.testing.assert_allclose(factored.mean.numpy()[2:], data.mean(0)[2:], rtol=1e-5)
    np.testing.assert_allclose(factored.std.numpy()[2:], data.std(0)[2:], rtol=1e-5)
    rows = th.as_tensor(data, dtype=th.float32)
    encoded = factored.encode_state(rows)
    np.testing.assert_allclose(encoded.numpy()[:, 2:], ((data - data.mean(0)) / data.std(0))[:, 2:], atol=1e-3)
    assert th.equal(encoded[:, :2], rows[:, :2])
    th.testing.assert_close(factored.decode_state(encoded), rows, rtol=1e-5, atol=1e-4)


def test_a_constant_variable_is_not_scaled():
    factored = mixed()
    factored.observe(th.tensor([[0.0, 1, 7, 2]]).expand(20, -1))
    assert factored.encode_state(th.tensor([[0.0, 1, 8, 2]]))[0, 2:].tolist() == [1, 0]


def test_box_actions_are_scaled_to_one_and_back():
    factored = mixed()
    assert factored.actions.low == (-1, -1) and factored.actions.high == (1, 1)
    assert factored.decode_action(th.tensor([[-1.0, -1.0], [0.0, 0.5]])).tolist() == [[-1, 0], [0, 7.5]]


@pytest.mark.parametrize("clip_obs", [0.0, -1.0, float("nan")])
def test_clip_must_be_positive(clip_obs):
    with pytest.raises(ValueError, match="clip_obs must be positive"):
        mixed(clip_obs=clip_obs)


def test_a_box_observation_has_no_goal_keys():
    factors = Factors(state=(Variable("x"),), action=(Variable("action", 2),), goal=("wish",))
    with pytest.raises(ValueError, match="only a Dict observation has goal keys"):
        Factorization(spaces.Box(-1, 1, (1,)), spaces.Discrete(2), factors)
