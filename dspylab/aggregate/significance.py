"""Tests of paired differences, and the correction for several tests. Pure.

References:
    McNemar (1947), "Note on the sampling error of the difference between correlated proportions".
    Wilcoxon (1945), "Individual comparisons by ranking methods".
    Holm (1979), "A simple sequentially rejective multiple test procedure".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

#: Pairs that differ, up to which the distribution of Wilcoxon's statistic is enumerated.
_EXACT_PAIRS = 200
#: Differences between sizes that are smaller than this share of them are rounding.
_ROUNDING = 1e-9


def holm(p_values: Sequence[float], total: int | None = None) -> list[float]:
    """Holm's step-down correction (Holm 1979): the chance of any false rejection stays at its level.

    Args:
        p_values: In any order.
        total: How many comparisons these were chosen from, at least their number, which is the default.
            Those not given count as if their p-value were 1.

    Returns:
        Adjusted p-values in the same order, at most 1.
    """
    count = len(p_values) if total is None else total
    result = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        result[index] = highest
    return result


def mcnemar_exact(wins: int, losses: int) -> float:
    """Two-sided exact McNemar test: wins among the examples that differ are binomial with 1/2.

    Args:
        wins: Pairs where one side passes and the other fails.
        losses: Pairs the other way round.

    Returns:
        The p-value, twice the smaller tail, at most 1; 1 when no pair differs.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(wins, losses), wins + losses, 0.5)))


def wilcoxon_signed_rank(differences: Sequence[float]) -> float:
    """Two-sided Wilcoxon signed-rank test: are differences as often and as far above 0 as below?

    Zeros are left out (Wilcoxon's own way), ties get their mean rank. For up to 200 differences the
    distribution of the statistic given these ranks is enumerated, so ties cost no exactness; above, the
    normal approximation is taken, with the variance that these ranks have.

    Args:
        differences: One an example; any length.

    Returns:
        The p-value; 1 when no difference is left.
    """
    import numpy as np
    from scipy.special import ndtr

    values = np.array([d for d in differences if d != 0])
    count = len(values)
    if count == 0:
        return 1.0
    ranks = _doubled_ranks(np.abs(values))
    whole = int(ranks.sum())
    positive = int(ranks[values > 0].sum())
    less = min(positive, whole - positive)
    if count > _EXACT_PAIRS:
        deviation = math.sqrt(float((ranks.astype(float) ** 2).sum()) / 4)
        return 2 * float(ndtr((less - whole / 2) / deviation))
    # In the greatest unit that all ranks are multiples of, and only up to the sum that was found: ranks only
    # ever add to a sum, so what lies above it never counts.
    unit = int(np.gcd.reduce(ranks))
    size = less // unit + 1
    chances = np.zeros(size)
    chances[0] = 1.0
    for rank in (ranks // unit).tolist():
        if rank < size:
            chances[rank:] += chances[: size - rank].copy()
        chances /= 2
    return min(1.0, 2 * float(chances.sum()))


def _doubled_ranks(sizes: Any) -> Any:
    """Twice the mean rank of each value, which is a whole number; values that differ by rounding are tied."""
    import numpy as np

    order = np.argsort(sizes, kind="stable")
    ordered = sizes[order]
    new = np.concatenate([[True], np.diff(ordered) > _ROUNDING * ordered[1:]])
    group = np.cumsum(new) - 1
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(sizes)) - 1
    ranks = np.empty(len(sizes), dtype=np.int64)
    ranks[order] = (first + last + 2)[group]
    return ranks
