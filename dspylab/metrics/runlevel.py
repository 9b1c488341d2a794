"""Metrics over all rows of a run: built-in measures of one field, or the user's callable.

Rows are those of `raw.jsonl`. The built-in measures read them one by one and leave out examples that
failed, since these have no prediction; the user's callable gets a list of all rows as plain dicts.
"""

from __future__ import annotations

import functools
import inspect
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from dspylab.config.models import Metric
from dspylab.errors import ProgramError
from dspylab.metrics.builtin import check_params, number_of, text_of
from dspylab.metrics.numbers import to_number

Rows = Iterable[Mapping[str, Any]]
RunMetric = Callable[[Rows], float | None]


def build_run_metrics(metrics: Mapping[str, Metric], resolve: Callable[[str], Any]) -> dict[str, RunMetric]:
    """The metrics of type ``run``, ready to be called with the rows of a run.

    Args:
        metrics: Metrics of the experiment file. One with a `ref` is the user's callable, called with a
            list of rows and the settings; one without names a key of `MEASURES` as ``params.measure``.
        resolve: Turns ``path:name`` or ``module:name`` into the object.

    Returns:
        Name to a function of the rows that returns a finite number, or None where the figure does not
        exist. It may raise: TypeError or ValueError when rows or result are of no use, and whatever the
        user's callable raises.

    Raises:
        ProgramError: If a reference or a setting can not be used.
    """
    return {
        name: _run_metric(metric, resolve, f"metrics.{name}")
        for name, metric in metrics.items()
        if metric.type == "run"
    }


def evaluate(
    metrics: Mapping[str, RunMetric], rows: Callable[[], Rows]
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Calls every run-level metric; one that raises fails alone.

    Args:
        metrics: From `build_run_metrics`.
        rows: Opens the rows of the run anew.

    Returns:
        Metric name to number (None for one that raised), and the name of one that raised to
        ``Type: message``.
    """
    values: dict[str, float | None] = {}
    errors: dict[str, str] = {}
    for name, metric in metrics.items():
        try:
            values[name] = metric(rows())
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the user's code may raise anything
            values[name] = None
            errors[name] = f"{type(error).__name__}: {error}"
    return values, errors


def macro_f1(rows: Rows, *, field: str, label: str) -> float | None:
    """Unweighted mean of the F1 of each class, 2TP / (2TP + FP + FN).

    Classes are the values of the label and of the prediction (as scikit-learn's ``f1_score`` with
    ``average="macro"`` has it), as text without surrounding whitespace and case.

    Args:
        rows: Rows of the run.
        field: Output field with the predicted class.
        label: Label with the true class.

    Returns:
        0 to 1; None when no example has a result.
    """
    hits: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    true: Counter[str] = Counter()
    for answer, truth in _pairs(rows, field, label):
        guess, actual = (text_of(value).strip().casefold() for value in (answer, truth))
        predicted[guess] += 1
        true[actual] += 1
        hits[guess] += guess == actual
    classes = predicted.keys() | true.keys()
    if not classes:
        return None
    return math.fsum(2 * hits[name] / (predicted[name] + true[name]) for name in classes) / len(classes)


def correlation(
    rows: Rows, *, field: str, label: str, method: Literal["pearson", "spearman"] = "pearson"
) -> float | None:
    """Correlation of a predicted number with the label.

    Args:
        rows: Rows of the run.
        field: Output field with the predicted number; of a text the last number counts.
        label: Label with the true number.
        method: ``pearson``, or ``spearman``: Pearson's of the ranks, ties at their mean rank.

    Returns:
        -1 to 1; None for fewer than two results, or when one side is constant.

    Raises:
        ValueError: If a prediction or label has no number.
    """
    answers, truths = array("d"), array("d")
    for position, pair in enumerate(_pairs(rows, field, label)):
        for values, value in zip((answers, truths), pair, strict=True):
            number = number_of(value)
            if number is None:
                raise ValueError(f"result {position + 1}: {value!r} has no number")
            values.append(number)
    return _pearson(_ranks(answers), _ranks(truths)) if method == "spearman" else _pearson(answers, truths)


MEASURES: Mapping[str, Callable[..., float | None]] = {"macro_f1": macro_f1, "correlation": correlation}


def _run_metric(metric: Metric, resolve: Callable[[str], Any], where: str) -> RunMetric:
    if metric.ref is not None:
        return _users_metric(resolve(metric.ref), metric.params, f"{where}.ref ({metric.ref})")
    params = dict(metric.params)
    measure = params.pop("measure", None)
    if measure not in MEASURES:
        raise ProgramError(
            "a metric of type run needs ref or params.measure",
            where=where,
            remedy=f"add ref: program.py:name, or params: {{measure: {' | '.join(MEASURES)}}} and field:",
        )
    if metric.field is None:
        raise ProgramError("the field is missing", where=where, remedy="add field: <output field>")
    settings = {"field": metric.field, "label": metric.label or metric.field, **params}
    check_params(functools.partial(MEASURES[measure], ()), settings, where)
    if settings.get("method", "pearson") not in ("pearson", "spearman"):
        raise ProgramError(
            f"unknown method {settings['method']!r}", where=f"{where}.params", remedy="pearson or spearman"
        )
    return functools.partial(MEASURES[measure], **settings)


def _users_metric(function: Any, params: Mapping[str, Any], where: str) -> RunMetric:
    try:
        inspect.signature(function).bind([], **params)
    except TypeError as error:
        raise ProgramError(
            f"can not be called with a list of rows: {error}",
            where=where,
            remedy="refer to a function metric(rows), with its params as further parameters",
        ) from error
    except ValueError:  # a callable that does not tell its parameters
        pass

    def call(rows: Rows) -> float | None:
        result = function([dict(row) for row in rows], **params)
        return None if result is None else to_number(result)

    return call


def _pairs(rows: Rows, field: str, label: str) -> Iterator[tuple[Any, Any]]:
    """Predicted and true value of every example that has a result.

    Raises:
        ValueError: If a row has no such field or label.
    """
    for row in rows:
        if row["error"] is not None:
            continue
        for part, name in (("prediction", field), ("labels", label)):
            if name not in row[part]:
                raise ValueError(f"example {row['index']} has no {name!r} among its {part}")
        yield row["prediction"][field], row["labels"][label]


def _pearson(a: Sequence[float], b: Sequence[float]) -> float | None:
    n = len(a)
    if n < 2:
        return None
    mean_a, mean_b = math.fsum(a) / n, math.fsum(b) / n
    squares_a = math.fsum((x - mean_a) ** 2 for x in a)
    squares_b = math.fsum((y - mean_b) ** 2 for y in b)
    if squares_a == 0 or squares_b == 0:
        return None
    products = math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return max(-1.0, min(1.0, products / math.sqrt(squares_a) / math.sqrt(squares_b)))


def _ranks(values: Sequence[float]) -> array[float]:
    """Rank of each value from 1; equal values share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = array("d", bytes(8 * len(values)))
    first = 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for position in range(first, last + 1):
            ranks[order[position]] = (first + last) / 2 + 1
        first = last + 1
    return ranks
