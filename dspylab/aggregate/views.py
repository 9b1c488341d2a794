"""What DVC's own commands show of a summary: the columns of `metrics.json` and the points of the plots. Pure.

`dvc metrics show` and `dvc exp show` print a column for each number of `metrics.json`. So it holds a handful
of them however many runs there are; what is said of every run stands in the plots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dspylab.aggregate.pareto import Figure, Point, pareto
from dspylab.records import RunSummary, Summary

#: Columns of `best` that a metric of the same name must not overwrite.
_OWN_COLUMNS = frozenset({"run", "latency_p50_s", "cost_usd"})
#: Significant digits of the figures that DVC shows.
_DIGITS = 6

Line = Mapping[str, str | float | None]


def plain_metrics(summary: Summary) -> dict[str, Any]:
    """The few plain numbers that DVC shows as columns: `dvc exp show`, `dvc metrics diff`.

    Args:
        summary: The summary.

    Returns:
        `best`, the complete run with the highest mean, with its name, its mean under the metric's name, its
        median latency and its cost; then the number of complete runs, of failed examples, and what all runs
        and the compiling of their programs cost, each program once. Figures that do not exist are left out,
        since DVC has no way to show them.
    """
    primary = summary.primary_metric
    name = f"{primary}_mean" if primary in _OWN_COLUMNS else primary
    means = _means(summary)
    plain: dict[str, Any] = {}
    if means:
        best = max(means, key=means.__getitem__)
        run = summary.runs[best]
        figures = {name: means[best], "latency_p50_s": run.latency_s.p50, "cost_usd": run.cost_usd.total}
        known = {key: _rounded(value) for key, value in figures.items() if value is not None}
        plain["best"] = {"run": best, **known}
    plain["complete_runs"] = sum(run.complete for run in summary.runs.values())
    plain["failed_examples"] = sum(run.examples.failed for run in summary.runs.values())
    compiled = {run.compile.program: run.compile.cost_usd for run in summary.runs.values() if run.compile}
    costs = [*(run.cost_usd.total for run in summary.runs.values()), *compiled.values()]
    priced = [cost for cost in costs if cost is not None]
    if len(priced) == len(costs):
        plain["cost_usd"] = _rounded(math.fsum(priced))
    return plain


def plot_points(summary: Summary) -> dict[str, list[Line]]:
    """The points of the plots, over the complete runs that have a mean of the primary metric.

    Args:
        summary: The summary.

    Returns:
        Name of a plot to its lines, which all have the same keys, in the order of the matrix:
        `score`: the mean and its 95% interval; `latency`: median, and from there to the 95th percentile;
        `pareto`: the mean beside the median latency and the cost, and whether no other run is at least as
        good in all three and better in one.
    """
    means = _means(summary)
    runs = {key: summary.runs[key] for key in means}
    primary = summary.primary_metric
    intervals = {key: run.metrics[primary].ci95 or (None, None) for key, run in runs.items()}
    front = _front(runs, means)
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
                latency_s=run.latency_s.p50,
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


def _front(runs: Mapping[str, RunSummary], means: Mapping[str, float]) -> set[str]:
    """Runs that none dominates in score, median latency and cost, as far as these are known of any run."""
    costs = {key: {"latency": run.latency_s.p50, "cost": run.cost_usd.total} for key, run in runs.items()}
    known = [name for name in ("latency", "cost") if any(cost[name] is not None for cost in costs.values())]
    points = [
        Point(
            name=key,
            quality=Figure(value=means[key]),
            costs={name: _figure(costs[key][name]) for name in known},
        )
        for key in runs
    ]
    return {place.name for place in pareto(points) if place.on_front}


def _figure(value: float | None) -> Figure | None:
    return None if value is None else Figure(value=value)


def _line(**values: str | float | None) -> Line:
    return {name: _rounded(value) if isinstance(value, float) else value for name, value in values.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
