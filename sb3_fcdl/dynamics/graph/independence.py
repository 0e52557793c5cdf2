"""Do two variables depend on each other, given a third? A test of categorical samples, for strata of any size."""

from typing import NamedTuple

import torch as th

# The variance of the statistic is defined from four samples on.
MIN_STRATUM_SIZE = 4


class Association(NamedTuple):
    """
    How strongly two variables go together within strata, and how strongly they would by chance.

    :param statistic: Pearson's ``X^2``, summed over strata, a scalar, float64
    :param mean: of the statistic if the variables are independent in every stratum, likewise
    :param variance: of the statistic then, likewise; in large strata with all categories twice the usual degrees of freedom
    """

    statistic: th.Tensor
    mean: th.Tensor
    variance: th.Tensor

    @property
    def p_value(self) -> th.Tensor:
        """
        Probability of a statistic as large as this one by chance; 1 where the data leave nothing to chance.

        It is read off the chi-square distribution with ``k = variance / 2`` degrees of freedom at ``statistic - mean + k``:
        both moments are then right. In large strata this is the ordinary chi-square test.
        """
        freedom = self.variance / 2
        shifted = (self.statistic - self.mean + freedom).clamp(min=0)
        # Rounding leaves a little variance where every table with these margins has the same statistic.
        has_freedom = freedom > 1e-9 * (1 + self.mean)
        return th.special.gammaincc(freedom.clamp(min=1e-9) / 2, shifted / 2).where(has_freedom, 1.0)

    @property
    def information(self) -> th.Tensor:
        """
        Samples times the mutual information within the strata, nats: half of what the statistic exceeds its mean by. Twice the
        information is the statistic of the likelihood ratio, of which Pearson's is the first term.
        """
        return (self.statistic - self.mean) / 2

    @property
    def spread(self) -> th.Tensor:
        """Standard deviation of ``information`` if the variables are independent."""
        return self.variance.clamp(min=0).sqrt() / 2


def association(x: th.Tensor, y: th.Tensor, strata: th.Tensor) -> Association:
    """
    Among the tables of one stratum that shuffling ``y`` would give, of ``n`` samples, ``R`` values of ``x`` with counts
    ``r`` and ``C`` values of ``y`` with counts ``c``, the statistic has

        mean ``n (R-1) (C-1) / (n-1)``, variance ``2n (u_x - v_x) (u_y - v_y) / (n-3) + n^2 v_x v_y / (n-1)``,
        ``u_x = (R-1) (n-R) / (n-1)``, ``v_x = (n sum(1/r) - R^2) / (n-2)``, ``u_y`` and ``v_y`` likewise

    exactly, however sparse they are (Haldane, Biometrika 31, 1940; Dawson, Biometrika 41, 1954). The textbook's degrees of
    freedom hold for expected counts above 5 only: over hundreds of small strata their error adds up to certainty, and to
    leave small strata out is to leave out all of them. A stratum where ``x`` or ``y`` is constant adds nothing.

    :param x: category of each sample, ``[n]``, int64, not negative
    :param y: likewise
    :param strata: likewise; samples that are alike in what is conditioned on have the same number. Strata of fewer than
        ``MIN_STRATUM_SIZE`` samples are left out
    """
    # Numbered anew, as strata are, so that no table has more entries than samples times categories.
    rows = (strata * (x.max() + 1) + x).unique(return_inverse=True)[1]
    columns = strata * (y.max() + 1) + y
    groups = (strata, rows, columns, rows * (y.max() + 1) + y)
    n, row, column, cell = (th.bincount(group)[group].double() for group in groups)
    is_used = n >= MIN_STRATUM_SIZE
    # Over samples rather than cells: a cell with k samples counts k times, and an empty one costs nothing.
    statistic = (n * cell / (row * column) - 1)[is_used].sum()
    sums = th.stack([th.bincount(strata, value) for value in (1 / row, 1 / row**2, 1 / column, 1 / column**2)])
    size = th.bincount(strata)
    n, sums = size[size >= MIN_STRATUM_SIZE].double(), sums[:, size >= MIN_STRATUM_SIZE]
    n_rows, row_inverses, n_columns, column_inverses = sums
    mean = n * (n_rows - 1) * (n_columns - 1) / (n - 1)
    (u_x, v_x), (u_y, v_y) = _spread(n, n_rows, row_inverses), _spread(n, n_columns, column_inverses)
    variance = 2 * n * (u_x - v_x) * (u_y - v_y) / (n - 3) + n**2 * v_x * v_y / (n - 1)
    return Association(statistic, mean.sum(), variance.sum())


def quantile_bins(values: th.Tensor, n_bins: int) -> th.Tensor:
    """
    Continuous variables as categorical ones, each cut into bins of equal numbers of samples.

    Ties stay together, and a value that a quantile falls on is a bin of its own: of a quantity that mostly stays put, the few
    changes, up or down, are told from none.

    :param values: ``[n, K]``
    :param n_bins: bins of a variable whose values all differ
    :return: ``[n, K]``, int64, from 0 to ``2 * n_bins - 2``: even between two quantiles, odd on one
    """
    if not values.numel():  # torch has no quantiles of nothing
        return th.zeros_like(values, dtype=th.int64)
    shares = th.linspace(0, 1, n_bins + 1, dtype=values.dtype, device=values.device)[1:-1]
    quantiles = values.quantile(shares, dim=0).unsqueeze(1)
    return (values > quantiles).sum(0) + (values >= quantiles).sum(0)


def _spread(n: th.Tensor, n_values: th.Tensor, inverses: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """``u`` and ``v`` of ``association``, of each stratum."""
    return (n_values - 1) * (n - n_values) / (n - 1), (n * inverses - n_values**2) / (n - 2)
