"""The JSON Schemas of the files that dspylab writes, made from the records, and all schemas as files."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from dspylab.config.schema import DIALECT, clean_schema, experiment_schema
from dspylab.records import (
    COMPILE_SCHEMA_VERSION,
    RAW_SCHEMA_VERSION,
    SUMMARY_SCHEMA_VERSION,
    CompileRecord,
    ExampleFailure,
    ExampleResult,
    RunInfo,
    Summary,
)

#: Section of a docstring that says what the fields are, and one entry of it with its further lines.
_ATTRIBUTES: Final = re.compile(r"\n+Attributes:\n(?P<entries>(?:    .*\n?)+)")
_NONE: Final = re.compile(r"\bNone\b")
_ENTRY: Final = re.compile(r"^    (?P<name>\w+): (?P<text>.*(?:\n        .*)*)", re.MULTILINE)


@functools.cache
def raw_schema() -> dict[str, Any]:
    """JSON Schema of one line of `raw.jsonl`. Shared: do not change it."""
    return _record_schema("raw", "a line of raw.jsonl", ExampleResult | ExampleFailure, RAW_SCHEMA_VERSION)


@functools.cache
def run_schema() -> dict[str, Any]:
    """JSON Schema of `run.json`. Shared: do not change it."""
    return _record_schema("run", "run.json", RunInfo, RAW_SCHEMA_VERSION)


@functools.cache
def compile_schema() -> dict[str, Any]:
    """JSON Schema of a `programs/<key>.record.json`. Shared: do not change it."""
    return _record_schema("compile", "programs/<key>.record.json", CompileRecord, COMPILE_SCHEMA_VERSION)


@functools.cache
def summary_schema() -> dict[str, Any]:
    """JSON Schema of `summary.json`. Shared: do not change it."""
    return _record_schema("summary", "summary.json", Summary, SUMMARY_SCHEMA_VERSION)


def schema_files() -> dict[str, dict[str, Any]]:
    """File name to schema, for everything that is published in the folder `schema`."""
    return {
        "experiment.schema.json": experiment_schema(),
        "raw.schema.json": raw_schema(),
        "run.schema.json": run_schema(),
        "compile.schema.json": compile_schema(),
        "summary.schema.json": summary_schema(),
    }


def dumps(schema: Mapping[str, Any]) -> str:
    """A schema as the text of its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _record_schema(name: str, title: str, record: Any, version: int) -> dict[str, Any]:
    generated = TypeAdapter(record).json_schema(mode="serialization")
    definitions = generated.pop("$defs")
    for part in (generated, *definitions.values()):
        _complete(part, version)
    schema = clean_schema({**generated, "$defs": definitions})
    return {
        "$schema": DIALECT,
        "$id": f"urn:dspylab:schema:{name}:{version}",
        **schema,
        "title": f"dspylab: {title}",
    }


def _complete(part: dict[str, Any], version: int) -> None:
    """Makes a record's schema as strict as its files are: every field is written, and nothing else."""
    properties = part.get("properties")
    if properties is None:
        return
    part["required"] = list(properties)
    part["additionalProperties"] = False
    summary, fields = _docstring(part["description"])
    part["description"] = summary
    for name, value in properties.items():
        value.pop("default", None)
        if name in fields:
            value["description"] = fields[name]
    if "schema_version" in properties:
        properties["schema_version"]["const"] = version


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of its class, and of each attribute, in the words of JSON."""
    text = _NONE.sub("null", text.replace("``", "`"))
    attributes = _ATTRIBUTES.search(text)
    if attributes is None:
        return text, {}
    entries = _ENTRY.finditer(attributes["entries"])
    return text[: attributes.start()], {entry["name"]: " ".join(entry["text"].split()) for entry in entries}
