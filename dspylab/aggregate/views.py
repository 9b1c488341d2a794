"""What DVC's own commands show of a summary: the columns of `metrics.json` and the points of the plots. Pure.

`dvc metrics show` and `dvc exp show` print a column for each number of `metrics.json`. So it holds a handful
of them however many runs there are; what is said of every run stands in the plots.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspylab.aggregate.gate import Side, is_complete, quantity, sides, spending
from dspylab.aggregate.pareto import Figure, Point, pareto
from dspylab.aggregate.stats import sum_if_known
from dspylab.records import Summary

#: Significant digits of the figures that DVC shows.
_DIGITS = 6

Line = Mapping[str, str | float | None]


def plain_metrics(summary: Summary) -> dict[str, Any]:
    """The few plain numbers that DVC shows as columns: `dvc exp show`, `dvc metrics diff`.

    Args:
        summary: The summary.

    Returns:
        `best`, the complete run with the highest mean (of several the cheapest, then the fastest), with its
        name, its mean under the metric's name, its median latency and its cost; then the number of complete
        runs, of failed examples, and what all runs and the compiling of their programs cost, each program
        once. Figures that do not exist are left out, since DVC has no way to show them.
    """
    primary = summary.primary_metric
    means = _means(summary)
    plain: dict[str, Any] = {}
    if means:
        best = min(means, key=lambda key: (-means[key], *spending([summary.runs[key]])))
        run = summary.runs[best]
        figures = {primary: means[best], "latency_p50_s": run.latency_s.p50, "cost_usd": run.cost_usd.total}
        known = {key: _rounded(value) for key, value in figures.items() if value is not None}
        plain["best"] = {"run": best, **known}
    plain["complete_runs"] = sum(run.complete for run in summary.runs.values())
    plain["failed_examples"] = sum(run.examples.failed for run in summary.runs.values())
    compiled = {run.compile.program: run.compile.cost_usd for run in summary.runs.values() if run.compile}
    # A run of which every call failed has no cost, and takes nothing from what the others cost.
    paid = [run.cost_usd for run in summary.runs.values()]
    costs = [cost.total for cost in paid if cost.total is not None or cost.unpriced_calls]
    costs += compiled.values()
    spent = sum_if_known(costs)
    if spent is not None and (costs or not paid):
        plain["cost_usd"] = _rounded(spent)
    return plain


def plot_points(summary: Summary) -> dict[str, list[Line]]:
    """The points of the plots, over the complete runs that have a mean of the primary metric.

    Args:
        summary: The summary.

    Returns:
        Name of a plot to its lines, which all have the same keys, in the order of the matrix:
        `score`: the mean and its 95% interval; `latency`: median of a call, and from there to the 95th
        percentile; `pareto`: the mean beside the median time of an example and the cost of the run, and
        whether it is on the front as `dspylab show` has it.
    """
    means = _means(summary)
    runs = {key: summary.runs[key] for key in means}
    primary = summary.primary_metric
    intervals = {key: run.metrics[primary].ci95 or (None, None) for key, run in runs.items()}
    front = _front(summary)
    return {
        "score": [
            _line(run=key, score=means[key], low=intervals[key][0], high=intervals[key][1]) for key in runs
        ],
        "latency": [
            _line(run=key, latency_s=run.latency_s.p50, low=run.latency_s.p50, high=run.latency_s.p95)
            for key, run in runs.items()
            if run.latency_s.p50 is not None
        ],
        "pareto": [
            _line(
                run=key,
                score=means[key],
                example_s=run.example_s.p50,
                cost_usd=run.cost_usd.total,
                front="yes" if key in front else "no",
            )
            for key, run in runs.items()
        ],
    }


def _means(summary: Summary) -> dict[str, float]:
    """Complete runs to their mean of the primary metric, if they have one."""
    primary = summary.primary_metric
    # A metric of several numbers may have none of its own name.
    found = {
        key: run.metrics[primary].mean
        for key, run in summary.runs.items()
        if run.complete and primary in run.metrics
    }
    return {key: mean for key, mean in found.items() if mean is not None}


def _front(summary: Summary) -> set[str]:
    """Runs of the sides that none dominates in quality, and in time and cost of an example.

    These are the figures of `aggregate/decision.py`, without their intervals, which the front does not need.
    """
    judged = [side for side in sides(summary, summary.runs) if is_complete(summary, side)]
    points = [
        Point(
            name=side.name,
            quality=_figure(quantity(summary, side, summary.primary_metric).value),
            costs={"latency": _figure(_median_s(summary, side)), "cost": _figure(_cost_usd(summary, side))},
        )
        for side in judged
    ]
    front = {place.name for place in pareto(points) if place.on_front}
    return {run for side in judged if side.name in front for run in side.runs}


def _median_s(summary: Summary, side: Side) -> float | None:
    """Median duration of the program on an example, over all runs of a side."""
    if len(side.runs) == 1:
        return summary.runs[side.runs[0]].example_s.p50
    together = summary.over_seeds[side.name].example_s
    return None if together is None else together.p50


def _cost_usd(summary: Summary, side: Side) -> float | None:
    """Cost of an example, all roles."""
    runs = [summary.runs[run] for run in side.runs]
    spent = sum_if_known([run.cost_usd.total for run in runs])
    attempted = sum(run.examples.attempted for run in runs)
    return spent / attempted if spent is not None and attempted else None


def _figure(value: float | None) -> Figure | None:
    return None if value is None else Figure(value=value)


def _line(**values: str | float | None) -> Line:
    return {name: _rounded(value) if isinstance(value, float) else value for name, value in values.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
