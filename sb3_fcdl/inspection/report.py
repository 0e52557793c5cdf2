"""What TensorBoard is shown of a model besides the training curves: graphs, contexts, model errors, hyperparameters."""

import importlib.util
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from stable_baselines3.common.logger import Figure, HParam, Logger, TensorBoardOutputFormat

from sb3_fcdl.dynamics import Windows
from sb3_fcdl.fcdl.policies import FCDLPolicy
from sb3_fcdl.graphs.graph import CausalGraph
from sb3_fcdl.inspection.codes import Code, codes_of
from sb3_fcdl.inspection.model_error import imagine, prediction_errors

if TYPE_CHECKING:
    from sb3_fcdl.fcdl.fcdl import FCDL

ONLY_TENSORBOARD = ("stdout", "log", "json", "csv")
# Log dumps from one report to the next, and windows that it looks at.
REPORT_EVERY, N_WINDOWS = 10, 256


def has_tensorboard(logger: Logger) -> bool:
    """Whether anything is written for TensorBoard."""
    return any(isinstance(output, TensorBoardOutputFormat) for output in logger.output_formats)


def report(logger: Logger, policy: FCDLPolicy, windows: Windows, goal: th.Tensor, rewards: np.ndarray) -> None:
    """
    Record, for TensorBoard alone: ``model/error_k`` and ``model_error_k/VARIABLE``, see ``prediction_errors``, after 1, 3 and
    as many steps as a plan has; ``model/imagined_return`` and ``model/recorded_return`` of the same recorded actions;
    ``code_share/K``; ``variable_importance/VARIABLE``, see ``DynamicsModel``; and as images the graph of each context met and
    their union.

    :param logger: with a TensorBoard writer
    :param policy: as trained so far
    :param windows: of as many steps as the longest of these, ``T``
    :param goal: of the first state of each window, ``[B, G]``
    :param rewards: recorded, ``[B, T]``
    """
    values = _errors(policy, windows) | _returns(policy, windows, goal, rewards)
    graphs = policy.dynamics.context_graphs()
    if len(graphs) > 1:
        codes = codes_of(policy, windows)
        shares = {code.code: code.share for code in codes}
        values |= {f"code_share/{code}": shares.get(code, 0.0) for code in range(len(graphs))}
    else:
        codes = []
    importance = policy.dynamics.variable_importance()
    values |= {f"variable_importance/{name}": value for name, value in importance.items()}
    for key, value in values.items():
        logger.record(key, value, exclude=ONLY_TENSORBOARD)
    if graphs:
        _record_pictures(logger, CausalGraph.union([code.graph for code in codes] or graphs), codes)


def report_lengths(policy: FCDLPolicy) -> tuple[int, ...]:
    """After how many steps the error of the model is reported."""
    return tuple(sorted({1, 3, policy.planner.horizon}))


def record_hyperparameters(logger: Logger, model: "FCDL") -> None:
    """Record for TensorBoard's HPARAMS tab what the run was made with."""
    chosen: dict[str, Any] = {
        "dynamics": type(model.dynamics).__name__,
        "planner": type(model.policy.planner).__name__,
        "horizon": model.policy.planner.horizon,
    }
    names = ("learning_starts", "batch_size", "gradient_steps", "train_horizon", "exploration_rate", "seed", "n_envs")
    chosen |= {name: getattr(model, name) for name in names}
    chosen |= {"learning_rate": model.lr_schedule(1), "train_freq": model.train_freq.frequency}  # type: ignore[union-attr]
    for kwargs in ("dynamics_kwargs", "planner_kwargs"):
        chosen |= {f"{kwargs}.{key}": value for key, value in (getattr(model, kwargs) or {}).items()}
    scalars = {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in chosen.items()}
    metrics: dict[str, float] = {"rollout/ep_rew_mean": 0.0, "train/dynamics_loss": 0.0, "model/error_1": 0.0}
    logger.record("hparams", HParam(scalars, metrics), exclude=ONLY_TENSORBOARD)


def _errors(policy: FCDLPolicy, windows: Windows) -> dict[str, float]:
    errors = prediction_errors(policy, windows)
    values = {}
    for length in report_lengths(policy):
        by_variable = errors[:, length - 1].nanmean(0).tolist()
        values[f"model/error_{length}"] = float(np.mean(by_variable))
        names = policy.factors.state_names
        values |= {f"model_error_{length}/{name}": error for name, error in zip(names, by_variable, strict=True)}
    # No window is that long in an environment of short episodes.
    return {key: value for key, value in values.items() if np.isfinite(value)}


def _returns(policy: FCDLPolicy, windows: Windows, goal: th.Tensor, rewards: np.ndarray) -> dict[str, float]:
    """Undiscounted, over a planning horizon, mean over the windows that are that long."""
    horizon = policy.planner.horizon
    is_whole = windows.valid[:, horizon - 1]
    if not is_whole.any():
        return {}
    states = th.cat([windows.state[:, :1], imagine(policy, windows)], dim=1)
    with th.no_grad():
        steps = [policy._reward(states[:, t], windows.action[:, t], states[:, t + 1], goal) for t in range(horizon)]
    imagined, recorded = th.stack(steps, dim=1).sum(1)[is_whole], rewards[is_whole.cpu().numpy(), :horizon].sum(1)
    return {"model/imagined_return": imagined.mean().item(), "model/recorded_return": float(recorded.mean())}


def _record_pictures(logger: Logger, union: CausalGraph, codes: list[Code]) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        warnings.warn("graphs are not drawn for TensorBoard without matplotlib: pip install 'sb3_fcdl[plot]'", stacklevel=2)
        return
    logger.record("causal/union", Figure(union.plot(), close=False), exclude=ONLY_TENSORBOARD)
    if codes:
        titles = [f"code {code.code}: {100 * code.share:.0f} %" for code in codes]
        picture = CausalGraph.plot_grid([code.graph for code in codes], titles)
        logger.record("causal/codes", Figure(picture, close=False), exclude=ONLY_TENSORBOARD)
