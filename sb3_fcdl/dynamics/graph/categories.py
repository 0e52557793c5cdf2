"""Which categories of a variable need the same edges."""

import torch as th

from sb3_fcdl.dynamics.graph.evidence import Evidence
from sb3_fcdl.dynamics.graph.judgement import MIN_GAIN

# A group can do without an edge that is worth at most this share there of what it is worth where it is needed.
NEEDLESS_SHARE = 0.2
# Standard errors up to which two groups of categories may differ by chance.
CHANCE_Z = 3.0
# Weight of a difference that may be chance, beside an edge that one group needs and the other does not.
TIE = 1e-3
# Squared standard errors beyond which a difference counts no more.
MOST = 100.0


def clusters(evidence: Evidence) -> list[th.Tensor]:
    """
    Merge the two groups that need the same edges, again and again, until two are left. A group pays one for each edge that
    it needs and, for one that it is without, what the edge is worth as a share of ``NEEDLESS_SHARE`` of its worth where it is
    needed. Those two are merged whose common graph costs least more than their own do.

    Between groups of a few transitions chance would decide: the part of a difference that is within ``CHANCE_Z`` standard
    errors counts as none, and only decides where nothing else does.

    :param evidence: of the gain of each edge in each category, ``[C, E]``
    :return: the categories of the groups on the way, from single ones to two groups, each 0 or 1, ``[M, C]``
    """
    groups = th.eye(len(evidence.gain)).to(evidence.gain)
    is_seen = evidence.n.squeeze(-1) > 0
    groups, n, mean = groups[is_seen], evidence.n[is_seen], evidence.gain[is_seen]
    share = n / n.sum()
    # Of the gain of a transition, within the categories; and the worth of an edge where it is needed, from that between them.
    variance = (share * (n * evidence.standard_error[is_seen].square()).where(n > 1, 0)).sum(0)
    overall = (share * mean).sum(0)
    worth = ((share * mean.square()).sum(0) - len(n) * variance / n.sum()) / overall
    counts = (overall > MIN_GAIN) & (worth > MIN_GAIN) & (variance > 0)
    mean, variance, worth = mean[:, counts], variance[counts], worth[counts]

    found = [groups.clone()]
    while len(n) > 2:
        left, right = n.unsqueeze(1), n.unsqueeze(0)
        common = (left * mean.unsqueeze(1) + right * mean.unsqueeze(0)) / (left + right)
        difference = mean.unsqueeze(1) - mean.unsqueeze(0)
        clearness = difference.square() / (variance / left + variance / right)
        difference = difference * (1 - CHANCE_Z**2 / clearness.clamp(min=CHANCE_Z**2))
        more = left * (_cost(common, worth) - _cost(common + difference * right / (left + right), worth))
        more = more + right * (_cost(common, worth) - _cost(common - difference * left / (left + right), worth))
        price = more.sum(-1) + TIE * (left + right).squeeze(-1) * clearness.clamp(max=MOST).sum(-1) / max(len(worth), 1)
        first, second = divmod(int(price.fill_diagonal_(th.inf).argmin()), len(n))
        mean[first], n[first] = common[first, second], n[first] + n[second]
        groups[first] += groups[second]
        rest = th.arange(len(n), device=n.device) != second
        n, mean, groups = n[rest], mean[rest], groups[rest]
        found.append(groups.clone())
    return found


def _cost(gain: th.Tensor, worth: th.Tensor) -> th.Tensor:
    """Of an edge that a group may have or be without."""
    return (gain / (NEEDLESS_SHARE * worth)).clamp(0, 1)
