"""The state of objects, taken and put back."""

import io
import random
from collections import defaultdict, deque
from dataclasses import dataclass
from enum import Enum, IntEnum

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_fcdl.training.snapshot import NotPlainError, put_back, take


class Phase(Enum):
    GREEN = 1
    RED = 2


class Gear(IntEnum):
    FIRST = 1
    SECOND = 2


@dataclass(frozen=True)
class Region:
    name: str
    size: float


SMALL, LARGE = Region("small", 1.0), Region("large", 9.0)
START = np.zeros(2)


class Thing:
    """Anything with attributes."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


def through_a_file(state):
    file = io.BytesIO()
    th.save(state, file)
    file.seek(0)
    return th.load(file, weights_only=True)


def moved(old, new):
    """``new`` with the state of ``old``."""
    return put_back(through_a_file(take(old)), new)


@pytest.mark.parametrize(
    "value",
    [
        3,
        2.5,
        "text",
        None,
        True,
        (1, "a"),
        [1, [2, 3]],
        {"a": 1, 2: "b"},
        {1, 2},
        b"bytes",
        np.float32(1.5),
        np.int64(7),
        np.arange(6).reshape(2, 3),
        np.array(["a", "bc"]),
        np.array([b"S", b"F"]),
        np.array([None, (1, 2)], dtype=object),
        th.arange(3),
        {np.int64(3): 1},
    ],
    ids=repr,
)
def test_values_come_back_as_they_were(value):
    found = moved(Thing(value=value), Thing(value=None)).value
    assert type(found) is type(value)
    assert np.array_equal(found, value) if isinstance(value, np.ndarray | th.Tensor) else found == value
    if isinstance(value, np.ndarray):
        assert found.dtype == value.dtype and found.shape == value.shape


def test_containers_keep_their_kind():
    old = Thing(counts=defaultdict(int, a=2), last=deque([1, 2], maxlen=3))
    new = moved(old, Thing(counts=defaultdict(int), last=deque(maxlen=3)))
    new.counts["b"] += 1
    new.last.extend([3, 4])
    assert new.counts == {"a": 2, "b": 1} and new.last == deque([2, 3, 4])


def test_generators_go_on_as_they_would_have():
    old = Thing(rng=np.random.default_rng(1), python=random.Random(2), space=spaces.Discrete(9, seed=3))
    old.rng.random(5), old.python.random(), old.space.sample()
    new = moved(old, Thing(rng=np.random.default_rng(8), python=random.Random(8), space=spaces.Discrete(9)))
    for _ in range(3):
        assert new.rng.random() == old.rng.random() and new.python.random() == old.python.random()
        assert new.space.sample() == old.space.sample()
    none_yet = moved(old, Thing(rng=None, python=None, space=spaces.Discrete(9)))
    assert none_yet.rng.random() == old.rng.random()


def test_what_others_hold_is_not_written_into():
    olds = [Thing(place=START, region=LARGE) for _ in range(2)]
    for number, old in enumerate(olds):
        old.place = old.place + number + 1
    news = [Thing(place=START, region=SMALL) for _ in range(2)]
    moved(olds, news)
    assert [new.place.tolist() for new in news] == [[1, 1], [2, 2]] and START.tolist() == [0, 0]
    assert news[0].region == LARGE and Region("small", 1.0) == SMALL


def test_choices_are_looked_up_by_name():
    new = moved(Thing(phase=Phase.RED, gear=Gear.SECOND), Thing(phase=Phase.GREEN, gear=Gear.FIRST))
    assert new.phase is Phase.RED and new.gear is Gear.SECOND and Phase.GREEN.value == 1


def test_what_is_held_twice_is_one_object_again():
    shared = np.arange(3.0)
    old = Thing(a=shared, b=[shared], c=Thing(d=shared))
    old.c.me = old.c
    new = moved(old, Thing(a=np.zeros(3), b=[np.zeros(3)], c=Thing(d=None)))
    new.a[0] = 7
    assert new.b[0] is new.a and new.c.d is new.a and new.c.me is new.c


def test_many_paths_to_one_object_cost_no_more_than_one():
    def grid():
        nodes = {(i, j): Thing(value=0) for i in range(6) for j in range(6)}
        for (i, j), node in nodes.items():
            node.near = [nodes[each] for each in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)) if each in nodes]
        return Thing(corner=nodes[0, 0])

    old = grid()
    old.corner.near[0].value = 5
    assert moved(old, grid()).corner.near[0].value == 5


def test_a_chain_without_end_is_refused():
    chain = Thing(next=None)
    for _ in range(5000):
        chain = Thing(next=chain)
    with pytest.raises(NotPlainError, match="held by 100 others"):
        take(chain)


def test_names_of_windows_hide_no_numbers():
    old = Thing(clock=7, window=[1, 2], screen=memoryview(b"C"))
    new = moved(old, Thing(clock=0, window=[], screen=None))
    assert (new.clock, new.window, new.screen) == (7, [1, 2], None)


def test_objects_that_tell_their_state_are_asked():
    class Simulator:
        def __init__(self):
            self.handle, self.is_ready, self.x = memoryview(b"C"), False, 0.0

        def get_state(self):
            return {"x": self.x}

        def set_state(self, state):
            self.x = state["x"]

    old = Simulator()
    old.x, old.is_ready = 2.5, True
    new = moved(Thing(simulator=old), Thing(simulator=Simulator())).simulator
    assert new.x == 2.5 and new.is_ready


@pytest.mark.parametrize("value", [memoryview(b"C"), th.nn.Linear(1, 1), open])
def test_what_has_no_state_is_named(value):
    held = Thing(inner=[Thing(data=value)])
    if value is open:  # a function is a constant
        assert moved(held, Thing(inner=[Thing(data=open)])).inner[0].data is open
        return
    with pytest.raises(NotPlainError, match=r"inner\[0\].data is "):
        take(held)


def test_an_object_where_there_is_none_is_another_environment():
    with pytest.raises(ValueError, match="of another environment: vehicle is an object there, here it is None"):
        moved(Thing(vehicle=Thing(speed=1)), Thing(vehicle=None))
