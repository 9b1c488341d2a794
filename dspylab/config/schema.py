"""The JSON Schema of the experiment file, made from the pydantic models."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

from dspylab.config.models import Experiment

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
EXPERIMENT_ID: Final = "urn:dspylab:schema:experiment:1"
_ALL_TYPES: Final = {"array", "boolean", "integer", "null", "number", "object", "string"}
#: The end of a line inside of a paragraph, as docstrings have it.
_LINE_END = re.compile(r"(?<!\n)\n(?!\n)")


@functools.cache
def experiment_schema() -> dict[str, Any]:
    """JSON Schema (Draft 2020-12) of `experiment.yaml`. Shared: do not change it."""
    generated = Experiment.model_json_schema(mode="validation")
    schema = clean_schema(generated)
    schema.pop("title", None)
    return {"$schema": DIALECT, "$id": EXPERIMENT_ID, "title": "dspylab experiment", **schema}


def clean_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without what pydantic adds for itself, so that editors show and complete the essentials.

    Titles that repeat a key are dropped, so are defaults of null. `X | null` becomes one schema of two
    types where it can, and a choice of all types is none.
    """
    cleaned = {key: _clean_part(key, value) for key, value in schema.items()}
    if isinstance(cleaned.get("description"), str):
        cleaned["description"] = _LINE_END.sub(" ", cleaned["description"])
    if "properties" in cleaned:
        for part in cleaned["properties"].values():
            part.pop("title", None)
    # A default of null says nothing; other defaults are shown.
    if "default" in cleaned and cleaned["default"] is None:
        del cleaned["default"]
    # Pydantic makes two schemas of a dictionary whose keys have a pattern.
    patterns = cleaned.get("patternProperties", {})
    if len(patterns) == 1 and "properties" not in cleaned:
        (pattern, value), *_ = patterns.items()
        del cleaned["patternProperties"]
        names = {**cleaned.get("propertyNames", {}), "pattern": pattern}
        cleaned.update(propertyNames=names, additionalProperties=value)
    branches = cleaned.get("anyOf", [])
    if {str(branch.get("type")) for branch in branches} == _ALL_TYPES:
        del cleaned["anyOf"]
    if len(branches) == 2 and branches[1] == {"type": "null"} and isinstance(branches[0].get("type"), str):
        del cleaned["anyOf"]
        cleaned = {**cleaned, **branches[0], "type": [branches[0]["type"], "null"]}
        if "enum" in cleaned:
            cleaned["enum"] = [*cleaned["enum"], None]
    return cleaned


def _clean_part(key: str, value: Any) -> Any:
    if key in ("properties", "patternProperties", "$defs"):
        return {name: clean_schema(part) for name, part in value.items()}
    if key in ("items", "additionalProperties", "propertyNames") and isinstance(value, dict):
        return clean_schema(value)
    if key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        return [clean_schema(part) for part in value]
    return value
