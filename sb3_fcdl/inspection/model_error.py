"""How wrong a model is on recorded windows."""

import torch as th

from sb3_fcdl.dynamics import Windows
from sb3_fcdl.world.world_model import WorldModel


@th.no_grad()
def imagine(world: WorldModel, windows: Windows) -> th.Tensor:
    """
    Where the model expects recorded actions to lead, from the first state of each window on.

    :param world: a trained one
    :param windows: encoded, of ``T`` transitions
    :return: the most probable state after each step, ``[B, T, D]``
    """
    step, states = world.stepper(), [windows.state[:, 0]]
    for depth in range(windows.action.shape[1]):
        states.append(step(states[-1], windows.action[:, depth]).next_state.mode())
    return th.stack(states[1:], dim=1)


def prediction_errors(world: WorldModel, windows: Windows) -> th.Tensor:
    """
    Of each variable at each step, from the first state of the window on: 0 or 1 for a category that is right or wrong; for a
    number the distance in its standard deviations in the data.

    :param world: a trained one
    :param windows: encoded, of ``T`` transitions
    :return: ``[B, T, V]``, NaN where the window has left its episode
    """
    layout = world.dynamics.layout
    imagined, recorded = imagine(world, windows).flatten(0, 1), windows.next_state.flatten(0, 1)
    is_wrong = (layout.categories(imagined) != layout.categories(recorded)).to(recorded.dtype)
    distance = (layout.numbers(imagined) - layout.numbers(recorded)).abs()
    errors = layout.by_variable(is_wrong, distance).unflatten(0, windows.valid.shape)
    return errors.where(windows.valid.unsqueeze(-1), th.nan)
