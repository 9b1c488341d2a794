"""What a metric returned, as named finite numbers and what it says beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

from dspylab.jsonable import to_json
from dspylab.records import JSON

#: Key of a mapping, and field of a `dspy.Prediction`, that holds the metric's own number.
SCORE = "score"
#: Sums of third powers of such numbers, which intervals need, are finite.
_LARGEST = 1e100


@dataclass(frozen=True, slots=True)
class Score:
    """What one metric says of one example.

    Attributes:
        values: Name to finite number.
        details: Name to what it says beside the number, such as a judge's reason.
    """

    values: Mapping[str, float]
    details: Mapping[str, JSON] = field(default_factory=dict)


def score_of(name: str, result: Any) -> Score:
    """Reads what a metric returned.

    - A bool or a number is the metric `name`; so is a text that spells a number.
    - A mapping gives a metric ``name.key`` for each of its numbers; its key ``score``, if there is one,
      is the metric `name` itself. Texts in it go to the details.
    - A `dspy.Prediction` (or anything else with a field ``score``) gives its score as `name`; its other
      fields, such as GEPA's ``feedback``, go to the details.

    Args:
        name: Name of the metric in the experiment file.
        result: What it returned.

    Raises:
        TypeError: If there is no number in it.
        ValueError: If a number is NaN or infinite.
    """
    if isinstance(result, Mapping):
        return _of_mapping(name, result)
    if hasattr(result, "toDict"):
        fields = result.toDict()
        if SCORE not in fields:
            raise TypeError(f"returned {type(result).__name__} without a field 'score'")
        others = {key: to_json(value) for key, value in fields.items() if key != SCORE and value is not None}
        return Score({name: to_number(fields[SCORE])}, {name: others} if others else {})
    return Score({name: to_number(result)})


def to_number(value: Any) -> float:
    """A finite float from a bool, a number of any library, or a text that spells one.

    Raises:
        TypeError: If it is none of these.
        ValueError: If it is NaN, infinite, or so large that no mean and no spread could be computed.
    """
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if value is None:
        raise TypeError("returned None; a metric returns a bool, a number, a dict of numbers or a Prediction")
    if not isinstance(value, (bool, int, float, Decimal, Fraction, str)):
        raise TypeError(f"returned {type(value).__name__}, which is no number")
    try:
        number = float(value)
    except ValueError:
        raise TypeError(f"returned the text {value[:60]!r}, which is no number") from None  # type: ignore[index]
    except OverflowError:
        raise ValueError("returned a number too large for a float") from None
    if not math.isfinite(number):
        raise ValueError(f"returned {number}")
    if abs(number) > _LARGEST:
        raise ValueError(f"returned {number:g}, which is too large to be averaged")
    return number


def _of_mapping(name: str, result: Mapping[Any, Any]) -> Score:
    values: dict[str, float] = {}
    texts: dict[str, JSON] = {}
    for key, value in result.items():
        if isinstance(value, str):
            texts[str(key)] = value
            continue
        try:
            values[name if key == SCORE else f"{name}.{key}"] = to_number(value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{key!r}: {error}") from None
    if not values:
        raise TypeError("returned a dict without a number")
    return Score(values, {name: texts} if texts else {})
