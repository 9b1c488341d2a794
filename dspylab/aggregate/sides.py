"""From the results of runs to the sides of a comparison. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dspylab.aggregate.pairs import RunValues


def run_values(rows: Iterable[Mapping[str, Any]], metric: str) -> dict[str, list[float]]:
    """The values of a metric by example. Examples without a value, such as failed ones, are left out.

    Args:
        rows: The rows of one `raw.jsonl`.
        metric: Name of the metric.
    """
    values: dict[str, list[float]] = {}
    for row in rows:
        value = row["metrics"].get(metric)
        if value is not None:
            values.setdefault(row["example_id"], []).append(float(value))
    return values


def side_runs(summary: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What is compared with each other: runs, those that differ in their seed alone taken together.

    Args:
        summary: The content of `summary.json`.

    Returns:
        Name of each side to the keys of its runs. The name of a group is that in `over_seeds`; the name of
        a run that is in no group is its key.
    """
    groups = {name: tuple(group["runs"]) for name, group in summary["over_seeds"].items()}
    grouped = {run for runs in groups.values() for run in runs}
    return groups | {key: (key,) for key in summary["runs"] if key not in grouped}


def side_values(
    summary: Mapping[str, Any], values: Mapping[str, RunValues]
) -> dict[str, tuple[RunValues, ...]]:
    """The sides whose runs are all complete and there, with their values.

    Args:
        summary: The content of `summary.json`.
        values: Run key to the values of the run, see `run_values`; runs may be absent.
    """
    return {
        name: tuple(values[run] for run in runs)
        for name, runs in side_runs(summary).items()
        if all(run in values and summary["runs"][run]["complete"] for run in runs)
    }
