"""Paired comparison of two runs, and of many runs with the best. Pure and deterministic.

A *side* is one run, or several that differ in their seed alone. The example is the unit: the values of a
side for one example are averaged first, and only examples that both sides have are compared. How often it
errs was found by simulation: see ``benchmarks/compare_calibration.py`` and ``docs/compare.md``.

References:
    Hsu (1981), "Simultaneous confidence intervals for all distances from the best".
    Connor (1987), "Sample size for testing differences in proportions for the paired-sample design".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from dspylab.aggregate.pairs import (
    Pairs,
    SideValues,
    VarianceSplit,
    interval,
    mean,
    merged,
    pair,
    uncertainty,
)
from dspylab.aggregate.significance import holm, mcnemar_exact, wilcoxon_signed_rank

Verdict = Literal["better", "worse", "probably better", "probably worse", "cannot tell"]
TestName = Literal["mcnemar", "wilcoxon"]

#: Chance of calling a difference real that is none, over all comparisons that are shown together.
ALPHA = 0.05
#: Sides up to which every pair is tested to rank those that are shown: 780 pairs. Fewer where there are many
#: examples: a test takes about a microsecond for each.
MOST_RANKED_SIDES = 40
_MOST_RANKED_VALUES = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Side b against side a on one metric, of which more is better. Figures that do not exist are None.

    Attributes:
        metric: Its name.
        a: Name of side a, the baseline.
        b: Name of side b.
        mean_a: Mean over the paired examples; None without any.
        mean_b: As `mean_a`.
        n: Paired examples.
        only_a: Examples that side b has no value for.
        only_b: Examples that side a has no value for.
        difference: mean_b - mean_a.
        stderr: Standard error of the difference, seeds included; None for n < 2.
        ci95: 95% interval of the difference; None for n < 2, and when all differences are one number (unless
            the metric is pass or fail).
        test: ``mcnemar`` (exact) for pass or fail with one value a side and example, ``wilcoxon`` otherwise.
        p_value: Two-sided, of the null hypothesis of no difference; None for n < 2.
        p_adjusted: The same after Holm's correction over the comparisons of its `Family`.
        wins: Examples on which b is better.
        losses: Examples on which a is better.
        ties: Examples on which they are equal.
        variance: Where the uncertainty comes from; None unless both sides have at least two seeds.
        pass_fail: Every value is 0 or 1.
        spread: Standard deviation of the differences over examples; None for n < 2.
        verdict: On b: ``better`` or ``worse`` if ``p_adjusted`` is at most 5% and the interval lies on the
            same side of 0 as the difference; ``probably better`` or ``probably worse`` if that holds for
            ``p_value`` alone; else ``cannot tell``.
    """

    metric: str
    a: str
    b: str
    mean_a: float | None
    mean_b: float | None
    n: int
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    difference: float | None
    stderr: float | None
    ci95: tuple[float, float] | None
    test: TestName
    p_value: float | None
    p_adjusted: float | None
    wins: int
    losses: int
    ties: int
    variance: VarianceSplit | None
    pass_fail: bool
    spread: float | None
    verdict: Verdict

    @property
    def is_the_same(self) -> bool:
        """Whether no example differs."""
        return self.n > 0 and self.ties == self.n


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The comparisons that p-values are corrected for: those shown, and those they were chosen from.

    Attributes:
        total: How many there are.
        unshown: The p-values of those that are not shown.
        is_bound: Those not shown were too many to be tested. They count as if their p-value were 1, which
            makes the corrected p-values of those shown too large, never too small.
    """

    total: int
    unshown: tuple[float, ...] = ()
    is_bound: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InExperiment:
    """A comparison that was asked for by name, seen as one of all pairs of sides of its experiment.

    Attributes:
        pairs: How many there are.
        is_bound: As of `Family`.
        p_adjusted: The p-value after Holm's correction over all of them; None where there is no p-value.
        verdict: As of `Comparison`, with this p-value.
    """

    pairs: int
    is_bound: bool
    p_adjusted: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The best of several sides, and which of the others can be told from it.

    Attributes:
        best: Name of the side with the highest mean; None if no side has a value.
        comparisons: Name of each other side that has a value, best mean first, to its comparison with the
            best (which is side a).
        family: All pairs of sides, over which the p-values are corrected.
    """

    best: str | None
    comparisons: Mapping[str, Comparison]
    family: Family = Family(total=0)

    @property
    def not_told_apart(self) -> tuple[str, ...]:
        """The best and all that are not surely worse: in all probability the true best is among them."""
        level = [name for name, found in self.comparisons.items() if found.verdict != "worse"]
        return () if self.best is None else (self.best, *level)

    @property
    def probably_worse(self) -> tuple[str, ...]:
        """Those of `not_told_apart` that the correction alone keeps from being called worse."""
        return tuple(name for name, found in self.comparisons.items() if found.verdict == "probably worse")

    @property
    def level(self) -> tuple[str, ...]:
        """The best and those of `not_told_apart` that are not probably worse: any of them can be chosen."""
        return tuple(name for name in self.not_told_apart if name not in self.probably_worse)

    @property
    def better(self) -> tuple[str, ...]:
        """Those that are, at least probably, better than the best where both have a value.

        The mean of the best is over other examples.
        """
        is_better = ("better", "probably better")
        return tuple(name for name, found in self.comparisons.items() if found.verdict in is_better)

    def in_experiment(self, found: Comparison) -> InExperiment | None:
        """What a comparison of two sides is among all pairs.

        Args:
            found: Of any two sides, corrected in any way.

        Returns:
            None if this pair is the only one, or a side is none of these.
        """
        if not {found.a, found.b} <= {self.best, *self.comparisons} or self.family.total < 2:
            return None
        others = [one.p_value for one in self.comparisons.values() if one.p_value is not None]
        others += self.family.unshown
        if found.p_value in others:
            others.remove(found.p_value)
        (corrected,) = adjusted([found], replace(self.family, unshown=tuple(others)))
        return InExperiment(
            pairs=self.family.total,
            is_bound=self.family.is_bound,
            p_adjusted=corrected.p_adjusted,
            verdict=corrected.verdict,
        )


def compare(metric: str, a: SideValues, b: SideValues, names: tuple[str, str] = ("a", "b")) -> Comparison:
    """Compares two sides example by example.

    Args:
        metric: Name of the metric, of which more is better.
        a: The baseline: for each of its runs (one a seed) the values by example. An example without a value,
            such as one that failed, is left out, never 0.
        b: What is compared with it, likewise.
        names: What the sides are called.

    Returns:
        The comparison as if it were the only one: `p_adjusted` is `p_value`. See `adjusted` for several.
    """
    pairs = pair(a, b)
    differences = pairs.differences
    n = len(differences)
    pass_fail = n > 0 and all(value in (0.0, 1.0) for side in (a, b) for value in _flat(side, pairs))
    mcnemar = pass_fail and _is_single(a, pairs) and _is_single(b, pairs)
    p_value = _p_value(differences, mcnemar=mcnemar)
    wins, losses = _wins_and_losses(differences)
    error = uncertainty(a, b, pairs)
    comparison = Comparison(
        metric=metric,
        a=names[0],
        b=names[1],
        mean_a=mean(pairs.a) if n else None,
        mean_b=mean(pairs.b) if n else None,
        n=n,
        only_a=pairs.only_a,
        only_b=pairs.only_b,
        difference=mean(differences) if n else None,
        stderr=error.stderr if error else None,
        ci95=interval(pairs, error, pass_fail=pass_fail) if error else None,
        test="mcnemar" if mcnemar else "wilcoxon",
        p_value=p_value,
        p_adjusted=p_value,
        wins=wins,
        losses=losses,
        ties=n - wins - losses,
        variance=error.split if error else None,
        pass_fail=pass_fail,
        spread=error.spread if error else None,
        verdict="cannot tell",
    )
    return replace(comparison, verdict=_verdict(comparison))


def adjusted(comparisons: Sequence[Comparison], family: Family | None = None) -> list[Comparison]:
    """Comparisons that are shown together: their p-values after Holm's correction, and their verdicts.

    Args:
        comparisons: In any order; the result has the same.
        family: What they were chosen from; None for just these.
    """
    known = [found.p_value for found in comparisons if found.p_value is not None]
    family = family or Family(total=len(known))
    everything = [*known, *family.unshown]
    corrected = iter(holm(everything, max(family.total, len(everything))))
    result = []
    for found in comparisons:
        p_adjusted = None if found.p_value is None else next(corrected)
        updated = replace(found, p_adjusted=p_adjusted)
        result.append(replace(updated, verdict=_verdict(updated)))
    return result


def against_best(metric: str, sides: Mapping[str, SideValues]) -> Standing:
    """Finds the best side and compares every other with it.

    The best was chosen by looking, so the correction is for all pairs of sides, not only for those shown,
    and a p-value has the rank that it has among all of them. So the chance that any of several equally good
    sides is called worse than the best is at most 5%, and the true best is among
    `Standing.not_told_apart` with at least 95% (as in Hsu's comparisons with the best).

    Args:
        metric: Name of the metric, of which more is better.
        sides: Name of each side to its runs. A side whose examples are incomplete should be left out: its
            mean is over other examples. Sides without any value are ignored.

    Returns:
        The best, and the comparisons; of two with one mean, the first is the best.
    """
    means = {name: mean(values) for name, side in sides.items() if (values := _example_means(side))}
    if not means:
        return Standing(best=None, comparisons={})
    best, *others = sorted(means, key=lambda name: -means[name])
    comparisons = [compare(metric, sides[best], sides[name], (best, name)) for name in others]
    family = _all_pairs(comparisons, [sides[name] for name in others])
    corrected = adjusted(comparisons, family)
    return Standing(best=best, comparisons=dict(zip(others, corrected, strict=True)), family=family)


def needed_examples(
    comparison: Comparison, difference: float, power: float = 0.8, alpha: float = ALPHA
) -> int | None:
    """How many examples of this kind it takes to see a difference of a given size.

    By the normal approximation, (z_alpha + z_power)² · spread² / difference²; for McNemar's test by Connor's
    (1987) formula, (z_alpha √s + z_power √(s - difference²))² / difference², with s the share of examples
    that differ. With seeds that move all examples at once, the part of the variance that more examples can
    not take away is subtracted from what the difference allows; that the interval is widened for a shift
    that few seeds tell little about is not in it, so with several seeds the number is a lower bound.

    Args:
        comparison: Says how much the differences vary, with as many seeds as it has.
        difference: Size of the difference to see, in the unit of the metric; its sign does not matter.
        power: Chance to see it.
        alpha: Level of the test. For one of m comparisons shown together, 0.05 / m is on the safe side.

    Returns:
        Examples, at least 2; None when the comparison does not say how much differences vary, when no
        difference is asked for, or when no number of examples would do without more seeds.
    """
    from scipy.special import ndtri

    delta = abs(difference)
    if comparison.spread is None or delta == 0 or (comparison.spread == 0 and not comparison.pass_fail):
        return None
    z_alpha, z_power = float(ndtri(1 - alpha / 2)), float(ndtri(power))
    if comparison.pass_fail and delta > 1:
        return None
    # For pass or fail a pair that differs is added: that none did so far does not mean that none ever will.
    if comparison.test == "mcnemar":
        share = max(delta, (comparison.wins + comparison.losses + 1) / (comparison.n + 2))
        root = z_alpha * math.sqrt(share) + z_power * math.sqrt(share - delta**2)
        return max(2, math.ceil((root / delta) ** 2))
    variance = comparison.spread**2
    if comparison.pass_fail:
        variance = (comparison.n * variance + 1) / (comparison.n + 2)
    seed = comparison.variance.seed if comparison.variance else 0.0
    allowed = (delta / (z_alpha + z_power)) ** 2 - seed
    return max(2, math.ceil(variance / allowed)) if allowed > 0 else None


def _verdict(comparison: Comparison) -> Verdict:
    """Both the test and the interval have to speak, and for the same side; the corrected test, to be sure."""
    p_value, p_adjusted, ends = comparison.p_value, comparison.p_adjusted, comparison.ci95
    if p_value is None or p_adjusted is None or ends is None or p_value > ALPHA:
        return "cannot tell"
    if ends[0] > 0:
        return "better" if p_adjusted <= ALPHA else "probably better"
    if ends[1] < 0:
        return "worse" if p_adjusted <= ALPHA else "probably worse"
    return "cannot tell"


def _all_pairs(shown: Sequence[Comparison], others: Sequence[SideValues]) -> Family:
    """The family of the comparisons with the best: these, and those of all other sides with each other."""
    sides = len(others) + 1
    pairs = sides * (sides - 1) // 2
    examples = max((comparison.n for comparison in shown), default=0)
    if sides > MOST_RANKED_SIDES or pairs * examples > _MOST_RANKED_VALUES:
        return Family(total=pairs, is_bound=True)
    found = [_p_value_of(a, b) for a, b in combinations(map(merged, others), 2)]
    unshown = tuple(p_value for p_value in found if p_value is not None)
    tested = sum(one.p_value is not None for one in shown)
    return Family(total=tested + len(unshown), unshown=unshown)


def _p_value_of(a: Mapping[str, list[float]], b: Mapping[str, list[float]]) -> float | None:
    """The p-value that `compare` has for two sides whose values are merged already."""
    pairs = pair([a], [b])
    mcnemar = all(
        len(values) == 1 and values[0] in (0.0, 1.0)
        for example in pairs.examples
        for values in (a[example], b[example])
    )
    return _p_value(pairs.differences, mcnemar=mcnemar)


def _p_value(differences: Sequence[float], *, mcnemar: bool) -> float | None:
    if len(differences) < 2:
        return None
    return mcnemar_exact(*_wins_and_losses(differences)) if mcnemar else wilcoxon_signed_rank(differences)


def _wins_and_losses(differences: Sequence[float]) -> tuple[int, int]:
    return sum(d > 0 for d in differences), sum(d < 0 for d in differences)


def _is_single(side: SideValues, pairs: Pairs) -> bool:
    """Whether a side has one value for each example."""
    return all(sum(len(run.get(example, ())) for run in side) == 1 for example in pairs.examples)


def _example_means(side: SideValues) -> list[float]:
    return [mean(values) for values in merged(side).values()]


def _flat(side: SideValues, pairs: Pairs) -> list[float]:
    return [value for run in side for example in pairs.examples for value in run.get(example, ())]
