"""Examples and what became of them as JSON: what travels between a run and workers of other machines.

Plain JSON, no pickled objects: what a worker sends is made by the user's program, and need not exist here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspylab.execute.rescore import call_of
from dspylab.execute.workers import Outcome, Todo
from dspylab.jsonable import to_json
from dspylab.records import AbandonedExample, DataRow, ExampleError, ExampleFailure, ExampleResult

#: What need not come back: whoever sent the example has it.
_KNOWN = ("run", "index", "example_id", "inputs", "labels")


def todo_to_json(todo: Todo) -> dict[str, Any]:
    """An example on its way out."""
    return {"row": to_json(todo.row), "stored": todo.stored}


def todo_of(value: Mapping[str, Any]) -> Todo:
    """The example that `todo_to_json` was given."""
    return Todo(DataRow(**value["row"]), value["stored"])


def outcome_to_json(outcome: Outcome) -> dict[str, Any] | None:
    """What became of an example, on its way back."""
    if outcome is None:
        return None
    value: dict[str, Any] = to_json(outcome)
    if isinstance(outcome, AbandonedExample):
        return {**value, "answer": value["answer"] and _without_known(value["answer"])}
    return _without_known(value)


def outcome_of(value: Mapping[str, Any] | None, run: str, row: DataRow) -> Outcome:
    """What `outcome_to_json` was given.

    Args:
        value: The JSON.
        run: Key of the run.
        row: The example.
    """
    if value is None:
        return None
    if "abandoned" in value:
        answer = value["answer"] and _failure(value["answer"], run, row)
        return AbandonedExample(abandoned=row.index, calls=_calls(value), answer=answer)
    if value["error"] is not None:
        return _failure(value, run, row)
    return ExampleResult(**{**value, **_known(run, row), "calls": _calls(value)})


def _failure(value: Mapping[str, Any], run: str, row: DataRow) -> ExampleFailure:
    error = ExampleError(**value["error"])
    return ExampleFailure(**{**value, **_known(run, row), "calls": _calls(value), "error": error})


def _calls(value: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(map(call_of, value["calls"]))


def _known(run: str, row: DataRow) -> dict[str, Any]:
    """Of an example, the fields of `_KNOWN`."""
    return {
        "run": run,
        "index": row.index,
        "example_id": row.example_id,
        "inputs": row.inputs,
        "labels": row.labels,
    }


def _without_known(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name not in _KNOWN}
