"""From the rows of runs to `summary.json`. Pure; one pass over the rows of a run.

What is kept of a row is numbers in arrays, so a run of 100,000 examples needs some 30 MB. Costs are
computed anew from the tokens in the rows, so that a corrected price needs no new calls.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dspylab.aggregate.activity import Activity
from dspylab.aggregate.calls import CallTotals, may_be_from_cache
from dspylab.aggregate.gains import with_gains
from dspylab.aggregate.scores import OverSeeds, Scores
from dspylab.aggregate.stats import distribution
from dspylab.config.models import Experiment
from dspylab.printable import in_a_line
from dspylab.records import (
    CompileRecord,
    ErrorSample,
    ExampleCounts,
    GitState,
    Rates,
    RunInfo,
    RunSummary,
    Summary,
)

#: Types of metrics whose numbers lie between 0 and 1 whatever the answer.
_ZERO_TO_ONE = frozenset({
    "exact_match", "contains", "token_f1", "numeric", "regex", "json_schema",
    "rouge_l", "bleu", "semantic_f1", "llm_judge",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRows:
    """What is known of one run.

    Attributes:
        info: The content of `run.json`.
        rows: The rows of `raw.jsonl`; read once.
        total: Examples of the test split.
        run_metrics: Values of the metrics over all rows, by name.
        compiled: What is recorded of its compiled program; None without an optimizer.
    """

    info: RunInfo
    rows: Iterable[Mapping[str, Any]]
    total: int
    run_metrics: Mapping[str, float | None] = field(default_factory=dict)
    compiled: CompileRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The metrics of an experiment that look at one example each.

    Attributes:
        primary: Name of the metric that ranks the runs.
        names: All of them, in the order of the file.
        bounded: Those between 0 and 1, whose intervals are cut there.
    """

    primary: str
    names: Sequence[str]
    bounded: Collection[str] = ()


def summarize(
    experiment: Experiment,
    runs: Mapping[str, RunRows],
    *,
    rates: Mapping[str, Rates | None],
    config_hash: str,
    git: GitState | None,
    created_at: str,
    versions: Mapping[str, str],
) -> Summary:
    """The summary of an experiment.

    Args:
        experiment: The validated experiment file.
        runs: Run key to what is known of the run, in the order of the matrix. Runs without rows are left out.
        rates: Model id to the price rates of now.
        config_hash: Digest of the experiment file.
        git: The commit that the results were made on.
        created_at: ISO 8601, UTC.
        versions: Package name to version.

    Returns:
        The content of `summary.json`.
    """
    metrics = {name: metric for name, metric in experiment.metrics.items() if metric.type != "run"}
    expected = Expected(
        primary=experiment.ranked_by,
        names=tuple(metrics),
        bounded=frozenset(name for name, metric in metrics.items() if metric.type in _ZERO_TO_ONE),
    )
    over_seeds = OverSeeds(run.info.coordinates for run in runs.values())
    compiled = {key: run.compiled for key, run in runs.items() if run.compiled is not None}
    summaries: dict[str, RunSummary] = {}
    kept: dict[str, Scores] = {}
    for key, run in runs.items():
        summaries[key], scores, example_s = summarize_run(run, expected, rates)
        over_seeds.add(key, run.info.coordinates, scores, example_s)
        if compiled:
            kept[key] = scores
    return Summary(
        experiment=experiment.name,
        description=experiment.description,
        config_hash=config_hash,
        primary_metric=experiment.ranked_by,
        git=git,
        created_at=created_at,
        versions=versions,
        rates=rates,
        runs=with_gains(summaries, kept, compiled, experiment.ranked_by),
        over_seeds=over_seeds.summaries(expected.names, expected.bounded),
    )


def summarize_run(
    run: RunRows, expected: Expected, rates: Mapping[str, Rates | None]
) -> tuple[RunSummary, Scores, Sequence[float]]:
    """The summary of one run, and the scores and the durations of examples (seconds) that it is made from.

    Args:
        run: What is known of the run; its rows are read once.
        expected: The metrics of the experiment.
        rates: Model id to the price rates of now. A model that is not in it keeps the cost in its rows.
    """
    totals = _Totals(CallTotals(rates))
    for row in run.rows:
        totals.add(row)
    activity = totals.activity.result()
    call_figures = totals.calls.figures(totals.parse_failures)
    summary = RunSummary(
        coordinates=run.info.coordinates,
        config_hash=run.info.config_hash,
        complete=totals.rows == run.total
        and not totals.passing
        and (totals.scores.has(expected.primary) or not totals.rows),
        started_at=_iso(activity.started_at),
        finished_at=_iso(activity.finished_at),
        active_s=activity.active_s,
        engine=run.info.engine,
        examples=ExampleCounts(
            total=run.total,
            attempted=totals.rows,
            scored=totals.scores.having(expected.primary),
            failed=totals.rows - totals.results,
        ),
        metrics=totals.scores.summaries(expected.names, expected.bounded),
        metric_errors=dict(totals.metric_errors),
        run_metrics=dict(run.run_metrics),
        errors=dict(totals.errors.most_common()),
        first_errors=totals.first_errors,
        first_metric_errors=totals.first_metric_errors,
        **call_figures.timings,
        compile=None,
        example_s=distribution(totals.example_s),
        metric_s=distribution(totals.metric_s),
        throughput_tokens_per_s=(
            call_figures.tokens.completion / activity.active_s
            if activity.active_s > 0 and call_figures.tokens.completion
            else None
        ),
        concurrency=activity.concurrency,
        tokens=call_figures.tokens,
        calls=call_figures.counts,
        predictors=call_figures.predictors,
        cost_usd=call_figures.cost,
        versions=run.info.versions,
    )
    return summary, totals.scores, totals.example_s


@dataclass
class _Totals:
    """Sums and arrays over the rows of a run."""

    calls: CallTotals
    activity: Activity = field(default_factory=Activity)
    rows: int = 0
    results: int = 0
    passing: int = 0
    parse_failures: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    metric_errors: Counter[str] = field(default_factory=Counter)
    first_errors: dict[str, ErrorSample] = field(default_factory=dict)
    first_metric_errors: dict[str, ErrorSample] = field(default_factory=dict)
    scores: Scores = field(default_factory=Scores)
    example_s: array[float] = field(default_factory=lambda: array("d"))
    metric_s: array[float] = field(default_factory=lambda: array("d"))

    def add(self, row: Mapping[str, Any]) -> None:
        self.rows += 1
        self.parse_failures += row["parse_failures"]
        self.activity.add(row["started_at"], row["example_s"])
        from_cache = False
        for call in row["calls"]:
            self.calls.add(call)
            from_cache = from_cache or may_be_from_cache(call)
        error = row["error"]
        if error is not None:
            self.errors[error["type"]] += 1
            _keep_first(self.first_errors, error["type"], row, error["message"])
            self.passing += error["kind"] == "endpoint"
            return
        self.results += 1
        self.metric_s.append(row["metric_s"])
        if not from_cache:
            self.example_s.append(row["example_s"])
        self.metric_errors.update(row["metric_errors"].keys())
        for name, message in row["metric_errors"].items():
            _keep_first(self.first_metric_errors, name, row, message)
        self.scores.add(row)


def _keep_first(samples: dict[str, ErrorSample], kind: str, row: Mapping[str, Any], message: str) -> None:
    if kind not in samples:
        # The rows have all of it; a damaged one may hold anything.
        samples[kind] = ErrorSample(example_id=row["example_id"], message=in_a_line(str(message)))


def _iso(timestamp: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC, to the millisecond."""
    if timestamp is None:
        return None
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds")
