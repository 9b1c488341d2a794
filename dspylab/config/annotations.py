"""What the annotation or the default of a parameter says of its values, as a JSON Schema. Pure."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, Final

#: A JSON Schema of one value.
Schema = Mapping[str, Any]

_TYPES: Final = {
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "str": "string",
    "list": "array",
    "dict": "object",
}
_NULL: Final = "null"
#: Annotations that may say what is held, too. Other ones of such a name are of things that YAML has not.
_HOLDERS: Final = frozenset({"list", "dict"})


def declared(arguments: ast.arguments) -> dict[str, Schema]:
    """What a function's own source says of the values of its parameters.

    Args:
        arguments: Of the function.

    Returns:
        Names of the parameters that it says something certain of, by annotation or else by default.
    """
    named = [*arguments.posonlyargs, *arguments.args]
    defaults = dict(zip(reversed(named), reversed(arguments.defaults), strict=False))
    defaults |= {
        argument: default
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is not None
    }
    found = {}
    for argument in [*named, *arguments.kwonlyargs]:
        default = defaults.get(argument)
        value = default.value if isinstance(default, ast.Constant) else ...
        if argument.annotation is not None:
            schema = annotated(ast.unparse(argument.annotation), is_optional=value is None)
        else:
            schema = _named(type(value).__name__)
        if schema is not None:
            found[argument.arg] = schema
    return found


def annotated(annotation: str, *, is_optional: bool) -> Schema | None:
    """What an annotation says, as far as it is made of what YAML has; None for all others.

    Args:
        annotation: As it is written.
        is_optional: Whether null is taken in any case, since it is the default.
    """
    try:
        expression = ast.parse(annotation, mode="eval").body
    except SyntaxError:
        return None
    parts = [_single(part) for part in _alternatives(expression)]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    types = [name for part in known for name in part.get("type", [])]
    literals = [value for part in known for value in part.get("enum", [])]
    if not literals and set(types) <= {_NULL}:
        return None  # nobody means that of a parameter
    if is_optional and _NULL not in types:
        types.append(_NULL)
    if not literals:
        return {"type": types}
    return {"enum": [*literals, *(None for _ in types)]} if set(types) <= {_NULL} else None


def _alternatives(expression: ast.expr) -> list[ast.expr]:
    """The members of a union, however it is written."""
    match expression:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return [*_alternatives(left), *_alternatives(right)]
        case ast.Subscript(value=value, slice=inner) if _name(value) == "Optional":
            return [*_alternatives(inner), ast.Constant(None)]
        case ast.Subscript(value=value, slice=ast.Tuple(elts=members)) if _name(value) == "Union":
            return [each for member in members for each in _alternatives(member)]
        case ast.Constant(value=str(text)):
            try:
                return _alternatives(ast.parse(text, mode="eval").body)
            except SyntaxError:
                return [expression]
    return [expression]


def _single(expression: ast.expr) -> Schema | None:
    match expression:
        case ast.Constant(value=None):
            return {"type": [_NULL]}
        case ast.Subscript(value=value, slice=inner) if _name(value) == "Literal":
            members = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            constants = [member.value for member in members if isinstance(member, ast.Constant)]
            values = [value for value in constants if value is None or type(value).__name__ in _TYPES]
            return {"enum": values} if len(values) == len(members) else None
        case ast.Subscript(value=value):
            name = _name(value).lower()
            return _named(name) if name in _HOLDERS else None  # what it holds is left to whoever takes it
    return _named(_name(expression))


def _named(name: str) -> Schema | None:
    return {"type": [_TYPES[name]]} if name in _TYPES else None


def _name(expression: ast.expr) -> str:
    """The last part of a dotted name; empty for what is no name."""
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else ""
