"""Labels that no answer can have: the output field allows only certain values, and they are none of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import dspy

from dspylab.config.models import Metric
from dspylab.execute.odd_rows import row_name
from dspylab.metrics.builtin import Comparison, comparison
from dspylab.program.interface import named_outputs
from dspylab.records import DataRow

#: How an answer is compared with a label when only the user's code knows.
_SAME = comparison("exact_match", {}, "metrics")


@dataclass(frozen=True, slots=True)
class Impossible:
    """Labels of one field that no answer can be.

    Attributes:
        metric: The metric of type ``exact_match`` that compares with them; None if it is another's.
        field: The label.
        count: How many examples have such a label.
        first: The first of them, as a message names it.
        label: Its label, as JSON.
    """

    metric: str | None
    field: str
    count: int
    first: str
    label: str


def impossible_labels(
    program: dspy.Module, metrics: Mapping[str, Metric], rows: Sequence[DataRow], *, and_others: bool
) -> Iterator[Impossible]:
    """Finds labels that no answer of the signatures in a program equals.

    Args:
        program: As the factory builds it.
        metrics: Name to metric; only those of type ``exact_match`` are looked at.
        rows: The examples that are scored.
        and_others: Whether there are metrics that nobody knows the fields of. They are taken to compare a
            label with the output field of the same name, unless most labels are no such answer: then the
            user's code surely translates them.
    """
    compared = set()
    for name, metric in metrics.items():
        if metric.type != "exact_match" or not metric.field:
            continue
        label = metric.label or metric.field
        compared.add(label)
        found = _impossible(
            program, metric.field, label, rows, comparison(metric.type, metric.params, f"metrics.{name}")
        )
        if found is not None:
            yield replace(found, metric=name)
    for field in sorted(named_outputs(program) - compared) if and_others else ():
        found = _impossible(program, field, field, rows, _SAME)
        if found is not None and found.count <= len(rows) / 2:
            yield found


def _impossible(
    program: dspy.Module, field: str, label: str, rows: Sequence[DataRow], compare: Comparison
) -> Impossible | None:
    """The labels that equal no value of an output field; None if there are none, or if it may have any."""
    allowed = _allowed(program, field)
    if allowed is None:
        return None
    known: dict[str, bool] = {}
    impossible = []
    for row in rows:
        if label not in row.labels:
            continue
        text = json.dumps(row.labels[label], ensure_ascii=False)
        if text not in known:
            known[text] = _is_possible(row.labels[label], allowed, compare)
        if not known[text]:
            impossible.append((row_name(row), text))
    return Impossible(None, label, len(impossible), *impossible[0]) if impossible else None


def _is_possible(label: Any, allowed: Sequence[Any], compare: Comparison) -> bool:
    # An empty list equals nothing; the comparison itself refuses it.
    return label != [] and any(compare(answer, label).value == 1 for answer in allowed)


def _allowed(program: dspy.Module, field: str) -> list[Any] | None:
    """All values that an output field may have; None if they can not be listed."""
    found = []
    for predictor in program.predictors():
        if field in predictor.signature.output_fields:
            values = _values(predictor.signature.output_fields[field].annotation)
            if values is None:
                return None
            found += values
    return found or None


def _values(annotation: Any) -> list[Any] | None:
    """The values of a type that has only a few; None for others."""
    if annotation is bool:
        return [True, False]
    if annotation is type(None):
        return [None]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [text for member in annotation for text in (member.value, member.name)]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        parts = [_values(part) for part in get_args(annotation)]
        return None if None in parts else [value for part in parts if part is not None for value in part]
    return None
