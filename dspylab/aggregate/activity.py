"""When a run was at work, and on how many examples at once. Pure."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

from dspylab.records import Concurrency


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """When a run was at work.

    Attributes:
        started_at: When the first example was started, seconds since the epoch; None without examples.
        finished_at: When the last example ended.
        active_s: Length of the union of the examples' intervals: pauses of a resumed run are not in it.
        concurrency: Examples under way at once, while any was.
    """

    started_at: float | None
    finished_at: float | None
    active_s: float
    concurrency: Concurrency


@dataclass
class Activity:
    """The intervals in which examples were under way, half open: [start, end)."""

    _starts: array[float] = field(default_factory=lambda: array("d"))
    _ends: array[float] = field(default_factory=lambda: array("d"))

    def add(self, started_at: float, duration_s: float) -> None:
        """Adds an example.

        Args:
            started_at: Seconds since the epoch.
            duration_s: How long the program took.
        """
        self._starts.append(started_at)
        self._ends.append(started_at + duration_s)

    def result(self) -> Active:
        """Sweeps over the intervals."""
        if not self._starts:
            return Active(
                started_at=None, finished_at=None, active_s=0.0, concurrency=Concurrency(mean=None, peak=None)
            )
        starts, ends = sorted(self._starts), sorted(self._ends)
        busy: list[float] = []
        peak = done = 0
        opened = starts[0]
        for begun, start in enumerate(starts):
            while done < begun and ends[done] <= start:
                done += 1
                if done == begun:  # nothing was under way from this end to this start
                    busy.append(ends[done - 1] - opened)
                    opened = start
            peak = max(peak, begun + 1 - done)
        busy.append(ends[-1] - opened)
        active_s = math.fsum(busy)
        total_s = math.fsum(ends) - math.fsum(starts)
        mean = total_s / active_s if active_s > 0 else None
        return Active(
            started_at=starts[0],
            finished_at=ends[-1],
            active_s=active_s,
            concurrency=Concurrency(mean=mean, peak=peak),
        )
