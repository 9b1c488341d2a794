"""From a few examples of each run to what the rest will cost and how long it will take. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dspylab.aggregate.stats import t_quantile


@dataclass(frozen=True, slots=True)
class PilotRun:
    """What is known from a pilot of a run's examples that are called, or of those that are only scored again.

    Attributes:
        model: Id of the model; the runs of one model share its width.
        remaining: Examples that are still to be executed.
        costs_usd: Cost of each example that was executed; None when no price is known.
        durations_s: Duration of each of them.
        is_rescored: Whether their answers are an earlier session's.
    """

    model: str
    remaining: int
    costs_usd: tuple[float, ...] | None
    durations_s: tuple[float, ...]
    is_rescored: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """A total with its 95% interval; `ends` is None when there are too few examples to tell."""

    total: float
    ends: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the rest will take.

    Attributes:
        examples: Examples that are still to be executed.
        cost_usd: Of all of them; None when a price is unknown.
        wall_s: At the widths that the file sets.
    """

    examples: int
    cost_usd: Estimate | None
    wall_s: Estimate


def forecast(runs: Sequence[PilotRun], widths: Mapping[str, int], total_width: int) -> Forecast:
    """Extrapolates from pilots.

    A total over n examples of a run is n times the mean of its pilot. Runs are independent, so their
    variances add up; the interval is Student's t with the degrees of freedom of all pilots together
    (Cochran, Sampling Techniques, chapter 5: stratified sampling).

    Args:
        runs: The runs, each with at least one example.
        widths: Model id to examples in flight at once.
        total_width: Examples in flight at once, over all runs.
    """
    costs = [run.costs_usd for run in runs]
    known = [cost for cost in costs if cost is not None]
    cost = None if len(known) < len(runs) else _total([run.remaining for run in runs], known)
    lanes = [
        (
            _total(*_columns([run for run in runs if run.model == model])),
            min(widths[model], total_width),
        )
        for model in dict.fromkeys(run.model for run in runs)
    ]
    lanes.append((_total(*_columns(runs)), total_width))
    busiest, width = max(lanes, key=lambda lane: lane[0].total / lane[1])
    ends = None if busiest.ends is None else (busiest.ends[0] / width, busiest.ends[1] / width)
    return Forecast(sum(run.remaining for run in runs), cost, Estimate(busiest.total / width, ends))


def _columns(runs: Sequence[PilotRun]) -> tuple[list[int], list[tuple[float, ...]]]:
    return [run.remaining for run in runs], [run.durations_s for run in runs]


def _total(counts: Sequence[int], samples: Sequence[tuple[float, ...]]) -> Estimate:
    total = sum(
        count * statistics.fmean(sample) for count, sample in zip(counts, samples, strict=True) if count
    )
    degrees = sum(len(sample) - 1 for sample in samples)
    if degrees < 1 or any(count and len(sample) < 2 for count, sample in zip(counts, samples, strict=True)):
        return Estimate(total, None)
    variance = sum(
        count**2 * statistics.variance(sample) / len(sample)
        for count, sample in zip(counts, samples, strict=True)
        if count
    )
    margin = t_quantile(degrees) * variance**0.5
    return Estimate(total, (max(0.0, total - margin), total + margin))
