"""Every public constructor and every evaluation names the argument that is out of its range, before anything is built."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.utils import ConstantSchedule
from tiny import ENV_ID, TINY, tiny_env

from fcdl_envs.chemical import ChemicalEnv, ChemicalVectorEnv
from fcdl_envs.chemical_system import ChemicalSystem
from fcdl_envs.variables import Factors, Variable
from sb3_fcdl import FCDL, FCDLPolicy
from sb3_fcdl.callbacks import DynamicsCallback, MBPOCallback, RunCheckpointCallback, TaskEvalCallback, VideoCallback
from sb3_fcdl.dynamics import DYNAMICS, GraphPrior, NCDDynamics
from sb3_fcdl.dynamics.ensemble import Ensemble
from sb3_fcdl.evaluation import evaluate_accuracy, evaluate_graphs, evaluate_shift, evaluate_tasks
from sb3_fcdl.imagination import ImaginedVecEnv
from sb3_fcdl.planning import CEM, ICEM, MPPI, DiscreteActions, Problem
from sb3_fcdl.runs.record import TrainRecord
from sb3_fcdl.world.factorization import Factorization

NAN, INF, HUGE = float("nan"), float("inf"), 10**30
NO_NUMBERS = ["abc", "3", True, [], {}, object(), np.zeros(2), 1j]
NO_INTEGERS = [*NO_NUMBERS, 2.0, NAN, INF]
NO_FLAGS = [0, 1, "yes", None, NAN]
NO_PAIRS = [(0, "step"), (2, "steps"), (2,), (2.0, "step"), [2, "step"], (NAN, "episode")]
NO_KEYWORDS = ["dict(hidden_dim=8)", "", 3, NAN, [("hidden_dim", 8)], {1: 2}]

# The numbers of each constructor, and wrong values of each besides what is wrong for all.
COUNT, FROM_0, POSITIVE, PRICE = [0, -1, HUGE], [-1, HUGE], [0, -1.0, NAN, -INF], [-0.1, NAN, INF, HUGE]
DECAY, WIDTHS = [-0.1, 1, 1.5, NAN, INF, HUGE], {"hidden_dim": COUNT}
OF_MBPO = (
    *("n_members", "gradient_steps", "n_branches", "learning_starts", "train_freq", "model_gradient_steps", "log_freq"),
    "n_elites",
)
TRAINING = {name: COUNT for name in ("buffer_size", "train_horizon")} | {"batch_size": [1, *COUNT], "seed": [-1, 2**32, HUGE]}
EVALUATION = {"seed": FROM_0, "n_envs": COUNT}
INTEGERS: dict[Callable[..., Any], dict[str, list[Any]]] = {
    ChemicalSystem: {"n_objects": [3, *COUNT], "n_colors": [1, *COUNT], "dynamics_seed": FROM_0},
    ChemicalEnv: {"n_noisy": [-1, 1, HUGE]},
    ChemicalVectorEnv: {"num_envs": COUNT, "max_episode_steps": COUNT, "n_noisy": FROM_0},
    VideoCallback: {"video_freq": COUNT, "seed": FROM_0},
    TaskEvalCallback: {"n_episodes": COUNT, "seed": FROM_0},
    RunCheckpointCallback: {"frequency": COUNT},
    ImaginedVecEnv: {"n_envs": COUNT, "horizon": COUNT},
    **{planner: {name: COUNT for name in ("horizon", "n_iterations", "n_candidates")} for planner in (CEM, ICEM, MPPI)},
    FCDL: {
        **{name: wrong for name, wrong in TRAINING.items() if name != "seed"},
        "learning_starts": FROM_0,
        "gradient_steps": [-2, HUGE],
        "stats_window_size": COUNT,
        "verbose": [-1, 3, HUGE],
    },
    DynamicsCallback: {
        **{name: wrong for name, wrong in TRAINING.items() if name != "seed"},
        **{name: COUNT for name in ("learning_starts", "train_freq", "gradient_steps", "log_freq")},
    },
    MBPOCallback: {**{name: COUNT for name in OF_MBPO}, "batch_size": [1, *COUNT]},
    Ensemble: {"n_members": COUNT, "n_elites": [8, *COUNT]},
    DYNAMICS["fcdl"]: {**WIDTHS, "n_layers": FROM_0, "n_codes": COUNT, "code_dim": COUNT, "context_drop_after": FROM_0},
    DYNAMICS["fcdl_tree"]: {**WIDTHS, "n_layers": FROM_0, "n_codes": COUNT},
    DYNAMICS["ncd"]: {**WIDTHS, "n_layers": FROM_0},
    DYNAMICS["oracle"]: {**WIDTHS, "n_layers": FROM_0},
    DYNAMICS["cdl"]: {**WIDTHS, "n_layers": FROM_0, "cmi_freq": COUNT, "cmi_batch_size": COUNT},
    DYNAMICS["grader"]: {**WIDTHS, "discovery_freq": COUNT, "n_discovery_windows": COUNT, "n_bins": [1, *COUNT]},
    DYNAMICS["nps"]: {**WIDTHS, "n_layers": COUNT, "n_rules": COUNT},
    DYNAMICS["gnn"]: {**WIDTHS, "n_layers": COUNT, "feature_dim": COUNT},
    DYNAMICS["modular"]: {**WIDTHS, "n_layers": COUNT},
    DYNAMICS["mlp"]: {**WIDTHS, "n_layers": COUNT},
    evaluate_tasks: {**EVALUATION, "n_episodes": COUNT},
    evaluate_graphs: {**EVALUATION, "n_steps": COUNT},
    evaluate_accuracy: {**EVALUATION, "n_steps": COUNT},
    evaluate_shift: {"n_episodes": COUNT, "seed": FROM_0},
}
OR_NONE: dict[Callable[..., Any], dict[str, list[Any]]] = {
    **{planner: {"n_elites": [*COUNT, 65]} for planner in (CEM, ICEM)},
    **{learner: {"seed": TRAINING["seed"]} for learner in (FCDL, DynamicsCallback, MBPOCallback)},
}
FLOATS: dict[Callable[..., Any], dict[str, list[Any]]] = {
    ChemicalEnv: {"noise_scale": [-1, 200.1, NAN, INF, HUGE]},
    Problem: {"discount": [*POSITIVE, 1.01, INF], "uncertainty_coef": PRICE},
    ICEM: {"noise_exponent": PRICE},
    MPPI: {"temperature": [*POSITIVE, INF, HUGE], "time_budget_ms": POSITIVE},
    FCDL: {
        "learning_rate": [-1e-3, 1.01, NAN, INF, HUGE],
        "gamma": [*POSITIVE, 1.01, INF],
        "exploration_rate": [-0.1, 1.1, NAN, INF],
    },
    MBPOCallback: {
        "learning_rate": [-1e-3, 1.01, NAN, INF, HUGE],
        "real_ratio": [-0.1, 1.1, NAN, INF],
        "counterfactual_ratio": [-0.1, 1.1, NAN, INF],
        "max_disagreement": [*POSITIVE, INF],
    },
    DynamicsCallback: {"learning_rate": [-1e-3, 1.01, NAN, INF, HUGE], "gamma": [*POSITIVE, 1.01, INF]},
    FCDLPolicy: {
        "gamma": [*POSITIVE, 1.01, INF],
        "clip_obs": [*POSITIVE, INF, HUGE],
        "average_decay": DECAY,
        "uncertainty_coef": PRICE,
    },
    Factorization: {"clip_obs": [*POSITIVE, INF, HUGE]},
    DYNAMICS["fcdl"]: {
        "sparsity_coef": PRICE,
        "commitment_coef": PRICE,
        "context_threshold": DECAY,
        "ema_decay": DECAY,
    },
    DYNAMICS["ncd"]: {"sparsity_coef": PRICE},
    DYNAMICS["cdl"]: {"cmi_threshold": PRICE, "cmi_decay": DECAY},
    DYNAMICS["grader"]: {"significance": [*POSITIVE, 1, 1.5, INF]},
}
PRIORS = [0, None, NAN, "other", ["self"], b"self", GraphPrior]
NAMES = [0, None, NAN, "other", ["train"], object()]
OTHERS: dict[Callable[..., Any], dict[str, list[Any]]] = {
    ChemicalEnv: {name: [0, None, NAN, "other", ["train"]] for name in ("task", "noise", "rule", "forbid_root")},
    CEM: {"select": [0, None, "worst"]},
    FCDL: {
        "train_freq": [*NO_INTEGERS, *COUNT, None, *NO_PAIRS],
        "dynamics": [*NAMES, NCDDynamics.loss, DiscreteActions],
        "planner": [*NAMES, DiscreteActions],
        "optimize_memory_usage": NO_FLAGS,
        **{f"{of}_kwargs": NO_KEYWORDS for of in ("dynamics", "planner", "policy", "replay_buffer")},
    },
    DynamicsCallback: {
        "dynamics": NAMES,
        "planner": NAMES,
        "learning_rate": [ConstantSchedule(1e-3)],
        **{f"{of}_kwargs": NO_KEYWORDS for of in ("dynamics", "planner")},
    },
    MBPOCallback: {
        "dynamics": NAMES,
        "dynamics_kwargs": NO_KEYWORDS,
        "rollout_length": [0, -1, 2.0, "abc", None, [1, 2, 3], [1, 2, 3, 4.5], [0, 1, 0, 10]],
    },
    Ensemble: {"model": [*NAMES, DiscreteActions], "model_kwargs": NO_KEYWORDS},
    FCDLPolicy: {
        "dynamics": NAMES,
        "planner": NAMES,
        **{f"{of}_kwargs": NO_KEYWORDS for of in ("dynamics", "planner", "optimizer")},
    },
    Factorization: {"factors": [3, "x", {}, ("x",)]},
    TaskEvalCallback: {"tells_graphs": NO_FLAGS},
    GraphPrior: {
        "base": [0, None, "other", ["self"]],
        "required_edges": ["ab", None, 3, ("a", "b"), (("a", "b", "c"),), ((0, 1),), {("a", "b")}],
        "forbidden_edges": ["ab", (("a",),), ((None, "b"),)],
    },
    DYNAMICS["cdl"]: {"graph_prior": PRIORS},
    DYNAMICS["fcdl_tree"]: {"graph_prior": PRIORS, "linear_evidence": NO_FLAGS},
    DYNAMICS["fcdl"]: {"graph_prior": PRIORS, "quantize": NAMES},
    DYNAMICS["ncd"]: {"graph_prior": PRIORS, "code_labelling": NO_FLAGS},
    DYNAMICS["grader"]: {"graph_prior": PRIORS, "ci_test": NAMES},
    DYNAMICS["nps"]: {"selector_init": NAMES},
    DYNAMICS["mlp"]: {"activation": NAMES},
    DYNAMICS["oracle"]: {"graph": ["abc", [["a", "b"]], np.full((2, 3), NAN), np.full((2, 3), None)]},
}
CASES = [
    (make, name, value)
    for table, always in ((INTEGERS, [*NO_INTEGERS, None]), (OR_NONE, NO_INTEGERS), (FLOATS, NO_NUMBERS), (OTHERS, []))
    for make, arguments in table.items()
    for name, wrong in arguments.items()
    for value in [*always, *wrong]
]
FACTORS = Factors((Variable("x", 2), Variable("y", 3)), (Variable("a", 2),))


@cache
def env() -> gym.Env:
    return tiny_env(render_mode="rgb_array")


def build(make: Callable[..., Any], **kwargs: Any) -> Any:
    spaces = env().observation_space, env().action_space
    record = TrainRecord.__new__(TrainRecord)
    first: dict[Callable[..., Any], tuple[Any, ...]] = {
        VideoCallback: (env(),),
        TaskEvalCallback: (ENV_ID, TINY, []),
        RunCheckpointCallback: (Path(), record) if "frequency" in kwargs else (Path(),),
        ImaginedVecEnv: (None, None),
        **{planner: (DiscreteActions(3),) for planner in (CEM, ICEM, MPPI)},
        Problem: (None, None),
        FCDL: ("MlpPolicy", "there is no such environment"),
        FCDLPolicy: (*spaces, ConstantSchedule(1e-3)),
        Factorization: spaces,
        **{model: (FACTORS,) for model in (*DYNAMICS.values(), Ensemble)},
        evaluate_tasks: (None, "no environment", {}, []),
        evaluate_graphs: (None, "no environment", {}, []),
        evaluate_accuracy: ({}, "no environment", {}, []),
        evaluate_shift: ({}, None, {}),
    }
    return make(*first.get(make, ()), **kwargs)


def test_wrong_arguments_are_named_with_their_value_and_what_is_allowed() -> None:
    for make, name, value in CASES:
        with pytest.raises((TypeError, ValueError)) as error:
            build(make, **{name: value})
        message = str(error.value)
        assert message.startswith(f"{name}={value!r} is not allowed; {name} must be "), (make, name, value, message)


def test_every_number_of_a_dynamics_model_has_a_range() -> None:
    told = (INTEGERS, FLOATS, OTHERS)
    for model in DYNAMICS.values():
        names = {name for table in told for name in table.get(model, {})}
        assert names == set(model.__init__.__annotations__) - {"factors", "return"}, model


def test_every_number_of_the_learners_has_a_range() -> None:
    others = {"policy", "env", "replay_buffer_class", "reward_fn", "termination_fn", "tensorboard_log", "device"}
    for learner in (FCDL, DynamicsCallback, MBPOCallback):
        names = {name for table in (INTEGERS, OR_NONE, FLOATS, OTHERS) for name in table[learner]}
        assert set(learner.__init__.__annotations__) - names - {"return", "_init_setup_model"} == others & set(
            learner.__init__.__annotations__
        )


@pytest.mark.parametrize("make", [CEM, ICEM, MPPI])
def test_integers_of_numpy_are_integers(make: Callable[..., Any]) -> None:
    planner = build(make, horizon=np.int64(2), n_candidates=np.int32(9), n_iterations=np.uint8(1))
    assert (planner.horizon, planner.n_candidates, planner.n_iterations) == (2, 9, 1)


@pytest.mark.parametrize(
    ("name", "smallest", "largest"),
    [
        ("batch_size", 2, 10**6),
        ("learning_starts", 0, 10**9),
        ("gradient_steps", -1, 64),
        ("train_freq", 1, (3, "episode")),
        ("learning_rate", 0, 1.0),
        ("gamma", 1e-9, 1),
        ("exploration_rate", 0, 1),
        ("seed", 0, 2**32 - 1),
        ("train_horizon", 1, np.int64(3)),
    ],
)
def test_the_ends_of_a_range_are_in_it(name: str, smallest: Any, largest: Any) -> None:
    for value in (smallest, largest):
        FCDL("MlpPolicy", "CartPole-v1", **{"buffer_size": 100, name: value})


def test_a_schedule_of_the_learning_rate_is_asked_for_its_ends() -> None:
    FCDL("MlpPolicy", "CartPole-v1", buffer_size=100, learning_rate=lambda left: 1e-3 * left)
    for schedule, where in ((lambda left: 1e-3 / left if left else NAN, "0"), (lambda left: 2 * left, "1")):
        with pytest.raises(ValueError, match=rf"learning_rate\({where}\)=.* must be a finite number, at least 0 and"):
            FCDL("MlpPolicy", "CartPole-v1", learning_rate=schedule)


def test_arguments_that_replace_saved_ones_are_checked(tmp_path: Path) -> None:
    FCDL("MlpPolicy", "CartPole-v1", buffer_size=100).save(tmp_path / "model")
    assert FCDL.load(tmp_path / "model", batch_size=2).batch_size == 2
    for wrong in (1, 2.0):
        with pytest.raises((ValueError, TypeError), match=f"batch_size={wrong} is not allowed; batch_size must be an integer"):
            FCDL.load(tmp_path / "model", batch_size=wrong)
