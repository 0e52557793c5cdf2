"""Where recorded steps led, in a system whose states are listed."""

import torch as th
from torch import nn


class Successors(nn.Module):
    """
    Counts the outcomes of each pair of a state and an action: the next state, and whether the episode ended there. At most
    ``N_KEPT`` different outcomes of a pair are stored; further ones count as recorded, and nothing else is known of them.

    :param n_pairs: of a state and an action
    """

    N_KEPT = 8

    outcome: th.Tensor
    count: th.Tensor
    n: th.Tensor

    def __init__(self, n_pairs: int) -> None:
        super().__init__()
        # Twice the number of the next state, and one more if the episode ended; -1: there is none yet.
        self.register_buffer("outcome", th.full((n_pairs, self.N_KEPT), -1))
        # Sums over all that was ever drawn, which float32 would not hold.
        self.register_buffer("count", th.zeros(n_pairs, self.N_KEPT, dtype=th.float64))
        self.register_buffer("n", th.zeros(n_pairs, dtype=th.float64))

    def forget(self) -> None:
        """Nothing was recorded."""
        self.outcome.fill_(-1)
        self.count.zero_()
        self.n.zero_()

    def add(self, pair: th.Tensor, next_state: th.Tensor, terminated: th.Tensor) -> None:
        """
        :param pair: numbers of pairs, ``[R]``
        :param next_state: numbers of the states that they led to, ``[R]``
        :param terminated: whether their episodes ended, ``[R]``, bool
        """
        each = th.stack([pair, 2 * next_state + terminated])
        (pair, outcome), times = each.unique(dim=1, return_counts=True)
        is_new = (self.outcome[pair] != outcome.unsqueeze(1)).all(1)
        of_new = pair[is_new]
        # Sorted by pair: further new outcomes of a pair go into the places after the first.
        further = th.arange(len(of_new), device=pair.device) - th.searchsorted(of_new, of_new)
        place = (self.outcome[of_new] >= 0).sum(1) + further
        fits = place < self.N_KEPT
        self.outcome[of_new[fits], place[fits]] = outcome[is_new][fits]
        is_same = self.outcome[pair] == outcome.unsqueeze(1)
        self.count.index_add_(0, pair, (is_same * times.unsqueeze(1)).double())
        self.n.index_add_(0, pair, times.double())

    def of(self, pair: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        :param pair: numbers of pairs, ``[R]``
        :return: numbers of the next states that are told apart, whether the episode ended there, and their shares among all
            that was recorded of the pair, ``[R, N_KEPT]`` each; shares of 0 where there is none
        """
        outcome, n = self.outcome[pair], self.n[pair].clamp(min=1).unsqueeze(1)
        return outcome.clamp(min=0) // 2, outcome % 2 == 1, self.count[pair] / n
