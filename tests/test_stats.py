"""Statistics against numpy, scipy and simulation; none of it may invent a number."""

from __future__ import annotations

import json
import math
from array import array

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from dspylab.aggregate.stats import (
    distribution,
    hall,
    metric_summary,
    percentile,
    standard_error,
    t_quantile,
    wilson,
)
from dspylab.jsonable import to_json

pytestmark = pytest.mark.xdist_group("scipy")

finite = st.floats(min_value=-1e6, max_value=1e6)


@pytest.mark.parametrize(("ones", "n"), [(0, 20), (1, 20), (10, 20), (19, 20), (20, 20), (7, 96), (1, 1)])
def test_wilson_is_scipys(ones: int, n: int) -> None:
    expected = scipy.stats.binomtest(ones, n).proportion_ci(method="wilson")
    assert wilson(ones / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_zeros_and_ones_get_wilsons_interval() -> None:
    summary = metric_summary([1.0] * 78 + [0.0] * 18)
    expected = scipy.stats.binomtest(78, 96).proportion_ci(method="wilson")
    assert summary.method == "wilson"
    assert summary.mean == pytest.approx(78 / 96)
    assert summary.ci95 == pytest.approx((expected.low, expected.high))
    assert summary.stderr == pytest.approx(scipy.stats.sem([1] * 78 + [0] * 18))
    assert (summary.n, summary.examples) == (96, 96)


def test_all_right_is_not_certainty() -> None:
    summary = metric_summary([1.0] * 20)
    assert summary.ci95 is not None
    assert summary.ci95[1] == 1
    assert 0.8 < summary.ci95[0] < 0.9


def test_without_skewness_the_interval_is_students_t() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    low, high = scipy.stats.t.interval(0.95, 5, np.mean(values), scipy.stats.sem(values))
    assert hall(values) == pytest.approx((low, high))
    summary = metric_summary(values)
    assert summary.method == "hall"
    assert summary.ci95 == pytest.approx((low, high))


def test_a_skewed_metric_gets_a_longer_arm_on_the_side_of_the_tail() -> None:
    values = np.random.default_rng(3).exponential(size=30).tolist()
    low, high = hall(values)
    mean = sum(values) / 30
    assert high - mean > 1.3 * (mean - low)


@pytest.mark.parametrize("values", [[0.0, 0.1, 0.1, 0.2, 3.0], [5.0, 4.9, 4.0, -2.0], [1.0, 1.0, 2.0]])
def test_halls_transformation_of_both_ends_is_students_quantile(values: list[float]) -> None:
    n, mean, s = len(values), np.mean(values), np.std(values, ddof=1)
    k = sum(((value - mean) / s) ** 3 for value in values) / n
    reach = scipy.stats.t.ppf(0.975, n - 1) / math.sqrt(n)
    for end, expected in zip(hall(values), (reach, -reach), strict=True):
        t = (mean - end) / s
        assert t + k * t**2 / 3 + k**2 * t**3 / 27 + k / (6 * n) == pytest.approx(expected)


@given(st.lists(finite, min_size=2, max_size=30))
def test_an_interval_is_finite_and_in_order(values: list[float]) -> None:
    summary = metric_summary(values)
    assert summary.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert summary.stderr is not None
    assert math.isfinite(summary.stderr)
    if summary.ci95 is None:
        assert summary.stderr == 0
    else:
        assert all(map(math.isfinite, summary.ci95))
        assert summary.ci95[0] <= summary.ci95[1]


@pytest.mark.parametrize("values", [[], [0.5], [1.0]])
def test_fewer_than_two_values_have_no_error_and_no_interval(values: list[float]) -> None:
    summary = metric_summary(values)
    assert summary.stderr is None
    assert summary.ci95 is None
    assert summary.mean == (values[0] if values else None)
    assert (summary.n, summary.examples, summary.method) == (len(values), len(values), None)


def test_equal_values_say_nothing_of_the_spread() -> None:
    summary = metric_summary([0.1] * 30)
    assert summary.mean == pytest.approx(0.1)
    assert summary.stderr == 0
    assert (summary.ci95, summary.method) == (None, None)


def test_an_interval_is_cut_at_the_bounds_of_the_metric() -> None:
    values = [1.0] * 18 + [0.5, 0.6]
    free, cut = metric_summary(values), metric_summary(values, bounds=(0.0, 1.0))
    assert free.ci95 is not None
    assert cut.ci95 is not None
    assert free.ci95[1] > 1
    assert cut.ci95 == (free.ci95[0], 1.0)
    turned = metric_summary([1 - value for value in values], bounds=(0.0, 1.0))
    assert turned.ci95 is not None
    assert turned.ci95[0] == 0.0
    assert turned.ci95[1] == pytest.approx(1 - free.ci95[0])


def test_repeated_examples_count_once() -> None:
    answers = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]
    once = metric_summary(answers)
    copied = metric_summary(answers * 3, list(range(10)) * 3)
    assert (copied.n, copied.examples) == (30, 10)
    assert copied.mean == once.mean
    assert copied.stderr == pytest.approx(once.stderr)
    assert copied.ci95 is not None
    assert once.ci95 is not None
    # The same information; the variance is now estimated, hence t instead of z: a little wider.
    assert 1.0 < (copied.ci95[1] - copied.ci95[0]) / (once.ci95[1] - once.ci95[0]) < 1.25


def test_a_repeated_example_is_its_mean() -> None:
    values = [0.2, 0.4, 0.9, 0.7, 0.1, 0.3]
    examples = [7, 7, 8, 8, 9, 9]
    means = [0.3, 0.8, 0.2]
    repeated, of_means = metric_summary(values, examples), metric_summary(means)
    assert repeated.stderr == pytest.approx(of_means.stderr)
    assert repeated.ci95 == pytest.approx(of_means.ci95)


@pytest.mark.parametrize("values", [[1.0, 0.0, 1.0, 1.0], [0.2, 0.9, 0.4, 0.1]])
def test_examples_that_are_all_different_need_not_be_named(values: list[float]) -> None:
    assert metric_summary(values, [3, 1, 2, 7]) == metric_summary(values)


def test_one_example_with_many_seeds_has_no_interval() -> None:
    summary = metric_summary([0.0, 1.0, 1.0], [4, 4, 4])
    assert summary.mean == pytest.approx(2 / 3)
    assert (summary.stderr, summary.ci95, summary.examples) == (None, None, 1)


def test_repeated_examples_that_are_all_right_are_as_good_as_so_many_examples() -> None:
    assert metric_summary([1.0] * 60, list(range(20)) * 3).ci95 == pytest.approx(
        wilson(1.0, 20, t_quantile(19))
    )


def test_t_quantiles() -> None:
    assert t_quantile(1) == pytest.approx(12.7062, abs=1e-4)
    assert t_quantile(10_000) == pytest.approx(scipy.stats.t.ppf(0.975, 10_000))


@pytest.mark.parametrize("p", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("n", [20, 50, 200])
def test_coverage_of_proportions_lies_in_the_band(n: int, p: float) -> None:
    """Exact, by enumeration. At n = 20 and p = 0.05 no interval can be inside: see docs/measurements.md."""
    covered = 0.0
    for ones in range(n + 1):
        ends = metric_summary([1.0] * ones + [0.0] * (n - ones)).ci95
        assert ends is not None
        covered += scipy.stats.binom.pmf(ones, n, p) * (ends[0] <= p <= ends[1])
    if n == 20 and p != 0.5:
        assert covered == pytest.approx(0.9245, abs=1e-4)
    else:
        assert 0.93 <= covered <= 0.97


def test_coverage_of_a_skewed_metric() -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(1500):
        ends = metric_summary(rng.exponential(size=20).tolist()).ci95
        assert ends is not None
        covered += ends[0] <= 1 <= ends[1]
    # The plain t interval has about 91.5% here; one standard error of this simulation is 0.6%.
    assert covered / 1500 == pytest.approx(0.95, abs=0.02)


@given(st.lists(finite, min_size=1, max_size=40), st.floats(min_value=0, max_value=1))
def test_percentiles_are_numpys(values: list[float], share: float) -> None:
    assert percentile(sorted(values), share) == pytest.approx(np.quantile(values, share), rel=1e-12, abs=1e-9)


def test_percentiles_are_numpys_to_the_last_digit() -> None:
    """`dspylab show` and a notebook print the same figure."""
    rng = np.random.default_rng(7)
    for n in range(1, 60):
        ordered = np.sort(rng.exponential(size=n))
        for share in (0.5, 0.9, 0.95, 1 / 3):
            assert percentile(ordered.tolist(), share) == np.quantile(ordered, share)


def test_at_none_and_at_all_one_end_is_exact() -> None:
    for n in range(1, 200):
        assert wilson(0.0, n)[0] == 0.0
        assert wilson(1.0, n)[1] == 1.0


def test_rounding_is_no_variance_and_a_small_difference_is() -> None:
    for n in range(2, 60):
        for value in (0.1, 1 / 3, 0.7, 1e9 / 7):
            assert standard_error([value] * n) == 0.0
    assert standard_error([0.5, 0.5 + 1e-9] * 5) == pytest.approx(1e-9 / 6)


def test_a_distribution() -> None:
    values = array("d", np.random.default_rng(5).exponential(size=1001))
    summary = distribution(values)
    assert summary.n == 1001
    assert summary.mean == pytest.approx(np.mean(values))
    assert [summary.p50, summary.p90, summary.p95] == np.percentile(values, [50, 90, 95]).tolist()


def test_nothing_has_no_distribution() -> None:
    summary = distribution(array("d"))
    assert json.dumps(to_json(summary)) == '{"mean": null, "p50": null, "p90": null, "p95": null, "n": 0}'
