"""Rows are read back as the records that they were written from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dspylab.jsonable import to_json
from dspylab.record.rows import call_of, failure_of_row, outcome_of_row
from dspylab.records import ExampleError, ExampleFailure, ExampleOutcome, ExampleResult, LMCall, Message

PROMPT = (Message(role="system", text="Route."), Message(role="user", text="Text: a"))
CALLS = (LMCall(model="m", prompt=PROMPT, response="b", cost_usd=0.5), LMCall(model="m"))
EXAMPLE: dict[str, Any] = {
    "run": "r", "index": 3, "example_id": "e3", "inputs": {"text": "a"}, "labels": {"label": "b"},
    "example_s": 1.0, "started_at": 5.0, "calls": CALLS,
}  # fmt: skip
RESULT = ExampleResult(**EXAMPLE, prediction={"label": "b"}, metrics={"accuracy": 1.0}, metric_s=0.1)
FAILURE = ExampleFailure(**EXAMPLE, error=ExampleError(type="ValueError", message="no", kind="program"))


def as_read(outcome: ExampleOutcome) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(json.dumps(to_json(outcome)))
    return row


@pytest.mark.parametrize("outcome", [RESULT, FAILURE], ids=["result", "failure"])
def test_an_example_comes_back_as_it_was(outcome: ExampleOutcome) -> None:
    assert outcome_of_row(as_read(outcome)) == outcome


def test_a_failure_comes_back_and_nothing_else_is_one() -> None:
    assert failure_of_row(as_read(FAILURE)) == FAILURE
    with pytest.raises(TypeError):
        failure_of_row(as_read(RESULT))


def test_a_call_of_a_version_without_prompts_has_none() -> None:
    assert call_of({"model": "m"}) == LMCall(model="m")


@pytest.mark.parametrize("change", [{"calls": ["no call"]}, {"calls": [{"model": "m", "prompt": [1]}]}])
def test_what_is_no_call_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        outcome_of_row({**as_read(RESULT), **change})
