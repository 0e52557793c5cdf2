"""What FCDL makes of a Gymnasium space: whether it can learn on it, its variables, and its values as columns of a tensor."""

import math
from collections.abc import Sequence

import numpy as np
import torch as th
from gymnasium import spaces

from fcdl_envs.arguments import refuse
from fcdl_envs.variables import Variable, consecutive_slices

SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, or a flat Dict of these"


def check_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """
    :raises ValueError: if FCDL cannot learn on such spaces; says what to do
    """
    if isinstance(observation_space, spaces.Dict):
        for key, space in observation_space.spaces.items():
            _check_leaf(f"observation key '{key}'", space)
    else:
        _check_leaf("the observation space", observation_space)
    _check_action(action_space)


def _check_leaf(what: str, space: spaces.Space) -> None:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        raise ValueError(
            f"{what} is {space}. FCDL needs {SUPPORTED}: flatten it with gymnasium.wrappers.FlattenObservation, "
            "or name its parts in one flat Dict"
        )
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise ValueError(f"{what} is {space}. FCDL needs {SUPPORTED}: turn it into one with a gymnasium.ObservationWrapper")
    if isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8:
        raise ValueError(
            f"{what} is an image, {space}. FCDL needs named quantities ({SUPPORTED}): extract them with a "
            "gymnasium.ObservationWrapper, or flatten it with gymnasium.wrappers.FlattenObservation if these are not pixels"
        )
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) != 1:
        raise ValueError(f"{what} is {space}. SB3 needs a one-dimensional MultiDiscrete: flatten it")
    if math.prod(space.shape or ()) == 0:
        raise ValueError(f"{what} is {space} and holds nothing: leave it out")


def _check_action(space: spaces.Space) -> None:
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise ValueError(
            f"the action space is {space}. FCDL needs Discrete, MultiDiscrete, MultiBinary or Box: turn it into one with a "
            "gymnasium.ActionWrapper"
        )
    if math.prod(space.shape or ()) == 0 or (isinstance(space, spaces.Box) and not space.shape):
        raise ValueError(f"the action space is {space}. FCDL needs a Box of at least one dimension and one number")
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary) and len(space.shape) != 1:
        raise ValueError(f"the action space is {space}. SB3 needs a one-dimensional one: flatten it")
    if isinstance(space, spaces.Box):
        with np.errstate(over="ignore", invalid="ignore"):
            width = space.high - space.low
        if not (np.issubdtype(space.dtype, np.floating) and np.isfinite(width).all() and (width > 0).all()):
            raise ValueError(
                f"the action space is {space}. FCDL needs floats and finite bounds, low below high: see "
                "gymnasium.wrappers.RescaleAction"
            )


def variables_of(name: str, space: spaces.Space) -> tuple[Variable, ...]:
    """A variable for each entry: ``name[i]``, or ``name`` if there is one without an index, as in a ``Discrete``."""
    assert space.shape is not None
    names = [f"{name}[{','.join(map(str, index))}]" for index in np.ndindex(space.shape)] if space.shape else [name]
    sizes = categories_of(space) or (0,) * len(names)
    starts = np.broadcast_to(np.ravel(getattr(space, "start", 0)), len(names)).tolist()
    # Those that count from 0 need no names.
    category_names = [
        tuple(map(str, range(start, start + size))) if start else () for start, size in zip(starts, sizes, strict=True)
    ]
    return tuple(map(Variable, names, sizes, category_names))


def categories_of(space: spaces.Space) -> tuple[int, ...]:
    """Number of values of each entry; none for a ``Box``, whose entries are numbers."""
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(space.nvec.tolist())
    return (2,) * math.prod(space.shape) if isinstance(space, spaces.MultiBinary) else ()


def width_of(space: spaces.Space) -> int:
    """Columns of a value, see ``columns_of``."""
    assert space.shape is not None
    return sum(categories_of(space)) or math.prod(space.shape)


def columns_of(space: spaces.Space, values: th.Tensor, variables: Sequence[Variable]) -> th.Tensor:
    """
    :param space: of one observation or action
    :param values: ``[..., *shape]``; of a ``Discrete`` ``[B]``, or ``[..., 1]`` as SB3's buffers hold it
    :param variables: of the space
    :return: one-hots or numbers, ``[..., width]``
    :raises ValueError: if a category is not in the space; it would set a column of the next variable
    """
    assert space.shape is not None
    sizes = categories_of(space)
    if not isinstance(space, spaces.Discrete) or values.dim() == 1:
        values = values.reshape(*values.shape[: values.dim() - len(space.shape)], math.prod(space.shape))
    if not sizes:
        return values
    start = np.broadcast_to(np.ravel(getattr(space, "start", 0)), len(sizes))
    categories = values.long()
    lowest, highest = (th.tensor(bound, device=values.device) for bound in (start, start + np.array(sizes) - 1))
    # The last comparison finds NaN and fractions.
    is_in = (categories >= lowest) & (categories <= highest) & (categories == values)
    # An exported network has no errors.
    if not th.compiler.is_exporting() and not is_in.all():
        index = (~is_in).nonzero()[0]
        name, value = variables[int(index[-1])].name, values[tuple(index)].item()
        refuse(name, value, f"an integer from {lowest[index[-1]]} to {highest[index[-1]]}, see {space}")
    first = np.array([columns.start for columns in consecutive_slices(sizes)]) - start
    one_hots = th.zeros(*values.shape[:-1], sum(sizes), device=values.device)
    return one_hots.scatter_(-1, categories + th.as_tensor(first, device=values.device), 1)


def entries_of(space: spaces.Space, columns: th.Tensor) -> np.ndarray:
    """
    The inverse of ``columns_of``.

    :param space: of one observation
    :param columns: one-hots or numbers, ``[B, width]``
    :return: ``[B, *shape]``, in the dtype and within the bounds of the space
    """
    assert space.shape is not None
    if isinstance(space, spaces.Box):
        values, low, high = columns.cpu().numpy(), space.low.ravel(), space.high.ravel()
        if np.issubdtype(space.dtype, np.integer):
            values = values.round()
            # As a float, the largest int64 is 2**63, which an int64 does not hold.
            is_low, is_high = values <= low.astype(np.float64), values >= high.astype(np.float64)
            values = np.where(is_low | is_high, 0, values).astype(space.dtype)
            values = np.where(is_low, low, np.where(is_high, high, values))
        values = values.clip(low, high)
    else:
        categories = [part.argmax(-1) for part in columns.split(categories_of(space), dim=-1)]
        values = th.stack(categories, dim=-1).cpu().numpy() + getattr(space, "start", 0)
    return values.reshape(-1, *space.shape).astype(space.dtype)


def unscaled(space: spaces.Box, actions: np.ndarray) -> np.ndarray:
    """
    :param actions: scaled to [-1, 1], ``[..., *space.shape]``
    :return: in the space's units and within its bounds, which rounding alone would leave; likewise
    """
    actions = space.low + 0.5 * (actions + 1.0) * (space.high - space.low)
    return actions.clip(space.low, space.high).astype(space.dtype)
