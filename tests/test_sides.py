"""From rows on disk to sides: what is compared, what it costs, where each run stands, what flips."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_summaries import metric, run_summary, summary_of, timing

from dspylab.aggregate.checking import State, judge
from dspylab.aggregate.compare import compare
from dspylab.aggregate.contrast import SideOf, completed, contrast, flips, read_side
from dspylab.aggregate.decision import Decision, Failures, decide
from dspylab.aggregate.gate import Outcome, spending
from dspylab.aggregate.pareto import Figure
from dspylab.aggregate.sides import (
    RunNumbers,
    axes_of,
    pairing,
    point,
    run_numbers,
    same_sides,
    side_runs,
    side_values,
    with_failures_as_0,
)
from dspylab.aggregate.stats import metric_summary
from dspylab.config.models import Experiment
from dspylab.jsonable import to_json
from dspylab.record.results import StoredResults
from dspylab.records import JSON, RunSummary, SeedsSummary
from dspylab.report.checks import lines, reason
from dspylab.report.standing import failures_in_the_best

Row = dict[str, Any]


def call(cost_usd: float | None = 0.25, *, role: str = "task", cached: bool = False) -> Row:
    return {"role": role, "cached": cached, "cost_usd": cost_usd, "attempts": 1, "error": None}


def result(example: str, value: float | None, *calls: Row, example_s: float = 1.0, **fields: Any) -> Row:
    return {
        "example_id": example,
        "inputs": {"text": f"ask {example}"},
        "labels": {"label": "bug"},
        "prediction": {"label": f"{value}"},
        "metrics": {"accuracy": value, "other": 0.5},
        "error": None,
        "calls": list(calls or [call()]),
        "example_s": example_s,
        **fields,
    }


def failure(example: str, *calls: Row) -> Row:
    return {
        **result(example, None, *calls, example_s=99.0),
        "prediction": None,
        "metrics": {},
        "error": {"type": "X", "kind": "program"},
    }


def answers(*values: float, first: int = 0) -> list[Row]:
    return [result(f"e{index}", value) for index, value in enumerate(values, first)]


def results(
    folder: Path,
    rows: Mapping[str, Sequence[Row]],
    *,
    name: str = "workspace",
    runs: Mapping[str, RunSummary] | None = None,
    over_seeds: Mapping[str, SeedsSummary] | None = None,
    digests: Mapping[str, str] | None = None,
) -> State:
    """Results of some runs on disk; runs that only the summary has are elsewhere."""
    files = {}
    for run, written in rows.items():
        files[run] = folder / name / f"{run}.jsonl"
        files[run].parent.mkdir(exist_ok=True)
        files[run].write_text("".join(f"{json.dumps(line)}\n" for line in written))
    summary = summary_of(runs or {run: run_summary() for run in rows}, over_seeds=over_seeds)
    found = StoredResults(
        name=name, summary=to_json(summary), files=files, digests=digests or {}, remedy="`dvc pull` them"
    )
    return State(summary, found)


# --- rows


def test_what_a_comparison_needs_of_the_rows() -> None:
    numbers = run_numbers(
        [
            result("a", 1.0, call(0.5), call(0.25, role="judge")),
            result("a", 0.0, call(None)),
            result("b", None, example_s=2.0),
            failure("c", call(0.125)),
            # From DSPy's cache: no measurement. A judge's cached answer does not count as one.
            result("d", 1, call(0.0, cached=True), example_s=0.001),
            result("e", 0.5, call(), call(0.0, role="judge", cached=True), example_s=3.0),
        ],
        "accuracy",
    )
    assert numbers.values == {"a": [1.0, 0.0], "d": [1.0], "e": [0.5]}
    assert numbers.attempted == set("abcde")
    assert numbers.failed == {"c"}
    assert list(numbers.example_s) == [1.0, 1.0, 2.0, 3.0]
    assert numbers.cost_usd == [0.75, None, 0.25, 0.125, 0.0, 0.25]


def test_a_metric_that_no_row_has() -> None:
    assert run_numbers(answers(1.0), "never").values == {}
    assert run_numbers(answers(1.0), "other").values == {"e0": [0.5]}


def test_runs_that_differ_in_their_seed_are_one_side() -> None:
    summary = {"runs": {"a-0": {}, "b": {}, "a-1": {}}, "over_seeds": {"a": {"runs": ["a-0", "a-1"]}}}
    assert side_runs(summary) == {"a": ("a-0", "a-1"), "b": ("b",)}


def numbers_of(*rows: Row) -> RunNumbers:
    return run_numbers(rows, "accuracy")


def test_every_example_is_accounted_for() -> None:
    a = [
        numbers_of(result("both", 1.0), failure("lost"), failure("saved"), result("only a", 1.0)),
        numbers_of(result("both", 1.0), failure("lost"), result("saved", 0.0), result("only a", 0.0)),
    ]
    b = [numbers_of(result("both", 0.0), result("lost", 1.0), failure("saved"), failure("only b"))]
    found = pairing(a, b, compare("accuracy", side_values(a), side_values(b)))
    assert (found.examples, found.paired, found.lost) == (5, 1, 4)
    assert (found.failed_a, found.failed_b) == (1, 2)
    assert (found.absent_a, found.absent_b) == (1, 1)


def test_failures_as_0_replace_no_value() -> None:
    runs = [numbers_of(result("a", 1.0), failure("a"), failure("b")), numbers_of(result("b", 1.0))]
    assert list(with_failures_as_0(runs)) == [{"a": [1.0], "b": (0.0,)}, {"b": [1.0]}]


# --- cost and latency


def cost(total: float | None) -> dict[str, Any]:
    return {"cost_usd": {"total": total}}


def test_a_point_has_the_median_latency_and_the_cost_of_an_example() -> None:
    rows = [result(f"e{i}", 1.0, call(0.1 * i), example_s=float(i)) for i in range(10)]
    quality = Figure(value=0.5)
    found = point("a", [numbers_of(*rows[:4]), numbers_of(*rows[4:])], [cost(0.6), cost(3.9)], quality)
    assert (found.name, found.quality) == ("a", quality)
    # The 2nd and the 9th of ten values hold the median with 97.9%.
    assert found.costs["latency"] == Figure(value=4.5, ci95=(1.0, 8.0))
    paid = found.costs["cost"]
    assert paid is not None
    assert paid.value == pytest.approx(0.45)
    assert paid.ci95 == metric_summary([0.1 * i for i in range(10)]).ci95


@pytest.mark.parametrize(
    ("totals", "costs", "expected"),
    [
        # A price that was corrected: the rows say nothing of how the new cost varies.
        ([2.0], [0.5, 0.5], Figure(value=1.0)),
        # A run without a price has no cost, whatever the others have.
        ([1.0, None], [0.5, 0.5], None),
        ([1.0], [0.5, None], Figure(value=0.5)),
        ([1.0], [0.5, 0.5], Figure(value=0.5, ci95=(0.5, 0.5))),
        ([0.0], [0.0], Figure(value=0.0, ci95=(0.0, 0.0))),
        ([0.5], [0.5], Figure(value=0.5)),
        # What rounding leaves is no other price.
        ([1.0000005], [0.5, 0.5], Figure(value=0.50000025, ci95=(0.50000025, 0.50000025))),
        ([0.0], [], None),
    ],
)
def test_what_is_known_of_the_cost(
    totals: list[float | None], costs: list[float | None], expected: Figure | None
) -> None:
    rows = [result(f"e{i}", 1.0, call(usd)) for i, usd in enumerate(costs)]
    assert point("a", [numbers_of(*rows)], [cost(total) for total in totals], None).costs["cost"] == expected


def test_without_a_measured_example_there_is_no_latency() -> None:
    rows = [failure("a"), result("b", 1.0, call(cached=True))]
    assert point("a", [numbers_of(*rows)], [cost(0.5)], None).costs["latency"] is None


# --- where the sides stand


def timed(values: Sequence[float], example_s: float, usd: float) -> list[Row]:
    return [
        result(f"e{index}", value, call(usd), example_s=example_s + index / 100)
        for index, value in enumerate(values)
    ]


def decision(folder: Path, **choice: Any) -> Decision:
    """Of `cheap` and `good`, `bad` (slow, dear, wrong), `part` (not complete) and `away` (no rows here)."""
    rows = {
        "good-0": timed([1.0] * 29 + [0.0], 1.0, 0.5),
        "good-1": timed([1.0] * 29 + [0.0], 1.0, 0.5),
        "cheap": timed([1.0] * 28 + [0.0] * 2, 1.0, 0.25),
        "bad": timed([1.0] * 8 + [0.0] * 22, 3.0, 2.0),
        "part": timed([1.0] * 30, 0.1, 0.1),
    }
    paid = {"good-0": 15.0, "good-1": 15.0, "cheap": 7.5, "bad": 60.0, "part": 3.0, "away": 1.0}
    runs = {run: run_summary(cost_usd=usd, complete=run != "part") for run, usd in paid.items()}
    group = SeedsSummary(runs=("good-0", "good-1"), coordinates={"model": "mini"}, metrics={})
    return decide(results(folder, rows, runs=runs, over_seeds={"good": group}).results, **choice)


def test_the_best_side_and_what_is_worse(tmp_path: Path) -> None:
    found = decision(tmp_path)
    assert found.metric == "accuracy"
    assert found.standing.best == "good"
    assert found.sides["good"] == ("good-0", "good-1")
    assert found.left_out == ("part", "away")
    assert set(found.numbers) == {"good-0", "good-1", "cheap", "bad", "part"}
    assert found.verdicts() == {"good-0": "best", "good-1": "best", "cheap": "cannot tell", "bad": "worse"}
    assert found.places["bad"].dominated_by == ("good", "cheap")
    assert found.places["bad"].surely_by == ("good", "cheap")
    assert found.dominance() == {
        "good-0": "front",
        "good-1": "front",
        "cheap": "front",
        "bad": "dominated",
    }
    # Chosen from three pairs of sides.
    worse = found.standing.comparisons["bad"]
    assert worse.p_adjusted == pytest.approx(3 * (worse.p_value or 0))


def test_another_metric_and_fewer_runs(tmp_path: Path) -> None:
    assert decision(tmp_path, metric="other").metric == "other"
    few = decision(tmp_path, runs={"cheap", "bad", "good-1"})
    assert few.sides == {"good": ("good-1",), "cheap": ("cheap",), "bad": ("bad",)}
    assert set(few.numbers) == {"good-1", "cheap", "bad"}
    nothing = decision(tmp_path, metric="never")
    assert nothing.standing.best is None
    assert nothing.verdicts() == {}
    # Without a mean nothing dominates and nothing is dominated.
    assert set(nothing.dominance().values()) == {"front"}


def test_runs_that_are_equally_good_are_ordered_by_an_example_of_theirs() -> None:
    runs = [
        run_summary(cost_usd=usd, example_s=timing(seconds), failed=2)
        for usd, seconds in ((3.0, 1.0), (1.0, 2.0))
    ]
    assert [run.examples.attempted for run in runs] == [20, 20]
    assert spending(runs) == (4.0 / 40, 1.5)
    assert spending([run_summary(cost_usd=None, example_s=timing(None))]) == (math.inf, math.inf)


def test_of_equal_runs_one_of_known_cost_is_the_best(tmp_path: Path) -> None:
    rows = {name: timed([1.0, 0.0], 1.0, 0.5) for name in ("unknown", "dear", "cheap")}
    costs = {"unknown": None, "dear": 2.0, "cheap": 1.0}
    runs = {name: run_summary(cost_usd=usd) for name, usd in costs.items()}
    found = decide(results(tmp_path, rows, runs=runs).results)
    assert (found.standing.best, *found.standing.comparisons) == ("cheap", "dear", "unknown")


def test_what_is_dominated_by_the_figures_alone(tmp_path: Path) -> None:
    rows = {"a": timed([1.0, 1.0, 0.0], 1.0, 0.5), "b": timed([1.0, 0.0, 0.0], 1.0, 0.5)}
    runs = {run: run_summary(cost_usd=1.5) for run in rows}
    assert decide(results(tmp_path, rows, runs=runs).results).dominance() == {"a": "front", "b": "dominated?"}


def test_a_paired_comparison_tells_where_intervals_overlap(tmp_path: Path) -> None:
    values = {"a": [1.0] * 60 + [0.0] * 40, "b": [1.0] * 50 + [0.0] * 50}
    rows = {run: answers(*numbers) for run, numbers in values.items()}
    runs = {run: run_summary(cost_usd=25.0) for run in rows}
    found = decide(results(tmp_path, rows, runs=runs).results)
    a, b = (metric_summary(numbers).ci95 for numbers in values.values())
    assert a is not None
    assert b is not None
    assert a[0] < b[1]
    assert found.standing.comparisons["b"].metric == "accuracy"
    assert found.verdicts() == {"a": "best", "b": "worse"}
    assert found.dominance() == {"a": "front", "b": "dominated"}
    # Without that it is not sure, although latency and cost are the same to the last digit.
    rows["b"] = answers(*[0.0] * 3, *[1.0] * 59, *[0.0] * 38)
    near = decide(results(tmp_path, rows, runs=runs).results)
    assert near.verdicts() == {"a": "best", "b": "cannot tell"}
    assert near.dominance() == {"a": "front", "b": "dominated?"}


def test_what_failed_in_the_best_may_decide_which_it_is(tmp_path: Path) -> None:
    sound = [result(f"e{i}", float(i % 2)) for i in range(10)]
    half = [*answers(1.0, 1.0, 0.0), *(failure(f"e{i}") for i in range(3, 10))]
    found = decide(results(tmp_path, {"half": half, "sound": sound}).results)
    assert found.standing.best == "half"
    assert found.failures == Failures(
        best="half", failed=7, attempted=10, less_often=("sound",), mean=0.2, winner="sound", winner_mean=0.5
    )
    assert failures_in_the_best(found.failures) == (
        "If what failed counted as not passed, sound would be the best with 0.500: half, which failed 7 of "
        "10 times, would have 0.200."
    )
    # Of the very same mean the best stays the best.
    good = [failure("e0"), *answers(*[1.0] * 5, *[0.0] * 4, first=1)]
    found = decide(results(tmp_path, {"good": good, "sound": sound}).results)
    assert found.failures is not None
    assert (found.failures.mean, found.failures.winner, found.failures.winner_mean) == (0.5, None, None)
    assert failures_in_the_best(found.failures) == (
        "good failed 1 of 10 times, sound less often: what failed is in no mean. If it counted as not "
        "passed, good would still be the best, with 0.500."
    )
    # What is more than pass or fail has no such mean.
    fine = [failure("e0"), *answers(*[0.9] * 9, first=1)]
    found = decide(results(tmp_path, {"fine": fine, "sound": sound}).results)
    assert found.failures is not None
    assert (found.failures.mean, found.failures.winner) == (None, None)
    assert failures_in_the_best(found.failures) == (
        "fine failed 1 of 10 times, sound less often: what failed is in no mean."
    )


def test_failures_that_others_have_too_are_no_reason_for_doubt(tmp_path: Path) -> None:
    rows = {"a": [failure("e0"), *answers(1.0, 1.0, first=1)], "b": [failure("e0"), *answers(0.0, first=1)]}
    found = decide(results(tmp_path, rows).results)
    assert found.failures is None
    assert failures_in_the_best(found.failures) is None
    assert decide(results(tmp_path, {"a": [failure("e0")]}).results).failures is None


def test_quality_has_the_interval_of_the_summary(tmp_path: Path) -> None:
    """Repeated examples and seeds count once, else more runs would seem to be dominated for sure."""
    values = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    twice = [*answers(*values), *answers(*values)]
    group = SeedsSummary(runs=("a-0", "a-1"), coordinates={}, metrics={})
    paid = {"a-0": 4.0, "a-1": 4.0, "b": 2.0}  # the same for each example
    runs = {run: run_summary(cost_usd=usd) for run, usd in paid.items()}
    rows = {"a-0": twice, "a-1": twice, "b": answers(*[0.0] * 8)}
    found = decide(results(tmp_path, rows, runs=runs, over_seeds={"a": group}).results)
    assert found.places["b"].dominated_by == ("a",)
    # 32 independent answers would be sure of it.
    assert metric_summary(values * 4).ci95[0] > metric_summary([0.0] * 8).ci95[1]  # type: ignore[index]
    assert found.places["b"].surely_by == ()


# --- two sides in full


def side(state: State, name: str, *runs: str) -> SideOf:
    return SideOf(name=name, results=state.results, runs=runs or (name,))


def test_a_contrast_says_what_was_lost(tmp_path: Path) -> None:
    rows = {
        "a": [*answers(1.0, 0.0, 0.0, 1.0), failure("e4"), failure("e5")],
        "b": [*answers(1.0, 1.0, 0.0, 1.0, 1.0), failure("e5")],
    }
    state = results(tmp_path, rows)
    before, after = side(state, "before", "a"), side(state, "after", "b")
    comparison, found, as_0 = contrast("accuracy", before, after)
    assert (comparison.metric, comparison.a, comparison.b) == ("accuracy", "before", "after")
    assert (comparison.n, comparison.difference) == (4, 0.25)
    assert (found.failed_a, found.failed_b, found.paired) == (2, 1, 4)
    assert as_0 is not None
    assert (as_0.metric, as_0.a, as_0.b, as_0.n) == ("accuracy", "before", "after", 6)
    assert as_0.difference == pytest.approx(2 / 6)
    whole = completed(comparison, found, as_0, (before, after), sizes=(), alpha=0.05)
    assert whole.failures_as_0 is as_0
    assert [numbers.failed for numbers in read_side(side(state, "a"), "accuracy")] == [{"e4", "e5"}]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([*answers(1.0, 0.0)], [*answers(1.0, 1.0)]),  # nothing failed
        ([*answers(1.0, 0.5), failure("e2")], [*answers(1.0, 1.0, 1.0)]),  # more than pass or fail
    ],
)
def test_failures_as_0_where_they_mean_something(tmp_path: Path, a: list[Row], b: list[Row]) -> None:
    state = results(tmp_path, {"a": a, "b": b})
    assert contrast("accuracy", side(state, "a"), side(state, "b"))[2] is None


def test_as_many_failures_on_both_sides(tmp_path: Path) -> None:
    rows = {"a": [*answers(1.0, 0.0), failure("e2")], "b": [failure("e0"), *answers(1.0, 1.0, first=1)]}
    state = results(tmp_path, rows)
    found = contrast("accuracy", side(state, "a"), side(state, "b"))[2]
    assert found is not None
    assert (found.n, found.wins, found.losses) == (3, 2, 1)


def test_failures_on_one_side_are_enough(tmp_path: Path) -> None:
    state = results(tmp_path, {"a": answers(1.0, 0.0), "b": [*answers(1.0), failure("e1")]})
    found = contrast("accuracy", side(state, "a"), side(state, "b"))[2]
    assert found is not None
    assert found.n == 2


def test_figures_stand_beside_a_difference(tmp_path: Path) -> None:
    runs = {
        "a-0": run_summary(cost_usd=1.0, failed=1),
        "a-1": run_summary(cost_usd=2.0, failed=2),
        "b": run_summary(cost_usd=None, output_tokens_per_s=timing(None)),
    }
    state = results(tmp_path, {run: answers(1.0, 0.0, 1.0) for run in runs}, runs=runs)
    sides = (side(state, "a", "a-0", "a-1"), side(state, "b"))
    comparison, found, as_0 = contrast("accuracy", *sides)
    whole = completed(comparison, found, as_0, sides, sizes=(), alpha=0.05)
    assert whole.figures_a == {
        "failed": 1.5,
        "latency_p50_s": 0.5,
        "latency_p95_s": 1.0,
        "ttft_p50_s": 0.5,
        "tokens_p50_per_s": 100.0,
        "cost_usd": 1.5,
    }
    assert whole.figures_b == {**whole.figures_a, "failed": 0.0, "tokens_p50_per_s": None, "cost_usd": None}
    assert (whole.comparison, whole.pairing, whole.failures_as_0) == (comparison, found, None)
    # A mean over some of the runs would not be the mean of the side.
    mixed = (side(state, "mixed", "a-0", "b"), side(state, "b"))
    assert completed(comparison, found, as_0, mixed, sizes=(), alpha=0.05).figures_a["cost_usd"] is None


@pytest.mark.parametrize(
    ("a", "b", "sizes"),
    [
        ([1.0, 0.0, 1.0], [1.0, 1.0, 1.0], ["0.05", "0.1"]),
        ([0.2, 0.4, 0.0], [0.3, 1.0, 1.0], ["0.05", "0.1"]),
        ([0.0, 0.0, 0.0], [0.3, 1.0, 1.0], ["0.05", "0.1"]),
        ([-0.5, 0.5, 0.0], [2.0, 0.5, 0.5], ["0.05", "0.1"]),
        ([1.0, 2.0, 6.0], [2.0, 4.0, 12.0], ["1.5", "3"]),  # of no known scale
        ([-4.0, -2.0, 0.0], [-4.0, -8.0, 0.0], ["1", "2"]),
        ([0.5, 0.5, 0.5], [2.0, 0.5, 0.5], ["0.05", "0.1"]),
        ([0.5, 0.5, 0.5], [3.5, 0.5, 0.5], ["0.5", "1"]),
        ([1.0, 2.0, 6.0], [1.0, 2.0, 6.0], []),
    ],
)
def test_usual_sizes_to_plan_for(tmp_path: Path, a: list[float], b: list[float], sizes: list[str]) -> None:
    state = results(tmp_path, {"a": answers(*a), "b": answers(*b)})
    sides = (side(state, "a"), side(state, "b"))
    found = completed(*contrast("accuracy", *sides), sides, sizes=(), alpha=0.05)
    assert list(found.needed) == sizes


def test_sizes_that_were_asked_for_at_the_level_that_was(tmp_path: Path) -> None:
    state = results(tmp_path, {"a": answers(*[1.0, 0.0] * 20), "b": answers(*[1.0] * 30, *[0.0] * 10)})
    sides = (side(state, "a"), side(state, "b"))
    usual, strict = (
        completed(*contrast("accuracy", *sides), sides, sizes=[0.2, 1 / 3], alpha=alpha).needed
        for alpha in (0.05, 0.005)
    )
    assert list(usual) == list(strict) == ["0.2", "0.333333"]
    assert (usual["0.2"] or 0) < (strict["0.2"] or 0)


def test_examples_that_flip_stand_greatest_difference_first(tmp_path: Path) -> None:
    rows = {
        "a-0": [*answers(1.0, 0.0, 0.5, 1.0, 0.0), failure("e5"), *answers(0.0, first=6)],
        "a-1": [*answers(1.0, 0.0, 0.5, 1.0, 1.0), result("e5", 1.0), *answers(0.0, first=6)],
        "b": answers(0.0, 1.0, 1.0, 1.0, 0.0, 0.5, 1.0),
    }
    state = results(tmp_path, rows)
    a, b = side(state, "a", "a-0", "a-1"), side(state, "b")
    found = flips("accuracy", a, b, None)
    assert [(flip.example_id, flip.value_a, flip.value_b) for flip in found.wins] == [
        ("e1", 0.0, 1.0),
        ("e6", 0.0, 1.0),
        ("e2", 0.5, 1.0),
    ]
    assert [(flip.example_id, flip.value_a, flip.value_b) for flip in found.losses] == [
        ("e0", 1.0, 0.0),
        ("e4", 0.5, 0.0),
        ("e5", 1.0, 0.5),
    ]
    last = found.losses[-1]
    assert (last.inputs, last.labels, last.labels_a) == ({"text": "ask e5"}, {"label": "bug"}, None)
    assert last.outputs_a == (None, {"label": "1.0"})
    assert last.outputs_b == ({"label": "0.5"},)
    few = flips("accuracy", a, b, 1)
    assert [flip.example_id for flip in (*few.wins, *few.losses)] == ["e1", "e0"]


# --- data that was corrected between two sides


def relabelled(row: Row, name: str, **fields: Any) -> Row:
    """The same example with another label, which makes another id of it."""
    return {**row, "example_id": name, "labels": {"label": "login"}, **fields}


def test_a_corrected_label_leaves_an_example_the_same_one(tmp_path: Path) -> None:
    before = [*answers(1.0, 0.0, 1.0, 1.0), failure("e4")]
    after = [*answers(1.0, 0.0), relabelled(result("e2", 0.0), "new2"), *answers(1.0, first=3)]
    after.append(relabelled(failure("e4"), "new4"))
    state = results(tmp_path, {"a": before, "b": after})
    comparison, found, as_0 = contrast("accuracy", side(state, "a"), side(state, "b"))
    assert (comparison.n, comparison.difference) == (4, -0.25)
    assert (comparison.only_a, comparison.only_b) == ((), ())
    assert (found.examples, found.paired, found.lost, found.absent_a, found.absent_b) == (5, 4, 1, 0, 0)
    assert (found.failed_a, found.failed_b) == (1, 1)
    assert (found.other_labels, found.label_fields, found.other_inputs) == (1, ("label",), 0)
    assert as_0 is not None
    assert as_0.n == 5
    (flip,) = flips("accuracy", side(state, "a"), side(state, "b"), None).losses
    assert (flip.example_id, flip.labels, flip.labels_a) == ("new2", {"label": "login"}, {"label": "bug"})
    assert (flip.outputs_a, flip.outputs_b) == (({"label": "1.0"},), ({"label": "0.0"},))


def test_what_differs_under_one_id_is_counted(tmp_path: Path) -> None:
    """With `dataset.id` an example keeps its id, whatever is corrected."""
    before = answers(1.0, 0.0, 1.0, 1.0)
    rows = answers(1.0, 1.0, 1.0, 1.0)
    rows[1]["labels"] = {"label": "login", "team": "web"}  # a field that came is no other label
    before[2]["labels"] = {"label": "bug", "owner": "me"}  # nor is one that went
    rows[2]["inputs"] = {"text": "ask something else"}
    rows[3]["labels"] = {"label": "bug", "team": "web"}
    state = results(tmp_path, {"a": before, "b": rows})
    comparison, found, _ = contrast("accuracy", side(state, "a"), side(state, "b"))
    assert (comparison.n, found.lost) == (4, 0)
    assert (found.other_labels, found.label_fields, found.other_inputs) == (1, ("label",), 1)


def test_inputs_that_a_side_has_twice_pair_nothing(tmp_path: Path) -> None:
    same: dict[str, Any] = {"inputs": {"text": "twice"}}
    before = [result("a", 1.0, **same), result("b", 0.0, **same), result("c", 1.0), result("d", 1.0)]
    after = [relabelled(result("a", 1.0, **same), "new"), result("c", 0.0), result("d", 1.0)]
    state = results(tmp_path, {"a": before, "b": after})
    _, found, _ = contrast("accuracy", side(state, "a"), side(state, "b"))
    assert (found.paired, found.lost, found.other_labels) == (2, 3, 0)
    # An example that has its id on both sides is no other one's twin, though its inputs became the same.
    moved = [relabelled(result("x", 1.0), "c", inputs={"text": "ask a"}), result("d", 1.0)]
    state = results(tmp_path, {"a": [result("a", 1.0), *before[2:]], "b": moved})
    _, found, _ = contrast("accuracy", side(state, "a"), side(state, "b"))
    assert (found.examples, found.paired, found.other_inputs) == (3, 2, 1)


def test_a_check_pairs_what_was_corrected_and_says_so(tmp_path: Path) -> None:
    then = results(tmp_path, {"mini": answers(*[1.0] * 19, 0.0)}, name="main")
    corrected = relabelled(result("e19", 1.0), "new")
    now = results(tmp_path, {"mini": [*answers(*[1.0] * 19), corrected, *answers(1.0, first=30)]})
    outcome = checked(now, then)
    assert outcome.quantity.n == 20
    assert outcome.quantity.pairing is not None
    assert outcome.quantity.pairing.other_labels == 1
    assert reason(outcome).endswith(
        ". 1 of 20 examples has another label than in main (label): the difference is partly that of the "
        "labels. 1 of 21 examples are not compared: 1 not tried by main"
    )
    (line,) = lines([replace(outcome, verdict="passed", passed=True, side=side) for side in ("a", "b")])
    assert "2 runs" in line
    assert "all hold. 1 of 20 examples has another label than in main" in line


# --- checks that compare rows


def checked(now: State, then: State, **check: Any) -> Outcome:
    experiment = Experiment.model_validate(
        {
            "name": "triage",
            "program": {"path": "program.py"},
            "dataset": {"path": "t.jsonl", "inputs": ["text"]},
            "models": {"mini": {"model": "openai/x"}},
            "metrics": {"accuracy": {"type": "exact_match", "field": "label"}},
            "checks": {"accuracy": {"no_worse_than": "main", **check}},
        }
    )
    outcomes = judge(experiment, now, {}, {"main": then})
    (outcome,) = (found for found in outcomes if found.condition == "no_worse_than")
    return outcome


def scored(mean: float | None, **coordinates: JSON) -> RunSummary:
    return run_summary(metrics={"accuracy": metric(mean)}, coordinates=coordinates or None)


def test_a_check_compares_the_rows_of_both_states(tmp_path: Path) -> None:
    then = results(
        tmp_path, {"old": answers(*[1.0] * 20, *[0.0] * 20)}, name="main", runs={"old": scored(0.5)}
    )
    now = results(tmp_path, {"new": answers(*[0.0] * 2, *[1.0] * 24, *[0.0] * 14)}, runs={"new": scored(0.6)})
    outcome = checked(now, then)
    expected = compare(
        "accuracy",
        side_values([run_numbers(then.results.rows("old"), "accuracy")]),
        side_values([run_numbers(now.results.rows("new"), "accuracy")]),
    )
    assert outcome.quantity.value == pytest.approx(0.1)
    assert outcome.quantity.ci95 == expected.ci95
    assert (outcome.quantity.sampled, outcome.quantity.n) == (True, 40)
    assert (outcome.baseline, outcome.side, outcome.bound) == ("old at main", "new", 0.0)
    assert not outcome.passed
    assert checked(now, then, margin=0.3).passed
    # The other way round it is worse.
    back = checked(now, results(tmp_path, {"old": answers(*[1.0] * 40)}, name="main"))
    assert back.quantity.value == pytest.approx(-0.4)
    assert back.verdict == "failed"


def test_the_same_file_is_no_difference(tmp_path: Path) -> None:
    rows = answers(1.0, 0.0, 1.0)
    then, now = (results(tmp_path, {"mini": rows}, name=name) for name in ("main", "workspace"))
    same = checked(now, then)
    assert (same.passed, same.quantity.value, same.quantity.ci95) == (True, 0.0, (0.0, 0.0))
    assert (same.quantity.sampled, same.quantity.n) == (True, 20)
    # The baseline's rows need not be here: `dvc.lock` says which they are.
    digest = "0" * 32
    away = results(tmp_path, {}, name="main", runs={"mini": run_summary()}, digests={"mini": digest})
    other = checked(now, away)
    assert other.problem == "the rows of mini of main are not here: `dvc pull` them"


def test_rows_that_are_nowhere_are_not_the_same(tmp_path: Path) -> None:
    states = (
        results(tmp_path, {}, name=name, runs={"mini": run_summary()}) for name in ("workspace", "main")
    )
    assert checked(*states).problem == "the rows of mini of workspace are not here: `dvc pull` them"


def test_states_without_a_common_example_can_not_be_compared(tmp_path: Path) -> None:
    then = results(tmp_path, {"mini": answers(1.0, 0.0)}, name="main")
    now = results(tmp_path, {"mini": answers(1.0, 0.0, first=5)})
    assert checked(now, then).problem == "no example is in the results here and in those of main"


@pytest.mark.parametrize(
    ("mean_now", "mean_then", "problem"),
    [
        (None, 0.5, "there is no such figure"),
        (0.5, None, "main has no such figure"),
        (None, None, "there is no such figure"),
    ],
)
def test_a_figure_that_one_state_has_not(
    tmp_path: Path, mean_now: float | None, mean_then: float | None, problem: str
) -> None:
    then = results(tmp_path, {"mini": answers(1.0)}, name="main", runs={"mini": scored(mean_then)})
    now = results(tmp_path, {"mini": answers(1.0)}, runs={"mini": scored(mean_now)})
    found = checked(now, then, runs="all")
    assert (found.problem, found.passed, found.baseline) == (problem, False, "main")


def test_seeds_are_compared_with_seeds(tmp_path: Path) -> None:
    """The best side of now has one run, that of then had two: so their rows can not be the same files."""
    rows = answers(1.0, 0.0, 1.0)
    runs = {f"a-{seed}": scored(0.5, model="a", seed=seed) for seed in (0, 1)}
    group = SeedsSummary(
        runs=("a-0", "a-1"), coordinates={"model": "a"}, metrics={"accuracy": metric(0.9, (0.8, 1.0))}
    )
    then = results(tmp_path, dict.fromkeys(runs, rows), name="main", runs=runs, over_seeds={"a": group})
    now = results(tmp_path, {"a-0": rows}, runs={"a-0": runs["a-0"]})
    found = checked(now, then)
    assert (found.baseline, found.problem) == ("a at main", None)
    assert (found.quantity.value, found.quantity.n) == (0.0, 3)
    same = checked(State(then.summary, results(tmp_path, dict.fromkeys(runs, rows)).results), then)
    assert same.quantity.ci95 == (0.0, 0.0)


def runs_at(*runs: dict[str, str]) -> Row:
    """Runs that are named as the matrix names them."""
    return {"over_seeds": {}, "runs": {"-".join(run.values()): {"coordinates": run} for run in runs}}


def test_an_axis_at_the_value_of_leaving_it_out_renames_a_side() -> None:
    before = runs_at({"model": "a"}, {"model": "b"})
    after = runs_at(
        {"model": "a", "optimizer": "none"},
        {"model": "a", "optimizer": "fewshot"},
        {"model": "b", "optimizer": "none"},
    )

    assert same_sides(before, after) == {"a-none": "a", "b-none": "b"}
    assert same_sides(after, before) == {"a": "a-none", "b": "b-none"}
    assert axes_of(before) ^ axes_of(after) == {"optimizer"}


def test_what_leaving_an_axis_out_stands_for_is_not_guessed() -> None:
    before = runs_at({"model": "a"})

    assert same_sides(before, runs_at({"model": "a", "program.style": "predict"})) == {}
    assert same_sides(before, runs_at({"model": "a", "optimizer": "fewshot"})) == {}
    assert same_sides(before, before) == {"a": "a"}


def test_of_two_sides_that_could_be_one_none_is_taken() -> None:
    before = runs_at({"model": "a"})
    both = runs_at({"model": "a", "optimizer": "none"}, {"model": "a", "adapter": "chat"})

    assert same_sides(before, both) == {}


def test_seeds_that_are_taken_together_are_one_side() -> None:
    seeds = [{"model": "a", "optimizer": "none", "seed": str(seed)} for seed in range(2)]
    after = runs_at(*seeds)
    after["over_seeds"] = {
        "a-none": {"coordinates": {"model": "a", "optimizer": "none"}, "runs": [*after["runs"]]}
    }

    assert same_sides(runs_at({"model": "a"}), after) == {"a-none": "a"}
