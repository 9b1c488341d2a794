"""YAML text as plain JSON data that remembers its lines.

Values are read the way DVC reads the same file (YAML 1.2 as ruamel.yaml has it), not the way PyYAML does:
`no` and `on` are text, `1e-3` is a number. Otherwise `dvc exp run -S` could write a value that we read as
another. What JSON can not hold (dates, NaN, keys that are no text) is a defect.

Text from anywhere is read in bounded time, memory and stack: it is parsed as a stream of events, and the
limits below hold after aliases are expanded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from dspylab.config.defect import Defect
from dspylab.config.rewriting import is_refused_in_flow, loses_quotes_in_flow
from dspylab.config.syntax import SyntaxProblem, explain_syntax, find_control_character
from dspylab.config.wording import Address, plain, shown

MAX_NODES: Final = 100_000
MAX_DEPTH: Final = 50
_MOST_DEFECTS: Final = 100
_LARGEST_INT: Final = 2**63 - 1
#: More digits than any number below the largest has, underscores included: int() takes quadratic time.
_LONGEST_INT: Final = 80

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_MERGE = "<<"

_NULL = re.compile(r"(?:~|null|Null|NULL|)")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)")
_INT = re.compile(r"(?!_)[-+]?(?:0b[0-1_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9_]+)")
_FLOAT = re.compile(
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?"
    r"(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?"
)
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file and where it stands.

    Attributes:
        value: Plain data. What an alias repeats is shared, not copied.
        line: 1-based line where the value begins.
        children: Key or position to node.
        key_lines: Key to the line where the key stands.
        size: Values in it, itself and what aliases repeat included.
        height: Levels below it.
    """

    value: Any
    line: int
    children: Mapping[str | int, Node] = field(default_factory=dict)
    key_lines: Mapping[str | int, int] = field(default_factory=dict)
    size: int = 1
    height: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML text says.

    Attributes:
        root: The whole; None when the text could not be read to its end.
        defects: What is wrong with it as YAML or as JSON data.
        unread: Addresses whose value in `root` is a stand-in, because it can not be had as JSON.
        fragile: Addresses of the outermost {} and [] in which a text would lose quotes that it needs if DVC
            wrote the file back, with the line of the first such text.
    """

    root: Node | None
    defects: tuple[Defect, ...]
    unread: frozenset[Address] = frozenset()
    fragile: Mapping[Address, int] = field(default_factory=dict)

    def line(self, address: Address) -> int:
        """1-based line of an address: of its key, or of its nearest parent that exists."""
        node, line = self.root, 1
        for part in address:
            child = None if node is None else node.children.get(part)
            if node is None or child is None:
                break
            node, line = child, node.key_lines.get(part, child.line)
        return line


def parse(text: str) -> Document:
    """Reads YAML.

    Args:
        text: Any text.

    Returns:
        The document; with defects, if anything is wrong with it.
    """
    control = find_control_character(text)
    if control is not None:
        return Document(None, (control,))
    reader = _Reader(text)
    try:
        root = reader.read()
    except SyntaxProblem as problem:
        return Document(None, (*reader.defects, problem.defect))
    except yaml.YAMLError as error:
        return Document(None, (*reader.defects, explain_syntax(error, text)))
    return Document(root, tuple(reader.defects), frozenset(reader.unread), reader.fragile)


class _Reader:
    """Builds nodes from the parser's events. Recursion is bounded by MAX_DEPTH."""

    def __init__(self, text: str) -> None:
        self.defects: list[Defect] = []
        self.unread: set[Address] = set()
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self._anchors: dict[str, Node | None] = {}
        self._count = 0
        self.fragile: dict[Address, int] = {}
        self._flow: list[Address] = []

    def read(self) -> Node:
        """Reads the only document of the stream.

        Raises:
            SyntaxProblem: If there is none, or if a limit is passed.
            yaml.YAMLError: If it is not YAML.
        """
        next(self._events)
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise SyntaxProblem(Defect((), "the file is empty", "write an experiment into it", line=1))
        if event.version is not None:
            self._defect((), event, "the line %YAML changes how values are read", "take it out")
        root = self._node(next(self._events), (), 0)
        next(self._events)
        event = next(self._events)
        if isinstance(event, yaml.DocumentStartEvent):
            raise SyntaxProblem(
                Defect((), "a second document begins", "keep one experiment to a file", line=_line(event))
            )
        return root

    def _node(self, event: Any, address: Address, depth: int) -> Node:
        self._spend(event, 1)
        if depth > MAX_DEPTH:
            self._too_deep(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            self._check_flow(event, address)
            node = Node(self._scalar(event, address), _line(event))
        else:
            self._check_collection_tag(event, address)
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            if event.flow_style:
                self._flow.append(address)
            node = (self._mapping if is_mapping else self._sequence)(event, address, depth)
            if event.flow_style:
                self._flow.pop()
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _check_flow(self, event: Any, address: Address) -> None:
        """DVC reads this file, too, and its parser refuses what newer ones take; and it writes it back."""
        if not self._flow:
            return
        if not _is_plain(event):
            if loses_quotes_in_flow(event.value) and _resolved_plain(event.value) is str:
                self.fragile.setdefault(self._flow[0], _line(event))
        elif is_refused_in_flow(event.value):
            character = "colon" if ":" in event.value else "question mark"
            problem = f"DVC can not read an unquoted value with a {character} inside {{}} or []"
            remedy = "write it without {} and [], one key a line; quotes would be lost at `dvc exp run -S`"
            self._defect(address, event, problem, remedy)

    def _alias(self, event: Any, depth: int) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            name = plain(event.anchor)
            inside = event.anchor in self._anchors
            problem = (
                "stands inside of what it repeats" if inside else f"repeats &{name}, which is not above it"
            )
            remedy = "take it out; text that begins with * needs quotes"
            raise SyntaxProblem(Defect((), f"the alias *{name} {problem}", remedy, _line(event)))
        self._spend(event, node.size)
        if depth + node.height > MAX_DEPTH:
            self._too_deep(event)
        return node

    def _sequence(self, start: Any, address: Address, depth: int) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*address, len(items)), depth + 1))
        return _collection([item.value for item in items], _line(start), dict(enumerate(items)), {})

    def _mapping(self, start: Any, address: Address, depth: int) -> Node:
        own: dict[str | int, Node] = {}
        lines: dict[str | int, int] = {}
        merged: list[Node] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, address, depth)
            if key == _MERGE and _is_plain(event):
                if merged:
                    self._defect(address, event, "<< stands twice", "write one, with a list: <<: [*a, *b]")
                merged += self._merged(next(self._events), address, depth)
                continue
            below = address if key is None else (*address, key)
            node = self._node(next(self._events), below, depth + 1)
            if key in own:
                self._defect(
                    below, event, f"stands twice, first in line {lines[key]}", "take one of the two out"
                )
            elif key is not None:
                own[key], lines[key] = node, _line(event)
        children: dict[str | int, Node] = {}
        for source in merged:
            for name, child in source.children.items():
                if children.setdefault(name, child) is child and name not in own:
                    lines[name] = source.key_lines[name]
        children.update(own)
        return _collection(
            {name: child.value for name, child in children.items()}, _line(start), children, lines
        )

    def _key(self, event: Any, address: Address, depth: int) -> str | None:
        """A key as text; None when there is no telling what it is."""
        if isinstance(event, yaml.ScalarEvent):
            self._spend(event, 1)
            self._check_flow(event, address)
            if event.anchor is not None:
                self._anchors[event.anchor] = Node(event.value, _line(event))
            if event.value != _MERGE and _resolved(event) is not str:
                what = f"the key {shown(event.value)} is no text"
                self._defect(
                    (*address, event.value), event, what, f'put it in quotes: "{plain(event.value)}"'
                )
            return str(event.value)
        node = self._node(event, address, depth + 1)
        if isinstance(node.value, str):
            return node.value
        self._defect(address, event, "a key is a list or a mapping", "write keys as plain text")
        return None

    def _merged(self, event: Any, address: Address, depth: int) -> list[Node]:
        node = self._node(event, address, depth + 1)
        sources = list(node.children.values()) if isinstance(node.value, list) else [node]
        if all(isinstance(source.value, dict) for source in sources):
            return sources
        self._defect(address, event, "<< takes a mapping or a list of mappings", "write <<: *name")
        return []

    def _scalar(self, event: Any, address: Address) -> Any:
        kind = _resolved(event)
        text: str = event.value
        if kind is str:
            if _SURROGATE.search(text):
                return self._unread(
                    address, event, "the text has half a character", "write the whole character"
                )
            return text
        if kind is None:
            return None
        if kind is bool:
            return text.lower() == "true"
        if kind in (int, float):
            return self._number(text.replace("_", ""), kind, event, address)
        return self._unread(address, event, *kind)

    def _number(self, digits: str, kind: Any, event: Any, address: Address) -> Any:
        try:
            number = _float(digits) if kind is float else _whole(digits)
        except ValueError:
            return self._unread(address, event, f"{shown(event.value)} is no number", "put text in quotes")
        if kind is float and not math.isfinite(number):
            remedy = "write a finite number, or null for none"
            return self._unread(address, event, f"{shown(event.value)} is no finite number", remedy)
        if kind is int and abs(number) > _LARGEST_INT:
            remedy = "stay below 2^63, or put it in quotes"
            return self._unread(address, event, "the number is too large", remedy)
        return number

    def _check_collection_tag(self, event: Any, address: Address) -> None:
        if event.tag not in (None, f"{_TAG}map", f"{_TAG}seq"):
            self._unread(address, event, *_unknown_tag(event.tag))

    def _spend(self, event: Any, nodes: int) -> None:
        self._count += nodes
        if self._count > MAX_NODES:
            problem = f"the file has more than {MAX_NODES:,} values, aliases expanded"
            raise SyntaxProblem(
                Defect((), problem, "move data into the dataset or the program", _line(event))
            )

    def _too_deep(self, event: Any) -> None:
        problem = f"values are nested more than {MAX_DEPTH} levels deep"
        raise SyntaxProblem(Defect((), problem, "flatten them", _line(event)))

    def _unread(self, address: Address, event: Any, problem: str, remedy: str) -> str | None:
        """Notes what JSON can not hold; gives a stand-in for it."""
        self.unread.add(address)
        self._defect(address, event, problem, remedy)
        return str(event.value) if isinstance(event, yaml.ScalarEvent) else None

    def _defect(self, address: Address, event: Any, problem: str, remedy: str) -> None:
        self.defects.append(Defect(address, problem, remedy, _line(event)))
        if len(self.defects) > _MOST_DEFECTS:
            raise SyntaxProblem(
                Defect((), "there are too many mistakes to read on", "correct the first", _line(event))
            )


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _float(digits: str) -> float:
    return float(digits.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _whole(digits: str) -> int:
    base = {"0x": 16, "0o": 8, "0b": 2}.get(digits.lstrip("+-")[:2], 10)
    return int(digits, base) if len(digits) <= _LONGEST_INT else _LARGEST_INT + 1


def _is_plain(event: Any) -> bool:
    return isinstance(event, yaml.ScalarEvent) and event.implicit[0]


def _collection(
    value: Any, line: int, children: Mapping[str | int, Node], key_lines: Mapping[str | int, int]
) -> Node:
    nodes = children.values()
    size = 1 + sum(node.size for node in nodes)
    return Node(value, line, children, key_lines, size, 1 + max((node.height for node in nodes), default=0))


def _resolved(event: Any) -> Any:
    """The type of a scalar: a Python type, None for null, or what is wrong with it and what to do."""
    if event.tag == f"{_TAG}str" or (event.tag is None and not event.implicit[0]):
        return str
    if event.tag is not None:
        return _unknown_tag(event.tag)
    return _resolved_plain(event.value)


def _resolved_plain(text: str) -> Any:
    """As `_resolved`, for a scalar without quotes."""
    for pattern, kind in ((_NULL, None), (_BOOL, bool), (_INT, int), (_FLOAT, float)):
        if pattern.fullmatch(text):
            return kind
    if _DATE.fullmatch(text):
        return f"{shown(text)} is a date", "put it in quotes"
    if text in ("=", _MERGE):
        return f"{shown(text)} has a meaning of its own in YAML", "put it in quotes"
    return str


def _unknown_tag(tag: str) -> tuple[str, str]:
    name = tag.replace(_TAG, "!!", 1)
    return f"the tag {plain(name)} is not supported", "take it out: write the value itself"
