"""The state variables side by side in slots of equal width, for networks that treat variables as equals."""

import torch as th
from torch import nn

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.distributions import output_width


class Slots(nn.Module):
    """
    From a flat state to one slot a variable, and from one output a variable to the flat output of a model.

    Variables narrower than the widest are padded with zeros, and what a network says about the padding is left out.

    :param factors: the variables
    """

    columns: th.Tensor
    output_columns: th.Tensor
    # Tests hold the two ways of computing the same thing against each other.
    use_tables = True

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        widths = th.tensor([variable.width for variable in factors.state_variables])
        outputs = th.tensor([output_width(variable) for variable in factors.state_variables])
        self.n_slots = len(widths)
        self.width, self.output_width = int(widths.max()), int(outputs.max())
        self.all_categorical = all(variable.is_categorical for variable in factors.state_variables)
        within = th.arange(self.width)
        columns = (widths.cumsum(0) - widths).unsqueeze(-1) + within
        # The column behind the last one is a zero.
        columns = columns.where(within < widths.unsqueeze(-1), int(widths.sum()))
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

    def looks_up(self, device: th.device) -> bool:
        """
        Whether what follows from the category of a variable may be computed once and looked up. Not elsewhere than on a CPU:
        to ask whether inputs are one-hot is to wait for the device.
        """
        return self.use_tables and device.type == "cpu" and self.all_categorical

    def are_one_hot(self, slots: th.Tensor) -> bool:
        """Whether every variable is categorical and exactly one-hot in every row of ``[V, R, width]``."""
        if not self.all_categorical:
            return False
        values = slots.detach()
        return bool(((values.amax(-1) == 1) & (values.abs().sum(-1) == 1)).all())

    def write(self, outputs: th.Tensor) -> th.Tensor:
        """
        :param outputs: ``[V, R, output_width]``
        :return: in the order of ``StateLayout``, ``[R, its output_width]``
        """
        flat = outputs.transpose(0, 1).flatten(1)
        return flat if flat.shape[-1] == len(self.output_columns) else flat.index_select(-1, self.output_columns)
