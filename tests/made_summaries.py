"""Summaries that were never measured, for tests of what is said about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspylab.records import (
    JSON,
    CallCounts,
    Concurrency,
    CostSummary,
    Distribution,
    ExampleCounts,
    MetricSummary,
    RunSummary,
    SeedsSummary,
    Summary,
    TokenCounts,
)


def timing(p50: float | None, p95: float | None = None) -> Distribution:
    """A distribution of which only the percentiles matter."""
    n = 0 if p50 is None else 20
    return Distribution(mean=p50, p50=p50, p90=p95, p95=p95, n=n)


def metric(mean: float | None, ci95: tuple[float, float] | None = None, n: int = 20) -> MetricSummary:
    """A metric whose interval is as given."""
    method = None if ci95 is None else "wilson"
    return MetricSummary(mean=mean, stderr=None, ci95=ci95, method=method, n=n, examples=n)  # type: ignore[arg-type]


def run_summary(
    *,
    metrics: Mapping[str, MetricSummary] | None = None,
    coordinates: Mapping[str, JSON] | None = None,
    latency_s: Distribution | None = None,
    example_s: Distribution | None = None,
    cost_usd: float | None = 0.5,
    failed: int = 0,
    **fields: Any,
) -> RunSummary:
    """A complete run of twenty examples.

    Args:
        metrics: Default: an accuracy of 0.8 without an interval.
        coordinates: Default: the model `mini`.
        latency_s: Default: half a second, one second at the 95th percentile.
        example_s: Default: as latency_s.
        cost_usd: Of the whole run.
        failed: Examples without a result.
        fields: Other fields of the record.
    """
    latency = timing(0.5, 1.0) if latency_s is None else latency_s
    usual: dict[str, Any] = {
        "coordinates": coordinates or {"model": "mini"},
        "config_hash": "0" * 64,
        "complete": True,
        "started_at": "2026-01-01T00:00:00.000+00:00",
        "finished_at": "2026-01-01T00:00:10.000+00:00",
        "active_s": 10.0,
        "engine": "native",
        "examples": ExampleCounts(total=20, attempted=20, scored=20 - failed, failed=failed),
        "metrics": metrics or {"accuracy": metric(0.8)},
        "metric_errors": {},
        "run_metrics": {},
        "errors": {"LMTimeoutError": failed} if failed else {},
        "latency_s": latency,
        "ttft_s": latency,
        "ttfot_s": latency,
        "itl_s": timing(None),
        "decode_tokens_per_s": timing(None),
        "output_tokens_per_s": timing(100.0, 120.0),
        "example_s": latency if example_s is None else example_s,
        "metric_s": timing(0.001, 0.002),
        "queue_s": timing(0.0, 0.0),
        "throughput_tokens_per_s": 50.0,
        "concurrency": Concurrency(mean=1.0, peak=1),
        "tokens": TokenCounts(prompt=2000, cached=0, completion=400, reasoning=0, estimated_calls=0),
        "calls": CallCounts(
            total=20,
            failed=0,
            cached=0,
            attempts=20,
            fallbacks=0,
            fallback_rate=0.0,
            truncated=0,
            parse_failures=0,
            by_role={"task": 20},
            by_predictor={"route": 20},
        ),
        "predictors": {},
        "cost_usd": CostSummary(
            total=cost_usd,
            by_role={"task": cost_usd},
            saved=0.0,
            unpriced_calls=20 if cost_usd is None else 0,
        ),
        "versions": {},
    }
    return RunSummary(**{**usual, **fields})


def summary_of(
    runs: Mapping[str, RunSummary],
    *,
    primary: str = "accuracy",
    description: str = "",
    over_seeds: Mapping[str, SeedsSummary] | None = None,
) -> Summary:
    """A summary of these runs."""
    return Summary(
        experiment="triage",
        description=description,
        config_hash="1" * 64,
        primary_metric=primary,
        git=None,
        created_at="2026-01-01T00:00:00+00:00",
        versions={},
        rates={},
        runs=runs,
        over_seeds=over_seeds or {},
    )
