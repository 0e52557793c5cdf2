"""The state variables side by side in slots of equal width, for networks that treat variables as equals."""

import torch as th
from torch import nn

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.distributions import output_width
from sb3_fcdl.dynamics.lookup import rule
from sb3_fcdl.dynamics.lookup.categories import categories


class Slots(nn.Module):
    """
    From a flat state to one slot a variable, and from one output a variable to the flat output of a model.

    Variables narrower than the widest are padded with zeros, and what a network says about the padding is left out.

    :param factors: the variables
    """

    columns: th.Tensor
    output_columns: th.Tensor

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        widths = th.tensor([variable.width for variable in factors.state_variables])
        outputs = th.tensor([output_width(variable) for variable in factors.state_variables])
        self.n_slots = len(widths)
        self.width, self.output_width = int(widths.max()), int(outputs.max())
        self.all_categorical = all(variable.is_categorical for variable in factors.state_variables)
        within = th.arange(self.width)
        columns = th.tensor([each.start for each in factors.state_slices]).unsqueeze(-1) + within
        # The column behind the last one is a zero.
        columns = columns.where(within < widths.unsqueeze(-1), factors.state_width)
        exists = th.arange(self.output_width) < outputs.unsqueeze(-1)
        self.register_buffer("columns", columns.flatten(), persistent=False)
        self.register_buffer("output_columns", exists.flatten().nonzero().squeeze(-1), persistent=False)

    def read(self, state: th.Tensor) -> th.Tensor:
        """
        :param state: ``[R, D]``
        :return: ``[V, R, width]``
        """
        if state.shape[-1] < len(self.columns):
            state = nn.functional.pad(state, (0, 1)).index_select(-1, self.columns)
        return state.unflatten(-1, (self.n_slots, self.width)).transpose(0, 1)

    def have_tables(self, device: th.device) -> bool:
        """Whether what follows from the categories of all variables may be looked up."""
        return self.all_categorical and rule.uses_tables(device)

    def categories(self, slots: th.Tensor) -> th.Tensor | None:
        """
        :param slots: ``[V, R, width]``
        :return: of each variable, ``[V, R]``, int64; None if tables may not be used, or a variable is not exactly one-hot in
            some row
        """
        if not self.have_tables(slots.device):
            return None
        category, is_exact = categories(slots)
        return category if is_exact.all() else None

    def write(self, outputs: th.Tensor) -> th.Tensor:
        """
        :param outputs: ``[V, R, output_width]``
        :return: in the order of ``StateLayout``, ``[R, its output_width]``
        """
        flat = outputs.transpose(0, 1).flatten(1)
        return flat if flat.shape[-1] == len(self.output_columns) else flat.index_select(-1, self.output_columns)
