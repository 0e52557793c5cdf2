import itertools

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from toy import one_hot_state

from fcdl_envs.variables import Factors, Variable
from sb3_fcdl.world.factorization import Factorization, default_factors

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
    assert factored.encode_action(th.tensor([[[0], [3]]])).tolist() == [[[1, 0, 0, 0], [0, 0, 0, 1]]]


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
        (spaces.Box(-1, 1, (3,)), spaces.Discrete(4), "no Dict"),
        (spaces.Dict(hand=spaces.Box(-1, 1, (3,))), spaces.Discrete(4), "'table'; the space has"),
        (observation_space(hand=spaces.Box(-1, 1, (2,))), spaces.Discrete(4), "has 2 columns, its variables 3.*wrapper"),
        (observation_space(hand=spaces.Discrete(5)), spaces.Discrete(4), r"variables of \(5,\) categories"),
        (observation_space(), spaces.Box(-1, 1, (2,), np.float32), "the action space has 2 columns, its variables 4"),
        (observation_space(), spaces.Box(-np.inf, 1, (2,), np.float32), "finite bounds"),
        (observation_space(), spaces.MultiDiscrete([2, 2]), r"variables of \(2, 2\) categories"),
        (observation_space(), spaces.Discrete(5), r"variables of \(5,\) categories"),
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
    np.testing.assert_allclose(factored.moments.mean.numpy()[2:], data.mean(0)[2:], rtol=1e-5)
    np.testing.assert_allclose(factored.moments.std.numpy()[2:], data.std(0)[2:], rtol=1e-5)
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
    with pytest.raises(ValueError, match="clip_obs must be a finite number, above 0"):
        mixed(clip_obs=clip_obs)


def test_a_box_observation_has_no_goal_keys():
    factors = Factors(state=(Variable("x"),), action=(Variable("action", 2),), goal=("wish",))
    with pytest.raises(ValueError, match="only a Dict observation has goal keys"):
        Factorization(spaces.Box(-1, 1, (1,)), spaces.Discrete(2), factors)


def test_entries_of_every_space_have_names():
    observation = spaces.Dict(
        action=spaces.Discrete(3, start=5),
        arm=spaces.Box(-1, 1, (2, 2)),
        bits=spaces.MultiBinary(2),
        dial=spaces.MultiDiscrete([2, 4]),
    )
    factors = default_factors(observation, spaces.MultiDiscrete([3, 2]))
    assert factors.state_names == (
        *("action", "arm[0,0]", "arm[0,1]", "arm[1,0]", "arm[1,1]"),
        *("bits[0]", "bits[1]", "dial[0]", "dial[1]"),
    )
    assert [variable.n_categories for variable in factors.state_variables] == [3, 0, 0, 0, 0, 2, 2, 2, 4]
    # What a category is called is its value, also where the values do not count from 0.
    action, *_, bit, dial = factors.state_variables
    assert (action.category_names, bit.category_names, dial.category_names) == (("5", "6", "7"), (), ())
    dials = spaces.MultiDiscrete([2, 3], start=[0, -1])
    assert [v.category_names for v in default_factors(dials, dials).action] == [(), ("-1", "0", "1")]
    # The observation has the name "action" already.
    assert factors.action == (Variable("agent_action[0]", 3), Variable("agent_action[1]", 2))
    plain = default_factors(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,)))
    assert plain.parent_names == ("obs[0]", "obs[1]", "action[0]")
    assert default_factors(spaces.Discrete(4), spaces.Discrete(2)).parent_names == ("obs", "action")


@pytest.mark.parametrize(
    ("space", "values", "expected"),
    [
        # As obs_to_tensor has it, and as the buffers have it: windows of two steps.
        (spaces.Discrete(3), th.tensor([2, 0]), [[0, 0, 1], [1, 0, 0]]),
        (spaces.Discrete(3, start=-1), th.tensor([[[-1], [1]]]), [[[1, 0, 0], [0, 0, 1]]]),
        (spaces.MultiDiscrete([2, 3]), th.tensor([[1, 0]]), [[0, 1, 1, 0, 0]]),
        (spaces.MultiDiscrete([2, 3], start=[4, 10]), th.tensor([[5, 12]]), [[0, 1, 0, 0, 1]]),
        (spaces.MultiBinary(2), th.tensor([[0, 1]], dtype=th.int8), [[1, 0, 0, 1]]),
        (spaces.MultiBinary((1, 2)), th.tensor([[[1, 0]]], dtype=th.int8), [[0, 1, 1, 0]]),
        (spaces.Box(-9, 9, (2, 2)), th.tensor([[[1.0, 2], [3, 4]]]), [[1, 2, 3, 4]]),
        (spaces.Box(0, 9, (2,), np.uint8), th.tensor([[[7, 8]]], dtype=th.uint8), [[[7, 8]]]),
        (spaces.Box(-9, 9, ()), th.tensor([3.0, 4.0]), [[3], [4]]),
    ],
)
def test_every_space_becomes_columns(space, values, expected):
    assert Factorization(space, spaces.Discrete(2)).encode_state(values).tolist() == expected


@pytest.mark.parametrize(
    ("space", "buffered", "encoded", "planned"),
    [
        (spaces.Discrete(3, start=2), [[4], [2]], [[0, 0, 1], [1, 0, 0]], [2, 0]),
        (spaces.MultiDiscrete([2, 3]), [[1, 2]], [[0, 1, 0, 0, 1]], [[1, 2]]),
        (spaces.MultiBinary(2), [[1, 0]], [[0, 1, 1, 0]], [[1, 0]]),
    ],
)
def test_actions_of_the_buffer_and_of_the_planner_are_the_same(space, buffered, encoded, planned):
    factored = Factorization(spaces.Discrete(2), space)
    assert factored.encode_action(th.tensor(buffered)).tolist() == encoded
    assert factored.actions.encode(th.tensor(planned), th.float32).tolist() == encoded
    taken = factored.env_actions(th.tensor(planned))
    assert factored.buffer_actions(taken).tolist() == buffered
    assert taken.dtype == space.dtype and all(space.contains(action) for action in taken)


def test_a_box_of_any_shape_is_planned_flat():
    space = spaces.Box(-1, 3, (2, 3))
    factored = Factorization(spaces.Discrete(2), space)
    assert factored.actions.low == (-1,) * 6 and factored.actions.high == (1,) * 6
    planned = th.arange(-2.0, 4.0)[None] / 4
    taken = factored.env_actions(planned)
    # From [-1, 1] to [-1, 3]: twice as wide, and around 1.
    assert taken.dtype == space.dtype and taken.tolist() == [[[0, 0.5, 1], [1.5, 2, 2.5]]]
    assert factored.buffer_actions(taken).tolist() == factored.encode_action(planned).tolist() == planned.tolist()


@pytest.mark.parametrize(
    ("space", "values"),
    [
        (spaces.Discrete(3, start=-1), [1, -1]),
        (spaces.MultiDiscrete([2, 3], start=[4, 10], dtype=np.int16), [[5, 12], [4, 11]]),
        (spaces.MultiBinary(3), [[0, 1, 1], [1, 1, 0]]),
        (spaces.Box(-9, 9, (2, 2), np.float64), [[[0.1, 2], [3, 4]], [[-1, 0.7], [3, 1e-3]]]),
        (spaces.Box(0, 200, (2,), np.uint8), [[7, 200], [0, 99]]),
    ],
)
def test_an_encoded_observation_can_be_had_back(space, values):
    factored = Factorization(space, spaces.Discrete(2))
    observed = np.array(values, dtype=space.dtype)
    factored.observe(th.as_tensor(observed))
    state, goal = factored.encode_state(th.as_tensor(observed)), factored.encode_goal(th.as_tensor(observed))
    back = factored.observation(state, goal)
    assert back.dtype == space.dtype and back.shape == observed.shape and all(space.contains(row) for row in back)
    np.testing.assert_allclose(back, observed, atol=1e-6)


def test_an_observation_comes_back_by_key_and_within_its_bounds():
    factored = Factorization(observation_space(), spaces.Discrete(4), FACTORS)
    state, goal = th.tensor([[0, 1, 0, 0.5, 3, -2, 1]]), th.tensor([[0.1, 0.2, 0, 0, 1]])
    back = factored.observation(state, goal)
    assert {key: values.tolist() for key, values in back.items() if key != "wish"} == {
        "hand": [[0, 1, 0]],
        "table": [[0.5, 1, -1, 1]],
    }
    np.testing.assert_allclose(back["wish"], [[0.1, 0.2, 0, 0, 1]], atol=1e-7)
    integers = Factorization(spaces.Box(0, 10, (3,), np.int64), spaces.Discrete(2))
    assert integers.observation(th.tensor([[3.6, 11.0, -2.0]]), th.zeros(1, 0)).tolist() == [[4, 10, 0]]


@pytest.mark.parametrize(
    ("spaces_by_key", "action", "expected"),
    [
        ({"x": spaces.Box(0, 1, (2,)), "x[0]": spaces.Discrete(2)}, spaces.Discrete(2), ("x[0]", "x[1]", "x[0]_2", "action")),
        ({"x[0]": spaces.Discrete(2), "x": spaces.Box(0, 1, (1,))}, spaces.Discrete(2), ("x[0]", "x[0]_2", "action")),
        (
            {"x": spaces.Box(0, 1, (1,)), "x[0]": spaces.Discrete(2), "x[0]_2": spaces.Discrete(3)},
            *(spaces.Discrete(2), ("x[0]", "x[0]_3", "x[0]_2", "action")),
        ),
        (
            {"action": spaces.Discrete(2), "agent_action": spaces.Discrete(2)},
            *(spaces.Discrete(2), ("action", "agent_action", "agent_action_2")),
        ),
        ({"action[0]": spaces.Discrete(2)}, spaces.Box(-1, 1, (1,)), ("action[0]", "agent_action[0]")),
        ({"action": spaces.Box(0, 1, (1,))}, spaces.Discrete(2), ("action[0]", "agent_action")),
        ({"agent_action": spaces.Discrete(2)}, spaces.Discrete(2), ("agent_action", "action")),
    ],
)
def test_default_names_are_unique(spaces_by_key, action, expected):
    assert Factorization(spaces.Dict(spaces_by_key), action).factors.parent_names == expected


COUNTS = spaces.MultiDiscrete([3, 4], start=[0, -1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[2, 2], [3, 0]], r"obs\[0\]=3 is not allowed; obs\[0\] must be an integer from 0 to 2"),
        ([[-1, 0]], r"obs\[0\]=-1 is not allowed"),
        ([[0, 3]], r"obs\[1\]=3 is not allowed; obs\[1\] must be an integer from -1 to 2"),
        ([[0, -2]], r"obs\[1\]=-2 is not allowed"),
        ([[0.5, 0.0]], r"obs\[0\]=0.5 is not allowed"),
        ([[0.0, float("nan")]], r"obs\[1\]=nan is not allowed"),
        ([[0.0, float("inf")]], r"obs\[1\]=inf is not allowed"),
    ],
)
def test_a_category_that_is_not_in_the_space_is_named(values, message):
    factored = Factorization(COUNTS, COUNTS)
    with pytest.raises(ValueError, match=message):
        factored.encode_state(th.tensor(values))
    with pytest.raises(ValueError, match=message.replace("obs", "action")):
        factored.encode_action(th.tensor(values))
    with pytest.raises(ValueError, match=message.replace("obs", "counts")):
        Factorization(spaces.Dict(counts=COUNTS), COUNTS).encode_state({"counts": th.tensor(values)})


def test_the_first_and_last_categories_are_taken():
    rows = th.tensor([[0, -1], [2, 2], [1, 0]])
    expected = [[1, 0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0, 0]]
    for values in (rows, rows.float(), rows.to(th.int8)):
        assert Factorization(COUNTS, COUNTS).encode_state(values).tolist() == expected
    bits = Factorization(spaces.MultiBinary(2), spaces.Discrete(2, start=5))
    assert bits.encode_state(th.tensor([[True, False]])).tolist() == [[0, 1, 1, 0]]
    assert bits.encode_action(th.tensor([[6], [5]])).tolist() == [[0, 1], [1, 0]]
    for wrong in (4, 7):
        with pytest.raises(ValueError, match=f"action={wrong} is not allowed; action must be an integer from 5 to 6"):
            bits.encode_action(th.tensor([[5], [wrong]]))
    with pytest.raises(ValueError, match=r"obs\[1\]=2 is not allowed"):
        bits.encode_state(th.tensor([[1, 2]]))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int32, np.uint8])
def test_integers_beyond_their_dtype_become_its_ends(dtype):
    info = np.iinfo(dtype)
    factored = Factorization(spaces.Box(info.min, info.max, (1,), dtype), spaces.Discrete(2))
    rows = th.tensor([[2.0**70], [float(info.max)], [-(2.0**70)], [3.4], [float(info.min)]], dtype=th.float64)
    back = factored.observation(rows, rows[:, :0])
    assert back.dtype == dtype
    assert back.ravel().tolist() == [info.max, info.max, info.min, 3, info.min]


def test_integers_near_the_ends_stay_within_the_bounds():
    low, high = -(2**63) + 5, 2**63 - 5
    factored = Factorization(spaces.Box(low, high, (1,), np.int64), spaces.Discrete(2))
    rows = th.tensor([[2.0**63], [2.0**63 - 2048], [-(2.0**63)], [-(2.0**63) + 2048]], dtype=th.float64)
    back = factored.observation(rows, rows[:, :0]).ravel().tolist()
    assert back == [high, 2**63 - 2048, low, -(2**63) + 2048]


def test_constant_columns_and_huge_numbers_stay_small():
    factored = Factorization(spaces.Box(-np.inf, np.inf, (4,), np.float64), spaces.Discrete(2))
    rows = th.tensor([[1e30, 1.7e9 + 100.0 * step, 5.0, 1e25 * step] for step in range(50)], dtype=th.float64)
    for row in rows:
        factored.observe(row[None])
    encoded = factored.encode_state(rows)
    assert encoded.abs().max() < 3 and encoded[:, [0, 2]].abs().max() < 1e-6
    # A uniform ladder of 50 steps, standardised: a float32 could not have told these timestamps apart.
    ladder = (np.arange(50) - 24.5) / np.arange(50).std()
    np.testing.assert_allclose(encoded[:, 1], ladder, atol=1e-4)
    np.testing.assert_allclose(encoded[:, 3], ladder, atol=1e-4)


def test_numbers_that_are_not_finite_are_named():
    factored = Factorization(spaces.Box(-np.inf, np.inf, (2,)), spaces.Discrete(2))
    with pytest.raises(ValueError, match=r"obs\[1\] = \[nan\]"):
        factored.observe(th.tensor([[0.0, float("nan")]]))
    assert factored.moments.count == 0


IMAGE = spaces.Box(0, 255, (8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (IMAGE, spaces.Discrete(2), "is an image.*extract"),
        (spaces.Dict(camera=IMAGE), spaces.Discrete(2), "'camera' is an image"),
        (spaces.Dict(arm=spaces.Dict(hand=spaces.Discrete(2))), spaces.Discrete(2), "key 'arm'.*FlattenObservation"),
        (spaces.Tuple([spaces.Discrete(2)]), spaces.Discrete(2), "FlattenObservation"),
        (spaces.Text(3), spaces.Discrete(2), "ObservationWrapper"),
        (spaces.MultiDiscrete([[2, 2], [2, 2]]), spaces.Discrete(2), "one-dimensional MultiDiscrete"),
        (spaces.Box(-1, 1, (0,)), spaces.Discrete(2), "holds nothing"),
        (spaces.Dict(), spaces.Discrete(2), "names no state variable"),
        (spaces.Discrete(2), spaces.Tuple([spaces.Discrete(2)]), "ActionWrapper"),
        (spaces.Discrete(2), spaces.MultiBinary((2, 2)), "flatten"),
        (spaces.Discrete(2), spaces.Box(0, 0, (1,)), "low below high"),
        (spaces.Discrete(2), spaces.Box(0, 1, ()), "at least one dimension"),
        (spaces.Discrete(2), spaces.Box(-np.inf, np.inf, (1,)), "finite bounds"),
        (spaces.Discrete(2), spaces.Box(0, 3, (1,), np.int64), "needs floats"),
    ],
)
def test_what_is_not_supported_is_refused_with_a_remedy(observation, action, message):
    with pytest.raises(ValueError, match=message):
        Factorization(observation, action)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bounds", [(-0.1, 0.3), (1 / 3, 2 / 3), (-7.7, -1.1), (-1e-7, 3e-7), (-1e6, 3e6)])
def test_actions_never_leave_their_bounds_by_rounding(bounds, dtype):
    low, high = np.array([bounds[0]], dtype), np.array([bounds[1]], dtype)
    space = spaces.Box(low, high, dtype=dtype)
    factorization = Factorization(spaces.Discrete(2), space)
    for scaled in (-1.0, np.nextafter(-1, 0), 0.3, np.nextafter(1, 0), 1.0):
        action = factorization.env_actions(th.tensor([[scaled]], dtype=th.float64))[0]
        assert space.contains(action)
        assert action == pytest.approx(
            low + (scaled + 1) / 2 * (high.astype(float) - low), rel=1e-5, abs=1e-6 * float(high[0] - low[0])
        )
    for end, bound in ((1, high), (-1, low)):
        assert factorization.env_actions(th.full((1, 1), float(end)))[0] == pytest.approx(
            bound, rel=1e-15 if dtype is np.float64 else 1e-7
        )
