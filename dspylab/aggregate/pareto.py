"""Quality against cost and latency: which runs another one beats in everything. Pure.

A run is dominated when another is at least as good in every objective and better in one. By the point
estimates that is easily true by chance, so it is said apart whether it is sure: whether the 95% intervals
leave no room for the run to be better in any objective.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure with its interval.

    Attributes:
        value: The estimate.
        ci95: Its 95% interval; None when it is not known, so that nothing about it is sure.
    """

    value: float
    ci95: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A run, or several that differ in their seed alone, in the plane of objectives.

    Attributes:
        name: What it is called.
        quality: Mean of the primary metric; more is better.
        costs: Name of each other objective, of which less is better, to its figure; an objective that is
            None is not known: the point dominates and is dominated by nothing. One that no point knows is
            none.
    """

    name: str
    quality: Figure | None
    costs: Mapping[str, Figure | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a point lies.

    Attributes:
        name: What it is called.
        dominated_by: Points that are at least as good in every objective and better in one, by their
            estimates, in the order given.
        surely_by: Those among them of which that is sure.
    """

    name: str
    dominated_by: tuple[str, ...]
    surely_by: tuple[str, ...]

    @property
    def on_front(self) -> bool:
        """Whether no other point dominates it by the estimates."""
        return not self.dominated_by


def pareto(points: Sequence[Point], told_better: Collection[tuple[str, str]] = ()) -> list[Place]:
    """Finds which points are dominated, and by which.

    It is sure that one point dominates another when, in every objective, it is surely no worse and, in one,
    surely better. Surely better means that the intervals do not meet, or, for quality, that a paired
    comparison told them apart; surely no worse means that, or two figures that are equal and exact.

    Args:
        points: All that are compared; each has the same objectives.
        told_better: Pairs (better, worse) of names that a paired comparison of their quality told apart,
            which it often can where the intervals of the two means overlap.

    Returns:
        A place for each point, in their order.
    """
    told = frozenset(told_better)
    known = {name for point in points for name, figure in point.costs.items() if figure is not None}
    points = [replace(point, costs={name: point.costs[name] for name in sorted(known)}) for point in points]
    places = []
    for point in points:
        above = [other for other in points if other is not point and _dominates(other, point)]
        places.append(
            Place(
                name=point.name,
                dominated_by=tuple(other.name for other in above),
                surely_by=tuple(other.name for other in above if _surely(other, point, told)),
            )
        )
    return places


def median_interval(ordered: Sequence[float]) -> tuple[float, float] | None:
    """At least 95% interval of a median, between two order statistics (Conover 1999, section 3.2).

    Args:
        ordered: Values in ascending order.

    Returns:
        The ends, which are values of the sample; None for fewer than six values, of which not even the
        least and the greatest hold the median often enough.
    """
    from scipy.special import bdtr

    n = len(ordered)
    # The interval [x(k), x(n + 1 - k)] misses when fewer than k values lie on one side of the median.
    k = n // 2
    while k > 0 and float(bdtr(k - 1, n, 0.5)) > 0.025:
        k -= 1
    return (ordered[k - 1], ordered[n - k]) if k > 0 else None


def _dominates(one: Point, other: Point) -> bool:
    objectives = _objectives(one, other)
    return objectives is not None and (
        all(better.value <= worse.value for better, worse in objectives)
        and any(better.value < worse.value for better, worse in objectives)
    )


def _surely(one: Point, other: Point, told: Collection[tuple[str, str]]) -> bool:
    """Whether `one`, which dominates `other` by the estimates, surely does."""
    objectives = _objectives(one, other) or []
    better = [_surely_less(*pair) for pair in objectives]
    better[0] = better[0] or (one.name, other.name) in told
    no_worse = [
        is_better or _exactly_equal(*pair) for is_better, pair in zip(better, objectives, strict=True)
    ]
    return any(better) and all(no_worse)


def _objectives(one: Point, other: Point) -> list[tuple[Figure, Figure]] | None:
    """Pairs of figures of which less is better, quality first; None when one is not known."""
    pairs = [(one.quality and _negative(one.quality), other.quality and _negative(other.quality))]
    pairs += [(one.costs[name], other.costs[name]) for name in one.costs]
    known = [(left, right) for left, right in pairs if left is not None and right is not None]
    return known if len(known) == len(pairs) else None


def _negative(figure: Figure) -> Figure:
    ends = figure.ci95
    return Figure(value=-figure.value, ci95=None if ends is None else (-ends[1], -ends[0]))


def _surely_less(one: Figure, other: Figure) -> bool:
    return one.ci95 is not None and other.ci95 is not None and one.ci95[1] < other.ci95[0]


def _exactly_equal(one: Figure, other: Figure) -> bool:
    return one.ci95 == other.ci95 == (one.value, one.value)
