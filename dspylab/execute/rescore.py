"""Answers as objects that metrics can score: those that the program gave now, and those of earlier rows.

A row holds a prediction as JSON. Whether the prediction can be had back from it is found out when it is made:
its JSON is turned back, by the types of the program's output fields where they are more than JSON, and must
give the very same values. Only such a prediction is ever scored again.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

import dspy
from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError

from dspylab.record.answers import asked_with
from dspylab.record.rows import call_of
from dspylab.records import JSON, DataRow, ExampleError, ExampleFailure, ExampleOutcome, LMCall

OutputTypes = Mapping[str, TypeAdapter[Any]]
_JSON_TYPES = (str, int, float, bool, type(None), list, dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the program answered on an example.

    Attributes:
        prediction: What metrics get.
        recorded: Its fields as JSON, as they were before any metric could change them.
        is_exact: Whether `prediction` can be had back from `recorded`.
        example_s: Duration of the program.
        started_at: When it was called, in seconds since the epoch.
        is_earlier: Whether an earlier session asked for it.
        parse_failures: Replies of that session that an adapter could not parse.
        calls: The calls of the program in that session.
    """

    prediction: dspy.Prediction
    recorded: Mapping[str, JSON]
    is_exact: bool
    example_s: float
    started_at: float
    is_earlier: bool = False
    parse_failures: int = 0
    calls: tuple[LMCall, ...] = ()


def output_types(program: dspy.Module) -> OutputTypes:
    """How to have the values of output fields back from JSON, for those that are more than JSON.

    Args:
        program: The program. A field that its predictors give different types is left out, and so is a type
            that pydantic can not build.
    """
    annotations: dict[str, list[Any]] = {}
    for _, predictor in program.named_predictors():
        for name, about in predictor.signature.output_fields.items():
            annotations.setdefault(name, []).append(about.annotation)
    found = {}
    for name, (annotation, *others) in annotations.items():
        if not _is_json_type(annotation) and all(other == annotation for other in others):
            try:
                found[name] = TypeAdapter(annotation)
            except (PydanticUserError, TypeError, NameError):
                continue
    return found


def is_exact(prediction: dspy.Prediction, recorded: Mapping[str, JSON], output: OutputTypes) -> bool:
    """Whether a prediction can be had back from its JSON, with values of the same types.

    One with several completions can not: a row holds the first one.
    """
    if type(prediction) is not dspy.Prediction:
        return False
    if prediction.completions is not None and len(prediction.completions) != 1:
        return False
    try:
        rebuilt = _rebuilt(recorded, output)
        return all(_same(value, rebuilt[name]) for name, value in prediction.items())
    except Exception:  # noqa: BLE001 - the user's types may do anything when they are made or compared
        return False


def answered_before(
    row: DataRow, stored: Mapping[str, Any], output: OutputTypes, model: str
) -> Answer | None:
    """The answer that a stored row holds; None when it is of no use for the example.

    Args:
        row: The example.
        stored: A row with a prediction.
        output: From `output_types`, of the same program.
        model: Id of the run's model now.
    """
    if not _is_of(row, stored) or not stored.get("exact_prediction"):
        return None
    try:
        return Answer(
            prediction=dspy.Prediction(**_rebuilt(stored["prediction"], output)),
            recorded=stored["prediction"],
            is_exact=True,
            example_s=stored["example_s"],
            started_at=stored["started_at"],
            is_earlier=True,
            parse_failures=stored["parse_failures"],
            calls=_calls(stored, model),
        )
    except Exception:  # noqa: BLE001 - a damaged row, or a type that refuses what it gave
        return None


def failed_before(row: DataRow, stored: Mapping[str, Any], run: str, model: str) -> ExampleFailure | None:
    """The failure of the program that a stored row holds; None when it holds another thing."""
    error = stored.get("error")
    if not _is_of(row, stored) or error is None or stored.get("prediction") is not None:
        return None
    try:
        return ExampleFailure(
            run=run,
            index=row.index,
            example_id=row.example_id,
            inputs=row.inputs,
            labels=row.labels,
            error=ExampleError(**error),
            parse_failures=stored["parse_failures"],
            example_s=stored["example_s"],
            started_at=stored["started_at"],
            calls=_calls(stored, model),
            rescored=True,
        )
    except (KeyError, TypeError):
        return None


def new_calls(outcome: ExampleOutcome) -> tuple[LMCall, ...]:
    """The calls of an outcome that this session made."""
    return tuple(call for call in outcome.calls if call.role != "task") if outcome.rescored else outcome.calls


def _is_of(row: DataRow, stored: Mapping[str, Any]) -> bool:
    """Whether the program was called with the same. Its labels, and what it is called, do not matter."""
    return asked_with(stored.get("inputs") or {}) == asked_with(row.inputs)


def _calls(stored: Mapping[str, Any], model: str) -> tuple[LMCall, ...]:
    """The program's calls. Their model may have had another id then."""
    calls = [call_of(call) for call in stored["calls"] if call["role"] == "task"]
    if len({call.model for call in calls}) == 1:
        calls = [replace(call, model=model) for call in calls]
    return tuple(calls)


def _rebuilt(recorded: Mapping[str, JSON], output: OutputTypes) -> dict[str, Any]:
    return {
        name: output[name].validate_python(value) if name in output else value
        for name, value in recorded.items()
    }


def _same(value: Any, other: Any) -> bool:
    """Whether two values can not be told apart, their types and those of their parts included."""
    if type(value) is not type(other):
        return False
    if isinstance(value, dict):
        return _same(list(value.items()), list(other.items()))
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(_same, value, other))
    if isinstance(value, set | frozenset):
        return {(type(item), item) for item in value} == {(type(item), item) for item in other}
    return bool(value == other) and _same_attributes(value, other)


def _same_attributes(value: Any, other: Any) -> bool:
    """As `_same`, of two objects of one class that call themselves equal."""
    if isinstance(value, Enum) or not hasattr(value, "__dict__"):
        return True
    if isinstance(value, BaseModel) and value.model_fields_set != other.model_fields_set:
        return False
    return _same(vars(value), vars(other))


def _is_json_type(annotation: Any) -> bool:
    """Whether values of a type are their own JSON."""
    if annotation is Any or annotation in _JSON_TYPES:
        return True
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return all(type(value) in _JSON_TYPES for value in arguments)
    if origin is dict:
        return arguments[0] is str and _is_json_type(arguments[1])
    return origin in (list, Union, types.UnionType) and all(map(_is_json_type, arguments))
