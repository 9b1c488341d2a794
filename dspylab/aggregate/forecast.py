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
    variances add up; the interval is Student's t with Satterthwaite's degrees of freedom (Cochran, Sampling
    Techniques, equation 5.16: stratified sampling with unequal variances), as what is called and what is only
    scored again vary by very different amounts.

    Args:
        runs: The runs, each with at least one example.
        widths: Model id to examples in flight at once.
        total_width: Examples in flight at once, over all runs.
    """
    left = [run for run in runs if run.remaining]
    known = [run.costs_usd for run in left if run.costs_usd is not None]
    cost = None if len(known) < len(left) else _total([run.remaining for run in left], known)
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
    # What has nothing left says nothing about the rest.
    rest = [(count, sample) for count, sample in zip(counts, samples, strict=True) if count]
    total = sum(count * statistics.fmean(sample) for count, sample in rest)
    if any(len(sample) < 2 for _, sample in rest):
        return Estimate(total, None)
    variances = [
        (count**2 * statistics.variance(sample) / len(sample), len(sample)) for count, sample in rest
    ]
    variance = sum(part for part, _ in variances)
    doubt = sum(part**2 / (size - 1) for part, size in variances)
    margin = t_quantile(variance**2 / doubt) * variance**0.5 if doubt else 0.0
    return Estimate(total, (max(0.0, total - margin), total + margin))
