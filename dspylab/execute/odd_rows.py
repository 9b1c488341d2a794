"""Examples that look faulty: an input without a value, the inputs of another one, or an odd label."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import dspy
from dspy.adapters.utils import annotation_allows_none

from dspylab.config.wording import plain
from dspylab.plan.identity import digest
from dspylab.program.dataset import PATTERN_ROW
from dspylab.program.interface import is_needed
from dspylab.records import JSON, DataRow

#: Share of the labels of a field that may be of another kind before the field counts as mixed.
_FEW = 0.1
_KINDS = {bool: "bool", int: "number", float: "number", str: "text", list: "list"}


def empty_inputs(program: dspy.Module, inputs: Iterable[str], rows: Sequence[DataRow]) -> Iterator[str]:
    """What is wrong with the inputs of examples: one text a field.

    Args:
        program: As the factory builds it; inputs that its signatures can do without are left out.
        inputs: Names of the inputs.
        rows: The examples.
    """
    for name in inputs:
        fields = _fields(program, name, "input_fields")
        if fields and not any(map(is_needed, fields)):
            continue
        empty = [row for row in rows if _is_empty(row.inputs.get(name))]
        pattern = [row for row in rows if _is_pattern(row.inputs.get(name))]
        for odd, what in (
            (empty, f"nothing in the input {plain(name)!r}"),
            (pattern, f"the input {plain(name)!r} that `dspylab init` wrote"),
        ):
            if odd:
                yield f"{of_examples(len(odd), rows)} {what}, such as {row_name(odd[0])}"


def odd_labels(program: dspy.Module, names: Iterable[str], rows: Sequence[DataRow]) -> Iterator[str]:
    """What is wrong with the labels of examples: one text a field.

    Args:
        program: As the factory builds it; what its output fields may be is no fault of a label.
        names: Labels that answers are compared with.
        rows: The examples.
    """
    for name in names:
        fields = _fields(program, name, "output_fields")
        may_be_empty = any(annotation_allows_none(field.annotation) for field in fields)
        there = [row for row in rows if name in row.labels]
        kinds = Counter(_kind(row.labels[name]) for row in there if not _is_empty(row.labels[name]))
        usual = {kind for kind, count in kinds.items() if count > _FEW * kinds.total()}
        odd = [
            row
            for row in there
            if (not may_be_empty if _is_empty(row.labels[name]) else _kind(row.labels[name]) not in usual)
        ]
        if odd:
            label = plain(json.dumps(odd[0].labels[name], ensure_ascii=False))
            yield (
                f"{of_examples(len(odd), rows)} a label {plain(name)!r} that is empty or unlike nearly all "
                f"others, such as {label} of {row_name(odd[0])}"
            )


def repeated_inputs(rows: Sequence[DataRow]) -> Iterator[str]:
    """What is wrong with examples that ask what another one asks already: one text, or none.

    Args:
        rows: The examples.
    """
    seen = set()
    again = []
    for row in rows:
        if all(map(_is_empty, row.inputs.values())):
            continue  # `empty_inputs` tells
        asked = digest(dict(row.inputs))
        if asked in seen:
            again.append(row)
        seen.add(asked)
    if again:
        yield (
            f"{of_examples(len(again), rows)} the inputs of an earlier one, such as {row_name(again[0])}: "
            "counted as independent, they make intervals too narrow"
        )


def of_examples(count: int, rows: Sequence[DataRow]) -> str:
    """How a message about some of the examples begins."""
    return f"{count} of {len(rows)} test examples {'has' if count == 1 else 'have'}"


def row_name(row: DataRow) -> str:
    """An example by its id and by how its inputs begin, since most ids are digests."""
    beginning = next((f" ({plain(str(value))})" for value in row.inputs.values() if not _is_empty(value)), "")
    return f"{plain(row.example_id)}{beginning}"


def _fields(program: dspy.Module, name: str, side: str) -> list[Any]:
    """The fields of a name that the signatures in a program have."""
    sides = [getattr(predictor.signature, side) for predictor in program.predictors()]
    return [fields[name] for fields in sides if name in fields]


def _is_empty(value: JSON) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _is_pattern(value: JSON) -> bool:
    return isinstance(value, str) and value.startswith(PATTERN_ROW)


def _kind(value: JSON) -> str:
    """What a label is; a list may stand for several that are right."""
    if isinstance(value, list) and value:
        return _kind(value[0])
    return _KINDS.get(type(value), "object")
