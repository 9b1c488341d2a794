"""When two values of an experiment file are the same, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

#: Whole floats below this have the same digits as the integer that they equal.
_EXACT: Final = 2.0**53
#: Text that YAML takes for something else, without case; what JSON does is found by reading it.
_READ_OTHERWISE: Final = ("", "~", "null", "true", "false")


def canonical(value: Any) -> str:
    """A JSON value as text that is the same for values that are the same.

    The order of keys does not count, and 0.0 is 0: `dvc exp run -S` writes either for the other.
    """
    return json.dumps(_normal(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def as_text(value: Any) -> str:
    """A JSON value as tables and messages name it and a command line takes it: text bare, all else as JSON.

    Text that would be read as something else, such as `"false"`, is in quotes.
    """
    is_bare = isinstance(value, str) and not is_json(value) and value.casefold() not in _READ_OTHERWISE
    return str(value) if is_bare else json.dumps(value, ensure_ascii=False)


def is_json(text: str) -> bool:
    """Whether text is JSON by itself, so that it has to be in quotes where JSON is read."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def by_text(values: Mapping[str, Iterable[Any] | None]) -> dict[str, dict[str, Any] | None]:
    """Axis to its values by their canonical text; None if they are not known."""
    return {
        axis: None if found is None else {canonical(value): value for value in found}
        for axis, found in values.items()
    }


def meant(value: Any) -> frozenset[str]:
    """What a coordinate of a rule means, as canonical text: of a list any of its items, or itself."""
    items = value if isinstance(value, list) else []
    return frozenset(map(canonical, [value, *items]))


def _normal(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    return value
