"""Whatever an environment observes and does, FCDL learns on it, or says why not."""

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from random_env import RandomEnv
from tiny import tiny_fcdl

from sb3_fcdl import FCDL
from sb3_fcdl.planning import PLANNERS

sizes = st.integers(1, 3)
bounds = st.sampled_from([(-1.0, 1.0), (0.0, 1e6), (-1e30, 1e30), (5.0, 5.0), (0.0, 1e-9)])
dtypes = st.sampled_from([np.float32, np.float64])
shapes = st.lists(sizes, max_size=2).map(tuple)


def box(shape, bounds, dtype) -> spaces.Box:
    return spaces.Box(*bounds, shape, dtype)


discrete = st.builds(lambda n, start: spaces.Discrete(n, start=start), sizes, st.integers(-2, 2))
multi_discrete = st.lists(sizes, min_size=1, max_size=3).map(spaces.MultiDiscrete)
leaves = st.one_of(st.builds(box, shapes, bounds, dtypes), discrete, multi_discrete, st.builds(spaces.MultiBinary, sizes))
dicts = st.dictionaries(st.sampled_from(["action", "arm", "obs"]), leaves, min_size=1, max_size=3).map(spaces.Dict)
actions = st.one_of(
    st.builds(box, st.lists(sizes, min_size=1, max_size=2).map(tuple), st.just((-2.0, 1.0)), dtypes),
    discrete,
    multi_discrete,
    st.builds(spaces.MultiBinary, sizes),
)
refused = st.sampled_from(
    [
        spaces.Tuple([spaces.Discrete(2)]),
        spaces.Dict(arm=spaces.Dict(hand=spaces.Discrete(2))),
        spaces.Box(0, 255, (8, 8, 3), np.uint8),
        spaces.MultiDiscrete([[2, 2]]),
    ]
)

# Not shrunk: that would take minutes.
quick = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@quick
@given(observation=st.one_of(leaves, dicts), action=actions, planner=st.sampled_from(sorted(PLANNERS)))
def test_learns_saves_loads_and_predicts(tmp_path_factory, observation, action, planner):
    observation.seed(0)
    env, path = RandomEnv(observation, action), tmp_path_factory.mktemp("fuzz") / "model"
    model = tiny_fcdl(
        env,
        policy="MultiInputPolicy",
        learning_starts=50,
        dynamics="mlp",
        dynamics_kwargs={"hidden_dim": 8, "n_layers": 1},
        planner=planner,
        planner_kwargs={"horizon": 2, "n_iterations": 1, "n_candidates": 40},
    ).learn(60)
    model.save(path)
    loaded = FCDL.load(path)
    for deterministic in (True, False):
        planned, _ = loaded.predict(observation.sample(), deterministic=deterministic)
        assert action.contains(planned)
    values = [value for value in loaded.policy.state_dict().values() if value.is_floating_point()]
    assert all(value.isfinite().all() for value in values)


@pytest.mark.filterwarnings("ignore")
@quick
@given(observation=refused, action=actions)
def test_or_is_refused_with_a_remedy(observation, action):
    with pytest.raises(ValueError, match=r"flatten|extract"):
        tiny_fcdl(RandomEnv(observation, action), policy="MultiInputPolicy")
