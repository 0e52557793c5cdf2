from typing import NamedTuple

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from sb3_fcdl.buffers import Part, WindowBatch, sample_distinct_windows, sample_ends, sample_windows
from sb3_fcdl.observations import Observations

LENGTH = 3


class Row(NamedTuple):
    """One transition as it was added. ``serial`` is unique; episodes are numbered per environment."""

    env: int
    episode: int
    step: int
    serial: int
    terminated: bool
    truncated: bool


class Recorder:
    """Adds episodes of random lengths to a buffer and keeps a record of what it added."""

    def __init__(self, kind: str, n_envs: int, buffer_rows: int, seed: int = 0) -> None:
        self.kind = kind
        self.n_envs = n_envs
        self.rng = np.random.default_rng(seed)
        self.rows: list[list[Row]] = []
        self.episode = np.zeros(n_envs, dtype=int)
        self.step = np.zeros(n_envs, dtype=int)
        box = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        size, action_space = buffer_rows * n_envs, spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.buffer: ReplayBuffer
        if kind == "dict":
            space = spaces.Dict(clock=spaces.Box(-np.inf, np.inf, (1,)), name=spaces.Box(-1, 1000, (1, 2), np.int16))
            self.buffer = DictReplayBuffer(size, space, action_space, n_envs=n_envs)
        elif kind == "box":
            self.buffer = ReplayBuffer(size, box, action_space, n_envs=n_envs)
        else:
            self.buffer = ReplayBuffer(
                size, box, action_space, n_envs=n_envs, optimize_memory_usage=True, handle_timeout_termination=False
            )

    def observe(self, step: np.ndarray) -> Observations:
        env = np.arange(self.n_envs)
        if self.kind == "dict":
            return {"clock": step[:, None].astype(np.float32), "name": np.stack([env, self.episode], axis=1)[:, None]}
        return np.stack([env, self.episode, step], axis=1).astype(np.float32)

    def record(self, n_rows: int) -> None:
        for _ in range(n_rows):
            ends, limit = self.rng.random((2, self.n_envs)) < 0.25
            truncated = ends & limit if self.kind != "optimized" else np.zeros_like(ends)
            serial = len(self.rows) * self.n_envs + np.arange(self.n_envs)
            rows = zip(range(self.n_envs), self.episode, self.step, serial, ends & ~truncated, truncated, strict=True)
            self.rows.append([Row(*(value for value in row)) for row in rows])
            infos = [{"TimeLimit.truncated": bool(flag)} for flag in truncated]
            obs, next_obs = self.observe(self.step), self.observe(self.step + 1)
            self.buffer.add(obs, next_obs, serial[:, None].astype(np.float32), -serial, ends, infos)  # type: ignore[arg-type]
            self.episode += ends
            self.step = np.where(ends, 0, self.step + 1)

    def reset(self) -> None:
        """What a second ``learn()`` does: new episodes, of which the buffer is told only if it keeps no next observations."""
        if self.kind == "optimized":
            self.buffer.dones[self.buffer.pos - 1] = True
            self.rows[-1] = [row._replace(terminated=True) for row in self.rows[-1]]
        self.episode += self.step > 0
        self.step[:] = 0

    def stored(self) -> list[list[Row]]:
        return self.rows[-self.buffer.buffer_size :]


def first_rows(recorder: Recorder, batch: WindowBatch) -> np.ndarray:
    """Row of ``stored()`` and environment where each window starts, ``[B, 2]``; its first action tells."""
    serial = batch.actions[:, 0, 0].astype(int)
    oldest = recorder.stored()[0][0].serial
    return np.stack([(serial - oldest) // recorder.n_envs, serial % recorder.n_envs], axis=1)


def identity(observations: Observations) -> np.ndarray:
    """Environment, episode and step of each observation, ``[B, T, 3]``."""
    if isinstance(observations, dict):
        return np.concatenate([observations["name"][:, :, 0], observations["clock"]], axis=2)
    return observations


@pytest.fixture(params=["dict", "box", "optimized"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


CASES = [
    pytest.param(n_envs, segments, id=f"{n_envs}-env-{name}")
    for n_envs in (1, 3)
    for name, segments in {
        "partly filled": [17],
        "one row": [1],
        "just full": [30],
        "wrapped": [30, 30, 13],
        "three resets": [5, 1, 7, 9],
        "resets and wrapped": [20, 8, 1, 40, 6],
    }.items()
]


@pytest.mark.parametrize(("n_envs", "segments"), CASES)
def test_windows_are_what_was_recorded(kind: str, n_envs: int, segments: list[int]) -> None:
    recorder = Recorder(kind, n_envs, buffer_rows=30)
    for number, n_rows in enumerate(segments):
        if number:
            recorder.reset()
        recorder.record(n_rows)
    batch = sample_windows(recorder.buffer, 2000, LENGTH, np.random.default_rng(0))
    stored = recorder.stored()
    observed, arrived = identity(batch.observations), identity(batch.next_observations)

    starts = first_rows(recorder, batch)
    for window, (start, env) in enumerate(starts):
        for offset in range(LENGTH):
            row = stored[start + offset][env] if start + offset < len(stored) else None
            belongs = row is not None and row.episode == stored[start][env].episode
            if kind == "optimized":  # where an episode ends, its last observation is not in the buffer
                belongs = belongs and row is not None and not row.terminated
            assert batch.valid[window, offset] == belongs
            if row is not None and belongs:
                assert observed[window, offset].tolist() == [row.env, row.episode, row.step]
                assert arrived[window, offset].tolist() == [row.env, row.episode, row.step + 1]
                assert batch.actions[window, offset].tolist() == [row.serial]
                assert batch.rewards[window, offset] == -row.serial
                assert batch.terminated[window, offset] == row.terminated

    # every start is drawn; the oldest row of a full buffer without next observations holds what belongs to the newest
    oldest = 1 if kind == "optimized" and recorder.buffer.full else 0
    assert {tuple(start) for start in starts} == {(row, env) for row in range(oldest, len(stored)) for env in range(n_envs)}


def test_starts_are_uniform() -> None:
    recorder = Recorder("box", n_envs=3, buffer_rows=10)
    recorder.record(14)
    starts = first_rows(recorder, sample_windows(recorder.buffer, 30_000, 1, np.random.default_rng(0)))
    counts = np.bincount(starts[:, 0] * 3 + starts[:, 1], minlength=30)
    # chi-square with 29 degrees of freedom: above 67.6 once in 10 000
    assert ((counts - 1000) ** 2 / 1000).sum() < 67.6


def test_shapes_and_types(kind: str) -> None:
    recorder = Recorder(kind, n_envs=3, buffer_rows=30)
    recorder.record(30)
    for length in (1, 2, 40):
        batch = sample_windows(recorder.buffer, 7, length, np.random.default_rng(0))
        for observations in (batch.observations, batch.next_observations):
            if isinstance(observations, dict):
                assert observations["name"].shape == (7, length, 1, 2) and observations["name"].dtype == np.int16
                assert observations["clock"].shape == (7, length, 1) and observations["clock"].dtype == np.float32
            else:
                assert observations.shape == (7, length, 3) and observations.dtype == np.float32
        assert batch.actions.shape == (7, length, 1)
        assert batch.rewards.shape == batch.terminated.shape == batch.valid.shape == (7, length)
        assert batch.terminated.dtype == batch.valid.dtype == bool


def test_same_generator_state_gives_the_same_windows() -> None:
    recorder = Recorder("box", n_envs=3, buffer_rows=30)
    recorder.record(30)
    first, again = (sample_windows(recorder.buffer, 50, LENGTH, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first.actions, again.actions)


def dict_buffer() -> DictReplayBuffer:
    space = spaces.Dict(state=spaces.Box(-np.inf, np.inf, (1,)), goal=spaces.Box(-np.inf, np.inf, (1,)))
    return DictReplayBuffer(4, space, spaces.Discrete(2))


def add(buffer: ReplayBuffer, state: float, next_state: float, goal: float, done: bool = False) -> None:
    def observation(value: float) -> dict[str, np.ndarray]:
        return {"state": np.array([[value]]), "goal": np.array([[goal]])}

    buffer.add(observation(state), observation(next_state), np.array([0]), np.zeros(1), np.array([done]), [{}])  # type: ignore[arg-type]


def flags_from(state: float, length: int, buffer: DictReplayBuffer) -> list[bool]:
    """The flags of the window that starts in the given state."""
    batch = sample_windows(buffer, 100, length, np.random.default_rng(0))
    assert isinstance(batch.observations, dict)
    return batch.valid[batch.observations["state"][:, 0, 0] == state][0].tolist()


def test_reset_that_only_the_goal_reveals_ends_the_window() -> None:
    buffer = dict_buffer()
    add(buffer, 0, 1, goal=5)
    add(buffer, 1, 2, goal=6)
    add(buffer, 2, 3, goal=6)
    assert flags_from(0, 3, buffer) == [True, False, False]
    assert flags_from(1, 3, buffer) == [True, True, False]


def test_episode_ends_even_if_the_next_one_starts_where_it_ended() -> None:
    buffer = dict_buffer()
    add(buffer, 0, 1, goal=5, done=True)
    add(buffer, 1, 2, goal=5)
    assert flags_from(0, 2, buffer) == [True, False]


def test_nan_in_an_observation_is_no_reset() -> None:
    buffer = dict_buffer()
    add(buffer, 0, 1, goal=np.nan)
    add(buffer, 1, 2, goal=np.nan)
    assert flags_from(0, 2, buffer) == [True, True]


def test_discrete_observations() -> None:
    buffer = ReplayBuffer(10, spaces.Discrete(5), spaces.Discrete(2), n_envs=2)
    for step in range(4):
        obs, next_obs = np.array([step, 0]), np.array([step + 1, 0])
        buffer.add(obs, next_obs, np.zeros(2), np.zeros(2), np.zeros(2), [{}, {}])
    batch = sample_windows(buffer, 100, 2, np.random.default_rng(0))
    assert isinstance(batch.observations, np.ndarray) and isinstance(batch.next_observations, np.ndarray)
    assert batch.observations.shape == (100, 2, 1)
    in_first = batch.next_observations[:, 0, 0] > 0
    assert np.array_equal(batch.next_observations[in_first, 0], batch.observations[in_first, 0] + 1)
    assert batch.valid[:, 0].all() and set(batch.valid[:, 1].tolist()) == {True, False}


@pytest.mark.parametrize("n_rows", [10, 14])
def test_distinct_windows_start_nowhere_twice(n_rows: int) -> None:
    recorder = Recorder("box", n_envs=3, buffer_rows=10)
    recorder.record(n_rows)
    rng, counts = np.random.default_rng(0), np.zeros(30)
    for _ in range(1000):
        starts = first_rows(recorder, sample_distinct_windows(recorder.buffer, 6, 1, rng))
        serials = starts[:, 0] * 3 + starts[:, 1]
        assert len(set(serials)) == 6
        counts[serials] += 1
    assert counts.min() > 137 and counts.max() < 263  # five sigma of 200
    assert len(sample_distinct_windows(recorder.buffer, 31, 1, rng).valid) == 30


@pytest.mark.parametrize(("n_envs", "n_rows"), [(1, 500), (1, 900), (3, 400), (12, 60)])
def test_held_out_transitions_are_never_among_the_others(kind: str, n_envs: int, n_rows: int) -> None:
    recorder = Recorder(kind, n_envs, buffer_rows=600)
    recorder.record(n_rows)
    rng, usable = np.random.default_rng(0), n_envs * min(n_rows, 600)
    serials = []
    for held_out in (True, False):
        batch = sample_distinct_windows(recorder.buffer, usable, LENGTH, rng, Part(10, held_out))
        drawn = sample_windows(recorder.buffer, 20 * usable, LENGTH, rng, Part(10, held_out))
        serials.append(set(batch.actions[batch.valid].ravel().tolist()))
        assert (serials[-1] >= set(drawn.actions[drawn.valid].ravel().tolist())) and len(batch.valid) <= usable
        # Where a window leaves what it may hold it ends, and does not come back.
        assert (batch.valid[:, 1:] <= batch.valid[:, :-1]).all() and (drawn.valid[:, 1:] <= drawn.valid[:, :-1]).all()
        assert batch.valid[:, 2].any() and (kind == "optimized" or batch.valid[:, 0].all())
    everything = sample_distinct_windows(recorder.buffer, usable, 1, rng)
    assert not serials[0] & serials[1] and serials[0] | serials[1] == set(
        everything.actions[everything.valid].ravel().tolist()
    )
    assert 0.04 < len(serials[0]) / usable < 0.16


def test_first_transitions_of_one_environment_are_not_held_out() -> None:
    recorder = Recorder("box", n_envs=1, buffer_rows=200)
    recorder.record(144)
    assert len(sample_distinct_windows(recorder.buffer, 10, 1, np.random.default_rng(0), Part(10, True)).valid) == 0
    recorder.record(1)
    assert len(sample_distinct_windows(recorder.buffer, 10, 1, np.random.default_rng(0), Part(10, True)).valid) == 1


@pytest.mark.parametrize("kind", ["box", "dict"])
@pytest.mark.parametrize("n_rows", [30, 95])
def test_ends_are_drawn_uniformly_from_all_that_are_stored(kind: str, n_rows: int) -> None:
    recorder = Recorder(kind, n_envs=3, buffer_rows=40)
    recorder.record(n_rows)
    stored = [row for rows in recorder.rows[-40:] for row in rows if row.terminated]
    batch = sample_ends(recorder.buffer, 200 * len(stored), np.random.default_rng(0))
    assert batch is not None and batch.terminated.all() and batch.valid.all() and batch.rewards.shape[1] == 1
    serials, counts = np.unique(-batch.rewards, return_counts=True)
    assert serials.tolist() == sorted(row.serial for row in stored)
    assert counts.min() > 130 and counts.max() < 270  # five sigma of 200


def test_without_ends_there_are_none_to_draw() -> None:
    recorder = Recorder("optimized", n_envs=2, buffer_rows=40)
    recorder.record(30)
    assert sample_ends(recorder.buffer, 5, np.random.default_rng(0)) is None
    buffer = ReplayBuffer(10, spaces.Box(-1, 1, (1,)), spaces.Discrete(2))
    buffer.add(np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1), np.ones(1), [{"TimeLimit.truncated": True}])
    assert sample_ends(buffer, 5, np.random.default_rng(0)) is None


def test_wrong_argument_is_named() -> None:
    buffer = ReplayBuffer(10, spaces.Discrete(5), spaces.Discrete(2))
    for sample in (sample_windows, sample_distinct_windows):
        with pytest.raises(ValueError, match="replay_buffer must hold at least one transition, it is empty"):
            sample(buffer, 4, 2, np.random.default_rng(0))
    buffer.add(np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1), [{}])
    for sample in (sample_windows, sample_distinct_windows):
        with pytest.raises(ValueError, match="length must be at least 1, got 0"):
            sample(buffer, 4, 0, np.random.default_rng(0))
