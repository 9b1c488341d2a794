"""The order in which `dspylab show` puts the runs."""

from __future__ import annotations

import pytest
from made_summaries import metric, run_summary, timing

from dspylab.jsonable import to_json
from dspylab.report.ranking import Figures


@pytest.mark.parametrize("name", ["right_calls", "token_f1s_s", "metrics.right_calls.mean", "share_failed"])
def test_more_of_a_metric_is_better_whatever_it_is_called(name: str) -> None:
    runs = {
        key: run_summary(
            metrics={"right_calls": metric(value), "token_f1s_s": metric(value)},
            run_metrics={"share_failed": value},
        )
        for key, value in (("low", 0.2), ("high", 0.9), ("middle", 0.5))
    }
    figures = Figures([{"key": key, **to_json(run)} for key, run in runs.items()], "right_calls")
    assert [row["key"] for row in figures.sorted(name)] == ["high", "middle", "low"]
    assert [row["key"] for row in figures.sorted(f"-{name}")] == ["low", "middle", "high"]


@pytest.mark.parametrize("name", ["calls.total", "cost_usd", "latency_p50_s"])
def test_less_of_what_is_paid_is_better(name: str) -> None:
    dear = to_json(run_summary(cost_usd=0.9))
    cheap = to_json(run_summary(cost_usd=0.1))
    dear["calls"]["total"], dear["latency_s"]["p50"] = 90, 0.9
    figures = Figures([{"key": "dear", **dear}, {"key": "cheap", **cheap}], "accuracy")
    assert [row["key"] for row in figures.sorted(name)] == ["cheap", "dear"]


def test_tokens_a_second_are_those_of_a_call_as_the_timings_beside_them() -> None:
    runs = {"slow": (10.0, 900.0), "fast": (50.0, 90.0)}
    rows = [
        {
            "key": key,
            "verdict": None,
            "pareto": None,
            **to_json(run_summary(output_tokens_per_s=timing(of_a_call), throughput_tokens_per_s=of_all)),
        }
        for key, (of_a_call, of_all) in runs.items()
    ]
    figures = Figures(rows, "accuracy")
    assert [row["key"] for row in figures.sorted("tokens_p50_per_s")] == ["fast", "slow"]
    column = figures.column("tokens_p50_per_s", 0)
    assert (column.title, column.legend) == ("tok/s\np50", "tok/s: tokens of a reply by its latency.")
    assert [column.cell(row) for row in rows] == ["10.0", "50.0"]
