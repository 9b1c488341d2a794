"""What a report is made from: the summary, and what one pass over the rows of each run adds to it. Pure."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dspylab.aggregate.compare import Standing, against_best
from dspylab.aggregate.pareto import Figure, Place, Point, pareto
from dspylab.aggregate.sides import side_runs, side_values

Rows = Callable[[], Iterable[Mapping[str, Any]]]

#: Share of the examples of a run that count as slow, and how many examples it takes to say so.
_SLOW_SHARE, _SLOW_LEAST = 0.02, 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an example in a run, in figures.

    Attributes:
        score: The primary metric; None when it has no value.
        failed: It has no result.
        example_s: Duration of the program.
    """

    score: float | None
    failed: bool
    example_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMaterial:
    """One run of a report.

    Attributes:
        key: Its key.
        figures: Its entry in the summary.
        side: Name of the side of the comparison that it belongs to; its own key unless it differs from
            others in its seed alone.
        rows: Opens its rows; None when they are not on this machine.
        outcomes: Example index to what became of it.
        latency_s: Latencies of the task calls that were sent and succeeded, ascending.
        ttft_s: Their times to first token, ascending.
        slow_s: Duration above which an example of this run counts as slow; infinite with few examples.
    """

    key: str
    figures: Mapping[str, Any]
    side: str
    rows: Rows | None
    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
    latency_s: Sequence[float] = ()
    ttft_s: Sequence[float] = ()
    slow_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """All that a report says.

    Attributes:
        summary: The content of `summary.json`.
        runs: The best first, incomplete ones last.
        sides: Name of each side of the comparison to the keys of its runs.
        standing: The best side, and which of the others can be told from it.
        places: Name of each complete side to its place between quality, cost and latency.
    """

    summary: Mapping[str, Any]
    runs: Sequence[RunMaterial]
    sides: Mapping[str, Sequence[str]]
    standing: Standing
    places: Mapping[str, Place]

    #: Objective to what its figure is, in words.
    MEANING: ClassVar[Mapping[str, str]] = {"cost": "for the whole run", "latency": "median of a call"}

    def figure(self, side: str, objective: str) -> float | None:
        """`cost` in US dollars or `latency` in seconds of a side, as the mean over its runs."""
        found = _objectives(self.summary, self.sides[side])[objective]
        return None if found is None else found.value

    @property
    def primary(self) -> str:
        """Name of the metric that ranks the runs."""
        return str(self.summary["primary_metric"])

    @property
    def without_rows(self) -> tuple[str, ...]:
        """Runs whose rows are not on this machine."""
        return tuple(run.key for run in self.runs if run.rows is None)


def gather(summary: Mapping[str, Any], rows: Mapping[str, Rows]) -> Material:
    """Reads the rows of each run once.

    Args:
        summary: The content of `summary.json`.
        rows: Run key to what opens its `raw.jsonl`; a run that is absent has no rows on this machine.
    """
    sides = side_runs(summary)
    side_of = {run: side for side, runs in sides.items() for run in runs}
    values: dict[str, dict[str, list[float]]] = {}
    runs = []
    for key in _ranked(summary):
        reader = _Reader(summary["primary_metric"])
        if key in rows:
            reader.read(rows[key]())
            values[key] = reader.values
        runs.append(
            RunMaterial(
                key=key,
                figures=summary["runs"][key],
                side=side_of[key],
                rows=rows.get(key),
                outcomes=reader.outcomes,
                latency_s=sorted(reader.latency_s),
                ttft_s=sorted(reader.ttft_s),
                slow_s=reader.slow_s(),
            )
        )
    standing = against_best(summary["primary_metric"], side_values(summary, values))
    return Material(
        summary=summary,
        runs=runs,
        sides=sides,
        standing=standing,
        places={place.name: place for place in _places(summary, sides, standing)},
    )


class _Reader:
    """Sums up the rows of one run."""

    def __init__(self, primary: str) -> None:
        self._primary = primary
        self.outcomes: dict[int, Outcome] = {}
        self.values: dict[str, list[float]] = {}
        self.latency_s = array("d")
        self.ttft_s = array("d")

    def read(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            score = row["metrics"].get(self._primary)
            self.outcomes[row["index"]] = Outcome(score, row["error"] is not None, row["example_s"])
            if score is not None:
                self.values.setdefault(row["example_id"], []).append(float(score))
            for call in row["calls"]:
                if call["role"] == "task" and not call["cached"] and call["error"] is None:
                    self._time(call)

    def slow_s(self) -> float:
        durations = sorted(outcome.example_s for outcome in self.outcomes.values())
        if len(durations) < _SLOW_LEAST:
            return math.inf
        slow = math.ceil(_SLOW_SHARE * len(durations))
        return durations[-slow - 1]

    def _time(self, call: Mapping[str, Any]) -> None:
        if call["latency_s"] is not None:
            self.latency_s.append(call["latency_s"])
        if call["ttft_s"] is not None:
            self.ttft_s.append(call["ttft_s"])


def _ranked(summary: Mapping[str, Any]) -> list[str]:
    """Keys of the runs, the best first. A mean over part of the examples is no match for one over all."""
    runs, primary = summary["runs"], summary["primary_metric"]

    def place(key: str) -> tuple[bool, bool, float]:
        mean = runs[key]["metrics"].get(primary, {}).get("mean")
        return not runs[key]["complete"], mean is None, -(mean or 0.0)

    return sorted(runs, key=place)


def _places(
    summary: Mapping[str, Any], sides: Mapping[str, Sequence[str]], standing: Standing
) -> list[Place]:
    runs = summary["runs"]
    points = [
        Point(
            name=side,
            quality=_quality(summary, side),
            costs=_objectives(summary, keys),
        )
        for side, keys in sides.items()
        if all(runs[key]["complete"] for key in keys)
    ]
    worse = [name for name, found in standing.comparisons.items() if found.verdict == "worse"]
    return pareto(points, [(str(standing.best), name) for name in worse])


def _objectives(summary: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Figure | None]:
    runs = summary["runs"]
    return {
        "cost": _mean([runs[key]["cost_usd"]["total"] for key in keys]),
        "latency": _mean([runs[key]["latency_s"]["p50"] for key in keys]),
    }


def _quality(summary: Mapping[str, Any], side: str) -> Figure | None:
    source = summary["over_seeds"].get(side) or summary["runs"][side]
    metric = source["metrics"].get(summary["primary_metric"], {})
    return None if metric.get("mean") is None else Figure(value=metric["mean"], ci95=metric["ci95"])


def _mean(values: Sequence[float | None]) -> Figure | None:
    known = [value for value in values if value is not None]
    return Figure(value=math.fsum(known) / len(known)) if known and len(known) == len(values) else None
