"""Every constructor that states the ranges of its arguments names the argument that is not in them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tiny import tiny_env

from fcdl_envs.chemical import ChemicalEnv, ChemicalVectorEnv
from fcdl_envs.chemical_system import ChemicalSystem
from sb3_fcdl.callbacks import VideoCallback
from sb3_fcdl.imagination import ImaginedVecEnv
from sb3_fcdl.planning import CEM, ICEM, MPPI, DiscreteActions

NAN, INF, HUGE = float("nan"), float("inf"), 10**30
NO_NUMBERS = ["abc", "3", True, [], {}, object(), np.zeros(2), 1j]
NO_INTEGERS = [*NO_NUMBERS, 2.0, NAN, INF]

# The numbers of each constructor, and wrong values of each besides what is wrong for all.
COUNT, POSITIVE = [0, -1, HUGE], [0, -1.0, NAN, -INF]
INTEGERS: dict[Callable[..., Any], dict[str, list[Any]]] = {
    ChemicalSystem: {"n_objects": [3, *COUNT], "n_colors": [1, *COUNT], "dynamics_seed": [-1, HUGE]},
    ChemicalEnv: {"n_noisy": [-1, 1, HUGE]},
    ChemicalVectorEnv: {"num_envs": COUNT, "max_episode_steps": COUNT, "n_noisy": [-1, HUGE]},
    VideoCallback: {"video_freq": COUNT, "seed": [-1, HUGE]},
    ImaginedVecEnv: {"n_envs": COUNT, "horizon": COUNT},
    **{planner: {name: COUNT for name in ("horizon", "n_iterations", "n_candidates")} for planner in (CEM, ICEM, MPPI)},
}
OR_NONE: dict[Callable[..., Any], dict[str, list[Any]]] = {planner: {"n_elites": [*COUNT, 65]} for planner in (CEM, ICEM)}
FLOATS: dict[Callable[..., Any], dict[str, list[Any]]] = {
    ChemicalEnv: {"noise_scale": [-1, 200.1, NAN, INF, HUGE]},
    ICEM: {"noise_exponent": [-0.1, NAN, INF]},
    MPPI: {"temperature": [*POSITIVE, INF], "time_budget_ms": POSITIVE},
}
OTHERS: dict[Callable[..., Any], dict[str, list[Any]]] = {
    ChemicalEnv: {name: [0, None, NAN, "other", ["train"]] for name in ("task", "noise", "rule", "forbid_root")},
    CEM: {"select": [0, None, "worst"]},
}
CASES = [
    (make, name, value)
    for table, always in ((INTEGERS, [*NO_INTEGERS, None]), (OR_NONE, NO_INTEGERS), (FLOATS, NO_NUMBERS), (OTHERS, []))
    for make, arguments in table.items()
    for name, wrong in arguments.items()
    for value in [*always, *wrong]
]


def build(make: Callable[..., Any], **kwargs: Any) -> Any:
    first: dict[Callable[..., Any], tuple[Any, ...]] = {
        VideoCallback: (tiny_env(render_mode="rgb_array"),),
        ImaginedVecEnv: (None, None),
        **{planner: (DiscreteActions(3),) for planner in (CEM, ICEM, MPPI)},
    }
    return make(*first.get(make, ()), **kwargs)


def test_wrong_arguments_are_named_with_their_value_and_what_is_allowed() -> None:
    for make, name, value in CASES:
        with pytest.raises((TypeError, ValueError)) as error:
            build(make, **{name: value})
        message = str(error.value)
        assert message.startswith(f"{name}={value!r} is not allowed; {name} must be "), (make, name, value, message)


@pytest.mark.parametrize("make", [CEM, ICEM, MPPI])
def test_integers_of_numpy_are_integers(make: Callable[..., Any]) -> None:
    planner = build(make, horizon=np.int64(2), n_candidates=np.int32(9), n_iterations=np.uint8(1))
    assert (planner.horizon, planner.n_candidates, planner.n_iterations) == (2, 9, 1)
