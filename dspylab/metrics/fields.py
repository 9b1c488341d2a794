"""Find the output field and the label that a metric is about."""

from __future__ import annotations

from typing import Any

import dspy

#: Fields that DSPy's modules add beside the answer.
_BESIDE_THE_ANSWER = frozenset({"reasoning", "rationale", "trajectory"})


def label_of(example: dspy.Example, name: str | None) -> Any:
    """The label of an example.

    Args:
        example: Inputs and labels.
        name: Name of the label; None for the only one.

    Raises:
        LookupError: If there is no such label, or not just one.
    """
    if name is None:
        name = _only(list(example.labels().keys()), "labels", "label")
    if name not in example:
        labels = ", ".join(example.labels().keys()) or "none"
        raise LookupError(f"the example has no label {name!r}; its labels: {labels}")
    return example[name]


def answer_of(prediction: dspy.Prediction, field: str | None, label: str | None = None) -> Any:
    """The output field of a prediction.

    Args:
        prediction: What the program answered.
        field: Name of the field; None for the one called like the label, or the only one.
        label: Name of the label.

    Raises:
        LookupError: If there is no such field, or not just one.
    """
    if field is None and label is not None and label in prediction:
        field = label
    if field is None:
        names = [name for name in prediction.keys() if name not in _BESIDE_THE_ANSWER]  # noqa: SIM118
        field = _only(names, "output fields", "field")
    if field not in prediction:
        raise LookupError(
            f"the prediction has no field {field!r}; its fields: {', '.join(prediction.keys()) or 'none'}"
        )
    return prediction[field]


def _only(names: list[str], what: str, key: str) -> str:
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise LookupError(f"there is not just one of the {what} ({found}): say which one with {key}:")
    return names[0]
