"""What a program exports beside its factory: the metrics that its `metrics()` returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from dspylab.errors import ProgramError

_REMEDY = "return {name: callable}, or a list of functions, each a metric(example, prediction, trace=None)"


def named_metrics(returned: object, where: str) -> Mapping[str, Any]:
    """The metrics that a program's `metrics()` returned, by name.

    Args:
        returned: A mapping of name to callable, or a list of callables, which are named by `__name__`.
        where: Where `metrics()` is defined, for messages.

    Raises:
        ProgramError: If it is neither, if something in it is not callable or has no name, or if two have
            the same.
    """
    if isinstance(returned, Mapping):
        named = list(returned.items())
    elif isinstance(returned, list | tuple):
        named = [(_own_name(item, where), item) for item in returned]
    else:
        raise ProgramError(f"returned {kind_of(returned)}", where=where, remedy=_REMEDY)
    _refuse_others(named, where)
    return dict(named)


def kind_of(value: object) -> str:
    """What a value is, in words."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _own_name(item: object, where: str) -> str:
    name = getattr(item, "__name__", None)
    if not callable(item):
        raise ProgramError(
            f"returned a list with {kind_of(item)}, which can not be called", where=where, remedy=_REMEDY
        )
    if not (isinstance(name, str) and name.isidentifier()):
        raise ProgramError(
            f"returned a list with {name or kind_of(item)}, which has no name of its own",
            where=where,
            remedy="return {name: callable} instead",
        )
    return name


def _refuse_others(named: Iterable[tuple[object, object]], where: str) -> None:
    counts: Counter[object] = Counter()
    for name, item in named:
        counts[name] += 1
        if not isinstance(name, str):
            raise ProgramError(f"returned the name {name!r}, which is no text", where=where, remedy=_REMEDY)
        if not callable(item):
            raise ProgramError(
                f"returned {kind_of(item)} under {name!r}, which can not be called",
                where=where,
                remedy=_REMEDY,
            )
        if counts[name] > 1:
            raise ProgramError(
                f"returned two metrics called {name!r}",
                where=where,
                remedy="rename one, or return {name: callable}",
            )
