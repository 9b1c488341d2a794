"""What is read of the entries of `runs` in `summary.json`, whatever it is shown in. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dspylab.report.numbers import estimate

#: An entry of `runs`, or of `over_seeds`.
Entry = Mapping[str, Any]


def ranked(entries: Sequence[Entry], primary: str) -> list[Entry]:
    """The best first. A mean over part of the examples is no match for one over all of them.

    Of entries with the very same mean those come first whose ``verdict``, if they have one, is ``best``.
    """

    def place(entry: Entry) -> tuple[bool, bool, float, bool]:
        mean = metric_of(entry, primary).get("mean")
        return not entry["complete"], mean is None, -(mean or 0.0), entry.get("verdict") != "best"

    return sorted(entries, key=place)


def other_metrics(entries: Sequence[Entry], primary: str) -> list[str]:
    """Names of the metrics that occur, of those over all rows too, but the primary one."""
    names = dict.fromkeys(name for entry in entries for name in (*entry["metrics"], *_run_metrics(entry)))
    return [name for name in names if name != primary]


def metric_of(entry: Entry, name: str) -> Entry:
    """Mean and interval of a metric; empty if there is none."""
    metric: Entry = entry["metrics"].get(name, {})
    return metric


def value_of(entry: Entry, name: str) -> float | None:
    """The mean of a metric, or the value of one over all rows; None if there is none."""
    value: float | None = metric_of(entry, name).get("mean", _run_metrics(entry).get(name))
    return value


def estimate_of(entry: Entry, name: str) -> str:
    """The mean of a metric with its interval, or the value of one over all rows, as text."""
    return estimate(value_of(entry, name), metric_of(entry, name).get("ci95"))


def mean_of(entry: Entry, name: str) -> str:
    """As `estimate_of`, without the interval."""
    return estimate(value_of(entry, name), None)


def most_frequent_error(entry: Entry) -> tuple[str, int, str]:
    """What failed most of a run's failed examples.

    Returns:
        The type of the exception, the examples that it failed, and in words the first of these and what the
        exception said; no words in a summary that an earlier version made.
    """
    kind, often = max(entry["errors"].items(), key=lambda error: error[1])
    return kind, often, first_words(entry.get("first_errors", {}).get(kind))


def first_words(sample: Entry | None) -> str:
    """The first error of a kind in words: the example and the message; empty if there is none."""
    return "" if sample is None else f"example {sample['example_id']}: {sample['message']}"


def _run_metrics(entry: Entry) -> Entry:
    """Metrics over all rows of a run, which several runs taken together do not have."""
    found: Entry = entry.get("run_metrics", {})
    return found
