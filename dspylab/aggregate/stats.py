"""Means with their intervals, and distributions. Pure; figures that do not exist are None.

Which interval is used, and how well each covers, was decided by simulation: see
``benchmarks/interval_coverage.py`` and ``docs/measurements.md``.

References:
    Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    Hall (1992), "On the removal of skewness by transformation".
    Korn and Graubard (1998), "Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data" (the effective sample size).
"""

from __future__ import annotations

import functools
import math
from array import array
from collections.abc import Hashable, Sequence

from dspylab.records import Distribution, IntervalMethod, MetricSummary

#: 97.5% quantile of the standard normal distribution.
Z = 1.959963984540054

#: Skewness below which the cubic transformation is the identity up to rounding.
_NO_SKEW = 1e-6


def metric_summary(
    values: Sequence[float],
    examples: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] | None = None,
) -> MetricSummary:
    """Mean, standard error and 95% interval of a metric.

    Values that are all 0 or 1 get Wilson's score interval. Others get the t interval with Hall's cubic
    transformation, which takes out the skewness as a bootstrap-t does, but is deterministic and always
    finite. When examples repeat, their values are not independent: the example is then the unit of
    both the standard error and the interval (the mean stays the mean over all values), and Wilson's
    interval is taken at the effective sample size.

    Args:
        values: One value a row, finite; any length.
        examples: For each value, what stands for its example; None when all differ.
        bounds: Least and greatest value that the metric can have; the interval is cut there.

    Returns:
        The summary. For fewer than two independent examples `stderr` and `ci95` are None. `ci95` is
        also None when all values are the same number other than 0 or 1: they say nothing of the spread.
    """
    n = len(values)
    if n == 0:
        return MetricSummary(mean=None, stderr=None, ci95=None, n=0, examples=0)
    mean = math.fsum(values) / n
    repeated = examples is not None and len(set(examples)) < n
    units = _unit_scores(values, examples, mean) if repeated and examples is not None else values
    groups = len(units)
    if groups < 2:
        return MetricSummary(mean=mean, stderr=None, ci95=None, n=n, examples=groups)
    stderr = standard_error(units)
    method: IntervalMethod | None = None
    ends: tuple[float, float] | None = None
    if all(value in (0.0, 1.0) for value in values):
        method = "wilson"
        if repeated:
            ends = wilson(mean, _effective_size(mean, stderr, n, groups), t_quantile(groups - 1))
        else:
            ends = wilson(mean, n)
    elif stderr > 0:
        method, ends = "hall", hall(units)
    if ends is not None and bounds is not None:
        ends = (max(ends[0], bounds[0]), min(ends[1], bounds[1]))
    return MetricSummary(mean=mean, stderr=stderr, ci95=ends, method=method, n=n, examples=groups)


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of at least two independent values: s / √n, where s divides by n - 1."""
    n = len(values)
    mean = math.fsum(values) / n
    squares = math.fsum((value - mean) ** 2 for value in values)
    # Rounding leaves a trace of variance in equal values whose mean is not exactly representable.
    if squares <= n * (abs(mean) * 1e-15) ** 2:
        return 0.0
    return math.sqrt(squares / (n - 1) / n)


def wilson(proportion: float, n: float, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927).

    Args:
        proportion: Share of ones, 0 to 1.
        n: Sample size, above 0; an effective size need not be whole.
        z: Quantile that decides the level; the default gives 95%.

    Returns:
        Lower and upper end, within 0 and 1.
    """
    spread = z * z / n
    centre = proportion + spread / 2
    half = math.sqrt(spread * (proportion * (1 - proportion) + spread / 4))
    low = (centre - half) / (1 + spread)
    high = (centre + half) / (1 + spread)
    # At 0 and at 1 one end is exact in theory and off by rounding in practice.
    return (0.0 if proportion == 0 else max(0.0, low), 1.0 if proportion == 1 else min(1.0, high))


def hall(values: Sequence[float]) -> tuple[float, float]:
    """The 95% t interval of a mean, with the skewness taken out by Hall's cubic transformation.

    With T = (mean - true mean) / s and the skewness k, g(T) = T + kT²/3 + k²T³/27 + k/(6n) is free of
    skewness to the second order (Hall 1992, the transformation called g1 there). It is monotone, and is
    inverted in closed form at ±t/√n. For k = 0 this is the ordinary t interval.

    Args:
        values: At least two independent values that are not all equal.

    Returns:
        Lower and upper end.
    """
    n = len(values)
    mean = math.fsum(values) / n
    deviations = [value - mean for value in values]
    s = math.sqrt(math.fsum(d * d for d in deviations) / (n - 1))
    skewness = math.fsum((d / s) ** 3 for d in deviations) / n
    reach = t_quantile(n - 1) / math.sqrt(n)

    def inverse(y: float) -> float:
        if abs(skewness) < _NO_SKEW:
            return y
        return 3 / skewness * (math.cbrt(1 + skewness * (y - skewness / (6 * n))) - 1)

    return (mean - s * inverse(reach), mean - s * inverse(-reach))


@functools.cache
def t_quantile(df: float) -> float:
    """97.5% quantile of Student's t distribution with `df` degrees of freedom (from scipy)."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.975))


def sum_if_known(values: Sequence[float | None]) -> float | None:
    """The sum, rounded once; None as soon as one of the values is not known."""
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None


def percentile(ordered: Sequence[float], share: float) -> float:
    """A percentile with linear interpolation between order statistics (numpy's default; type 7).

    Args:
        ordered: At least one value, in ascending order.
        share: 0 to 1.

    Returns:
        The value below which the share lies.
    """
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    part = position - below
    gap = ordered[above] - ordered[below]
    # From the nearer end, like numpy: the last place of the result depends on it.
    return ordered[above] - gap * (1 - part) if part >= 0.5 else ordered[below] + gap * part


def distribution(values: Sequence[float]) -> Distribution:
    """Mean and percentiles of timings or rates; each statistic None when there are none."""
    if not values:
        return Distribution(mean=None, p50=None, p90=None, p95=None, n=0)
    ordered = array("d", sorted(values))
    return Distribution(
        mean=math.fsum(ordered) / len(ordered),
        p50=percentile(ordered, 0.50),
        p90=percentile(ordered, 0.90),
        p95=percentile(ordered, 0.95),
        n=len(ordered),
    )


def _unit_scores(values: Sequence[float], examples: Sequence[Hashable], mean: float) -> list[float]:
    """One score an example, such that their mean is the mean over all values.

    The score is mean + G/N · Σ(value - mean) over the example's values, for G examples and N values:
    the example's own mean when all have the same number of values, the linearised ratio estimator
    otherwise.
    """
    deviations: dict[Hashable, float] = {}
    for example, value in zip(examples, values, strict=True):
        deviations[example] = deviations.get(example, 0.0) + (value - mean)
    weight = len(deviations) / len(values)
    return [mean + weight * deviation for deviation in deviations.values()]


def _effective_size(proportion: float, stderr: float, n: int, groups: int) -> float:
    """Size of the independent sample that would have this standard error, at most n."""
    if stderr == 0:
        return float(groups)
    return min(float(n), proportion * (1 - proportion) / stderr**2)
