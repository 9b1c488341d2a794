"""What a report is made from: the summary, how the runs stand, and what the rows add to it."""

from __future__ import annotations

import functools
import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dspylab.aggregate.compare import Standing
from dspylab.aggregate.decision import Decision, decide
from dspylab.aggregate.stats import sum_if_known
from dspylab.record.results import StoredResults
from dspylab.report.entries import ranked

Objective = Literal["cost", "time"]
Rows = Callable[[], Iterable[Mapping[str, Any]]]

#: Share of the examples of a run that count as slow, and how many examples it takes to say so.
_SLOW_SHARE, _SLOW_LEAST = 0.02, 20


@dataclass(frozen=True, slots=True)
class ExampleFigures:
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
    outcomes: Mapping[int, ExampleFigures] = field(default_factory=dict)
    latency_s: Sequence[float] = ()
    ttft_s: Sequence[float] = ()
    slow_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """All that a report says.

    Attributes:
        results: The results that it is about.
        runs: The best first, incomplete ones last.
        decision: How they stand.
    """

    results: StoredResults
    runs: Sequence[RunMaterial]
    decision: Decision

    @property
    def summary(self) -> Mapping[str, Any]:
        """The content of `summary.json`."""
        return self.results.summary

    @property
    def standing(self) -> Standing:
        """The best side, and which of the others can be told from it."""
        return self.decision.standing

    @property
    def primary(self) -> str:
        """Name of the metric that ranks the runs."""
        return str(self.summary["primary_metric"])

    def figure(self, runs: Sequence[str], objective: Objective) -> float | None:
        """What an example of some runs costs, in US dollars, or how long it takes, in seconds.

        Args:
            runs: Their keys; all of them are taken together.
            objective: ``cost``, all roles included, or ``time``: the mean of the runs' medians.
        """
        entries = [self.summary["runs"][run] for run in runs]
        if objective == "time":
            medians_s = sum_if_known([entry["example_s"]["p50"] for entry in entries])
            return None if medians_s is None else medians_s / len(entries)
        spent_usd = sum_if_known([entry["cost_usd"]["total"] for entry in entries])
        attempted = sum(entry["examples"]["attempted"] for entry in entries)
        return spent_usd / attempted if spent_usd is not None and attempted else None


def gather(results: StoredResults) -> Material:
    """Reads the rows of each run and compares the runs.

    Args:
        results: The results of an experiment.

    Raises:
        DataError: If a file of rows was damaged.
    """
    decision = decide(results)
    side_of = {run: side for side, runs in decision.sides.items() for run in runs}
    runs = []
    verdicts = decision.verdicts()
    entries = [
        {"key": key, "verdict": verdicts.get(key), **entry} for key, entry in results.summary["runs"].items()
    ]
    for key in (entry["key"] for entry in ranked(entries, results.summary["primary_metric"])):
        rows = functools.partial(results.rows, key) if key in results.files else None
        reader = _Reader(results.summary["primary_metric"])
        if rows is not None:
            reader.read(rows())
        runs.append(
            RunMaterial(
                key=key,
                figures=results.summary["runs"][key],
                side=side_of[key],
                rows=rows,
                outcomes=reader.outcomes,
                latency_s=sorted(reader.latency_s),
                ttft_s=sorted(reader.ttft_s),
                slow_s=reader.slow_s(),
            )
        )
    return Material(results=results, runs=runs, decision=decision)


class _Reader:
    """Sums up the rows of one run."""

    def __init__(self, primary: str) -> None:
        self._primary = primary
        self.outcomes: dict[int, ExampleFigures] = {}
        self.latency_s = array("d")
        self.ttft_s = array("d")

    def read(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            score = row["metrics"].get(self._primary)
            self.outcomes[row["index"]] = ExampleFigures(score, row["error"] is not None, row["example_s"])
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
