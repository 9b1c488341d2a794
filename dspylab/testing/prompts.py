"""Reads what a DSPy prompt asks for, and makes values that satisfy it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from xml.etree import ElementTree as ET

AdapterKind = Literal["chat", "json", "xml", "plain"]

_OUTPUT_LIST = re.compile(r"^Your output fields are:\n((?:.*\n)*?)(?=All interactions|\Z)", re.MULTILINE)
_LISTED_FIELD = re.compile(r"^\d+\. `(\w+)` \(", re.MULTILINE)
_CHAT_TEMPLATE = re.compile(r"^\[\[ ## (\w+) ## \]\]\n(.*)$", re.MULTILINE)
_XML_TEMPLATE = re.compile(r"^<(\w+)>\n(.*)\n</\1>$", re.MULTILINE)
_XML_NESTED = re.compile(r"^<(\w+)>.*</\1>$", re.MULTILINE)
_JSON_STRUCTURE = "Outputs will be a JSON object with the following fields."
_NOTE = "# note: the value you produce "
_NOTED_VALUES = {
    "must be True or False": True,
    "must be a single int value": 1,
    "must be a single float value": 1.0,
}
_DEEP = 4


def adapter_of(system: str, user: str) -> AdapterKind:
    """Tell which of DSPy's adapters wrote a prompt.

    Args:
        system: Text of the system message.
        user: Text of the last user message.

    Returns:
        ``plain`` when it was none of them.
    """
    if _JSON_STRUCTURE in system or "Respond with a JSON object" in user:
        return "json"
    if "[[ ## completed ## ]]" in system + user:
        return "chat"
    if "wrapped in XML tags" in user:
        return "xml"
    return "plain"


def input_field(user: str, name: str) -> str | None:
    """Find the value of an input field in a user message.

    Knows ``[[ ## name ## ]]`` blocks, ``<name>`` elements and ``name: value`` (any case; the value goes on
    until a line that starts with another ``word:``).

    Args:
        user: Text of the user message.
        name: Name of the field.

    Returns:
        The value without the white space around it; None when the message has no such field.
    """
    word = re.escape(name)
    for pattern in (
        rf"^\[\[ ## {word} ## \]\]\n(.*?)(?=\n\n\[\[ ## |\n\nRespond with |\Z)",
        rf"^<{word}>\n(.*?)\n</{word}>$",
        rf"^(?i:{word}): *(.*?)(?=\n\w[\w ]*: |\Z)",
    ):
        found = re.search(pattern, user, re.MULTILINE | re.DOTALL)
        if found:
            return found.group(1).strip()
    return None


def default_outputs(system: str) -> dict[str, Any]:
    """Make a well-formed value for every output field that the system message of a DSPy prompt declares.

    Args:
        system: Text of the system message.

    Returns:
        Field name to value, in the order of the signature; empty when the prompt is not DSPy's.
    """
    listed = _OUTPUT_LIST.search(system)
    if listed is None:
        return {}
    templates = _templates(system)
    return {name: _value_for(templates.get(name, "")) for name in _LISTED_FIELD.findall(listed.group(1))}


def demonstrated_outputs(replies: Sequence[str]) -> str | None:
    """Find how a prompt that explains nothing wants to be answered.

    Args:
        replies: Texts of its assistant messages.

    Returns:
        The last of them that is a JSON object; None without one.
    """
    for reply in reversed(replies):
        try:
            if isinstance(json.loads(reply), dict):
                return reply
        except ValueError:
            continue
    return None


def _templates(system: str) -> dict[str, str]:
    """Map each field to the line that shows its place and type in the prompt's structure."""
    if _JSON_STRUCTURE in system:
        structure = system.split(_JSON_STRUCTURE, 1)[1].lstrip()
        fields, _ = json.JSONDecoder().raw_decode(structure)
        return {name: str(template) for name, template in fields.items()}
    nested = {found.group(1): found.group(0) for found in _XML_NESTED.finditer(system)}
    return nested | dict(_XML_TEMPLATE.findall(system)) | dict(_CHAT_TEMPLATE.findall(system))


def _value_for(template: str) -> Any:
    """Make the value that a template such as ``{n}  # note: … must be a single int value`` asks for."""
    if template.startswith("<"):
        return _value_of_element(ET.fromstring(template)) or {}  # noqa: S314 - our own prompt
    _, _, note = template.partition(_NOTE)
    if note.startswith("must adhere to the JSON schema: "):
        return sample(json.loads(note.partition(": ")[2]))
    if " one of: " in note:
        return note.partition(" one of: ")[2].split("; ")[0]
    return _NOTED_VALUES.get(note, "ok")


def _value_of_element(element: ET.Element) -> Any:
    """Turn an XML structure with dots for values into a value; "1" reads as a string and as a number."""
    children = list(element)
    if not children:
        return "1" if element.tag == "item" or element.text != "..." else None
    if all(child.tag == "item" for child in children):
        return [_leaf(child) for child in children]
    return {child.tag: _leaf(child) for child in children}


def _leaf(element: ET.Element) -> Any:
    return _value_of_element(element) if len(element) else "1"


def sample(schema: Mapping[str, Any]) -> Any:
    """Make the smallest friendly value that a JSON schema allows.

    Strings are ``"ok"``, enumerations their first member, numbers 1 or their minimum, booleans true, arrays
    one item, objects all their properties. Follows ``$ref`` into the schema's own definitions; schemas that
    contain themselves end in empty arrays and nulls.

    Args:
        schema: A JSON schema, as ``response_format`` carries it.

    Returns:
        A JSON value.
    """
    return _sample(schema, schema, 0)


def _sample(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    if "$ref" in schema:
        return _sample(_resolve(schema["$ref"], root), root, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return _sample(_choose(schema[key], depth), root, depth + 1)
    if "allOf" in schema:
        merged: dict[str, Any] = {}
        for part in schema["allOf"]:
            merged |= _resolve(part["$ref"], root) if "$ref" in part else part
        return _sample(merged, root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _sample_of(kind[0] if isinstance(kind, list) else kind, schema, root, depth)


def _sample_of(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    if kind == "object":
        properties: Mapping[str, Any] = schema.get("properties", {})
        wanted = schema.get("required", []) if depth > _DEEP else properties
        return {name: _sample(properties.get(name, {}), root, depth + 1) for name in wanted}
    if kind == "array":
        if "prefixItems" in schema:
            return [_sample(item, root, depth + 1) for item in schema["prefixItems"]]
        count = max(schema.get("minItems", 0), 0 if depth > _DEEP or schema.get("maxItems") == 0 else 1)
        return [_sample(schema.get("items", {}), root, depth + 1) for _ in range(count)]
    if kind in ("integer", "number"):
        lowest = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        return min(lowest, schema.get("maximum", lowest))
    if kind == "string":
        return "ok".ljust(schema.get("minLength", 0), "k")[: schema.get("maxLength")]
    return {"boolean": True, "null": None}[kind]


def _choose(choices: list[Mapping[str, Any]], depth: int) -> Mapping[str, Any]:
    """Prefer a value to null, except deep down, where null is what ends a recursion."""
    nulls = [choice for choice in choices if choice.get("type") == "null"]
    values = [choice for choice in choices if choice.get("type") != "null"]
    return (nulls + values if depth > _DEEP else values + nulls)[0]


def _resolve(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    target: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        target = target[step.replace("~1", "/").replace("~0", "~")] if step else target
    found: Mapping[str, Any] = target
    return found


def format_outputs(outputs: Mapping[str, Any], adapter: AdapterKind) -> str:
    """Write output fields as the model of a DSPy program would.

    Args:
        outputs: Field name to value.
        adapter: Who will read it; ``plain`` is read as JSON.

    Returns:
        The text of the reply.
    """
    if adapter == "chat":
        blocks = [f"[[ ## {name} ## ]]\n{_plain(value)}" for name, value in outputs.items()]
        return "\n\n".join([*blocks, "[[ ## completed ## ]]"])
    if adapter == "xml":
        return "\n\n".join(_element(name, value) for name, value in outputs.items())
    return json.dumps(outputs, ensure_ascii=False)


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _element(tag: str, value: Any) -> str:
    if isinstance(value, list):
        inner = "".join(_element("item", item) for item in value)
    elif isinstance(value, dict):
        inner = "".join(_element(name, item) for name, item in value.items())
    else:
        inner = str(value).replace("&", "&amp;").replace("<", "&lt;")
    return f"<{tag}>{inner}</{tag}>"
