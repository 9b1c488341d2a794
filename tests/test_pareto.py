"""Which runs are dominated, by the figures and for sure."""

from __future__ import annotations

import numpy as np
import pytest
import scipy

from dspylab.aggregate.pareto import Figure, Point, median_interval, pareto

pytestmark = pytest.mark.xdist_group("scipy")


def exact(value: float) -> Figure:
    return Figure(value=value, ci95=(value, value))


def about(value: float, reach: float) -> Figure:
    return Figure(value=value, ci95=(value - reach, value + reach))


def point(name: str, quality: Figure | None, latency: Figure | None, cost: Figure | None) -> Point:
    return Point(name=name, quality=quality, costs={"latency": latency, "cost": cost})


def test_better_in_everything_for_sure() -> None:
    good = point("good", about(0.9, 0.02), about(1.0, 0.1), exact(0.0))
    bad = point("bad", about(0.7, 0.02), about(2.0, 0.1), exact(0.0))
    places = pareto([bad, good])
    assert places[0].dominated_by == places[0].surely_by == ("good",)
    assert places[1].on_front


def test_by_the_figures_alone() -> None:
    good = point("good", about(0.9, 0.1), about(1.0, 0.1), exact(0.0))
    bad = point("bad", about(0.8, 0.1), about(2.0, 0.1), exact(0.0))
    place = pareto([bad, good])[0]
    assert (place.dominated_by, place.surely_by) == (("good",), ())
    # The intervals of the means overlap, but the same examples told the runs apart.
    assert pareto([bad, good], [("good", "bad")])[0].surely_by == ("good",)
    assert pareto([bad, good], [("bad", "good")])[0].surely_by == ()


def test_a_trade_is_no_dominance() -> None:
    dear = point("dear", exact(0.9), exact(1.0), exact(5.0))
    cheap = point("cheap", exact(0.8), exact(1.0), exact(1.0))
    assert all(place.on_front for place in pareto([dear, cheap]))


def test_equal_points_do_not_dominate_each_other() -> None:
    twins = [point(name, exact(0.9), exact(1.0), exact(1.0)) for name in ("a", "b")]
    assert all(place.on_front for place in pareto(twins))


def test_what_is_not_known_is_not_beaten() -> None:
    known = point("known", exact(0.9), exact(1.0), exact(1.0))
    unpriced = point("unpriced", exact(0.1), exact(9.0), None)
    unscored = point("unscored", None, exact(0.1), exact(0.1))
    assert all(place.on_front for place in pareto([known, unpriced, unscored]))


def test_what_is_not_known_of_anybody_decides_nothing() -> None:
    good = point("good", exact(0.9), exact(1.0), None)
    bad = point("bad", exact(0.1), exact(9.0), None)
    assert [place.surely_by for place in pareto([good, bad])] == [(), ("good",)]


def test_without_an_interval_nothing_is_sure() -> None:
    good = point("good", Figure(value=0.9), exact(1.0), exact(1.0))
    bad = point("bad", Figure(value=0.1), exact(2.0), exact(2.0))
    place = pareto([good, bad])[1]
    assert (place.dominated_by, place.surely_by) == (("good",), ())


def test_what_is_sure_needs_a_gap_or_figures_that_are_equal_and_exact() -> None:
    good = point("good", Figure(value=0.9, ci95=(0.8, 1.0)), exact(1.0), exact(1.0))
    touching = point("touching", Figure(value=0.7, ci95=(0.6, 0.8)), exact(1.0), exact(1.0))
    place = pareto([good, touching])[1]
    assert (place.dominated_by, place.surely_by) == (("good",), ())
    # Equal estimates that are not exact may differ either way.
    equal = point("equal", about(0.5, 0.05), about(1.0, 0.1), exact(1.0))
    best = point("best", about(0.9, 0.05), about(1.0, 0.1), exact(1.0))
    place = pareto([best, equal])[1]
    assert (place.dominated_by, place.surely_by) == (("best",), ())


@pytest.mark.parametrize("n", [6, 7, 20, 51, 200, 1001])
def test_the_interval_of_a_median_is_the_narrowest_that_holds_it_often_enough(n: int) -> None:
    ends = median_interval([float(rank) for rank in range(1, n + 1)])
    assert ends is not None
    low, high = round(ends[0]), round(ends[1])
    assert low + high == n + 1
    # The k-th and the (n + 1 - k)-th value miss the median when fewer than k lie on one side of it.
    assert 2 * scipy.stats.binom.cdf(low - 1, n, 0.5) <= 0.05
    assert 2 * scipy.stats.binom.cdf(low, n, 0.5) > 0.05


def test_too_few_values_have_no_interval_of_the_median() -> None:
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert median_interval([]) is None


def test_coverage_of_the_median() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(1000):
        ends = median_interval(sorted(rng.exponential(size=40).tolist()))
        assert ends is not None
        hits += ends[0] <= np.log(2) <= ends[1]
    assert hits / 1000 >= 0.94
