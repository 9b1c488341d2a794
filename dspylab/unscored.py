"""Why a metric has no value for any example of a run, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dspylab.printable import in_a_line


def unscored_rows(metric: str, rows: Iterable[Mapping[str, Any]]) -> str | None:
    """Why no example that was answered has a value of a metric.

    Args:
        metric: Name of the metric; of one of the numbers of a metric that gives several, ``name.part``.
        rows: Rows in dataset order; they are read until the first error of the metric.

    Returns:
        What is wrong; None if an example has a value, or if none was answered.
    """
    given: dict[str, None] = {}
    is_answered = False
    for row in rows:
        if row["error"] is not None:
            continue
        is_answered = True
        if metric in row["metrics"]:
            return None
        if (message := row["metric_errors"].get(_file_name(metric))) is not None:
            return _raised(metric, str(message), str(row["example_id"]))
        given |= dict.fromkeys(row["metrics"])
    return _without_error(metric, given) if is_answered else None


def unscored_entry(metric: str, entry: Mapping[str, Any]) -> str | None:
    """As `unscored_rows`, of a run of `summary.json`.

    Args:
        metric: As there.
        entry: What the summary says of the run.
    """
    found = entry["metrics"].get(metric)
    has_values = found is not None and found["n"] > 0
    if has_values or entry["examples"]["attempted"] == entry["examples"]["failed"]:
        return None
    first = entry.get("first_metric_errors", {}).get(_file_name(metric))
    if first is not None:
        return _raised(metric, first["message"], first["example_id"])
    return _without_error(metric, [name for name, summary in entry["metrics"].items() if summary["n"]])


def parts_of(metric: str, names: Iterable[str]) -> list[str]:
    """Names of the numbers that a metric of the file gives, its own included."""
    own = _file_name(metric)
    return [name for name in names if _file_name(name) == own]


def _file_name(metric: str) -> str:
    """What the experiment file calls a metric, of which a name may be one part."""
    return metric.partition(".")[0]


def _raised(metric: str, message: str, example_id: str) -> str:
    return f"{metric} has no value for any example: {in_a_line(message)} (on {example_id})"


def _without_error(metric: str, names: Iterable[str]) -> str:
    parts = parts_of(metric, names)
    if not parts:
        return f"{metric} has no value for any example"
    return (
        f"{metric} has no value for any example: it gives {', '.join(parts)}; "
        f"name one of them, primary_metric: {parts[0]}"
    )
