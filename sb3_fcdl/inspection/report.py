"""What TensorBoard is shown of a model besides the training curves: graphs, contexts, model errors, hyperparameters."""

import importlib.util
import warnings
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.logger import Figure, HParam, Logger, TensorBoardOutputFormat

from sb3_fcdl.dynamics import Windows
from sb3_fcdl.graphs.graph import CausalGraph
from sb3_fcdl.inspection.codes import Code, codes_of
from sb3_fcdl.inspection.model_error import imagine, prediction_errors
from sb3_fcdl.world.world_model import WorldModel

ONLY_TENSORBOARD = ("stdout", "log", "json", "csv")
# Windows that a report looks at.
N_WINDOWS = 256


def has_tensorboard(logger: Logger) -> bool:
    """Whether anything is written for TensorBoard."""
    return any(isinstance(output, TensorBoardOutputFormat) for output in logger.output_formats)


def report(logger: Logger, world: WorldModel, horizon: int, windows: Windows, goal: th.Tensor, rewards: np.ndarray) -> None:
    """
    Record, for TensorBoard alone: ``model/error_k`` and ``model_error_k/VARIABLE``, see ``prediction_errors``, after 1, 3 and
    as many steps as a plan has; ``model/imagined_return`` and ``model/recorded_return`` of the same recorded actions;
    ``code_share/K``; ``variable_importance/VARIABLE``, see ``DynamicsModel``; and as images the graph of each context met and
    their union.

    :param logger: with a TensorBoard writer
    :param world: as trained so far
    :param horizon: of a plan
    :param windows: of as many steps as the longest of these, ``T``
    :param goal: of the first state of each window, ``[B, G]``
    :param rewards: recorded, ``[B, T]``
    """
    values = _errors(world, horizon, windows) | _returns(world, horizon, windows, goal, rewards)
    graphs = world.dynamics.context_graphs()
    if len(graphs) > 1:
        codes = codes_of(world, windows)
        shares = {code.code: code.share for code in codes}
        values |= {f"code_share/{code}": shares.get(code, 0.0) for code in range(len(graphs))}
    else:
        codes = []
    importance = world.dynamics.variable_importance()
    values |= {f"variable_importance/{name}": value for name, value in importance.items()}
    for key, value in values.items():
        logger.record(key, value, exclude=ONLY_TENSORBOARD)
    if graphs:
        _record_pictures(logger, CausalGraph.union([code.graph for code in codes] or graphs), codes)


def report_lengths(horizon: int) -> tuple[int, ...]:
    """After how many steps the error of the model is reported, for plans of that length."""
    return tuple(sorted({1, 3, horizon}))


def record_hyperparameters(logger: Logger, chosen: dict[str, Any]) -> None:
    """
    Record for TensorBoard's HPARAMS tab what a run was made with.

    :param logger: with a TensorBoard writer
    :param chosen: by name; what is no number and no text is written as text
    """
    scalars = {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in chosen.items()}
    metrics: dict[str, float] = {"rollout/ep_rew_mean": 0.0, "train/dynamics_loss": 0.0, "model/error_1": 0.0}
    logger.record("hparams", HParam(scalars, metrics), exclude=ONLY_TENSORBOARD)


def _errors(world: WorldModel, horizon: int, windows: Windows) -> dict[str, float]:
    errors = prediction_errors(world, windows)
    values = {}
    for length in report_lengths(horizon):
        by_variable = errors[:, length - 1].nanmean(0).tolist()
        values[f"model/error_{length}"] = float(np.mean(by_variable))
        names = world.factors.state_names
        values |= {f"model_error_{length}/{name}": error for name, error in zip(names, by_variable, strict=True)}
    # No window is that long in an environment of short episodes.
    return {key: value for key, value in values.items() if np.isfinite(value)}


def _returns(world: WorldModel, horizon: int, windows: Windows, goal: th.Tensor, rewards: np.ndarray) -> dict[str, float]:
    """Undiscounted, over a planning horizon, mean over the windows that are that long."""
    is_whole = windows.valid[:, horizon - 1]
    if not is_whole.any():
        return {}
    states = th.cat([windows.state[:, :1], imagine(world, windows)], dim=1)
    with th.no_grad():
        steps = [world.reward(states[:, t], windows.action[:, t], states[:, t + 1], goal) for t in range(horizon)]
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
