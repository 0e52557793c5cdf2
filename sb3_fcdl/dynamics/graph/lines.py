"""What lines explain of the errors of predicted numbers: an edge that the network has not learned yet can be seen there."""

from typing import NamedTuple

import torch as th

from fcdl_envs.variables import Factors
from sb3_fcdl.dynamics.graph.evidence import Evidence

# Added to the sums of squares of the inputs, so that an input that is constant explains nothing.
RIDGE = 1e-3
# A sum of squares that is none.
SMALLEST = 1e-9


class Lines(NamedTuple):
    """
    What a regression of the errors of ``m`` numbers on ``p`` inputs needs. The inputs are the numbers of state and action, and
    a constant as the last. All float64; ``C`` transitions or groups of transitions, of any shape.

    :param n: transitions, ``[C]``
    :param gram: sums of the products of inputs, ``[C, p, p]``
    :param products: sums of the products of inputs and errors, ``[C, p, m]``
    :param squares: of the errors, ``[C, m]``
    """

    n: th.Tensor
    gram: th.Tensor
    products: th.Tensor
    squares: th.Tensor

    @staticmethod
    def of(factors: Factors, columns: th.Tensor, errors: th.Tensor) -> "Lines":
        """
        :param factors: the variables
        :param columns: encoded state and action of transitions, ``[R, D + A]``
        :param errors: of the predictions, in standard deviations, ``[R, V]``; those of categories are not read
        :return: of each transition
        """
        numbers = numbers_of(factors)
        inputs = columns[:, [factors.parent_slices[index].start for index in numbers]]
        inputs = th.cat([inputs, th.ones_like(columns[:, :1])], dim=-1).double()
        errors = errors[:, [index for index in numbers if index < errors.shape[1]]].double()
        gram, products = (inputs.unsqueeze(2) * each.unsqueeze(1) for each in (inputs, errors))
        return Lines(inputs[:, -1], gram, products, errors.square())

    def summed(self, groups: th.Tensor) -> "Lines":
        """
        :param groups: the members of each group, 0 or 1, ``[..., C]``, float64
        :return: of each group
        """
        sums = ((groups @ each.flatten(1)).unflatten(-1, each.shape[1:]) for each in self[1:])
        return Lines(groups @ self.n, *sums)

    def of_rows(self, rows: th.Tensor) -> "Lines":
        """:return: of some of the transitions, ``[C]``, bool"""
        return Lines(*(each[rows] for each in self))

    def left_by(self, slopes: th.Tensor) -> th.Tensor:
        """
        :param slopes: of the lines, ``[C, p, m]``
        :return: sum of the squares that they leave, ``[C, m]``
        """
        left = self.squares - 2 * (slopes * self.products).sum(-2) + (slopes * (self.gram @ slopes)).sum(-2)
        return left.clamp(min=SMALLEST)

    def likelihood_of(self, others: "Lines") -> th.Tensor:
        """
        :param others: transitions that these lines are not fitted to, ``[C]``
        :return: logarithm of the likelihood of their errors by the lines and the variance of these, nats over all of them, but
            for what is the same for all lines, ``[C, m]``
        """
        slopes = self._fitted()[1]
        freedom = (self.n - self.gram.shape[-1]).clamp(min=1).unsqueeze(-1)
        variance = self.left_by(slopes) / freedom
        return -0.5 * (others.n.unsqueeze(-1) * variance.log() + others.left_by(slopes) / variance)

    def evidence(self) -> Evidence:
        """
        What an input adds to the regression on all others: half the logarithm of the squared errors without it by those with
        it, in nats a transition, less what one gains that has nothing to say. The errors are taken for normal.

        :return: of each input but the constant, ``[C, m, p - 1]``; infinitely uncertain with no more transitions than inputs
        """
        exact = (self.n - self.gram.shape[-1]).view(*self.n.shape, 1, 1)
        freedom = exact.clamp(min=1)
        inverse, slopes = self._fitted()
        left = self.left_by(slopes)
        scale = inverse.diagonal(dim1=-2, dim2=-1).clamp(min=SMALLEST)
        # Student's t squared, by its degrees of freedom.
        ratio = (slopes.square() / scale.unsqueeze(-1) / left.unsqueeze(-2)).mT[..., :-1]
        gain = 0.5 * (ratio.log1p() - 1 / freedom)
        error = ((ratio - 1 / freedom).clamp(min=0) / 4 + 0.5 / freedom).div(freedom).sqrt()
        return Evidence(gain, error.where(exact > 0, th.inf), self.n.view(*self.n.shape, 1, 1))

    def _fitted(self) -> tuple[th.Tensor, th.Tensor]:
        """Inverse of the products of inputs, ``[C, p, p]``, and the slopes, ``[C, p, m]``."""
        inverse = th.linalg.inv(self.gram + RIDGE * th.eye(self.gram.shape[-1]).to(self.gram))
        return inverse, inverse @ self.products


def edges_of_numbers(factors: Factors, n_children: int) -> th.Tensor:
    """:return: which entries of a graph are from a number to a number, ``[V, P]``, bool"""
    is_number = th.tensor([not variable.is_categorical for variable in factors.parents])
    return is_number[:n_children].unsqueeze(1) & is_number


def numbers_of(factors: Factors) -> list[int]:
    """:return: which parents are numbers; those of the state are first"""
    return [index for index, variable in enumerate(factors.parents) if not variable.is_categorical]
