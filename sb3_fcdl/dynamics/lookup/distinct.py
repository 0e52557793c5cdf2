"""Predictions that are the same are made once: those of a child whose parents have the same categories in the same context."""

from math import prod

import torch as th

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.lookup.features import ParentInputs
from sb3_fcdl.dynamics.stacked import Distinct


class Keys:
    """
    What a prediction is made from, as one number: its digits are the child, the context, and the category of each parent, 0
    for one that is masked.

    :param factors: the variables
    :param n_contexts: ``K``; 0: there are none
    """

    # Of fewer predictions all are made: to find the different ones would take longer.
    FEWEST = 2048
    # And where more than this share is different.
    MOST = 0.7

    def __init__(self, factors: Factors, n_contexts: int) -> None:
        bases = [parent.width + 1 for parent in factors.parents]
        *self.of_parents, self.of_code = (prod(bases[:index]) for index in range(len(bases) + 1))
        self.of_child = self.of_code * max(n_contexts, 1)
        self.exist = self.of_child * len(factors.state_variables) < 2**63

    def distinct(self, inputs: ParentInputs, mask: th.Tensor, code: th.Tensor | None) -> Distinct | None:
        """
        :param inputs: a batch
        :param mask: the parents of each child, 0 or 1, ``[J, R, P]``
        :param code: the context of each row, ``[R]``; None: there are none
        :return: None where a parent is not looked up or has a gradient, or where it would save no time
        """
        n_children, n_rows, _ = mask.shape
        is_looked_up = not inputs.dense and inputs.scales is None
        if not (self.exist and is_looked_up) or th.is_grad_enabled() or n_children * n_rows < self.FEWEST:
            return None
        device = mask.device
        digits = (inputs.categories + 1) * th.tensor(self.of_parents, device=device)
        keys = th.where(mask > 0, digits, 0).sum(-1) + self.of_child * th.arange(n_children, device=device).unsqueeze(-1)
        if code is not None:
            keys += self.of_code * code
        values, number = keys.unique(return_inverse=True)
        if len(values) > self.MOST * keys.numel():
            return None
        chosen = th.empty_like(values).scatter_(0, number.flatten(), th.arange(keys.numel(), device=device))
        child = values // self.of_child
        return Distinct(child, chosen % n_rows, chosen, th.bincount(child, minlength=n_children).tolist(), number)
