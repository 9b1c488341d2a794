"""What the results say about which run to ship: the best, what can not be told from it, what is dominated."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dspylab.aggregate.compare import Standing, against_best
from dspylab.aggregate.pairs import mean, merged
from dspylab.aggregate.pareto import Figure, Place, Point, pareto
from dspylab.aggregate.sides import RunNumbers, point, run_numbers, side_runs, side_values, with_failures_as_0
from dspylab.aggregate.stats import metric_summary
from dspylab.record.results import StoredResults


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """What failed in the best side, where another one failed less often: it is in no mean.

    Attributes:
        best: Name of the side.
        failed: Times that it has no result.
        attempted: Examples that it was tried on, each seed by itself.
        less_often: Names of the sides that failed on a smaller share.
        mean: Its mean if what failed counted as not passed; None where the metric is more than pass or fail.
        winner: The side that would be the best then; None if it would still be this one, or no one can tell.
        winner_mean: The mean that the winner would have then.
    """

    best: str
    failed: int
    attempted: int
    less_often: tuple[str, ...]
    mean: float | None
    winner: str | None
    winner_mean: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How the sides of an experiment stand; a side is a run, or all that differ in their seed alone.

    Attributes:
        metric: Name of the metric that decides.
        sides: Name of each side to the keys of its runs.
        numbers: Run key to what was read of its rows, for the runs whose rows are there.
        standing: The best, and every other complete side against it.
        places: Name of each complete side to its place among quality, cost and latency.
        left_out: Sides that nothing is said about, since they are not complete or their rows are elsewhere.
        failures: What failed in the best side, if another one failed less often.
    """

    metric: str
    sides: Mapping[str, tuple[str, ...]]
    numbers: Mapping[str, RunNumbers]
    standing: Standing
    places: Mapping[str, Place]
    left_out: tuple[str, ...]
    failures: Failures | None

    def verdicts(self) -> dict[str, str]:
        """Run key to how its side stands to the best one.

        ``best``, or the verdict of its comparison with the best; ``better`` and ``probably better`` are so
        where both have a value.
        """
        said = {name: found.verdict for name, found in self.standing.comparisons.items()}
        return {
            run: "best" if name == self.standing.best else said[name]
            for name, runs in self.sides.items()
            if name == self.standing.best or name in said
            for run in runs
        }

    def dominance(self) -> dict[str, str]:
        """Run key to ``front``, ``dominated?`` (by the figures alone) or ``dominated`` (for sure)."""
        return {
            run: "dominated" if place.surely_by else "front" if place.on_front else "dominated?"
            for name, place in self.places.items()
            for run in self.sides[name]
        }


def decide(
    results: StoredResults, metric: str | None = None, runs: Collection[str] | None = None
) -> Decision:
    """Reads the rows and compares every side with the best.

    Args:
        results: Of an experiment, in the workspace or at a revision.
        metric: Name of the metric; None for the primary one.
        runs: Keys of the runs that are looked at; None for all. The best is the best of these, and the
            correction for many comparisons is for these.

    Raises:
        DataError: If a file of rows was damaged.
    """
    summary = results.summary
    name = metric or summary["primary_metric"]
    sides = {
        side: kept
        for side, members in side_runs(summary).items()
        if (kept := tuple(run for run in members if runs is None or run in runs))
    }
    chosen = [run for members in sides.values() for run in members]
    numbers = {run: run_numbers(results.rows(run), name) for run in chosen if run in results.files}
    judged = {
        side: [numbers[run] for run in members]
        for side, members in sides.items()
        if all(run in numbers and summary["runs"][run]["complete"] for run in members)
    }
    points = [
        point(side, found, [summary["runs"][run] for run in sides[side]], _quality(found))
        for side, found in judged.items()
    ]
    # Of several with the very same mean the first is the best.
    cheapest_first = [place.name for place in sorted(points, key=_spending)]
    standing = against_best(name, {side: side_values(judged[side]) for side in cheapest_first})
    best = standing.best
    told = [
        (best, other)
        for other, found in standing.comparisons.items()
        if best is not None and found.verdict == "worse"
    ]
    places = pareto(points, told)
    return Decision(
        metric=name,
        sides=sides,
        numbers=numbers,
        standing=standing,
        places={place.name: place for place in places},
        left_out=tuple(side for side in sides if side not in judged),
        failures=_failures(standing, judged),
    )


def _failures(standing: Standing, judged: Mapping[str, Sequence[RunNumbers]]) -> Failures | None:
    best = standing.best
    if best is None:
        return None
    sides = {side: judged[side] for side in (best, *standing.comparisons)}
    shares = {side: _failed(runs) / _attempted(runs) for side, runs in sides.items()}
    less_often = tuple(side for side, share in shares.items() if share < shares[best])
    if not less_often:
        return None
    means = _means_with_failures_as_0(sides)
    winner = max(means, key=means.__getitem__) if means else best
    # Of the very same mean the best stays the best.
    is_beaten = bool(means) and means[winner] > means[best]
    return Failures(
        best=best,
        failed=_failed(sides[best]),
        attempted=_attempted(sides[best]),
        less_often=less_often,
        mean=means.get(best),
        winner=winner if is_beaten else None,
        winner_mean=means[winner] if is_beaten else None,
    )


def _means_with_failures_as_0(sides: Mapping[str, Sequence[RunNumbers]]) -> dict[str, float]:
    """Means as if what failed had not passed; nothing for a metric that is more than pass or fail."""
    found = [values for runs in sides.values() for run in runs for values in run.values.values()]
    if any(value not in (0.0, 1.0) for values in found for value in values):
        return {}
    as_0 = {side: merged(with_failures_as_0(runs)) for side, runs in sides.items()}
    return {side: mean([mean(values) for values in examples.values()]) for side, examples in as_0.items()}


def _failed(runs: Sequence[RunNumbers]) -> int:
    return sum(len(run.failed) for run in runs)


def _attempted(runs: Sequence[RunNumbers]) -> int:
    return sum(len(run.attempted) for run in runs)


def _spending(place: Point) -> tuple[float, float]:
    """What is known to be cheaper comes first, then what is known to be faster."""
    figures = [place.costs[objective] for objective in ("cost", "latency")]
    cost, latency = (math.inf if figure is None else figure.value for figure in figures)
    return cost, latency


def _quality(runs: list[RunNumbers]) -> Figure | None:
    """Mean over all rows of a side, with its interval: as in `summary.json`, but not cut at 0 and 1."""
    rows = [(example, value) for run in runs for example, values in run.values.items() for value in values]
    found = metric_summary([value for _, value in rows], [example for example, _ in rows])
    return None if found.mean is None else Figure(value=found.mean, ci95=found.ci95)
