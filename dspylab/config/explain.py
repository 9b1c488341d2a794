"""What the JSON Schema and pydantic refuse, in words for the person who edits the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from jsonschema import Draft202012Validator
from pydantic import ValidationError

from dspylab.config.defect import Defect
from dspylab.config.models import DASK_PATTERN, ID_PATTERN, MODEL_PATTERN, REF_PATTERN
from dspylab.config.schema import experiment_schema
from dspylab.config.wording import Address, choose, listed, plain, shown

#: A `jsonschema.ValidationError`. Its attributes are typed as if each could be unset, which none is.
Refusal = Any

#: Most findings of the schema in one report: whoever mends a hundred runs the command again.
MOST_DEFECTS: Final = 100

_TYPES: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a mapping (key: value)",
    "array": "a list",
    "null": "null",
}
#: What YAML 1.1 read as true and false, and YAML 1.2 reads as text.
_OLD_BOOLEANS: Final = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
#: Section to the key that a bare text in its place was meant for: `mini: openai/gpt-4o-mini`.
_MAIN_KEYS: Final = {
    "Model": "model", "Metric": "type", "Optimizer": "type", "Program": "path", "Dataset": "path",
    "Split": "train",
}  # fmt: skip
#: Pattern to what a value that does not match it fails to be, and what to write.
_PATTERNS: Final = {
    DASK_PATTERN: (
        "is no address of a Dask scheduler",
        "write tcp://host:8786, the path of a scheduler file (.json), or local:4",
    ),
    ID_PATTERN: ("is no id", "use letters, digits, - and _, and begin with a letter or digit"),
    MODEL_PATTERN: (
        "names no model",
        "write provider/model, such as openai/gpt-4o-mini, or local/<name> or local:<file.gguf>",
    ),
    REF_PATTERN: ("is no reference", "write path:name, such as program.py:helpful, or module:name"),
}
_NAME = ("is no name", "use letters, digits and _, and begin with a letter")
#: Required key to a value that it may have; the other required keys begin a section.
_EXAMPLES: Final = {
    "name": "triage", "model": "openai/gpt-4o-mini", "inputs": "[question]", "type": "exact_match",
    "train": "0.3", "input": "0.15", "output": "0.60",
}  # fmt: skip
_BOUNDS: Final = {
    "minimum": "must be at least",
    "maximum": "must be at most",
    "exclusiveMinimum": "must be greater than",
    "exclusiveMaximum": "must be less than",
}


def schema_defects(data: Any) -> list[Defect]:
    """Validates data with the JSON Schema of the experiment file.

    Args:
        data: The file as plain data.

    Returns:
        What is wrong, each thing once; no more than MOST_DEFECTS of them.
    """
    validator = Draft202012Validator(experiment_schema())
    defects = (defect for error in validator.iter_errors(data) for defect in _explain(error, data))
    return list(dict.fromkeys(islice(defects, MOST_DEFECTS)))


def value_defects(value: Any, schema: Mapping[str, Any], address: Address) -> Iterator[Defect]:
    """Validates a value of the file with a JSON Schema of its own.

    Args:
        value: The value.
        schema: What it may be.
        address: Its address.

    Yields:
        What is wrong.
    """
    for error in Draft202012Validator(schema).iter_errors(value):
        for defect in _explain(error, value):
            yield replace(defect, address=(*address, *defect.address))


def model_defects(error: ValidationError) -> list[Defect]:
    """What pydantic still refuses after the schema has passed: its patterns take no line end at the end."""
    defects = []
    for detail in error.errors(include_url=False):
        pattern = detail.get("ctx", {}).get("pattern")
        problem, remedy = _PATTERNS.get(pattern, _NAME) if pattern else ("can not be used", detail["msg"])
        address = tuple(part for part in detail["loc"] if part != "[key]")
        defects.append(Defect(address, f"{shown(detail['input'])} {problem}", remedy))
    return defects


def _explain(error: Refusal, data: Any) -> Iterator[Defect]:
    address = tuple(error.absolute_path)
    keyword = str(error.validator)
    if keyword == "anyOf":
        yield from _alternatives(error, data)
    elif keyword == "additionalProperties":
        yield from _unknown_keys(error, address, data)
    elif keyword == "required":
        yield from _missing_keys(error, address)
    elif keyword == "type":
        yield _wrong_type(error, address)
    elif "propertyNames" in list(error.absolute_schema_path)[-2:]:
        yield _bad_name(error, address)
    else:
        yield _wrong_value(error, address, keyword)


def _alternatives(error: Refusal, data: Any) -> Iterator[Defect]:
    """What is no null was meant for the section beside it; of several kinds, for the one of its type."""
    branches: dict[Any, list[Refusal]] = {}
    for cause in error.context or ():
        if cause.validator != "type" or cause.validator_value != "null":
            branches.setdefault(cause.relative_schema_path[0], []).append(cause)
    fitting = [
        causes
        for causes in branches.values()
        if not any(cause.validator == "type" and not cause.relative_path for cause in causes)
    ]
    for causes in fitting or branches.values():
        for cause in causes:
            yield from _explain(cause, data)


def _unknown_keys(error: Refusal, address: Address, data: Any) -> Iterator[Defect]:
    known = [*error.schema.get("properties", {})]
    patterns = error.schema.get("patternProperties", {})
    title = str(error.schema.get("title"))
    candidates = known + (_free_axes(data) if title == "Matrix" else [])
    if title == "Model":
        otherwise = f"put request settings under params; the other keys are: {listed(known)}"
    elif title == "Matrix":
        otherwise = f"the axes are: {listed(known)}, program.<argument>, lm.<setting>"
    else:
        otherwise = f"the keys here are: {listed(known)}"
    for key in error.instance:
        if key not in known and not any(re.search(pattern, key) for pattern in patterns):
            yield Defect((*address, key), "unknown key", choose(key, candidates, otherwise))


def _free_axes(data: Any) -> list[str]:
    """The axes that a misspelt one may have been, beside those with a name of their own."""
    program = data.get("program") if isinstance(data, dict) else None
    args = program.get("args") if isinstance(program, dict) else None
    return ["lm.temperature", "lm.max_tokens", *(f"program.{name}" for name in (args or ()))]


def _missing_keys(error: Refusal, address: Address) -> Iterator[Defect]:
    for key in error.validator_value:
        if key not in error.instance:
            example = _EXAMPLES.get(key)
            remedy = f"add {key}: {example}" if example else f"add the section {key}:"
            yield Defect(address, f"{key} is missing", remedy)


def _wrong_type(error: Refusal, address: Address) -> Defect:
    value, wanted = error.instance, error.validator_value
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    kind = next(name for name in names if name != "null")
    words = " or ".join(_TYPES[name] for name in names)
    if value is None:
        is_optimizer = address[:2] == ("matrix", "optimizer")
        remedy = "write none for no optimizer" if is_optimizer else "give it one, or take it out"
        return Defect(address, f"has no value; it must be {words}", remedy)
    remedy = _right_type(kind, value, str(error.schema.get("title")))
    return Defect(address, f"must be {words}, not {shown(value)}", remedy)


def _right_type(kind: str, value: Any, title: str) -> str:
    """What to write so that a value gets the type that it must have."""
    if isinstance(value, str):
        if kind == "boolean":
            return f"write {_OLD_BOOLEANS.get(value.casefold(), 'true or false')}"
        if kind in ("integer", "number"):
            spells_one = re.fullmatch(r"[-+]?[0-9.]+", value) is not None
            return "take the quotes away" if spells_one else "write digits, without a unit"
    if kind == "string":
        return "put it in quotes" if isinstance(value, bool | int | float) else "write one text"
    if kind == "array":
        return "write a list: [a, b]" if isinstance(value, dict) else f"write [{plain(str(value))}]"
    if kind == "object":
        return _right_mapping(value, title)
    return f"write {_TYPES[kind]}"


def _right_mapping(value: Any, title: str) -> str:
    if isinstance(value, str) and title in _MAIN_KEYS:
        return f"write {{{_MAIN_KEYS[title]}: {shown(value)}}}"
    if isinstance(value, list):
        return "write 'key: value' lines instead of '- item' lines: everything is addressed by its key"
    return "write 'key: value' lines below it"


def _bad_name(error: Refusal, address: Address) -> Defect:
    name = str(error.instance)
    if error.validator == "maxLength":
        remedy = f"use at most {error.validator_value}"
        return Defect((*address, name), f"the id is {len(name)} characters long", remedy)
    problem, remedy = _PATTERNS.get(str(error.validator_value), _NAME)
    return Defect((*address, name), f"{shown(name)} {problem}", remedy)


def _wrong_value(error: Refusal, address: Address, keyword: str) -> Defect:
    value, limit = error.instance, error.validator_value
    if keyword in _BOUNDS:
        return Defect(address, f"{_BOUNDS[keyword]} {limit}, not {value}", "correct the number")
    if keyword == "enum":
        names = [str(name) for name in limit if name is not None]
        return Defect(address, f"{shown(value)} is not known here", choose(str(value), names))
    if keyword == "pattern":
        problem, remedy = _PATTERNS.get(str(limit), _NAME)
        return Defect(address, f"{shown(value)} {problem}", remedy)
    if keyword == "maxLength":
        return Defect(address, f"the text is {len(value)} characters long", f"use at most {limit}")
    return Defect(address, "is empty", "put at least one entry into it")
