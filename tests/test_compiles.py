"""Which programs a matrix needs compiled, and what each depends on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_summaries import metric, run_summary

from dspylab.aggregate.compare import compare
from dspylab.aggregate.gains import gain, with_gains
from dspylab.aggregate.scores import Scores
from dspylab.config.models import Experiment
from dspylab.config.optimizers import TYPES, check_type, dspy_signature
from dspylab.plan.compiles import compiles, distinct_compiles
from dspylab.plan.identity import compile_hash
from dspylab.plan.matrix import MAX_KEY_LENGTH, expand
from dspylab.records import CompileRecord, CompileSpec, Gain, RunCompile, ValidationScore

MODELS = ("tiny", "mini", "large")


def experiment(matrix: Mapping[str, Any], **changes: Any) -> Experiment:
    document = {
        "name": "x",
        "program": {"path": "program.py"},
        "dataset": {"train": "train.jsonl", "test": "test.jsonl", "inputs": ["text"]},
        "models": {name: {"model": f"openai/{name}"} for name in MODELS},
        "optimizers": {
            "fewshot": {"type": "LabeledFewShot", "params": {"k": 4}},
            "gepa": {"type": "GEPA", "metric": "helpful", "lms": {"reflection_lm": "large"}},
            "both": {"type": "Ensemble", "params": {"programs": ["fewshot", "gepa"]}},
        },
        "matrix": matrix,
        "metrics": {
            "accuracy": {"type": "exact_match", "field": "label"},
            "helpful": {"type": "llm_judge", "model": "mini", "params": {"rubric": "politeness"}},
            "other": {"type": "contains", "field": "label"},
        },
        **changes,
    }
    return Experiment.model_validate(document)


def specs(matrix: Mapping[str, Any]) -> list[CompileSpec]:
    return list(distinct_compiles(compiles(expand(experiment(matrix)))))


def axis(*values: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, unique=True)


@st.composite
def matrices(draw: st.DrawFn) -> dict[str, Any]:
    axes = {
        "model": axis(*MODELS),
        "compile_model": axis(*MODELS),
        "optimizer": axis("none", "fewshot", "gepa", "both"),
        "adapter": axis("chat", "json"),
        "seed": axis(0, 1),
        "program.style": axis("a", "a-b", "B", "b", "x" * 100),
        "lm.temperature": axis(0.0, 0.7),
    }
    chosen = draw(st.lists(st.sampled_from([name for name in axes if name != "optimizer"]), unique=True))
    return {name: draw(axes[name]) for name in [*chosen, "optimizer"]}


@given(matrix=matrices())
def test_keys_are_unique_and_every_optimized_run_has_one(matrix: dict[str, Any]) -> None:
    runs = expand(experiment(matrix))
    needed = compiles(runs)
    assert set(needed) == {run.key for run in runs if run.optimizer != "none"}
    keys = [spec.key for spec in distinct_compiles(needed)]
    assert len({key.casefold() for key in keys}) == len(keys)
    for key in keys:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", key)
        assert len(key) <= MAX_KEY_LENGTH
    for run in runs:
        if run.optimizer == "none":
            continue
        spec = needed[run.key]
        assert (spec.optimizer, spec.model) == (run.optimizer, run.compile_model or run.model)
        assert (spec.adapter, spec.program_args) == (run.adapter, run.program_args)
        assert spec.seed == (run.seed if "seed" in run.coordinates else None)
        assert spec.lm_settings == ({} if run.compile_model else run.lm_settings)
        others = {
            axis: value
            for axis, value in run.coordinates.items()
            if axis not in ("optimizer", "model", "compile_model")
            and not (run.compile_model and axis.startswith("lm."))
        }
        assert spec.coordinates == {"optimizer": spec.optimizer, "model": spec.model, **others}


@given(matrix=matrices())
def test_two_compiles_differ_in_something_that_decides(matrix: dict[str, Any]) -> None:
    lab = experiment(matrix)
    found = distinct_compiles(compiles(expand(lab)))
    hashes = {compile_hash(lab, spec, {}, "training", {}) for spec in found}
    assert len(hashes) == len(found)


@pytest.mark.parametrize(
    ("matrix", "keys"),
    [
        ({"model": ["tiny"], "optimizer": ["none"]}, []),
        ({"model": ["tiny", "mini"], "optimizer": ["none", "fewshot"]}, ["fewshot-tiny", "fewshot-mini"]),
        (
            {"model": list(MODELS), "compile_model": ["mini"], "optimizer": ["fewshot"]},
            ["fewshot-mini"],
        ),
        (
            {"model": ["tiny"], "optimizer": ["fewshot"], "program.style": ["a", "b"]},
            ["fewshot-tiny-a", "fewshot-tiny-b"],
        ),
        (
            {
                "model": ["tiny", "large"],
                "compile_model": ["mini"],
                "optimizer": ["fewshot"],
                "lm.temperature": [0.0, 1.0],
            },
            ["fewshot-mini"],
        ),
    ],
)
def test_runs_share_what_they_can(matrix: dict[str, Any], keys: list[str]) -> None:
    assert [spec.key for spec in specs(matrix)] == keys


def test_the_settings_of_a_model_that_compiles_itself_count() -> None:
    found = specs({"model": ["tiny"], "optimizer": ["fewshot"], "lm.temperature": [0.0, 1.0]})
    assert [dict(spec.lm_settings) for spec in found] == [{"temperature": 0.0}, {"temperature": 1.0}]


def test_nothing_is_compiled_once_for_each_model_that_could() -> None:
    runs = expand(
        experiment({"model": ["tiny"], "compile_model": ["mini", "large"], "optimizer": ["none", "fewshot"]})
    )
    assert [run.key for run in runs] == ["tiny-none", "tiny-mini-fewshot", "tiny-large-fewshot"]


OPTIMIZED = {"model": ["tiny"], "optimizer": ["gepa"]}


def digest_with(matrix: Mapping[str, Any] = OPTIMIZED, **changes: Any) -> str:
    lab = experiment(matrix, **changes)
    (spec,) = distinct_compiles(compiles(expand(lab)))
    return compile_hash(lab, spec, {"program.py": "1"}, "training", {"dspy": "3"})


def models(**changes: Any) -> dict[str, Any]:
    return {name: {"model": f"openai/{name}", **changes.get(name, {})} for name in MODELS}


def gepa(**changes: Any) -> dict[str, Any]:
    entry = {"type": "GEPA", "metric": "helpful", "lms": {"reflection_lm": "large"}, **changes}
    return {"optimizers": {"gepa": entry}}


METRICS: dict[str, dict[str, Any]] = {
    "accuracy": {"type": "exact_match", "field": "label"},
    "helpful": {"type": "llm_judge", "model": "mini", "params": {"rubric": "politeness"}},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": {"train": "train.jsonl", "test": "other.jsonl", "inputs": ["text"], "limit": 3}},
        {"metrics": METRICS},
        {"models": models(tiny={"max_concurrency": 3, "num_retries": 1})},
        {"budget": {"max_calls": 3}, "description": "other"},
        {"primary_metric": "accuracy"},
    ],
)
def test_what_decides_no_program_changes_no_digest(changes: dict[str, Any]) -> None:
    assert digest_with(**changes) == digest_with()


@pytest.mark.parametrize(
    "changes",
    [
        gepa(params={"auto": "light"}),
        gepa(metric="accuracy"),
        gepa(lms={}),
        {"metrics": {**METRICS, "helpful": {**METRICS["helpful"], "params": {"rubric": "wit"}}}},
        {"models": models(mini={"temperature": 0.5})},  # judges for the metric
        {"models": models(large={"temperature": 0.5})},
        {"models": models(tiny={"temperature": 0.5})},
        {"program": {"path": "program.py", "args": {"style": "cot"}}},
        {"program": {"path": "program.py", "adapter": "xml"}},
    ],
)
def test_what_decides_a_program_changes_its_digest(changes: dict[str, Any]) -> None:
    assert digest_with(**changes) != digest_with()


def test_the_primary_metric_is_optimized_when_none_is_named() -> None:
    matrix = {"model": ["tiny"], "optimizer": ["fewshot"]}
    assert digest_with(matrix, primary_metric="other") != digest_with(matrix)
    assert digest_with(matrix, primary_metric="accuracy") == digest_with(matrix)


def test_an_ensemble_depends_on_what_takes_part() -> None:
    matrix = {"model": ["tiny"], "optimizer": ["both"]}
    others = {**experiment(matrix).model_dump()["optimizers"]}
    others["fewshot"] = {"type": "LabeledFewShot", "params": {"k": 5}}
    assert digest_with(matrix, optimizers=others) != digest_with(matrix)


@pytest.mark.parametrize("name", TYPES)
def test_what_is_read_from_the_source_of_dspy_is_what_dspy_takes(name: str) -> None:
    import inspect

    from dspy import teleprompt

    signature = dspy_signature(name)
    optimizer = getattr(teleprompt, name)
    assert signature is not None
    for method, names in (
        (optimizer.__init__, signature.constructor),
        (optimizer.compile, signature.compile),
    ):
        parameters = inspect.signature(method).parameters.values()
        own = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} - {"self"}
        assert own <= names


@pytest.mark.parametrize(("file", "known"), [("moved_elsewhere.py", None), ("teleprompt.py", frozenset())])
def test_an_optimizer_that_a_later_dspy_has_elsewhere_is_not_guessed_at(
    file: str, known: frozenset[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    dspy_signature.cache_clear()
    monkeypatch.setattr("dspylab.config.optimizers.TYPES", {**TYPES, "GEPA": file})
    try:
        found = dspy_signature("GEPA")
        assert (found and found.constructor) == known
        if known is None:
            # Its params are taken as they are: DSPy itself will say what it does not take.
            lab = experiment({"model": ["tiny"]})
            assert list(check_type(lab.optimizers["gepa"], ("optimizers", "gepa"))) == []
    finally:
        dspy_signature.cache_clear()


def scores(**values: float) -> Scores:
    found = Scores()
    for example, value in values.items():
        found.add({"example_id": example, "metrics": {"accuracy": value}})
    return found


def test_a_gain_is_paired_by_example() -> None:
    before = scores(a=0.0, b=0.0, c=1.0, d=1.0, only_before=1.0)
    after = scores(d=1.0, c=0.0, b=1.0, a=1.0, only_after=1.0)
    found = gain("base", after, before, "accuracy")
    assert found is not None
    assert (found.baseline, found.n, found.difference) == ("base", 4, 0.25)
    assert found.ci95 is not None
    assert found.ci95[0] < 0.25 < found.ci95[1]


def test_a_gain_without_pairs_is_none() -> None:
    single = gain("base", scores(a=1.0), scores(a=0.0), "accuracy")
    assert single is not None
    assert (single.difference, single.ci95, single.n) == (1.0, None, 1)
    assert gain("base", scores(a=1.0), scores(b=1.0), "accuracy") is None
    assert gain("base", scores(a=1.0), scores(a=1.0), "helpful") is None


RECORD = CompileRecord(
    program="fewshot-tiny",
    coordinates={"optimizer": "fewshot", "model": "tiny"},
    compile_hash="0" * 64,
    program_sha256="1" * 64,
    optimizer="LabeledFewShot",
    params={},
    metric="accuracy",
    models={"task": "tiny"},
    seed=None,
    train=4,
    validation=2,
    validation_score=ValidationScore(metric="accuracy", score=metric(0.75), failed=0),
    compile_s=2.5,
    calls=7,
    failed_calls=1,
    prompt_tokens=10,
    completion_tokens=20,
    cost_usd=0.5,
    rates={},
    versions={},
)


def gained(
    found: Mapping[str, float], baseline: Mapping[str, float], record: CompileRecord = RECORD
) -> RunCompile:
    """What is said of a compiled program whose run has these scores, beside a run without an optimizer."""
    runs = {
        "other": run_summary(coordinates={"model": "large"}),
        "plain": run_summary(coordinates={"model": "tiny", "seed": 1, "optimizer": "none"}),
        "compiled": run_summary(
            coordinates={"model": "tiny", "compile_model": "large", "optimizer": "fewshot", "seed": 1}
        ),
    }
    all_scores = {"plain": scores(**baseline), "compiled": scores(**found), "other": scores(a=0.0)}
    summaries = with_gains(runs, all_scores, {"compiled": record}, "accuracy")
    assert list(summaries) == list(runs)
    assert (summaries["other"], summaries["plain"]) == (runs["other"], runs["plain"])
    compiled = summaries["compiled"].compile
    assert summaries["compiled"] == replace(runs["compiled"], compile=compiled)
    assert compiled is not None
    return compiled


def test_a_compiled_program_says_what_it_cost_and_gained() -> None:
    found = gained({"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0}, {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0})
    expected = compare(
        "accuracy",
        [{"a": [1.0], "b": [0.0], "c": [0.0], "d": [0.0]}],
        [{"a": [1.0], "b": [1.0], "c": [0.0], "d": [1.0]}],
    )
    assert found == RunCompile(
        program="fewshot-tiny",
        cost_usd=0.5,
        calls=7,
        compile_s=2.5,
        validation_score=0.75,
        gain=Gain(baseline="plain", difference=0.5, ci95=expected.ci95, n=4),
        cost_per_point_usd=0.01,  # fifty points for half a dollar
    )


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({}, {"a": 0.0}),  # it gained nothing
        ({}, {"a": -1.0}),
        ({}, {"of": 1.0}),  # no example in common
        ({"cost_usd": None}, {"a": 1.0}),
    ],
)
def test_a_gain_without_a_price_a_point(change: dict[str, Any], values: dict[str, float]) -> None:
    assert gained(values, {"a": 0.0}, replace(RECORD, **change)).cost_per_point_usd is None


def test_a_program_that_was_not_validated_has_no_score() -> None:
    found = gained({"a": 1.0}, {"a": 0.0}, replace(RECORD, validation_score=None))
    assert (found.validation_score, found.cost_per_point_usd) == (None, 0.005)


def test_without_a_run_to_compare_with_there_is_no_gain() -> None:
    runs = {
        "compiled": run_summary(coordinates={"model": "tiny", "optimizer": "fewshot", "program.style": "a"}),
        "plain": run_summary(coordinates={"model": "tiny", "program.style": "b"}),
    }
    compiled = with_gains(runs, {"compiled": scores(a=1.0)}, {"compiled": RECORD}, "accuracy")["compiled"]
    assert compiled.compile is not None
    assert (compiled.compile.gain, compiled.compile.cost_per_point_usd) == (None, None)
    # An axis that is not named is no other optimizer than none.
    runs["plain"] = run_summary(coordinates={"model": "tiny", "program.style": "a"})
    both = {"compiled": scores(a=1.0), "plain": scores(a=0.0)}
    compiled = with_gains(runs, both, {"compiled": RECORD}, "accuracy")["compiled"]
    assert compiled.compile is not None
    assert compiled.compile.gain is not None
    assert compiled.compile.gain.baseline == "plain"
