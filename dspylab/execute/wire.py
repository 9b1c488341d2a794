"""Examples and what became of them as JSON: what travels between a run and workers of other machines.

Plain JSON, no pickled objects: what a worker sends is made by the user's program, and need not exist here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspylab.execute.workers import Outcome, Todo
from dspylab.jsonable import to_json
from dspylab.record.rows import call_of, failure_of_row, outcome_of_row
from dspylab.records import AbandonedExample, DataRow

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
    known = _known(run, row)
    if "abandoned" not in value:
        return outcome_of_row({**value, **known})
    answer = value["answer"] and failure_of_row({**value["answer"], **known})
    return AbandonedExample(abandoned=row.index, calls=tuple(map(call_of, value["calls"])), answer=answer)


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
