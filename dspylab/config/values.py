"""When two values of an experiment file are the same."""

from __future__ import annotations

import json
from typing import Any, Final

#: Whole floats below this have the same digits as the integer that they equal.
_EXACT: Final = 2.0**53


def canonical(value: Any) -> str:
    """A JSON value as text that is the same for values that are the same.

    The order of keys does not count, and 0.0 is 0: `dvc exp run -S` writes either for the other.
    """
    return json.dumps(_normal(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _normal(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    return value
