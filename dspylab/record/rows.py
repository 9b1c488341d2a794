"""Rows of a journal and of `raw.jsonl` back as the records that they were written from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspylab.records import ExampleError, ExampleFailure, ExampleOutcome, ExampleResult, LMCall, Message


def outcome_of_row(row: Mapping[str, Any]) -> ExampleOutcome:
    """An example back from its JSON.

    Raises:
        KeyError, TypeError: If it is not a row of this version.
    """
    return failure_of_row(row) if row["error"] is not None else ExampleResult(**{**row, "calls": _calls(row)})


def failure_of_row(row: Mapping[str, Any]) -> ExampleFailure:
    """An example that failed back from its JSON.

    Raises:
        KeyError, TypeError: If it is not a row of this version, or of an example that did not fail.
    """
    return ExampleFailure(**{**row, "calls": _calls(row), "error": ExampleError(**row["error"])})


def call_of(value: Mapping[str, Any]) -> LMCall:
    """A call back from its JSON.

    Raises:
        TypeError: If it is not one of this version.
    """
    fields = {**value}
    prompt = fields.pop("prompt", None)
    return LMCall(**fields, prompt=None if prompt is None else tuple(Message(**said) for said in prompt))


def _calls(row: Mapping[str, Any]) -> tuple[LMCall, ...]:
    return tuple(map(call_of, row["calls"]))
