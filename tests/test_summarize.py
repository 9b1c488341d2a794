"""From rows to summary.json: every figure of a small run is worked out by hand."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspylab.aggregate.activity import Activity
from dspylab.aggregate.summarize import Expected, RunRows, summarize, summarize_run
from dspylab.config.models import Experiment
from dspylab.jsonable import to_json
from dspylab.records import (
    ExampleError,
    ExampleFailure,
    ExampleResult,
    GitState,
    LMCall,
    Rates,
    RunInfo,
    RunSummary,
    Summary,
)

START = 1_700_000_000.0
RATES = Rates(input_usd=1.0, output_usd=10.0, cached_input_usd=0.1, source="experiment file")


def call(**fields: Any) -> LMCall:
    """A call of the task that was streamed and succeeded: 100 + 10 tokens in one second."""
    usual: dict[str, Any] = {
        "model": "mini", "predictor": "route", "ttft_s": 0.5, "ttfot_s": 0.5, "latency_s": 1.0, "itl_s": 0.05,
        "decode_tokens_per_s": 20.0, "output_tokens_per_s": 10.0, "attempts": 1, "prompt_tokens": 100,
        "completion_tokens": 10, "token_source": "provider", "streamed": True, "finish_reason": "stop",
    }  # fmt: skip
    return LMCall(**{**usual, **fields})


def result(index: int, *calls: LMCall, accuracy: float = 1.0, **fields: Any) -> dict[str, Any]:
    """A row of a result that took one second and started `index` seconds after the run."""
    usual: dict[str, Any] = {
        "run": "mini", "index": index, "example_id": f"e{index}", "inputs": {"text": "…"},
        "labels": {"label": "bug"}, "prediction": {"label": "bug"}, "metrics": {"accuracy": accuracy},
        "example_s": 1.0, "metric_s": 0.25, "started_at": START + index, "calls": calls,
    }  # fmt: skip
    return dict(to_json(ExampleResult(**{**usual, **fields})))


def failure(index: int, kind: Any, *calls: LMCall, **fields: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "run": "mini", "index": index, "example_id": f"e{index}", "inputs": {"text": "…"},
        "labels": {"label": "bug"}, "error": ExampleError(type="LMTimeoutError", message="…", kind=kind),
        "example_s": 1.0, "started_at": START + index, "calls": calls,
    }  # fmt: skip
    return dict(to_json(ExampleFailure(**{**usual, **fields})))


INFO = RunInfo(
    run="mini",
    coordinates={"model": "mini"},
    total=2,
    config_hash="0" * 64,
    model={},
    engine="native",
    rates={},
    versions={"dspy": "3.4.1"},
)


def of(*rows: Mapping[str, Any], **settings: Any) -> RunSummary:
    total, rates = settings.pop("total", len(rows)), settings.pop("rates", {"mini": RATES})
    expected = Expected(**{"primary": "accuracy", "names": ["accuracy"], **settings})
    return summarize_run(RunRows(info=INFO, rows=iter(rows), total=total), expected, rates)[0]


# --- examples and metrics


def test_a_failed_example_is_counted_and_never_scored() -> None:
    run = of(
        result(0, call()), failure(1, "program", call(error="LMTimeoutError: …", completion_tokens=None))
    )
    assert dataclasses.asdict(run.examples) == {"total": 2, "attempted": 2, "scored": 1, "failed": 1}
    assert run.metrics["accuracy"].mean == 1.0
    assert run.metrics["accuracy"].n == 1
    assert run.errors == {"LMTimeoutError": 1}


@pytest.mark.parametrize(
    ("rows", "total", "complete"),
    [
        ([result(0), result(1)], 2, True),
        ([result(0)], 2, False),
        ([result(0), failure(1, "endpoint")], 2, False),
        ([result(0), failure(1, "program")], 2, True),
        ([], 0, True),
    ],
)
def test_a_run_is_complete_when_nothing_is_left_to_do(
    rows: list[dict[str, Any]], total: int, *, complete: bool
) -> None:
    assert of(*rows, total=total).complete is complete


def test_a_metric_that_raised_leaves_the_example_unscored() -> None:
    run = of(result(0), result(1, metrics={}, metric_errors={"accuracy": "KeyError: 'label'"}))
    assert run.examples.scored == 1
    assert run.examples.failed == 0
    assert run.metric_errors == {"accuracy": 1}


def test_metrics_stand_in_the_order_of_the_file() -> None:
    rows = [
        result(i, metrics={"z": 1.0, "helpful.b": 0.5, "helpful.a": 0.25, "accuracy": 1.0}) for i in range(3)
    ]
    run = of(*rows, names=["helpful", "never", "accuracy"], primary="helpful")
    assert list(run.metrics) == ["helpful.b", "helpful.a", "never", "accuracy", "z"]
    assert run.metrics["never"].mean is None
    assert run.metrics["never"].n == 0
    assert run.examples.scored == 3


def test_an_example_that_stands_twice_is_one_example() -> None:
    rows = [result(i, accuracy=float(i % 2), example_id=f"e{i // 2}") for i in range(8)]
    metric = of(*rows).metrics["accuracy"]
    assert (metric.n, metric.examples) == (8, 4)


def test_the_interval_of_a_bounded_metric_is_cut() -> None:
    rows = [result(i, metrics={"f1": 1.0 if i else 0.5}) for i in range(12)]
    free = of(*rows, names=["f1"]).metrics["f1"].ci95
    cut = of(*rows, names=["f1"], bounded={"f1"}).metrics["f1"].ci95
    assert free is not None
    assert cut is not None
    assert free[1] > 1
    assert cut[1] == 1
    rows = [result(i, metrics={"f1": 0.0 if i else 0.5}) for i in range(12)]
    low = of(*rows, names=["f1"], bounded={"f1"}).metrics["f1"].ci95
    assert low is not None
    assert low[0] == 0 < low[1] < 1


# --- calls


def test_timings_are_of_task_calls_that_were_sent_and_succeeded() -> None:
    run = of(
        result(
            0,
            call(latency_s=2.0, ttft_s=None, itl_s=None, queue_s=0.125),
            call(latency_s=4.0, fallback=True),
            call(latency_s=99.0, role="judge", model="critic"),
            call(latency_s=99.0, error="ServerError: …"),
            call(latency_s=None, ttft_s=None, cached=True, attempts=0),
        ),
        rates={"mini": RATES, "critic": None},
    )
    assert dataclasses.asdict(run.latency_s) == {"mean": 3.0, "p50": 3.0, "p90": 3.8, "p95": 3.9, "n": 2}
    assert run.ttft_s.n == 1
    assert run.queue_s.p50 == 0.0625
    assert run.calls.total == 5
    assert run.calls.failed == 1
    assert run.calls.cached == 1
    assert run.calls.attempts == 4
    assert run.calls.by_role == {"task": 4, "judge": 1}
    assert run.calls.fallbacks == 1
    assert run.calls.fallback_rate == pytest.approx(1 / 3)


def test_an_answer_from_the_cache_is_no_measurement_of_the_example() -> None:
    run = of(result(0, call(cached=True, latency_s=None), example_s=0.001), result(1, call(), example_s=1.5))
    assert run.example_s.n == 1
    assert run.example_s.p50 == 1.5


def test_a_call_of_a_model_of_the_programs_own_makes_cost_and_duration_unknown() -> None:
    own = LMCall(model="openai/other", predictor="route", adapter="ChatAdapter")
    run = of(result(0, call(), own, example_s=0.001), result(1, call(), example_s=1.5))
    assert (run.example_s.n, run.example_s.p50) == (1, 1.5)
    assert (run.cost_usd.total, run.cost_usd.unpriced_calls) == (None, 1)
    assert run.latency_s.n == 2
    # Of one that was not answered it is known that nothing was.
    failed = dataclasses.replace(own, error="LMError: …")
    run = of(result(0, call(), failed, example_s=2.0))
    assert run.example_s.n == 1
    assert run.cost_usd.total == pytest.approx(200e-6)


def test_each_predictor_shows_its_own_figures() -> None:
    run = of(
        result(0, call(predictor="think", latency_s=3.0, finish_reason="length"), call(predictor="answer")),
        result(
            1,
            call(predictor="think", latency_s=5.0),
            call(predictor="answer", fallback=True, model="free"),
            call(predictor=None, error="ServerError: …"),
            parse_failures=2,
        ),
        rates={"mini": RATES, "free": Rates(input_usd=0, output_usd=0, source="local")},
    )
    assert run.calls.by_predictor == {"think": 2, "answer": 2, "(none)": 1}
    think, answer, none = (run.predictors[name] for name in ("think", "answer", "(none)"))
    assert (think.calls, think.truncated, think.latency_s.p50) == (2, 1, 4.0)
    assert think.completion_tokens == 20
    assert think.cost_usd == pytest.approx(2 * 200e-6)
    assert answer.fallbacks == 1
    assert answer.cost_usd == pytest.approx(200e-6)
    assert (none.calls, none.failed, none.latency_s.n) == (1, 1, 0)
    assert (run.calls.parse_failures, run.calls.truncated) == (2, 1)


def test_tokens_are_of_the_task() -> None:
    run = of(
        result(
            0, call(cached_tokens=60, reasoning_tokens=4), call(token_source="estimate"), call(role="judge")
        ),
        failure(1, "program", call(error="ServerError: …", prompt_tokens=None, completion_tokens=None)),
    )
    assert dataclasses.asdict(run.tokens) == {
        "prompt": 200, "cached": 60, "completion": 20, "reasoning": 4, "estimated_calls": 1,
    }  # fmt: skip


# --- cost


def test_cost_is_computed_from_tokens_at_the_rates_of_now() -> None:
    asked = call(
        prompt_tokens=1000, cached_tokens=600, cache_write_tokens=100, completion_tokens=50, cost_usd=99.0
    )
    # 300 fresh at 1, 600 cached at 0.1, 100 written at the price of input, 50 out at 10; per million.
    expected = (300 * 1 + 600 * 0.1 + 100 * 1 + 50 * 10) / 1e6
    run = of(result(0, asked))
    assert run.cost_usd.total == pytest.approx(expected)
    dearer = dataclasses.replace(RATES, cache_write_usd=2.0)
    assert of(result(0, call()), rates={"mini": dearer}).cost_usd.total == pytest.approx(200e-6)
    assert of(result(0, asked), rates={"mini": dearer}).cost_usd.total == pytest.approx(expected + 100e-6)


def test_cost_by_role() -> None:
    run = of(result(0, call(), call(role="judge", model="critic")), rates={"mini": RATES, "critic": None})
    assert run.cost_usd.by_role == {"task": pytest.approx(200e-6), "judge": None}
    assert run.cost_usd.total is None
    assert run.cost_usd.unpriced_calls == 1


def test_a_model_that_left_the_file_keeps_the_cost_in_its_rows() -> None:
    assert of(result(0, call(model="old", cost_usd=0.5))).cost_usd.total == 0.5
    assert of(result(0, call(model="old", cost_usd=None))).cost_usd.total is None


def test_unknown_tokens_are_an_unknown_cost_and_never_zero() -> None:
    run = of(result(0, call(completion_tokens=None)))
    assert run.cost_usd.total is None


def test_a_call_that_failed_without_tokens_does_not_hide_what_the_others_cost() -> None:
    run = of(result(0, call(), call(error="ServerError: …", prompt_tokens=None, completion_tokens=None)))
    assert run.cost_usd.total == pytest.approx(200e-6)


def test_what_only_failed_has_neither_a_cost_nor_a_speed() -> None:
    lost = call(
        error="ServerError: …", prompt_tokens=None, completion_tokens=None, latency_s=None, ttft_s=None
    )
    run = of(failure(0, "endpoint", lost), failure(1, "endpoint", lost))
    assert (run.cost_usd.total, run.cost_usd.by_role, run.cost_usd.unpriced_calls) == (
        None,
        {"task": None},
        0,
    )
    assert run.predictors["route"].cost_usd is None
    assert run.throughput_tokens_per_s is None
    # What was billed all the same counts, and a free model is free.
    billed = call(error="ContextLengthError: …", completion_tokens=0)
    assert of(failure(0, "program", billed, lost)).cost_usd.total == pytest.approx(100e-6)
    free = {"mini": Rates(input_usd=0.0, output_usd=0.0, source="local")}
    assert of(failure(0, "endpoint", lost), rates=free).cost_usd.total == 0
    # Nothing was asked, so nothing was paid.
    assert of(failure(0, "program")).cost_usd.total == 0


def test_a_cached_answer_costs_nothing_and_says_what_it_saved() -> None:
    run = of(result(0, call(cached=True, latency_s=None, ttft_s=None)))
    assert run.cost_usd.total == 0
    assert run.cost_usd.saved == pytest.approx(200e-6)
    assert run.tokens.completion == 0


# --- when the run was at work


def test_a_pause_is_no_work() -> None:
    rows = [
        result(0, call(), example_s=2.0, started_at=START),
        result(1, call(), example_s=2.0, started_at=START + 1),
        failure(2, "endpoint", example_s=1.0, started_at=START + 3),  # begins when the second ends
        result(3, call(), example_s=4.0, started_at=START + 3600),
    ]
    run = of(*rows)
    assert run.active_s == pytest.approx(4.0 + 4.0)
    assert run.concurrency.mean == pytest.approx(9 / 8)
    assert run.concurrency.peak == 2
    assert run.throughput_tokens_per_s == pytest.approx(30 / 8)
    assert run.started_at == "2023-11-14T22:13:20.000+00:00"
    assert run.finished_at == "2023-11-14T23:13:24.000+00:00"


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), min_size=1, max_size=25))
def test_activity_is_the_union_of_the_intervals(intervals: list[tuple[int, int]]) -> None:
    activity = Activity()
    for start, length in intervals:
        activity.add(float(start), float(length))
    found = activity.result()
    under_way = [sum(start <= second < start + length for start, length in intervals) for second in range(81)]
    assert found.active_s == sum(map(bool, under_way))
    if any(length for _, length in intervals):
        assert found.concurrency.mean == pytest.approx(sum(under_way) / found.active_s)
    if all(length for _, length in intervals):
        assert found.concurrency.peak == max(under_way)


def test_a_run_without_rows_has_no_figures_but_counts() -> None:
    run = of(total=3)
    assert dataclasses.asdict(run.examples) == {"total": 3, "attempted": 0, "scored": 0, "failed": 0}
    assert (run.started_at, run.finished_at, run.throughput_tokens_per_s) == (None, None, None)
    assert (run.concurrency.mean, run.concurrency.peak) == (None, None)
    assert run.calls.fallback_rate is None
    assert run.cost_usd.total == 0
    json.dumps(to_json(run), allow_nan=False)


def test_a_run_of_many_rows_is_read_as_a_stream() -> None:
    alive = 0

    class Row(dict[str, Any]):
        def __init__(self, *arguments: Any) -> None:
            nonlocal alive
            alive += 1
            super().__init__(*arguments)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    most = 0

    def rows() -> Iterator[Row]:
        nonlocal most
        for index in range(500):
            yield Row(result(index, call()))
            most = max(most, alive)

    run = RunRows(info=INFO, rows=rows(), total=500)
    assert summarize_run(run, Expected(primary="accuracy", names=[]), {})[0].complete
    assert most <= 2


def test_the_first_error_of_a_kind_is_on_one_line_and_not_long() -> None:
    long = ExampleError(type="Parse", message="no reply:\n\n  " + 300 * "x", kind="program")
    later = ExampleError(type="Parse", message="another", kind="program")
    first = of(failure(3, "program", error=long), failure(4, "program", error=later)).first_errors["Parse"]
    assert first.example_id == "e3"
    assert first.message == "no reply: " + 189 * "x" + "…"
    just = ExampleError(type="Parse", message=200 * "x", kind="program")
    assert of(failure(0, "program", error=just)).first_errors["Parse"].message == 200 * "x"


def test_every_figure_of_a_run() -> None:
    """Two results and three failures, each figure by hand."""
    think = {"predictor": "think", "ttft_s": 0.25, "finish_reason": "length"}
    rows = [
        result(
            0, call(**think), call(token_source="estimate"), call(role="judge", model="critic"), metric_s=0.5,
            parse_failures=2, metrics={"accuracy": 0.0, "f1": 0.5}, example_s=4.0,
        ),
        result(
            1, call(cached=True, attempts=0), call(cached=True, attempts=0, model="old", saved_usd=0.5),
            call(role="judge", model="critic", cached=True, attempts=0), parse_failures=1,
            metrics={"f1": 1.0}, metric_errors={"accuracy": "…"},
        ),
        failure(2, "program", call(error="A", attempts=3, completion_tokens=None), parse_failures=1),
        failure(3, "endpoint", call(error="A", attempts=2, completion_tokens=None)),
        failure(4, "endpoint", call(model="unpriced"), call(model="unpriced", predictor=None),
                error=ExampleError(type="Other", message="…", kind="endpoint")),
    ]  # fmt: skip
    info = dataclasses.replace(INFO, coordinates={"model": "mini", "seed": 1}, engine="litellm")
    found, scores, _ = summarize_run(
        RunRows(info=info, rows=rows, total=9, run_metrics={"macro": 0.5}),
        Expected(primary="accuracy", names=["accuracy"]),
        {"mini": RATES, "critic": None, "unpriced": None},
    )
    one = 100e-6 + 10 * 10e-6
    document = to_json(found)
    spread = {"p50": 1.0, "p90": 1.0, "p95": 1.0}
    assert list(scores.by_example("f1").values()) == [[0.5], [1.0]]
    # From START to the end of the example that began last; the first four are busy without a pause.
    assert (found.started_at, found.finished_at) == (
        "2023-11-14T22:13:20.000+00:00", "2023-11-14T22:13:25.000+00:00",
    )  # fmt: skip
    assert {name: document[name] for name in ("coordinates", "config_hash", "engine", "versions")} == {
        "coordinates": {"model": "mini", "seed": 1},
        "config_hash": "0" * 64,
        "engine": "litellm",
        "versions": {"dspy": "3.4.1"},
    }
    assert document["complete"] is False
    assert document["examples"] == {"total": 9, "attempted": 5, "scored": 1, "failed": 3}
    assert document["metric_errors"] == {"accuracy": 1}
    assert document["run_metrics"] == {"macro": 0.5}
    assert list(document["errors"].items()) == [("LMTimeoutError", 2), ("Other", 1)]
    assert document["first_errors"] == {
        "LMTimeoutError": {"example_id": "e2", "message": "…"},
        "Other": {"example_id": "e4", "message": "…"},
    }
    assert document["first_metric_errors"] == {"accuracy": {"example_id": "e1", "message": "…"}}
    assert document["compile"] is None
    assert document["example_s"] == {"mean": 4.0, "p50": 4.0, "p90": 4.0, "p95": 4.0, "n": 1}
    assert document["metric_s"]["mean"] == 0.375
    assert document["active_s"] == 5.0
    assert document["throughput_tokens_per_s"] == pytest.approx(40 / 5)
    assert document["concurrency"] == {"mean": pytest.approx(8 / 5), "peak": 2}
    assert document["latency_s"] == {"mean": 1.0, **spread, "n": 4}
    assert document["ttft_s"]["mean"] == pytest.approx((0.25 + 3 * 0.5) / 4)
    assert document["tokens"] == {
        "prompt": 600, "cached": 0, "completion": 40, "reasoning": 0, "estimated_calls": 1,
    }  # fmt: skip
    assert document["calls"] == {
        "total": 10, "failed": 2, "cached": 3, "attempts": 10, "fallbacks": 0, "fallback_rate": 0.0,
        "truncated": 1, "parse_failures": 4, "by_role": {"task": 8, "judge": 2},
        "by_predictor": {"think": 1, "route": 6, "(none)": 1},
    }  # fmt: skip
    assert document["cost_usd"] == {
        "total": None,
        "by_role": {"task": None, "judge": None},
        "saved": pytest.approx(one + 0.5),
        "unpriced_calls": 3,
    }
    latency = {"mean": 1.0, **spread}
    ttft = {name: value / 2 for name, value in latency.items()}
    assert document["predictors"] == {
        "think": {
            "calls": 1, "failed": 0, "fallbacks": 0, "truncated": 1, "latency_s": {**latency, "n": 1},
            "ttft_s": {**dict.fromkeys(latency, 0.25), "n": 1}, "prompt_tokens": 100,
            "completion_tokens": 10, "cost_usd": pytest.approx(one),
        },
        "route": {
            "calls": 6, "failed": 2, "fallbacks": 0, "truncated": 0, "latency_s": {**latency, "n": 2},
            "ttft_s": {**ttft, "n": 2}, "prompt_tokens": 400, "completion_tokens": 20, "cost_usd": None,
        },
        "(none)": {
            "calls": 1, "failed": 0, "fallbacks": 0, "truncated": 0, "latency_s": {**latency, "n": 1},
            "ttft_s": {**ttft, "n": 1}, "prompt_tokens": 100, "completion_tokens": 10, "cost_usd": None,
        },
    }  # fmt: skip


def test_of_one_call_that_fell_back_there_is_no_rate() -> None:
    assert of(result(0, call(), call(fallback=True))).calls.fallback_rate == 1.0
    assert of(result(0, call(fallback=True))).calls.fallback_rate is None


def test_a_short_run_has_a_throughput_and_one_of_no_length_has_none() -> None:
    short = of(result(0, call(), example_s=0.5))
    assert (short.throughput_tokens_per_s, short.concurrency.mean) == (20.0, 1.0)
    assert of(result(0, call(), example_s=0.0)).throughput_tokens_per_s is None


def test_a_call_that_was_not_streamed_has_no_first_token() -> None:
    predictor = of(result(0, call(ttft_s=None), call(latency_s=None))).predictors["route"]
    assert (predictor.latency_s.n, predictor.ttft_s.n) == (1, 1)


def test_a_run_whose_examples_all_failed_is_not_complete() -> None:
    assert not of(failure(0, "program"), failure(1, "program")).complete
    assert not of(failure(0, "endpoint"), failure(1, "endpoint"), result(2)).complete
    assert not of(failure(0, "endpoint"), failure(1, "program"), result(2)).complete


# --- the summary and DVC's metrics


def experiment(primary: str = "accuracy", **metrics: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "triage",
            "program": {"path": "program.py"},
            "dataset": {"path": "tickets.jsonl", "inputs": ["text"]},
            "models": {"mini": {"model": "openai/gpt-4o-mini"}},
            "metrics": metrics or {primary: {"type": "exact_match", "field": "label"}},
            "primary_metric": primary,
        }
    )


def summary_of(primary: str = "accuracy", **runs: list[dict[str, Any]]) -> Summary:
    return summarize(
        experiment(primary),
        {
            key: RunRows(info=INFO, rows=rows, total=len(rows) + key.endswith("part"))
            for key, rows in runs.items()
        },
        rates={"mini": RATES},
        config_hash="1" * 64,
        git=None,
        created_at="2025-01-01T00:00:00Z",
        versions={"dspy": "3.4.1"},
    )


def test_a_summary_is_plain_json() -> None:
    summary = summary_of(mini=[result(0, call()), failure(1, "program")], empty=[])
    document = json.loads(json.dumps(to_json(summary), allow_nan=False))
    assert document["schema_version"] == 1
    assert document["primary_metric"] == "accuracy"
    assert list(document["runs"]) == ["mini", "empty"]
    assert document["rates"]["mini"]["source"] == "experiment file"
    assert document["runs"]["mini"]["metrics"]["accuracy"]["ci95"] is None
    assert document["runs"]["mini"]["predictors"]["route"]["calls"] == 1


def test_a_summary_says_what_it_is_of() -> None:
    git = GitState(commit="2" * 40, branch="main", dirty=True)
    lab = experiment("f1", f1={"type": "token_f1", "field": "label"}, own={"type": "path", "ref": "p.py:own"})
    lab = lab.model_copy(update={"description": "Which one?"})
    fs = [{"f1": 1.0, "own": 1.0} for _ in range(11)] + [{"f1": 0.5, "own": 0.5}]
    rows = [result(index, metrics=metrics) for index, metrics in enumerate(fs)]
    found = summarize(
        lab,
        {"a": RunRows(info=INFO, rows=rows, total=12)},
        rates={"mini": None},
        config_hash="3" * 64,
        git=git,
        created_at="2025-01-01T00:00:00Z",
        versions={"dspy": "3.4.1"},
    )
    assert dataclasses.replace(found, runs={}) == Summary(
        experiment="triage",
        description="Which one?",
        config_hash="3" * 64,
        primary_metric="f1",
        git=git,
        created_at="2025-01-01T00:00:00Z",
        versions={"dspy": "3.4.1"},
        rates={"mini": None},
        runs={},
        over_seeds={},
    )
    run = found.runs["a"]
    assert run.examples.scored == 12
    # A metric of ours lies between 0 and 1. What a user's own may be, nobody knows.
    f1, own = (run.metrics[name].ci95 for name in ("f1", "own"))
    assert f1 is not None
    assert own is not None
    assert f1[1] == 1.0 < own[1]


def test_metrics_over_all_rows_are_no_metrics_of_examples() -> None:
    with_run_metric = experiment(
        "em",
        f1={"type": "run", "params": {"measure": "macro_f1"}, "field": "label"},
        em={"type": "exact_match"},
    )
    run = RunRows(info=INFO, rows=[result(0, metrics={"em": 1.0})], total=1, run_metrics={"f1": 0.5})
    summary = summarize(
        with_run_metric, {"a": run}, rates={}, config_hash="", git=None, created_at="", versions={}
    )
    assert list(summary.runs["a"].metrics) == ["em"]
    assert summary.runs["a"].run_metrics == {"f1": 0.5}


# --- several seeds


def over_seeds_of(runs: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> Summary:
    """A summary of runs r0, r1, … with the given coordinates and rows."""
    return summarize(
        experiment(),
        {
            f"r{i}": RunRows(
                info=dataclasses.replace(INFO, run=f"r{i}", coordinates=cell),
                rows=iter(rows),
                total=len(rows),
            )
            for i, (cell, rows) in enumerate(runs)
        },
        rates={},
        config_hash="",
        git=None,
        created_at="",
        versions={},
    )


def answers(*values: float) -> list[dict[str, Any]]:
    return [result(index, accuracy=value) for index, value in enumerate(values)]


def test_over_seeds_the_example_is_the_unit() -> None:
    by_seed = [(1.0, 1.0, 0.0, 0.0, 1.0), (1.0, 1.0, 0.0, 1.0, 1.0), (1.0, 0.0, 0.0, 0.0, 1.0)]
    summary = over_seeds_of(
        [({"model": "mini", "seed": seed}, answers(*values)) for seed, values in enumerate(by_seed)]
    )
    group = summary.over_seeds["mini"]
    assert (group.runs, group.coordinates) == (("r0", "r1", "r2"), {"model": "mini"})
    metric = group.metrics["accuracy"]
    assert (metric.n, metric.examples, metric.method) == (15, 5, "wilson")
    assert metric.mean == pytest.approx(9 / 15)
    # Means of the examples: 1, 2/3, 0, 1/3, 1. Their standard error, with n - 1 = 4:
    means = [1, 2 / 3, 0, 1 / 3, 1]
    assert metric.stderr == pytest.approx(np.std(means, ddof=1) / math.sqrt(5))
    assert metric.stderr == pytest.approx(0.194365, abs=1e-6)
    independent = np.std(np.ravel(by_seed), ddof=1) / math.sqrt(15)
    assert independent == pytest.approx(0.130931, abs=1e-6)
    assert metric.ci95 is not None
    assert group.example_s is not None
    assert (group.example_s.n, group.example_s.p50) == (15, summary.runs["r0"].example_s.p50)
    alone = summary.runs["r0"].metrics["accuracy"]
    assert (alone.n, alone.examples) == (5, 5)


def test_only_runs_that_differ_in_their_seed_alone_are_taken_together() -> None:
    rows = answers(1.0, 0.0)
    summary = over_seeds_of(
        [
            ({"model": "mini", "optimizer": "none", "seed": 0}, rows),
            ({"model": "mini", "optimizer": "fewshot", "seed": 0}, rows),
            ({"model": "mini", "optimizer": "none", "seed": 1}, rows),
            ({"model": "big", "optimizer": "none", "seed": 0}, rows),
            ({"model": "big", "optimizer": "none", "seed": 1}, rows),
            ({"model": "free", "optimizer": "none", "seed": 0}, rows),
            ({"model": "free", "optimizer": "none", "seed": 1}, [failure(0, "program")]),
        ]
    )
    assert {key: group.runs for key, group in summary.over_seeds.items()} == {
        "mini-none": ("r0", "r2"),
        "big-none": ("r3", "r4"),
    }


def test_names_over_seeds_are_distinct() -> None:
    cells = [{"model": "a", "adapter": "b-c"}, {"model": "a-b", "adapter": "c"}]
    summary = over_seeds_of([({**cell, "seed": seed}, answers(1.0)) for cell in cells for seed in (0, 1)])
    assert [group.runs for group in summary.over_seeds.values()] == [("r0", "r1"), ("r2", "r3")]
    assert all(key.startswith("a-b-c-") for key in summary.over_seeds)


def test_without_seeds_there_is_nothing_over_seeds() -> None:
    summary = over_seeds_of([({"model": "mini"}, answers(1.0)), ({"model": "big"}, answers(1.0))])
    assert to_json(summary)["over_seeds"] == {}


def test_failures_of_a_seed_leave_its_other_answers() -> None:
    summary = over_seeds_of(
        [
            ({"model": "mini", "seed": 0}, answers(1.0, 0.0, 1.0)),
            ({"model": "mini", "seed": 1}, [result(0, accuracy=1.0), failure(1, "program")]),
        ]
    )
    metric = summary.over_seeds["mini"].metrics["accuracy"]
    assert (metric.n, metric.examples, metric.mean) == (4, 3, 0.75)


# --- JSON


class Team(enum.StrEnum):
    BUG = "bug"


class Level(enum.IntEnum):
    HIGH = 2


class Ticket(pydantic.BaseModel):
    team: Team
    due: dt.date


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Team.BUG, "bug"),
        (Level.HIGH, 2),
        ((1, [2, (3,)]), [1, [2, [3]]]),
        ({"b", "a"}, ["a", "b"]),
        ({Team.BUG: 1, 2: 3, None: 4}, {"bug": 1, "2": 3, "None": 4}),
        (math.nan, None),
        ([-math.inf, 1.5], [None, 1.5]),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), None),
        (np.int64(3), 3),
        (np.bool_(True), True),  # noqa: FBT003
        (np.array([[1, 2]]), [[1, 2]]),
        (Decimal("1.5"), 1.5),
        (dt.date(2025, 1, 2), "2025-01-02"),
        (Path("a") / "b", "a/b"),
        (b"\xff ok", "\\xff ok"),
        (range(3), [0, 1, 2]),
        (Ticket(team=Team.BUG, due=dt.date(2025, 1, 2)), {"team": "bug", "due": "2025-01-02"}),
        (dspy.Prediction(label=Team.BUG, score=math.inf), {"label": "bug", "score": None}),
        (Team, "<enum 'Team'>"),
    ],
)
def test_anything_becomes_plain_json(value: Any, expected: Any) -> None:
    plain = to_json(value)
    assert plain == expected
    assert json.loads(json.dumps(plain, allow_nan=False)) == expected


def test_a_record_keeps_every_field() -> None:
    row = to_json(ExampleResult(
        run="mini", index=0, example_id="e", inputs={"a": [(1, 2)]}, labels={}, prediction={"x": math.nan},
        metrics={"m": 1.0}, example_s=0.1, metric_s=0.0, started_at=START, calls=(call(),),
    ))  # fmt: skip
    assert row["inputs"] == {"a": [[1, 2]]}
    assert row["prediction"] == {"x": None}
    assert row["calls"][0]["latency_s"] == 1.0
    assert row["error"] is None
    assert set(row["calls"][0]) == {field.name for field in dataclasses.fields(LMCall)}
    assert json.loads(json.dumps(row, allow_nan=False)) == row


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(json_values)
def test_json_stays_as_it_is(value: Any) -> None:
    assert to_json(value) == value
