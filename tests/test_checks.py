"""The gate: which checks a file may have, how figures are judged, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from experiment_text import VALID, changed, findings, read
from made_summaries import metric, run_summary, summary_of, timing

from dspylab.aggregate.checking import State, judge
from dspylab.aggregate.gate import Outcome, Quantity, Side, counterpart, quantity
from dspylab.config.models import Check, Experiment
from dspylab.record.results import StoredResults
from dspylab.records import JSON, RunCompile, RunSummary, SeedsSummary, Summary
from dspylab.report.checks import condition, junit, lines, markdown, reason, verdict, workflow_commands

# --- the section of the file --------------------------------------------------------------------------------


def with_checks(checks: str) -> str:
    return VALID + "checks:\n" + checks


def test_checks_change_no_result(tmp_path: Path) -> None:
    loaded = read(tmp_path, with_checks("  accuracy: {min: 0.8, no_worse_than: main, margin: 0.02}\n"))
    assert loaded.experiment.checks["accuracy"].margin == 0.02


@pytest.mark.parametrize(
    "name",
    [
        *("accuracy", "helpful", "helpful.clarity", "latency_s.p95", "ttft_s.mean", "cost_usd"),
        *("cost_usd.judge", "examples.unscored", "throughput_tokens_per_s", "tokens.completion"),
    ],
)
def test_figures_that_a_check_may_be_about(tmp_path: Path, name: str) -> None:
    assert name in read(tmp_path, with_checks(f"  {name}: {{max: 1}}\n")).experiment.checks


@pytest.mark.parametrize(
    ("checks", "finding"),
    [
        ("acuracy: {min: 0.8}", "checks.acuracy: there is no such figure: did you mean accuracy?"),
        ("latency_s: {max: 2}", "checks.latency_s: there is no such figure: did you mean latency_s.mean?"),
        ("examples.failed: {max: 2}", "there is no such figure: did you mean examples.unscored?"),
        ("zzz: {min: 1}", "name a metric (accuracy, helpful, rated), or a figure such as latency_s.p95"),
        ("accuracy.part: {min: 1}", "checks.accuracy.part: there is no such figure"),
        ("accuracy: {}", "checks.accuracy: demands nothing: add min, max or no_worse_than"),
        ("accuracy: {min: 0.9, max: 0.5}", "checks.accuracy.min: is above max"),
        ("accuracy: {min: 0.8, margin: 0.1}", "margin: belongs to no_worse_than, which is missing"),
        ("accuracy: {no_worse_than: main, margin: -1}", "checks.accuracy.margin: must be at least 0"),
        ("accuracy: {minimum: 0.8}", "checks.accuracy.minimum: unknown key: did you mean min?"),
        ("accuracy: {min: high}", "checks.accuracy.min: must be a number"),
        (
            "accuracy: {min: 1, runs: {modle: tiny}}",
            "runs.modle: is no axis of this matrix: did you mean model?",
        ),
        ("accuracy: {min: 1, runs: {model: tniy}}", "the axis has no value tniy: did you mean tiny?"),
        ("accuracy: {min: 1, runs: {model: [tiny, big]}}", "the axis has no value big"),
        ("accuracy: {min: 1, runs: {}}", "checks.accuracy.runs: is empty: name an axis and a value"),
        ("accuracy: {no_worse_than: ''}", "checks.accuracy.no_worse_than: is empty: name a branch"),
        (
            "accuracy: {min: 1, runs: worst}",
            "checks.accuracy.runs: 'worst' is not known here: there is: best, all",
        ),
        ("accuracy: {min: 1, undecided: maybe}", "checks.accuracy.undecided"),
    ],
)
def test_what_a_check_can_not_be(tmp_path: Path, checks: str, finding: str) -> None:
    found = findings(tmp_path, with_checks(f"  {checks}\n"))
    assert len(found) == 1, found
    assert finding in found[0]


def test_a_run_that_is_only_included_can_be_named(tmp_path: Path) -> None:
    read(tmp_path, with_checks("  accuracy: {min: 0, runs: {optimizer: gepa}}\n"))


def test_a_broken_metric_is_not_called_unknown_as_well(tmp_path: Path) -> None:
    text = changed("accuracy: {type: exact_match, field: label}", "accuracy: {type: exact}")
    (found,) = findings(tmp_path, text + "checks:\n  accuracy: {min: 0.5}\n")
    assert "metrics.accuracy.type" in found


def test_of_an_axis_that_is_broken_no_value_is_called_unknown(tmp_path: Path) -> None:
    text = changed("  model: [tiny, mini]\n", "  model: 3\n")
    (found,) = findings(tmp_path, text + "checks:\n  accuracy: {min: 0.5, runs: {model: tniy}}\n")
    assert "matrix.model" in found


# --- the decision -------------------------------------------------------------------------------------------

EXPERIMENT: dict[str, Any] = {
    "name": "triage",
    "program": {"path": "program.py"},
    "dataset": {"path": "rows.jsonl", "inputs": ["text"]},
    "models": {"mini": {"model": "openai/mini"}},
    "metrics": {
        "accuracy": {"type": "exact_match", "field": "label"},
        "macro": {"type": "run", "field": "label", "params": {"measure": "macro_f1"}},
    },
}


def experiment(**checks: Any) -> Experiment:
    named = {name.replace("__", "."): Check(**check) for name, check in checks.items()}
    return Experiment.model_validate({**EXPERIMENT, "checks": named})


def state(summary: Summary, digests: dict[str, str] | None = None, name: str = "workspace") -> State:
    """Results whose rows are nowhere, so that only their figures can decide."""
    return State(
        summary, StoredResults(name=name, summary={}, files={}, digests=digests or {}, remedy="`dvc pull`")
    )


def judged(runs: dict[str, RunSummary], **checks: Any) -> list[Outcome]:
    """Outcomes of the checks alone, without those that every gate has."""
    outcomes = judge(experiment(**checks), state(summary_of(runs)), {}, {})
    return [found for found in outcomes if found.figure not in ("complete", "examples.unscored")]


def one(run: RunSummary, **checks: Any) -> Outcome:
    (outcome,) = judged({"mini": run}, **checks)
    return outcome


@pytest.mark.parametrize(
    ("check", "ci95", "verdict_", "passed"),
    [
        ({"min": 0.7}, (0.7, 0.9), "passed", True),
        ({"min": 0.7}, (0.6, 0.9), "undecided", False),
        ({"min": 0.7, "undecided": "pass"}, (0.6, 0.9), "undecided", True),
        ({"min": 0.7, "undecided": "pass"}, (0.5, 0.69), "failed", False),
        ({"max": 0.7}, (0.5, 0.7), "passed", True),
        ({"max": 0.7}, (0.6, 0.8), "undecided", False),
        ({"max": 0.7}, (0.71, 0.8), "failed", False),
        ({"min": 0.7}, None, "undecided", False),
    ],
)
def test_a_metric_is_judged_by_its_interval(
    *, check: dict[str, Any], ci95: tuple[float, float] | None, verdict_: str, passed: bool
) -> None:
    outcome = one(run_summary(metrics={"accuracy": metric(0.8, ci95)}), accuracy=check)
    assert (outcome.verdict, outcome.passed) == (verdict_, passed)


def test_a_bound_that_is_met_up_to_rounding_is_met() -> None:
    third = 0.1 + 0.2
    outcome = one(run_summary(metrics={"accuracy": metric(0.5, (0.3, 0.7))}), accuracy={"min": third})
    assert outcome.passed


@pytest.mark.parametrize(("spent", "passed"), [(0.2, True), (0.21, False), (None, False)])
def test_what_compiling_cost_can_be_bounded(*, spent: float | None, passed: bool) -> None:
    compiled = RunCompile(
        program="fewshot-mini", cost_usd=spent, calls=3, compile_s=1.0, validation_score=None, gain=None,
        cost_per_point_usd=None,
    )  # fmt: skip
    assert one(run_summary(compile=compiled), cost_usd__optimizer={"max": 0.2}).passed is passed


def test_which_way_is_better_is_said() -> None:
    run = run_summary(metrics={"accuracy": metric(0.8, (0.7, 0.9))}, run_metrics={"macro": 0.5})
    checks = {"accuracy": {"min": 0}, "macro": {"min": 0}, "latency_s__p95": {"max": 9}}
    said = {outcome.figure: outcome.better for outcome in judged({"mini": run}, **checks)}
    assert said == {"accuracy": "more", "macro": "more", "latency_s.p95": "less"}


def test_every_condition_of_a_check_counts() -> None:
    run = run_summary(metrics={"accuracy": metric(0.8, (0.7, 0.9))})
    found = judged({"mini": run}, accuracy={"min": 0.5, "max": 0.6})
    assert [(outcome.condition, outcome.passed) for outcome in found] == [("min", True), ("max", False)]


@pytest.mark.parametrize(
    ("check", "passed"),
    [
        ({"latency_s__p95": {"max": 1.0}}, True),
        ({"latency_s__p95": {"max": 0.9}}, False),
        ({"latency_s__p50": {"max": 0.5}}, True),
        ({"cost_usd": {"max": 0.49}}, False),
        ({"cost_usd__judge": {"max": 0}}, True),
        ({"cost_usd__task": {"max": 0.49}}, False),
        ({"cost_usd__optimizer": {"max": 0}}, True),
        ({"throughput_tokens_per_s": {"min": 50}}, True),
        ({"calls__truncated": {"max": 0}}, True),
        ({"tokens__completion": {"max": 399}}, False),
        ({"macro": {"min": 0.6}}, True),
        ({"macro": {"min": 0.7}}, False),
    ],
)
def test_other_figures_are_what_they_are(*, check: dict[str, Any], passed: bool) -> None:
    outcome = one(run_summary(run_metrics={"macro": 0.65}), **check)
    assert outcome.verdict == ("passed" if passed else "failed")


@pytest.mark.parametrize(
    ("figure", "condition"),
    [
        ("cost_usd", "max"),
        ("macro", "min"),  # over all rows, and without a value
        ("helpful__clarity", "min"),  # one number of several, that no answer has
    ],
)
def test_a_figure_that_does_not_exist_fails(figure: str, condition: str) -> None:
    outcome = one(run_summary(cost_usd=None), **{figure: {condition: 0.0, "undecided": "pass"}})
    assert (outcome.passed, outcome.verdict, outcome.needed) == (False, "failed", None)
    assert reason(outcome) == "there is no such figure"


def test_a_metric_without_a_value_fails() -> None:
    assert not one(
        run_summary(metrics={"accuracy": metric(None, n=0)}), accuracy={"min": 0, "runs": "all"}
    ).passed


def test_the_best_run_is_judged_unless_the_check_says_otherwise() -> None:
    runs = {
        "weak": run_summary(
            metrics={"accuracy": metric(0.5, (0.4, 0.6))}, coordinates={"model": "a", "seed": 0}
        ),
        "best": run_summary(
            metrics={"accuracy": metric(0.9, (0.8, 1.0))}, coordinates={"model": "b", "seed": 0}
        ),
        "part": run_summary(metrics={"accuracy": metric(1.0, (0.9, 1.0))}, complete=False),
    }

    def sides(rule: Any) -> list[str]:
        return [found.side for found in judged(runs, accuracy={"min": 0.7, "runs": rule})]

    assert sides("best") == ["best"]
    assert sides("all") == ["weak", "best", "part"]
    assert sides({"model": "a"}) == ["weak"]
    assert sides({"model": ["a", "b"], "seed": 0}) == ["weak", "best"]


def test_runs_that_differ_in_their_seed_are_judged_together() -> None:
    lucky, unlucky = (
        run_summary(
            metrics={"accuracy": metric(mean)},
            coordinates={"model": "a", "seed": seed},
            latency_s=timing(1.0, p95),
        )
        for seed, (mean, p95) in enumerate([(1.0, 1.0), (0.6, 3.0)])
    )
    steady = run_summary(
        metrics={"accuracy": metric(0.9, (0.85, 0.95))}, coordinates={"model": "b", "seed": 0}
    )
    runs = {"a-0": lucky, "a-1": unlucky, "b-0": steady}
    group = SeedsSummary(
        runs=("a-0", "a-1"), coordinates={"model": "a"}, metrics={"accuracy": metric(0.8, (0.7, 0.9))}
    )
    summary = summary_of(runs, over_seeds={"a": group})

    def outcomes(**checks: Any) -> dict[str, Outcome]:
        found = judge(experiment(**checks), state(summary), {}, {})
        return {outcome.side: outcome for outcome in found if outcome.figure in checks}

    # The best seed is not the best side.
    assert list(outcomes(accuracy={"min": 0.5})) == ["b-0"]
    together = outcomes(accuracy={"min": 0.7, "runs": {"model": "a"}})
    assert together["a"].quantity.ci95 == (0.7, 0.9)
    # Of other figures the worst seed counts.
    slow = judge(experiment(latency_s__p95={"max": 2, "runs": {"model": "a"}}), state(summary), {}, {})
    assert [found.quantity.value for found in slow if found.figure == "latency_s.p95"] == [3.0]
    # One seed alone can be named.
    assert list(outcomes(accuracy={"min": 0.5, "runs": {"model": "a", "seed": 1}})) == ["a-1"]


@pytest.mark.parametrize(("figure", "worst"), [("throughput_tokens_per_s", 5.0), ("macro", 0.25)])
def test_of_what_should_be_more_the_worst_seed_is_the_least(figure: str, worst: float) -> None:
    runs = {
        f"a-{seed}": run_summary(
            coordinates={"model": "a", "seed": seed},
            throughput_tokens_per_s=rate,
            run_metrics={"macro": rate / 20},
        )
        for seed, rate in enumerate([9.0, 5.0, 7.0])
    }
    group = SeedsSummary(runs=tuple(runs), coordinates={"model": "a"}, metrics={})
    summary = summary_of(runs, over_seeds={"a": group})
    (found,) = (
        outcome.quantity.value
        for outcome in judge(experiment(**{figure: {"min": 1, "runs": "all"}}), state(summary), {}, {})
        if outcome.figure == figure
    )
    assert found == worst


def test_a_run_that_has_the_name_of_its_group() -> None:
    """A run without a seed differs from those with one in its seed alone, and may be judged without them."""
    runs = {
        "a": run_summary(coordinates={"model": "a"}, metrics={"accuracy": metric(0.5, (0.4, 0.6))}),
        "a-seed1": run_summary(
            coordinates={"model": "a", "seed": 1}, metrics={"accuracy": metric(0.9, (0.8, 1.0))}
        ),
        "b": run_summary(coordinates={"model": "b"}),
    }
    group = SeedsSummary(
        runs=("a", "a-seed1"), coordinates={"model": "a"}, metrics={"accuracy": metric(0.7, (0.6, 0.8))}
    )
    summary = summary_of(runs, over_seeds={"a": group})
    assert quantity(summary, Side("a", ("a", "a-seed1")), "accuracy").value == 0.7
    assert quantity(summary, Side("a", ("a",)), "accuracy").value == 0.5


def test_the_first_of_two_that_are_equally_good_is_the_best() -> None:
    runs = {name: run_summary(coordinates={"model": name}) for name in ("b", "a")}
    assert [outcome.side for outcome in judged(runs, accuracy={"min": 0})] == ["b"]


def test_runs_that_no_longer_are_or_match_nothing() -> None:
    (outcome,) = judged({"mini": run_summary()}, accuracy={"min": 0.5, "runs": {"model": "other"}})
    assert (outcome.passed, outcome.problem) == (False, "no run has these coordinates")
    check = {"min": 0.5, "max": 0.9, "no_worse_than": "main", "margin": 0.02}
    found = judged({"mini": run_summary(complete=False)}, accuracy=check)
    assert [(outcome.condition, outcome.bound, outcome.baseline) for outcome in found] == [
        ("min", 0.5, None),
        ("max", 0.9, None),
        ("no_worse_than", 0.02, "main"),
    ]
    assert {outcome.problem for outcome in found} == {"there is no complete run"}
    assert {(outcome.side, outcome.figure, outcome.verdict) for outcome in found} == {
        ("triage", "accuracy", "failed")
    }
    (alone,) = judged({"mini": run_summary(complete=False)}, accuracy={"no_worse_than": "main"})
    assert (alone.condition, alone.bound) == ("no_worse_than", 0.0)


def test_a_run_that_is_not_complete_fails_the_gate() -> None:
    run = run_summary(metrics={"accuracy": metric(0.9, (0.8, 1.0))})
    outcomes = judge(
        experiment(accuracy={"min": 0.5}), state(summary_of({"a": run})), {"b": "has no results"}, {}
    )
    assert [(found.figure, found.side, found.passed) for found in outcomes] == [
        ("complete", "b", False),
        ("accuracy", "a", True),
        ("examples.unscored", "a", True),
    ]
    assert (outcomes[0].condition, outcomes[0].verdict, outcomes[0].problem) == (
        "complete", "failed", "has no results",
    )  # fmt: skip
    whole = judge(experiment(accuracy={"min": 0.5}), state(summary_of({"a": run})), {}, {})[0]
    assert whole == Outcome(
        figure="complete", condition="complete", side="triage", verdict="passed", passed=True
    )


def test_failed_examples_fail_the_gate_unless_the_file_allows_them() -> None:
    run = run_summary(metrics={"accuracy": metric(0.9, (0.8, 1.0))}, failed=2)
    summary = state(summary_of({"mini": run}))
    complete, accuracy, unscored = judge(experiment(accuracy={"min": 0.5}), summary, {}, {})
    assert complete.passed
    assert accuracy.passed
    assert not unscored.passed
    assert reason(unscored) == "2: above 0"
    allowed = experiment(accuracy={"min": 0.5}, examples__unscored={"max": 2})
    assert all(outcome.passed for outcome in judge(allowed, summary, {}, {}))


# --- against a baseline -------------------------------------------------------------------------------------


def compared(now: RunSummary, then: State | str, figure: str, **check: Any) -> Outcome:
    outcomes = judge(
        experiment(**{figure: {"no_worse_than": "main", **check}}),
        state(summary_of({"mini": now}), {"mini": "0123"}),
        {},
        {"main": then},
    )
    (outcome,) = (found for found in outcomes if found.condition == "no_worse_than")
    return outcome


@pytest.mark.parametrize(
    ("p95", "margin", "passed"), [(1.0, 0, True), (0.5, 0, True), (1.2, 0.2, True), (1.21, 0.2, False)]
)
def test_of_a_latency_less_is_better(*, p95: float, margin: float, passed: bool) -> None:
    then = state(summary_of({"mini": run_summary(latency_s=timing(0.5, 1.0))}), name="main")
    now = run_summary(latency_s=timing(0.5, p95))
    assert compared(now, then, "latency_s__p95", margin=margin).passed == passed


def test_of_a_throughput_more_is_better() -> None:
    then = state(summary_of({"mini": run_summary()}), name="main")
    assert compared(run_summary(throughput_tokens_per_s=60.0), then, "throughput_tokens_per_s").passed
    outcome = compared(run_summary(throughput_tokens_per_s=40.0), then, "throughput_tokens_per_s", margin=5)
    assert reason(outcome) == "difference -10: worse by more than 5"


def test_the_very_same_rows_are_no_worse_without_being_read() -> None:
    summary = summary_of({"mini": run_summary()})
    same = compared(run_summary(), state(summary, {"mini": "0123"}, "main"), "accuracy")
    assert same.passed
    assert reason(same) == "difference 0.000 [0.000, 0.000] over 20 examples: the very same results"
    other = compared(run_summary(), state(summary, {"mini": "4567"}, "main"), "accuracy")
    assert not other.passed
    assert reason(other) == "the rows of mini of workspace are not here: `dvc pull`"


@pytest.mark.parametrize(
    ("then", "problem"),
    [
        ("git knows no main here", "git knows no main here"),
        (state(summary_of({}), name="main"), "main has no complete run to compare with"),
        (
            state(summary_of({"mini": run_summary(complete=False)}), name="main"),
            "main has no complete run to compare with",
        ),
        (
            state(summary_of({"mini": run_summary(metrics={"accuracy": metric(0.5), "f1": metric(None)})})),
            "rows of mini",
        ),
    ],
)
def test_a_comparison_that_can_not_be_made_fails(then: State | str, problem: str) -> None:
    outcome = compared(run_summary(), then, "accuracy", margin=0.02)
    assert not outcome.passed
    assert problem in reason(outcome)
    assert condition(outcome) == "accuracy no worse than main by more than 0.02"
    assert (outcome.side, outcome.bound, outcome.verdict) == ("mini", 0.02, "failed")


def test_of_a_metric_more_is_better_also_against_a_baseline() -> None:
    same = {"mini": "0123"}
    outcome = compared(run_summary(), state(summary_of({"mini": run_summary()}), same, "main"), "accuracy")
    assert (outcome.better, outcome.passed) == ("more", True)


def test_the_best_is_compared_with_the_best() -> None:
    then = summary_of(
        {
            "weak": run_summary(metrics={"accuracy": metric(0.2)}, cost_usd=9.0),
            "best": run_summary(metrics={"accuracy": metric(0.8)}, cost_usd=0.25),
        }
    )
    outcome = compared(run_summary(), state(then, name="main"), "cost_usd")
    assert (outcome.baseline, outcome.quantity.value, outcome.passed) == ("best at main", 0.25, False)
    assert outcome.better == "less"
    same = compared(run_summary(), state(summary_of({"mini": run_summary()}), name="main"), "cost_usd")
    assert (same.baseline, same.passed, same.side) == ("main", True, "mini")


def test_a_difference_that_is_rounding_is_none() -> None:
    then = state(summary_of({"mini": run_summary(latency_s=timing(0.1, 0.3))}), name="main")
    now = run_summary(latency_s=timing(0.1, 0.1 + 0.2))
    assert now.latency_s.p95 != 0.3
    assert compared(now, then, "latency_s__p95").passed


def test_runs_are_compared_with_all_their_seeds_or_not_at_all() -> None:
    def seeds(*numbers: int, grouped: bool = True) -> Summary:
        runs = {f"a-{n}": run_summary(coordinates={"model": "a", "seed": n}) for n in numbers}
        group = SeedsSummary(runs=tuple(runs), coordinates={"model": "a"}, metrics={})
        return summary_of(runs, over_seeds={"a": group} if grouped else {})

    both = Side("a", ("a-0", "a-1"))
    assert counterpart(seeds(0, 1), both, seeds(0, 1)) == both
    assert counterpart(seeds(0, 1), both, seeds(1)) is None
    # They were no group, so there is nothing that was judged as one.
    assert counterpart(seeds(0, 1), both, seeds(0, 1, grouped=False)) is None
    assert counterpart(seeds(0, 1), both, seeds(2, 3)) is None


def test_other_rules_compare_with_the_run_of_the_same_coordinates() -> None:
    def run(value: float, model: str) -> RunSummary:
        coordinates: dict[str, JSON] = {"model": model}
        return run_summary(cost_usd=value, coordinates=coordinates)

    then = summary_of({"renamed": run(1.0, "a"), "other": run(9.0, "b")})
    now = summary_of({"a": run(1.5, "a"), "new": run(2.0, "c")})
    check = {"no_worse_than": "main", "runs": "all"}
    outcomes = judge(experiment(cost_usd=check), state(now), {}, {"main": state(then, name="main")})
    first, second = (found for found in outcomes if found.figure == "cost_usd")
    assert first.quantity.value == 0.5
    assert first.baseline == "renamed at main"
    assert second.problem == "main has no complete run to compare with"

    part = {"a": run_summary(complete=False, coordinates={"model": "a"})}
    outcomes = judge(
        experiment(cost_usd=check), state(now), {}, {"main": state(summary_of(part), name="main")}
    )
    assert not any(found.passed for found in outcomes if found.figure == "cost_usd")


# --- in words -----------------------------------------------------------------------------------------------


def outcome_of(**fields: Any) -> Outcome:
    usual: dict[str, Any] = {
        "figure": "accuracy", "condition": "min", "bound": 0.8, "side": "mini", "verdict": "passed",
        "passed": True, "quantity": Quantity(0.85, (0.81, 0.9), sampled=True, n=64),
    }  # fmt: skip
    return Outcome(**{**usual, **fields})


WIDE = Quantity(0.85, (0.75, 0.93), sampled=True, n=64)


@pytest.mark.parametrize(
    ("fields", "check", "why"),
    [
        ({}, "accuracy at least 0.8", "0.850 [0.810, 0.900]: the whole interval holds"),
        (
            {"quantity": WIDE, "verdict": "undecided", "passed": False, "needed": 256},
            "accuracy at least 0.8",
            "0.850 [0.750, 0.930]: not decided: the interval is too wide; about 256 such examples would do",
        ),
        (
            {"quantity": WIDE, "bound": 0.9, "verdict": "undecided", "passed": False},
            "accuracy at least 0.9",
            "0.850 [0.750, 0.930]: not decided: the figure itself is on the wrong side, its interval is not",
        ),
        (
            {"quantity": WIDE, "condition": "max", "bound": 0.5, "verdict": "failed", "passed": False},
            "accuracy at most 0.5",
            "0.850 [0.750, 0.930]: the whole interval is on the wrong side",
        ),
        (
            {"quantity": Quantity(1.0, None, sampled=True, n=1), "verdict": "undecided", "passed": False},
            "accuracy at least 0.8",
            "1.000: not decided: there are too few examples for an interval",
        ),
        (
            {"quantity": Quantity(0.5, None, sampled=True, n=9), "verdict": "undecided", "passed": False},
            "accuracy at least 0.8",
            "0.500: not decided: all values are the same number",
        ),
        (
            {"figure": "latency_s.p95", "condition": "max", "bound": 2.0, "quantity": Quantity(2.41),
             "verdict": "failed", "passed": False},
            "latency_s.p95 at most 2.00 s",
            "2.41 s: above 2.00 s",
        ),
        (
            {"figure": "cost_usd", "condition": "max", "bound": 1.0, "quantity": Quantity(0.25)},
            "cost_usd at most $1.00",
            "$0.25",
        ),
        (
            {"figure": "tokens.completion", "condition": "max", "bound": 500.0, "quantity": Quantity(1234),
             "verdict": "failed", "passed": False},
            "tokens.completion at most 500",
            "1,234: above 500",
        ),
        (
            {"figure": "calls.fallback_rate", "condition": "max", "bound": 1.0, "quantity": Quantity(0.25)},
            "calls.fallback_rate at most 1",
            "0.25",
        ),
    ],
)  # fmt: skip
def test_what_is_said_of_a_check(fields: dict[str, Any], check: str, why: str) -> None:
    outcome = outcome_of(**fields)
    assert (condition(outcome), reason(outcome)) == (check, why)


def test_how_many_examples_would_decide() -> None:
    # At a mean of 0.85 the lower half is 0.1 wide with 64 examples: four times as many for 0.05.
    run = run_summary(metrics={"accuracy": metric(0.85, (0.75, 0.93), n=64)})
    assert one(run, accuracy={"min": 0.8}).needed == 256
    assert one(run, accuracy={"min": 0.9}).needed is None
    # A quarter of the half-width takes sixteen times as many.
    assert one(run, accuracy={"min": 0.825}).needed == 1024
    # Nearly decided: one more at least.
    assert one(run, accuracy={"min": 0.75 + 1e-6}).needed == 65
    sure = run_summary(metrics={"accuracy": metric(0.85, (0.75, 0.93), n=64)})
    assert one(sure, accuracy={"min": 0.7}).needed is None
    assert one(sure, accuracy={"min": 0.95}).needed is None


def test_what_several_runs_hold_is_one_line() -> None:
    outcomes = [outcome_of(side=side) for side in ("a", "b", "c")]
    outcomes.append(outcome_of(side="d", verdict="failed", passed=False))
    assert lines(outcomes) == [
        "passed     3 runs: accuracy at least 0.8: all hold",
        "FAILED     d: accuracy at least 0.8: 0.850 [0.810, 0.900]: the whole interval is on the wrong side",
    ]
    assert verdict(outcomes) == "1 of 4 checks failed"
    assert verdict(outcomes[:1]) == "1 check passed"


def test_markdown_shows_failures_first_and_nothing_acts_in_it() -> None:
    outcomes = [outcome_of(), outcome_of(side="a|b<img>*", verdict="failed", passed=False)]
    assert markdown("triage", outcomes) == (
        "### triage: 1 of 2 checks failed\n\n| | run | check | result |\n|---|---|---|---|\n"
        "| FAILED | a\\|b\\<img\\>\\* | accuracy at least 0.8 "
        "| 0.850 \\[0.810, 0.900\\]: the whole interval is on the wrong side |\n"
        "| passed | mini | accuracy at least 0.8 | 0.850 \\[0.810, 0.900\\]: the whole interval holds |\n"
    )


def test_junit_has_a_case_for_each_outcome() -> None:
    outcomes = [
        outcome_of(side="a<b>\x1b"),
        outcome_of(quantity=WIDE, verdict="undecided", passed=False),
        outcome_of(quantity=WIDE, verdict="undecided", passed=True),
        outcome_of(problem="no such run", verdict="failed", passed=False),
    ]
    root = ET.fromstring(junit("triage", outcomes))
    (suite,) = root
    assert suite.attrib == {"name": "triage", "tests": "4", "failures": "2", "errors": "0", "skipped": "0"}
    assert [case.attrib["classname"] for case in suite] == [r"triage.a<b>\x1b", *["triage.mini"] * 3]
    assert {case.attrib["name"] for case in suite} == {"accuracy at least 0.8"}
    failures = [case.find("failure") for case in suite]
    assert [None if found is None else found.attrib["type"] for found in failures] == [
        *(None, "undecided", None, "failed")
    ]


def test_annotations_point_at_the_check() -> None:
    outcomes = [
        outcome_of(),
        outcome_of(problem="100% wrong\nand more", verdict="failed", passed=False, side="a:b,c"),
        outcome_of(quantity=WIDE, verdict="undecided", passed=True),
    ]
    place = "file=x/experiment.yaml,line=8"
    assert workflow_commands("x/experiment.yaml", len, outcomes) == [
        f"::error {place},title=a%3Ab%2Cc%3A accuracy at least 0.8::100%25 wrong\\nand more",
        f"::warning {place},title=mini%3A accuracy at least 0.8::{reason(outcomes[2])}",
    ]
