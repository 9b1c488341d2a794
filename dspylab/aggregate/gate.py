"""Whether the results hold what the checks of the experiment demand. Pure.

A *side* is one run, or all that differ in their seed alone: those are judged together, over all their seeds.

Figures with a 95% interval (the means of metrics, and differences of them) are judged by it: a condition
holds when the whole interval is on its side, is violated when the whole interval is on the other side, and is
undecided otherwise. Other figures are what they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from dspylab.aggregate.compare import Comparison
from dspylab.aggregate.sides import Pairing
from dspylab.aggregate.stats import sum_if_known
from dspylab.config.checks import FIGURES
from dspylab.config.models import Check
from dspylab.config.values import canonical, meant
from dspylab.records import JSON, RunSummary, Summary

Verdict = Literal["passed", "failed", "undecided"]
Condition = Literal["min", "max", "no_worse_than", "complete"]

#: The figure that is checked of every run, whether the file says so or not.
UNSCORED = "examples.unscored"


@dataclass(frozen=True, slots=True)
class Side:
    """What is judged as one.

    Attributes:
        name: Key of the run, or what the runs have in common.
        runs: Keys of its runs.
    """

    name: str
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A figure of a side.

    Attributes:
        value: The figure; None when it does not exist.
        ci95: Its 95% interval; None when there is none.
        sampled: Whether it is the mean of a sample, so that only an interval decides.
        n: Examples that it is over; 0 when that is not what it is about.
        pairing: Which examples are in it and which are not; None unless it is a difference.
    """

    value: float | None
    ci95: tuple[float, float] | None = None
    sampled: bool = False
    n: int = 0
    pairing: Pairing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one condition on one side.

    Attributes:
        figure: What is checked: a metric, a figure of `summary.json`, or ``complete``.
        condition: Which condition of the check.
        bound: Least or greatest value; for ``no_worse_than`` the margin.
        side: Name of the side; of the experiment, for what is about all runs.
        baseline: What it was compared with, for ``no_worse_than``.
        better: Whether less or more of the figure is better.
        quantity: The figure; the difference to the baseline, for ``no_worse_than``.
        verdict: Whether the condition holds.
        passed: Whether the gate lets it pass: it holds, or it is undecided and the check lets that pass.
        needed: Examples that would decide it, if the figure stays what it is; None when no number would.
        problem: Why it can not be judged at all.
    """

    figure: str
    condition: Condition
    bound: float | None = None
    side: str
    baseline: str | None = None
    better: Literal["less", "more"] = "more"
    quantity: Quantity = Quantity(None)
    verdict: Verdict
    passed: bool
    needed: int | None = None
    problem: str | None = None


def sides(summary: Summary, runs: Mapping[str, RunSummary]) -> list[Side]:
    """Groups runs into sides.

    Args:
        summary: Has the groups of runs that differ in their seed alone.
        runs: The runs to group, key to figures. A group that is not all among them falls into its runs.
    """
    groups = [
        Side(name, tuple(group.runs))
        for name, group in summary.over_seeds.items()
        if all(run in runs for run in group.runs)
    ]
    grouped = {run for side in groups for run in side.runs}
    return [*groups, *(Side(run, (run,)) for run in runs if run not in grouped)]


def chosen(summary: Summary, rule: str | Mapping[str, Any]) -> list[Side]:
    """The sides that a check is about.

    Args:
        summary: The results.
        rule: `runs` of the check.

    Returns:
        For ``best`` the complete side with the highest mean of the primary metric (of several the cheapest,
        then the fastest), or nothing.
    """
    if rule == "best":
        found = [side for side in sides(summary, summary.runs) if is_complete(summary, side)]
        means = [(quantity(summary, side, summary.primary_metric).value, side) for side in found]
        known = [
            ((-mean, *spending([summary.runs[run] for run in side.runs])), side)
            for mean, side in means
            if mean is not None
        ]
        return [min(known, key=lambda entry: entry[0])[1]] if known else []
    wanted = {} if isinstance(rule, str) else rule
    matching = {key: run for key, run in summary.runs.items() if _matches(run.coordinates, wanted)}
    return sides(summary, matching)


def spending(runs: Sequence[RunSummary]) -> tuple[float, float]:
    """What an example costs, and how long it takes: the order of runs that are equally good."""
    cost = sum_if_known([run.cost_usd.total for run in runs])
    duration = sum_if_known([run.example_s.p50 for run in runs])
    attempted = sum(run.examples.attempted for run in runs) or 1
    return (
        math.inf if cost is None else cost / attempted,
        math.inf if duration is None else duration / len(runs),
    )


def is_complete(summary: Summary, side: Side) -> bool:
    """Whether every run of a side is complete."""
    return all(summary.runs[run].complete for run in side.runs)


def counterpart(summary: Summary, side: Side, baseline: Summary) -> Side | None:
    """The side of the baseline with the same coordinates; None if it has none."""
    wanted = {canonical(dict(summary.runs[run].coordinates)) for run in side.runs}
    runs = {key: run for key, run in baseline.runs.items() if canonical(dict(run.coordinates)) in wanted}
    found = sides(baseline, runs)
    return found[0] if len(runs) == len(side.runs) and len(found) == 1 else None


def quantity(summary: Summary, side: Side, figure: str) -> Quantity:
    """A figure of a side. Of figures that are no means over examples, the worst among its runs.

    Args:
        summary: The results.
        side: A side of them.
        figure: Name of a metric, or one of `FIGURES`.
    """
    runs = [summary.runs[run] for run in side.runs]
    if len(runs) > 1 and side.name in summary.over_seeds:
        metric = summary.over_seeds[side.name].metrics.get(figure)
    else:
        metric = runs[0].metrics.get(figure)
    if metric is not None:
        return Quantity(metric.mean, metric.ci95, sampled=True, n=metric.examples)
    values = [_plain(run, figure) for run in runs]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return Quantity(None)
    return Quantity(min(known) if FIGURES.get(figure, "more") == "more" else max(known))


def bounds(figure: str, check: Check, side: Side, found: Quantity) -> Iterator[Outcome]:
    """Judges the conditions `min` and `max` of a check."""
    conditions: list[tuple[Condition, float | None]] = [("min", check.min), ("max", check.max)]
    for condition, bound in conditions:
        if bound is None:
            continue
        judged = Outcome(
            figure=figure,
            condition=condition,
            bound=bound,
            side=side.name,
            better=FIGURES.get(figure, "more"),
            quantity=found,
            verdict="failed",
            passed=False,
        )
        if condition == "min":
            yield _judged(judged, found, bound, check)
        else:
            yield _judged(judged, _flipped(found), -bound, check)


def against(figure: str, check: Check, side: Side, baseline: str, difference: Quantity) -> Outcome:
    """Judges the condition `no_worse_than` of a check.

    Args:
        figure: Name of the figure.
        check: The check.
        side: What is judged.
        baseline: Name of what it was compared with.
        difference: The figure of the side less that of the baseline.
    """
    better = FIGURES.get(figure, "more")
    margin = check.margin or 0.0
    outcome = Outcome(
        figure=figure,
        condition="no_worse_than",
        bound=margin,
        side=side.name,
        baseline=baseline,
        better=better,
        quantity=difference,
        verdict="failed",
        passed=False,
    )
    return _judged(outcome, _flipped(difference) if better == "less" else difference, -margin, check)


def impossible(
    figure: str,
    condition: Condition,
    side: str,
    problem: str,
    *,
    bound: float | None = None,
    baseline: str | None = None,
) -> Outcome:
    """The outcome of a condition that can not be judged: it fails, and says why."""
    return Outcome(
        figure=figure,
        condition=condition,
        bound=bound,
        side=side,
        baseline=baseline,
        verdict="failed",
        passed=False,
        problem=problem,
    )


def difference_of(comparison: Comparison, found: Pairing) -> Quantity:
    """The paired difference of a metric, as a figure that an interval decides."""
    return Quantity(comparison.difference, comparison.ci95, sampled=True, n=comparison.n, pairing=found)


def _judged(outcome: Outcome, found: Quantity, least: float, check: Check) -> Outcome:
    """The outcome, of a figure that should be at least so much."""
    if found.value is None:
        return replace(outcome, problem="there is no such figure")
    ends = found.ci95 if found.sampled else (found.value, found.value)
    if ends is not None and _at_least(ends[0], least):
        verdict: Verdict = "passed"
    elif ends is not None and not _at_least(ends[1], least):
        verdict = "failed"
    else:
        verdict = "undecided"
    passed = verdict == "passed" or (verdict == "undecided" and check.undecided == "pass")
    needed = _needed(found, least) if verdict == "undecided" else None
    return replace(outcome, verdict=verdict, passed=passed, needed=needed)


def _needed(found: Quantity, least: float) -> int | None:
    """Examples at which the interval would end at the bound: its half-width shrinks as 1/√n."""
    if found.value is None or found.ci95 is None or found.n == 0:
        return None
    room = found.value - least
    if room <= 0 or room < abs(least) * 1e-9:
        return None
    factor = ((found.value - found.ci95[0]) / room) ** 2
    return max(found.n + 1, math.ceil(found.n * factor * (1 - 1e-9)))


def _at_least(value: float, least: float) -> bool:
    """Whether a value is no smaller than a bound, rounding aside."""
    return value >= least or math.isclose(value, least, abs_tol=1e-12)


def _flipped(found: Quantity) -> Quantity:
    """The same figure with its sign turned, so that more of it is better."""
    ends = found.ci95
    return replace(
        found,
        value=None if found.value is None else -found.value,
        ci95=None if ends is None else (-ends[1], -ends[0]),
    )


def _plain(run: RunSummary, figure: str) -> float | None:
    """A figure of a run that is no mean of a metric."""
    if figure in run.run_metrics:
        return run.run_metrics[figure]
    name, _, part = figure.partition(".")
    if figure == UNSCORED:
        return float(run.examples.total - run.examples.scored)
    if figure == "cost_usd.optimizer":
        return 0.0 if run.compile is None else run.compile.cost_usd
    if name == "cost_usd":
        return run.cost_usd.by_role.get(part, 0.0) if part else run.cost_usd.total
    value: Any = getattr(run, name, None)
    return getattr(value, part, None) if part else value


def _matches(coordinates: Mapping[str, JSON], rule: Mapping[str, Any]) -> bool:
    return all(
        axis in coordinates and canonical(coordinates[axis]) in meant(wanted) for axis, wanted in rule.items()
    )
