"""What a model says about the next state: a categorical or a normal distribution for each variable."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch as th
from torch import nn
from torch.nn import functional as F

from fcdl_envs.variables import Variable, consecutive_slices

# Bounds of a predicted standard deviation, in standard deviations of the variable in the data: a variable that never
# moves would drive it to zero otherwise.
LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
# From this probability on the likeliest category is taken for certain.
CERTAIN = 0.9
# Below this one an outcome is not worth a look.
UNLIKELY = 0.01
# An irrational number: what its multiples leave over is spread evenly.
GOLDEN = 0.6180339887498949
LOG_SQRT_2PI = 0.9189385332046727


def output_width(variable: Variable) -> int:
    """Numbers that parametrise the distribution of a variable: its logits, or the change of its mean and a log std."""
    return variable.n_categories if variable.is_categorical else 2


class StateLayout(nn.Module):
    """
    Where each variable stands in the flat state, and in the flat output of a model.

    Inside a distribution the ``Vc`` categorical variables stand side by side, padded to ``C`` categories, and the ``Vg``
    continuous ones side by side; the layout takes them there and back.

    :param variables: the state variables, in order
    """

    state_categories: th.Tensor
    output_categories: th.Tensor
    state_numbers: th.Tensor
    output_means: th.Tensor
    flat_order: th.Tensor
    variable_order: th.Tensor

    def __init__(self, variables: Sequence[Variable]) -> None:
        super().__init__()
        categorical = [index for index, variable in enumerate(variables) if variable.is_categorical]
        continuous = [index for index, variable in enumerate(variables) if not variable.is_categorical]
        sizes = [variables[index].n_categories for index in categorical]
        self.n_categories = max(sizes, default=1)
        self.has_continuous = bool(continuous)
        # Then the padded categories of all variables are the flat state itself, and nothing needs to be copied.
        self.is_uniform = not continuous and len(set(sizes)) == 1
        states = consecutive_slices(variable.width for variable in variables)
        outputs = consecutive_slices(output_width(variable) for variable in variables)
        self.output_width = outputs[-1].stop
        self._register("state_categories", _category_columns([states[i] for i in categorical], states[-1].stop))
        self._register("output_categories", _category_columns([outputs[i] for i in categorical], outputs[-1].stop))
        self._register("state_numbers", th.tensor([states[i].start for i in continuous], dtype=th.int64))
        self._register("output_means", th.tensor([outputs[i].start for i in continuous], dtype=th.int64))
        # The way back, from all categories followed by all numbers.
        padded = th.arange(len(sizes) * self.n_categories).view(-1, self.n_categories)
        sources = dict(zip(categorical, (row[:size] for row, size in zip(padded, sizes, strict=True)), strict=True))
        sources |= {index: th.tensor([padded.numel() + row]) for row, index in enumerate(continuous)}
        self._register("flat_order", th.cat([sources[index] for index in range(len(variables))]))
        self._register("variable_order", th.tensor(categorical + continuous).argsort())

    def distribution(self, outputs: th.Tensor, state: th.Tensor) -> "StateDistribution":
        """
        :param outputs: of a model, ``[R, output_width]``
        :param state: that it was given, ``[R, D]``; a continuous variable is predicted as a change of it
        """
        if self.is_uniform:
            logits, numbers = outputs.unflatten(-1, (-1, self.n_categories)), outputs[..., :0]
            return StateDistribution(self, logits, numbers, numbers)
        logits = F.pad(outputs, (0, 1), value=-th.inf)[..., self.output_categories]
        means = state[..., self.state_numbers] + outputs[..., self.output_means]
        return StateDistribution(self, logits, means, _bounded(outputs[..., self.output_means + 1]))

    def categories(self, state: th.Tensor) -> th.Tensor:
        """``[R, D]`` one-hot to ``[R, Vc]`` int64."""
        if self.is_uniform:
            return state.unflatten(-1, (-1, self.n_categories)).argmax(-1)
        return F.pad(state, (0, 1), value=-th.inf)[..., self.state_categories].argmax(-1)

    def numbers(self, state: th.Tensor) -> th.Tensor:
        """``[R, D]`` to ``[R, Vg]``."""
        return state[..., self.state_numbers]

    def state(self, categories: th.Tensor, numbers: th.Tensor) -> th.Tensor:
        """
        :param categories: one-hot or soft, ``[R, Vc, C]``
        :param numbers: ``[R, Vg]``
        :return: the flat state, ``[R, D]``
        """
        if self.is_uniform:
            return categories.flatten(-2)
        return th.cat([categories.flatten(-2), numbers], dim=-1)[..., self.flat_order]

    def by_variable(self, of_categorical: th.Tensor, of_continuous: th.Tensor) -> th.Tensor:
        """``[R, Vc]`` and ``[R, Vg]`` to ``[R, V]``."""
        if self.is_uniform:
            return of_categorical
        return th.cat([of_categorical, of_continuous], dim=-1)[..., self.variable_order]

    def _register(self, name: str, index: th.Tensor) -> None:
        self.register_buffer(name, index, persistent=False)


@dataclass(frozen=True)
class StateDistribution:
    """
    Independent distributions of the variables of a state, given its parents.

    :param layout: which variables there are
    :param logits: of the categorical variables, ``[R, Vc, C]``, -inf for a category that a variable does not have
    :param mean: of the continuous variables, ``[R, Vg]``
    :param log_std: likewise; smoothly bounded by ``LOG_STD_MIN`` and ``LOG_STD_MAX``
    """

    layout: StateLayout
    logits: th.Tensor
    mean: th.Tensor
    log_std: th.Tensor

    def mode(self) -> th.Tensor:
        """The most probable state, ``[R, D]``."""
        return self.layout.state(best_one_hot(self.logits), self.mean)

    def uncertainty(self) -> th.Tensor:
        """
        How unsure each variable is: how probable all categories but the likeliest are together, or the standard deviation, in
        standard deviations of the variable in the data, ``[R, V]``.
        """
        return self.layout.by_variable(1 - self.logits.softmax(-1).amax(-1), self.log_std.exp())

    def is_chance(self) -> th.Tensor:
        """Whether a categorical variable may well be another than the likeliest, ``[R]``, bool."""
        return (self.logits.softmax(-1).amax(-1) < CERTAIN).any(-1)

    def outcomes(self, n: int) -> tuple[th.Tensor, th.Tensor]:
        """
        Where a step may lead. Of a row that chance decides: the most probable categories of its most uncertain variable, and
        with each of them one draw of the other categorical variables, their quantiles at evenly spread points, always the same
        ones. So the outcomes of one uncertain variable are exact. Of any other row: the most probable state. Numbers have
        their means.

        :param n: at most so many
        :return: states, ``[S, R, D]``, and their probabilities, ``[S, R]``, which sum to one; 0 for what is not worth a look
        """
        is_chance = self.is_chance()
        if not is_chance.any():
            return self.mode().unsqueeze(0), th.ones_like(is_chance, dtype=self.logits.dtype).unsqueeze(0)
        probabilities = self.logits.softmax(-1)
        n_variables, n_categories = probabilities.shape[1:]
        n = min(n, n_categories)
        most = probabilities.amax(-1).argmin(-1)
        rows = th.arange(len(most), device=most.device)
        weights, categories = probabilities[rows, most].topk(n, dim=-1)
        steps = th.arange(1, n + 1, device=most.device, dtype=probabilities.dtype).unsqueeze(-1)
        # Of each variable its own sequence of evenly spread points (Weyl's), so that they are not drawn together.
        points = (steps * GOLDEN ** th.arange(1, n_variables + 1, device=most.device)) % 1
        drawn = (points[:, None, :, None] > probabilities.cumsum(-1)).sum(-1).clamp(max=n_categories - 1)
        drawn[:, rows, most] = categories.T
        drawn = drawn.where(is_chance.unsqueeze(-1), probabilities.argmax(-1))
        weights = weights.where(weights >= UNLIKELY, 0).where(is_chance.unsqueeze(-1), th.eye(1, n).to(weights))
        one_hot = th.zeros_like(probabilities).expand(n, -1, -1, -1).scatter(-1, drawn.unsqueeze(-1), 1)
        states = self.layout.state(one_hot, self.mean.expand(n, *self.mean.shape))
        return states, (weights / weights.sum(-1, keepdim=True)).T

    def sample(self, generator: th.Generator | None = None) -> th.Tensor:
        """
        A sample that carries a gradient: for categorical variables exactly one-hot, with the gradient of the Gumbel-softmax
        (temperature 1) straight through; for continuous ones reparameterised.

        :param generator: where the randomness comes from; None: torch's global generator
        :return: ``[R, D]``
        """
        gumbel = -th.empty_like(self.logits).exponential_(generator=generator).log()
        soft = (self.logits + gumbel).softmax(-1)
        # In this order the difference is exactly zero, so that the sample is exactly one-hot.
        categories = best_one_hot(soft) + (soft - soft.detach())
        numbers = self.mean
        if self.layout.has_continuous:
            numbers = numbers + self.log_std.exp() * th.empty_like(numbers).normal_(generator=generator)
        return self.layout.state(categories, numbers)

    def errors(self, state: th.Tensor) -> th.Tensor:
        """
        :param state: ``[R, D]``
        :return: of each number less its mean, in standard deviations, ``[R, V]``; 0 of categories
        """
        return self.layout.by_variable(th.zeros_like(self.logits[..., 0]), self._errors(state))

    def _errors(self, state: th.Tensor) -> th.Tensor:
        return (self.layout.numbers(state) - self.mean) * (-self.log_std).exp()

    def log_prob(self, state: th.Tensor) -> th.Tensor:
        """
        :param state: ``[R, D]``, categorical variables one-hot
        :return: log-probability (density) of each variable, nats, ``[R, V]``
        """
        category = self.layout.categories(state).unsqueeze(-1)
        of_categorical = self.logits.log_softmax(-1).gather(-1, category).squeeze(-1)
        error = self._errors(state)
        return self.layout.by_variable(of_categorical, -0.5 * error.square() - self.log_std - LOG_SQRT_2PI)


def best_one_hot(scores: th.Tensor) -> th.Tensor:
    """
    One-hot of the highest score. ``torch.nn.functional.one_hot`` would look whether each index fits, and read the answer.

    :param scores: ``[..., C]``
    :return: ``[..., C]``, of the same dtype
    """
    return th.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1)


def _category_columns(slices: Sequence[slice], missing: int) -> th.Tensor:
    """
    :param slices: columns of each of ``Vc`` categorical variables
    :param missing: the column that stands for the categories that a variable does not have
    :return: ``[Vc, C]``, int64
    """
    widths = [columns.stop - columns.start for columns in slices]
    n_categories = max(widths, default=1)
    rows = [
        [columns.start + category if category < width else missing for category in range(n_categories)]
        for columns, width in zip(slices, widths, strict=True)
    ]
    return th.tensor(rows, dtype=th.int64).view(-1, n_categories)


def _bounded(log_std: th.Tensor) -> th.Tensor:
    """Smoothly, so that there is a gradient beyond the bounds (Chua et al., 2018)."""
    log_std = LOG_STD_MAX - F.softplus(LOG_STD_MAX - log_std)
    return LOG_STD_MIN + F.softplus(log_std - LOG_STD_MIN)
