"""Labels that no answer can have: the output field allows only certain values, and they are none of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import dspy

from dspylab.config.models import Metric
from dspylab.metrics.builtin import Comparison, comparison
from dspylab.records import DataRow


def impossible_labels(
    program: dspy.Module, metrics: Mapping[str, Metric], rows: Sequence[DataRow]
) -> Iterator[tuple[str, str, str]]:
    """Finds labels that no answer of the signatures in a program equals.

    Args:
        program: As the factory builds it.
        metrics: Name to metric; only those of type ``exact_match`` are looked at.
        rows: The examples that are scored.

    Yields:
        Name of the metric, the number of examples and one of their labels as JSON.
    """
    for name, metric in metrics.items():
        allowed = _allowed(program, metric.field) if metric.type == "exact_match" and metric.field else None
        if allowed is None:
            continue
        compare = comparison(metric.type, metric.params, f"metrics.{name}")
        known: dict[str, bool] = {}
        impossible = []
        for row in rows:
            key = metric.label or metric.field
            if key is None or key not in row.labels:
                continue
            label = row.labels[key]
            text = json.dumps(label, ensure_ascii=False)
            if text not in known:
                known[text] = _is_possible(label, allowed, compare)
            if not known[text]:
                impossible.append(text)
        if impossible:
            yield name, str(len(impossible)), impossible[0]


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
