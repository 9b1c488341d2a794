"""The published schemas: right in themselves, up to date, and true of what they describe."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from experiment_text import VALID
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from dspylab.config.models import Experiment
from dspylab.config.schema import experiment_schema
from dspylab.jsonable import to_json
from dspylab.record.schema import (
    compile_schema,
    dumps,
    raw_schema,
    run_schema,
    schema_files,
    summary_schema,
)
from dspylab.records import (
    CallCounts,
    Concurrency,
    CostSummary,
    Distribution,
    ExampleCounts,
    ExampleError,
    ExampleFailure,
    ExampleResult,
    GitState,
    LMCall,
    MetricSummary,
    PredictorSummary,
    Rates,
    RunInfo,
    RunSummary,
    Summary,
    TokenCounts,
)

PUBLISHED = Path(__file__).parent.parent / "schema"
#: What dspylab.config.explain has words for.
EXPLAINED = {
    "type", "required", "additionalProperties", "propertyNames", "anyOf", "enum", "pattern", "maxLength",
    "minItems", "minProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
}  # fmt: skip
#: What never refuses anything by itself.
STRUCTURE = {
    "$schema", "$id", "$ref", "$defs", "title", "description", "default", "properties", "patternProperties",
    "items",
}  # fmt: skip

DISTRIBUTION = Distribution(mean=1.0, p50=1.0, p90=1.0, p95=1.0, n=3)
CALL = LMCall(model="mini", ttft_s=0.1, latency_s=0.2, token_source="provider", finish_reason="stop")
RATES = Rates(input_usd=0.15, output_usd=0.6, source="litellm 1.80")
RESULT = ExampleResult(
    run="mini",
    index=0,
    example_id="a1",
    inputs={"text": "hello"},
    labels={"label": ["greeting", None, {"deep": 1.5}]},
    prediction={"label": "greeting"},
    metrics={"accuracy": 1.0},
    metric_details={"rated": {"reason": "polite"}},
    example_s=0.5,
    metric_s=0.0,
    started_at=1.7e9,
    calls=(CALL,),
)
FAILURE = ExampleFailure(
    run="mini",
    index=1,
    example_id="a2",
    inputs={},
    labels={},
    error=ExampleError(type="ValueError", message="no", kind="program"),
    example_s=0.5,
    started_at=1.7e9,
)
INFO = RunInfo(
    run="mini",
    coordinates={"model": "mini", "seed": 0},
    total=2,
    config_hash="0" * 64,
    model={"model": "openai/gpt-4o-mini"},
    engine="native",
    rates={"mini": RATES, "tiny": None},
    versions={"dspy": "3.4.1"},
)


def run_summary() -> RunSummary:
    """A run of the summary; every field that is a distribution has the same one."""
    given: dict[str, Any] = {
        "coordinates": {"model": "mini"},
        "config_hash": "0" * 64,
        "complete": True,
        "started_at": "2026-01-01T00:00:00Z",
        "finished_at": None,
        "active_s": 1.5,
        "engine": "native",
        "examples": ExampleCounts(total=2, attempted=2, scored=1, failed=1),
        "metrics": {"accuracy": MetricSummary(mean=1.0, stderr=None, ci95=(0.2, 1.0), n=1, examples=1)},
        "metric_errors": {},
        "run_metrics": {"macro": None},
        "errors": {"ValueError": 1},
        "throughput_tokens_per_s": None,
        "concurrency": Concurrency(mean=1.5, peak=2),
        "tokens": TokenCounts(prompt=1, cached=0, completion=1, reasoning=0, estimated_calls=0),
        "calls": CallCounts(
            total=1, failed=0, cached=0, attempts=1, fallbacks=0, fallback_rate=None, truncated=0,
            parse_failures=0, by_role={"task": 1}, by_predictor={"predict": 1},
        ),
        "predictors": {
            "predict": PredictorSummary(
                calls=1, failed=0, fallbacks=0, truncated=0, latency_s=DISTRIBUTION, ttft_s=DISTRIBUTION,
                prompt_tokens=1, completion_tokens=1, cost_usd=None,
            )
        },
        "cost_usd": CostSummary(total=None, by_role={"task": None}, saved=0.0, unpriced_calls=1),
        "versions": {},
    }  # fmt: skip
    given.update({field.name: DISTRIBUTION for field in fields(RunSummary) if field.type == "Distribution"})
    return RunSummary(**given)


SUMMARY = Summary(
    experiment="triage",
    description="",
    config_hash="0" * 64,
    primary_metric="accuracy",
    git=GitState(commit="0" * 40, branch=None, dirty=True),
    created_at="2026-01-01T00:00:00Z",
    versions={"dspylab": "0.1.0"},
    rates={"mini": RATES, "tiny": None},
    runs={"mini": run_summary()},
)
WRITTEN = [
    ("raw", raw_schema, RESULT),
    ("raw", raw_schema, FAILURE),
    ("run", run_schema, INFO),
    ("summary", summary_schema, SUMMARY),
]
NAMES = sorted(path.name for path in PUBLISHED.iterdir())


@pytest.fixture(autouse=True)
def anew() -> None:
    """Schemas are kept once they are made; a test should see them made."""
    for kept in (raw_schema, run_schema, compile_schema, summary_schema):
        kept.cache_clear()


@pytest.mark.parametrize("name", NAMES)
def test_the_published_schema_is_up_to_date(name: str) -> None:
    """If this fails: dspylab schema --output schema."""
    assert (PUBLISHED / name).read_text(encoding="utf-8") == dumps(schema_files()[name])


def test_nothing_else_is_published() -> None:
    assert set(NAMES) == set(schema_files())


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one(name: str) -> None:
    schema = schema_files()[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].startswith("urn:dspylab:schema:")
    assert json.loads(dumps(schema)) == schema


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and every schema in it."""
    if isinstance(schema, bool):
        return
    yield schema
    for key in ("properties", "patternProperties", "$defs"):
        for part in schema.get(key, {}).values():
            yield from parts(part)
    for key in ("items", "additionalProperties", "propertyNames"):
        if key in schema:
            yield from parts(schema[key])
    for key in ("anyOf", "prefixItems"):
        for part in schema.get(key, []):
            yield from parts(part)


@pytest.mark.parametrize("name", NAMES)
def test_every_object_says_which_keys_it_takes(name: str) -> None:
    for part in parts(schema_files()[name]):
        if part.get("type") == "object":
            assert "additionalProperties" in part
            assert part["additionalProperties"] is False or "properties" not in part


def test_every_keyword_can_be_explained() -> None:
    for part in parts(experiment_schema()):
        assert set(part) <= EXPLAINED | STRUCTURE
        kinds = [branch.get("type") for branch in part.get("anyOf", [])]
        assert kinds in ([], [None, "null"], ["string", "object"])


def test_the_experiment_schema_agrees_with_the_models() -> None:
    document = YAML(typ="safe").load(VALID)
    Draft202012Validator(experiment_schema()).validate(document)
    experiment = Experiment.model_validate(document)
    Draft202012Validator(experiment_schema()).validate(experiment.model_dump(mode="json"))


@pytest.mark.parametrize(("name", "schema", "record"), WRITTEN)
def test_what_is_written_fits_its_schema(name: str, schema: Callable[[], Any], record: Any) -> None:
    Draft202012Validator(schema()).validate(to_json(record))


@pytest.mark.parametrize(("name", "schema", "record"), WRITTEN)
def test_no_field_may_be_left_out_added_or_of_another_type(
    name: str, schema: Callable[[], Any], record: Any
) -> None:
    validator = Draft202012Validator(schema())
    row = to_json(record)
    assert not validator.is_valid({**row, "extra": 1})
    for key in row:
        assert not validator.is_valid({other: value for other, value in row.items() if other != key}), key
        assert not validator.is_valid({**row, key: object()}), key


def test_a_failure_is_no_result() -> None:
    validator = Draft202012Validator(raw_schema())
    assert not validator.is_valid({**to_json(FAILURE), "error": None})
    assert not validator.is_valid({**to_json(RESULT), "prediction": None})
    assert not validator.is_valid({**to_json(RESULT), "index": 0.5})


@pytest.mark.parametrize("wrong", ["NaN", None, "1"])
def test_a_number_that_is_none_does_not_fit(wrong: Any) -> None:
    row = copy.deepcopy(to_json(RESULT))
    row["metrics"]["accuracy"] = wrong
    assert not Draft202012Validator(raw_schema()).is_valid(row)


def test_every_field_of_a_record_is_described() -> None:
    """ExampleFailure refers to ExampleResult."""
    for name in ("LMCall", "ExampleResult", "ExampleError"):
        properties = raw_schema()["$defs"][name]["properties"]
        assert [key for key, value in properties.items() if "description" not in value] in ([], ["error"])


def test_schemas_are_written_and_printed(tmp_path: Path, cli_inside: Cli) -> None:
    done = cli_inside("schema", "--output", "schemas", cwd=tmp_path)
    assert done.out == f"wrote {', '.join(schema_files())} to schemas\n"
    assert {path.name: path.read_text() for path in (tmp_path / "schemas").iterdir()} == {
        name: dumps(schema) for name, schema in schema_files().items()
    }
    assert cli_inside("schema", "run", cwd=tmp_path).out == dumps(run_schema())
    unknown = cli_inside("schema", "runs", cwd=tmp_path)
    assert unknown.code == 2
    assert unknown.err == "there is no schema 'runs': one of: experiment, raw, run, compile, summary\n"
