"""Pairs of examples that two sides have in common, and how sure their mean difference is. Pure.

A *side* is one run, or several that differ in their seed alone.

References:
    Hesterberg (2015), "What teachers should know about the bootstrap" (the expanded percentile interval).
    Agresti and Min (2005), "Simple improved confidence intervals for comparing matched proportions".
    Satterthwaite (1946), "An approximate distribution of estimates of variance components".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dspylab.aggregate.stats import t_quantile

#: Example id to the values of one run: one, or several when the dataset repeats the example.
RunValues = Mapping[str, Sequence[float]]
#: Those of a side: of one run, or of several that differ in their seed alone.
SideValues = Sequence[RunValues]

#: Resamples of the bootstrap, and the seed that makes it give the same interval each time.
_RESAMPLES = 4000
_SEED = 20260214
#: Differences that are smaller than this share of the values are rounding.
_ROUNDING = 1e-9
#: Values for each different one, from which on counts are drawn instead of one value after another.
_REPEATED = 8
#: Numbers that a bootstrap holds in memory at once.
_CHUNK = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The examples that two sides have in common, with one value a side.

    Attributes:
        examples: Their ids, in the order of side a.
        a: Mean of the values of side a, for each example.
        b: Mean of the values of side b, for each example.
        only_a: Examples that side b has no value for.
        only_b: Examples that side a has no value for.
    """

    examples: tuple[str, ...]
    a: tuple[float, ...]
    b: tuple[float, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    @property
    def differences(self) -> list[float]:
        """The difference b - a for each example, exactly 0 where they differ by rounding alone."""
        return [
            0.0 if abs(b - a) <= _ROUNDING * max(abs(a), abs(b)) else b - a
            for a, b in zip(self.a, self.b, strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceSplit:
    """Where the variance of a difference comes from. The parts add up to the square of its standard error.

    Attributes:
        example: Examples differ in how much one side is better. Only more examples make it smaller.
        noise: The answers to one example differ from seed to seed. More seeds or examples make it smaller.
        seed: A seed moves all examples at once, such as by the demonstrations that an optimizer chose. Only
            more seeds make it smaller.
    """

    example: float
    noise: float
    seed: float


def pair(a: SideValues, b: SideValues) -> Pairs:
    """Finds the examples that both sides have, and averages the values of each.

    Args:
        a: The baseline.
        b: What is compared with it.
    """
    left, right = merged(a), merged(b)
    common = tuple(example for example in left if example in right)
    return Pairs(
        examples=common,
        a=tuple(mean(left[example]) for example in common),
        b=tuple(mean(right[example]) for example in common),
        only_a=tuple(example for example in left if example not in right),
        only_b=tuple(example for example in right if example not in left),
    )


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """How sure a difference is.

    Attributes:
        spread: Standard deviation of the differences over examples.
        stderr: Standard error of the mean difference, the shift that seeds cause included.
        widening: What the half-widths of an interval over examples are to be multiplied with for the seeds.
        split: See `VarianceSplit`.
        step: What one more answer that passes adds to the value of an example, for pass or fail. Of two
            sides with different numbers of answers, the greater one.
    """

    spread: float
    stderr: float
    widening: float
    split: VarianceSplit | None
    step: float


@dataclass(frozen=True, slots=True)
class _SeedVariance:
    """Mean squares of a table of examples by seeds, over the number of values: parts of a mean's variance.

    Attributes:
        between: Of the means of the seeds, with `seeds - 1` degrees of freedom.
        residual: Of what is left, with `(seeds - 1) (examples - 1)` degrees of freedom.
        seeds: Number of seeds.
        examples: Examples that every seed has.
    """

    between: float
    residual: float
    seeds: int
    examples: int


def uncertainty(a: SideValues, b: SideValues, pairs: Pairs) -> Uncertainty | None:
    """Two-way random effects: examples and seeds. None for fewer than two examples."""
    n = len(pairs.examples)
    if n < 2:
        return None
    differences = pairs.differences
    centre = mean(differences)
    variance = math.fsum((d - centre) ** 2 for d in differences) / (n - 1)
    of_examples = variance / n
    known = [found for side in (a, b) if (found := _seed_variance(side, pairs))]
    shift = max(0.0, math.fsum(found.between - found.residual for found in known))
    split = None
    if len(known) == 2:
        noise = min(of_examples, math.fsum(found.residual for found in known))
        split = VarianceSplit(example=of_examples - noise, noise=noise, seed=shift)
    total = of_examples + shift
    widening = 1.0
    if shift > 0 and of_examples > 0:
        # Summed without rounding: the order of the sides must not move the result.
        doubt = [of_examples**2 / (n - 1)]
        for found in known:
            doubt.append(found.between**2 / (found.seeds - 1))
            doubt.append(found.residual**2 / ((found.seeds - 1) * (found.examples - 1)))
        df = max(1, math.floor(total**2 / math.fsum(doubt)))
        widening = max(1.0, math.sqrt(total / of_examples) * t_quantile(df) / t_quantile(n - 1))
    # Of the side with fewer answers, which is the more careful choice.
    step = max(1 / max(map(len, merged(side).values())) for side in (a, b))
    return Uncertainty(math.sqrt(variance), math.sqrt(total), widening, split, step)


def _seed_variance(side: SideValues, pairs: Pairs) -> _SeedVariance | None:
    """How much the mean of a side depends on its seeds; None with one seed or one example."""
    seeds = len(side)
    complete = [example for example in pairs.examples if all(run.get(example) for run in side)]
    n = len(complete)
    if seeds < 2 or n < 2:
        return None
    table = [[mean(run[example]) for example in complete] for run in side]
    of_seeds = [mean(row) for row in table]
    of_examples = [mean(column) for column in zip(*table, strict=True)]
    grand = mean(of_seeds)
    between = n * math.fsum((seed - grand) ** 2 for seed in of_seeds) / (seeds - 1)
    residual = math.fsum(
        (value - seed - example + grand) ** 2
        for row, seed in zip(table, of_seeds, strict=True)
        for value, example in zip(row, of_examples, strict=True)
    ) / ((seeds - 1) * (n - 1))
    return _SeedVariance(between / (n * seeds), residual / (n * seeds), seeds, n)


def interval(pairs: Pairs, error: Uncertainty, *, pass_fail: bool) -> tuple[float, float] | None:
    """Expanded percentile interval of the paired bootstrap, widened for what the seeds add.

    Differences the other way round have exactly the mirrored interval: the same random draws would not give
    it, so of the two only the one with the greater mean is drawn.

    For pass or fail the resamples are drawn from the table of Agresti and Min, half a pair more in each of
    its four cells: else an experiment in which hardly any example differs would seem certain. With several
    seeds a pair more is one answer more, the least by which examples differ.

    Where no example differs at all, the values are taken as pass or fail at their own scale. None where all
    differ by the same, which says nothing of the spread.
    """
    differences = pairs.differences
    if error.spread == 0 and not pass_fail:
        if any(differences):
            return None
        low, high = _drawn_interval(differences, replace(error, step=1.0), pass_fail=True)
        half = _scale((*pairs.a, *pairs.b)) * (high - low) / 2
        return (-half, half)
    ordered, mirrored = sorted(differences), sorted(-d for d in differences)
    greater = max(ordered, mirrored, key=lambda values: (math.fsum(values), values))
    low, high = _drawn_interval(greater, error, pass_fail=pass_fail)
    if ordered == mirrored:
        # Its own mirror image, which random draws are not quite.
        half = (high - low) / 2
        return (-half, half)
    # Subtracted: there is to be no -0.0.
    return (low, high) if greater is ordered else (0.0 - high, 0.0 - low)


def _scale(values: Sequence[float]) -> float:
    """By how much values differ; of values that are all the same, how far they are from 0."""
    return max(values) - min(values) or abs(values[0])


def _drawn_interval(
    differences: Sequence[float], error: Uncertainty, *, pass_fail: bool
) -> tuple[float, float]:
    """The interval from random draws; see `interval`."""
    import numpy as np
    from scipy.special import ndtr

    n = len(differences)
    values, counts = np.unique(np.asarray(differences), return_counts=True)
    weights = dict(zip(values.tolist(), counts.tolist(), strict=True))
    if pass_fail:
        for value, extra in ((-error.step, 0.5), (0.0, 1.0), (error.step, 0.5)):
            weights[value] = weights.get(value, 0.0) + extra
    means = _bootstrap_means(weights, n)
    level = float(ndtr(-math.sqrt(n / (n - 1)) * t_quantile(n - 1)))
    low, high = np.quantile(means, [level, 1 - level]).tolist()
    centre = mean(differences)
    ends = (centre - (centre - low) * error.widening, centre + (high - centre) * error.widening)
    if pass_fail:
        # The half pairs draw the resamples towards 0: the estimate itself stays inside.
        return (max(-1.0, min(ends[0], centre)), min(1.0, max(ends[1], centre)))
    return ends


def _bootstrap_means(weights: Mapping[float, float], n: int) -> Any:
    """Means of resamples of n values, each value drawn in proportion to its weight; an array."""
    import numpy as np

    generator = np.random.default_rng(_SEED)
    values = np.array(list(weights))
    shares = np.array(list(weights.values()))
    if shares.sum() != n or len(values) * _REPEATED <= n:
        return generator.multinomial(n, shares / shares.sum(), size=_RESAMPLES) @ values / n
    repeated = np.repeat(values, [round(weight) for weight in weights.values()])
    rows = max(1, _CHUNK // n)
    parts = [
        repeated[generator.integers(0, len(repeated), (min(rows, _RESAMPLES - start), n))].mean(axis=1)
        for start in range(0, _RESAMPLES, rows)
    ]
    return np.concatenate(parts)


def merged(side: SideValues) -> dict[str, list[float]]:
    """All values of each example that has any, over the runs of a side."""
    found: dict[str, list[float]] = {}
    for run in side:
        for example, values in run.items():
            if values:
                found.setdefault(example, []).extend(values)
    return found


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of at least one value."""
    return math.fsum(values) / len(values)
