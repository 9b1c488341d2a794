"""Replace entries of a YAML mapping in its text. Every other line stays as it is, byte for byte.

A round trip through a YAML library keeps most comments, loses those between two entries when the first of
them is replaced, and takes time in proportion to the whole file: 25 s for a `dvc.lock` of 1,000 runs. Lines
do not have that problem. What can not be told by its lines is refused (`Unsplittable`), never guessed.
"""

from __future__ import annotations

import io
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter

#: Practically no folding: a command line stays on one line, where a reader looks for it.
UNFOLDED = 1_000_000
# As DVC does: its entries are ordered dicts, and in the file they are plain mappings.
RoundTripRepresenter.add_representer(OrderedDict, RoundTripRepresenter.represent_dict)
_KEY = re.compile(r"""(?P<key>[A-Za-z0-9_.@-]+|'[^'\n]*'|"[^"\\\n]*")\s*:(?=\s|$)""")
_SECTION_KEY = re.compile(r"(?P<key>[A-Za-z0-9_-]+):[ \t]*(?P<value>\{\}|null|~)?[ \t]*(#.*)?$")


class Unsplittable(Exception):
    """The text is YAML, but its entries are not one block of lines each."""


@dataclass(frozen=True, slots=True)
class Block:
    """An entry of a mapping: the half-open range of its lines. Comments above it are not part of it."""

    name: str
    start: int
    end: int


def replace(text: str, section: str | None, changes: Mapping[str, str | None]) -> str:
    """Replaces, adds and removes entries.

    Args:
        text: The file.
        section: Top-level key that holds the mapping; None for the top level itself.
        changes: Entry name to its new lines as `dump` gives them, or None to remove it. New entries go to
            the end of the mapping in the order of `changes`.

    Returns:
        The new text.

    Raises:
        Unsplittable: If entries do not stand in lines of their own.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.replace("\r\n", "\n").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    end_of_section, indent, found = _find(lines, section)
    known = {block.name: block for block in found}
    edits: list[tuple[int, int, list[str]]] = []
    for name, block in known.items():
        if name in changes:
            edits.append((block.start, block.end, _indented(changes[name], indent)))
    added = [line for name, new in changes.items() if name not in known for line in _indented(new, indent)]
    if added:
        edits.append((end_of_section, end_of_section, added))
    for start, end, new_lines in sorted(edits, reverse=True):
        lines[start:end] = new_lines
    return newline.join([*lines, ""])


def blocks(text: str, section: str | None) -> dict[str, Block]:
    """The entries of a mapping by name.

    Raises:
        Unsplittable: As `replace`.
    """
    return {block.name: block for block in _find(text.split("\n"), section)[2]}


def dump(name: str, value: Mapping[str, Any], *, depth: int = 0, width: int = UNFOLDED) -> str:
    """One entry as block-style YAML 1.2, the way DVC writes it.

    Args:
        name: Name of the entry.
        value: Its value: plain data.
        depth: How many mappings the entry will be nested in; only decides where lines fold.
        width: Column at which lines fold.

    Returns:
        Lines without indentation of their own.
    """
    nested: Mapping[str, Any] = {name: value}
    for level in range(depth):
        nested = {f"level{level}": nested}
    writer = YAML()
    writer.default_flow_style = False
    writer.width = width
    stream = io.StringIO()
    writer.dump(nested, stream)
    # Not splitlines(): characters inside of strings end lines for it that do not for YAML.
    lines = stream.getvalue().split("\n")[depth:]
    return "\n".join(line[2 * depth :] for line in lines)


def inline(values: Iterable[str]) -> CommentedSeq:
    """A list that `dump` writes in one line."""
    sequence = CommentedSeq(values)
    sequence.fa.set_flow_style()
    return sequence


def load(text: str) -> Any:
    """Plain data of a YAML text, ten times faster than ruamel.yaml has it.

    As this is YAML 1.1 and DVC's is 1.2, it serves for comparing data that is all read here, and for texts.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(text, Loader=loader)  # noqa: S506 - both are safe loaders


def _find(lines: list[str], section: str | None) -> tuple[int, int, list[Block]]:
    """Where new entries go, how deep entries are indented, and the entries. Adds an absent section."""
    if section is None:
        start = next((number + 1 for number, line in enumerate(lines) if line.startswith("---")), 0)
        return _entries(lines, start, 0)
    for number, line in enumerate(lines):
        match = _SECTION_KEY.match(line)
        if match and match["key"] == section:
            if match["value"]:
                lines[number] = f"{section}:"
            return _entries(lines, number + 1, _depth_of_first(lines, number + 1) or 2)
        if line.startswith((f"{section}:", f'"{section}"', f"'{section}'")):
            raise Unsplittable
    while lines and not lines[-1].strip():
        lines.pop()
    lines.append(f"{section}:")
    return len(lines), 2, []


def _depth_of_first(lines: list[str], start: int) -> int:
    contents = ((_depth(line), line.strip()) for line in lines[start:])
    return next((depth for depth, content in contents if content and not content.startswith("#")), 0)


def _entries(lines: list[str], start: int, indent: int) -> tuple[int, int, list[Block]]:
    found: list[Block] = []
    end = start
    for number in range(start, len(lines)):
        depth, content = _depth(lines[number]), lines[number].strip()
        if not content or (content.startswith("#") and depth <= indent):
            continue
        if depth < indent:
            break
        if depth == indent and not (found and content.startswith("-")):
            match = _KEY.match(content)
            if not match:
                raise Unsplittable
            found.append(Block(match["key"].strip("'\""), number, number + 1))
        elif not found:
            raise Unsplittable
        end = number + 1
        found[-1] = Block(found[-1].name, found[-1].start, end)
    if len({block.name for block in found}) != len(found):
        raise Unsplittable
    return end, indent, found


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _indented(block: str | None, indent: int) -> list[str]:
    return [] if block is None else [" " * indent + line for line in block.removesuffix("\n").split("\n")]
