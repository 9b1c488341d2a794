"""Whether the matrix names axes that exist and values that they can have. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dspylab.config.defect import Defect
from dspylab.config.models import REF_PATTERN, Model
from dspylab.config.sections import MatrixPart, Sections
from dspylab.config.values import as_text, by_text, canonical
from dspylab.config.wording import Address, choose, listed, plain, shown

ADAPTERS: Final = ("chat", "json", "xml", "compact")
NO_OPTIMIZER: Final = "none"
#: Most runs of a matrix, before exclude. DVC needs minutes for a few hundred stages.
MAX_RUNS: Final = 100_000
#: Most comparisons of a run with an entry of exclude.
_MAX_COMPARISONS: Final = 10_000_000

#: The axes of a matrix that are no argument of the program and no setting of a model.
NAMED_AXES: Final = ("model", "compile_model", "optimizer", "adapter", "seed")
_FREE_AXIS: Final = re.compile(r"(program|lm)\.[A-Za-z_][A-Za-z0-9_]*")
#: Request settings that are the engine's business, to where they belong.
_ENGINES: Final = {
    "api_key": "name the key's variable in api_key_env",
    "base_url": "use api_base",
    "timeout": "use timeout_s",
    "max_retries": "use num_retries",
    "stream_options": "take it out: usage is always asked for",
    "messages": "take it out: the program makes the prompt",
    "prompt": "take it out: the program makes the prompt",
}
#: Those that may be fixed for a model, but not vary from run to run.
_FIXED: Final = {
    "headers": "set them under params of a second model",
    "extra_headers": "set them under params of a second model",
    "default_headers": "set them under params of a second model",
    "n": "take it out: one reply is scored",
}
_OWN_KEYS: Final = ("temperature", "max_tokens")


def check_settings(params: Mapping[str, Any], address: Address) -> Iterator[Defect]:
    """Checks the names of request settings under `params` of a model."""
    for name in params:
        if name in Model.model_fields:
            yield Defect(
                (*address, name), "is a key of the model itself", f"move it up, out of params: {name}: …"
            )
        elif name in _ENGINES:
            yield Defect((*address, name), "is no request setting", _ENGINES[name])


def check_adapter(adapter: Any, address: Address) -> Iterator[Defect]:
    """Checks the name of an adapter."""
    if not isinstance(adapter, str):
        yield Defect(
            address, f"must be the name of an adapter, not {shown(adapter)}", f"use {listed(ADAPTERS)}"
        )
    elif adapter not in ADAPTERS and re.search(REF_PATTERN, adapter) is None:
        otherwise = f"use {listed(ADAPTERS)}, or path:name such as program.py:Adapter"
        yield Defect(address, f"there is no adapter {shown(adapter)}", choose(adapter, ADAPTERS, otherwise))


def check_matrix(matrix: MatrixPart, sections: Sections) -> Iterator[Defect]:
    """Checks the matrix against the ids of the file.

    Args:
        matrix: The matrix.
        sections: The file that it is part of.

    Yields:
        What is wrong.
    """
    for axis, values in matrix.axes.items():
        seen: set[str] = set()
        for position, value in enumerate(values):
            address: Address = ("matrix", axis, position)
            text = canonical(value)
            if text in seen:
                yield Defect(address, f"{shown(value)} stands twice", "take one of the two out")
            seen.add(text)
            yield from _check_value(axis, value, address, sections)
        if axis.startswith("lm."):
            yield from _check_setting(axis, ("matrix", axis))
    known = _known_values(matrix, sections)
    for position, rule in matrix.exclude.items():
        yield from _check_exclude(rule, ("matrix", "exclude", position), known)
    for position, entry in matrix.include.items():
        yield from _check_include(entry, ("matrix", "include", position), matrix, sections)
    yield from _check_size(matrix, sections)
    yield from _check_compile_model(matrix)


def check_coordinates(
    rule: Mapping[str, Any], address: Address, known: Mapping[str, Mapping[str, Any] | None]
) -> Iterator[Defect]:
    """Checks coordinates that stand for runs: axis to a value, or to a list that means any of its items.

    Args:
        rule: The coordinates.
        address: Where they stand.
        known: Axis to its values by their canonical text; None if they are not known.
    """
    for axis, value in rule.items():
        if axis not in known:
            yield Defect((*address, axis), "is no axis of this matrix", choose(axis, sorted(known)))
            continue
        values = known[axis]
        if values is None or canonical(value) in values:
            continue
        for item in value if isinstance(value, list) and value else [value]:
            if canonical(item) not in values:
                remedy = choose(item if isinstance(item, str) else "", map(as_text, values.values()))
                yield Defect((*address, axis), f"the axis has no value {plain(as_text(item))}", remedy)


def optimizers_used(matrix: MatrixPart) -> list[str]:
    """Ids of the optimizers that runs have, `none` left out."""
    values = [
        *matrix.axes.get("optimizer", []),
        *(entry.get("optimizer") for entry in matrix.include.values()),
    ]
    return list(dict.fromkeys(value for value in values if isinstance(value, str) and value != NO_OPTIMIZER))


def _check_value(axis: str, value: Any, address: Address, sections: Sections) -> Iterator[Defect]:
    """Checks one value of an axis."""
    if axis in ("model", "compile_model"):
        yield from _check_id("model", value, sections.models, address)
    elif axis == "optimizer" and value != NO_OPTIMIZER:
        yield from _check_id("optimizer", value, sections.optimizers, address)
    elif axis == "adapter":
        yield from check_adapter(value, address)
    elif axis == "seed" and not _is_whole(value):
        yield Defect(address, f"a seed must be a whole number, not {shown(value)}", "write one number")
    elif axis == "lm.temperature" and not _is_bounded(value):
        yield Defect(address, f"a temperature must be a number from 0 on, not {shown(value)}", "correct it")
    elif axis == "lm.max_tokens" and not (_is_whole(value) and value > 0):
        yield Defect(address, f"must be a whole number above 0, not {shown(value)}", "correct it")


def _check_id(what: str, value: Any, known: Mapping[str, Any] | None, address: Address) -> Iterator[Defect]:
    if not isinstance(value, str):
        yield Defect(
            address, f"must be the id of one {what}, not {shown(value)}", f"write the id of one {what}"
        )
    elif known is not None and value not in known:
        yield Defect(
            address,
            f"there is no {what} {shown(value)}",
            choose(value, known) if known else f"add one under {what}s",
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_bounded(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0


def _check_setting(axis: str, address: Address) -> Iterator[Defect]:
    """Whether a request setting may vary from run to run."""
    name = axis.removeprefix("lm.")
    if name in _ENGINES or name in _FIXED:
        yield Defect(address, "can not be an axis", {**_ENGINES, **_FIXED}[name])
    elif name in Model.model_fields and name not in _OWN_KEYS:
        yield Defect(
            address, "can not be an axis: it is no request setting", "make a second entry under models"
        )


def _known_values(matrix: MatrixPart, sections: Sections) -> dict[str, dict[str, Any] | None]:
    """Axis to its values by their canonical text; None if they are not known."""
    return by_text({"model": sections.models} | {name: matrix.axes.get(name) for name in matrix.named})


def _check_exclude(
    rule: Mapping[str, Any], address: Address, known: Mapping[str, Mapping[str, Any] | None]
) -> Iterator[Defect]:
    if not rule:
        yield Defect(address, "is empty, so it excludes nothing", "name an axis and a value, or take it out")
    yield from check_coordinates(rule, address, known)


def _check_include(
    entry: Mapping[str, Any], address: Address, matrix: MatrixPart, sections: Sections
) -> Iterator[Defect]:
    if not entry:
        yield Defect(address, "is empty", "name the coordinates of a run, or take it out")
    for axis, value in entry.items():
        if axis not in NAMED_AXES and not _FREE_AXIS.fullmatch(axis):
            otherwise = f"the axes are: {listed(NAMED_AXES)}, program.<argument>, lm.<setting>"
            remedy = choose(axis, [*NAMED_AXES, *sorted(matrix.named)], otherwise)
            yield Defect((*address, axis), "unknown axis", remedy)
            continue
        yield from _check_value(axis, value, (*address, axis), sections)
        if axis.startswith("lm."):
            yield from _check_setting(axis, (*address, axis))


def _check_size(matrix: MatrixPart, sections: Sections) -> Iterator[Defect]:
    models = {} if "model" in matrix.named else {"model": list(sections.models or ())}
    runs = math.prod(len(values) or 1 for values in (*matrix.axes.values(), *models.values()))
    if runs > MAX_RUNS:
        yield Defect(
            ("matrix",), f"the matrix has {runs:,} runs", f"stay below {MAX_RUNS:,}: take axes or values out"
        )
    elif runs * len(matrix.exclude) > _MAX_COMPARISONS:
        problem = f"{len(matrix.exclude):,} entries for {runs:,} runs are too many"
        yield Defect(
            ("matrix", "exclude"), problem, "write fewer: an entry may list several values of an axis"
        )


def _check_compile_model(matrix: MatrixPart) -> Iterator[Defect]:
    is_known = "optimizer" not in matrix.named or "optimizer" in matrix.axes
    if "compile_model" in matrix.axes and is_known and not optimizers_used(matrix):
        problem = "varies the model that optimizers compile with, but no run has an optimizer"
        yield Defect(("matrix", "compile_model"), problem, "add the axis optimizer, or take this one out")
