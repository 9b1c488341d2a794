"""Any value as plain JSON: the records of this package exactly, and what users' programs return faithfully.

It is called for every example, so the common kinds are dispatched on their exact type first.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

_AS_THEY_ARE = frozenset({str, bool, type(None)})
#: Beyond it Python refuses to write an integer in decimal digits (`sys.set_int_max_str_digits`).
_LONGEST_INT_BITS = 2048


def to_json(value: Any) -> Any:
    """The value as None, bool, int, float, str, list or dict with text keys, all the way down.

    Dataclasses become a dict of all their fields, mappings a dict, tuples and other sequences a list,
    sets a sorted list. NaN and infinities do not exist in JSON: they become None. Integers of more than
    2,048 bits become hexadecimal text. Enum members become their value, numpy and torch values their Python
    counterpart, pydantic models their JSON dump, dspy examples and predictions their fields, dates ISO 8601.
    What is none of these becomes its `str()`, so that an answer that was paid for is recorded in any case.

    Args:
        value: Anything; not circular.

    Returns:
        JSON. Nothing is shared with the value that a later change of it could reach, save text.
    """
    kind: Any = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is int or kind is float:
        return _number(value)
    if kind is dict:
        return {_key(name): to_json(item) for name, item in value.items()}
    if kind is list or kind is tuple:
        return [to_json(item) for item in value]
    fields = _field_names(kind)
    if fields is not None:
        # Most fields of a record are scalars: deciding here saves the call for each of them.
        return {
            name: item if type(item) in _AS_THEY_ARE else to_json(item)
            for name, item in ((name, getattr(value, name)) for name in fields)
        }
    return _rare(value)


@functools.cache
def _field_names(kind: type) -> tuple[str, ...] | None:
    """Names of a dataclass's fields; None when it is no dataclass."""
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def _number(value: float) -> float | str | None:
    """The number; None for what JSON has not, and hexadecimal text for an integer of too many digits."""
    if isinstance(value, int):
        return int(value) if value.bit_length() <= _LONGEST_INT_BITS else hex(value)
    return value if math.isfinite(value) else None


def _key(name: object) -> str:
    return name if type(name) is str else str(to_json(name))


def _rare(value: Any) -> Any:
    """The kinds that records do not have but predictions, labels and metrics may."""
    for kind, convert in _KINDS:
        if isinstance(value, kind):
            return convert(value)
    if not isinstance(value, type):
        for method, arguments in _METHODS.items():
            if hasattr(value, method):
                return to_json(getattr(value, method)(**arguments))
    return str(value)


def _mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {_key(name): to_json(item) for name, item in value.items()}


#: Kinds to what makes JSON of them, the narrow ones first: an Enum may be an int, a str is a Sequence.
_KINDS: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (Enum, lambda value: to_json(value.value)),
    (str, str),
    (int, _number),
    ((float, Decimal, Fraction), lambda value: to_json(float(value))),
    ((bytes, bytearray), lambda value: value.decode("utf-8", "backslashreplace")),
    (Mapping, _mapping),
    (AbstractSet, lambda value: sorted(map(to_json, value), key=repr)),
    (Sequence, lambda value: [to_json(item) for item in value]),
)
#: Methods that give plain data: pydantic; numpy and torch; dspy; dates.
_METHODS: Mapping[str, Mapping[str, Any]] = {
    "model_dump": {"mode": "json"},
    "tolist": {},
    "toDict": {},
    "isoformat": {},
}
