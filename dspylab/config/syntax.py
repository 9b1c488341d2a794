"""What is wrong with a text that is no YAML, in words that help its author."""

from __future__ import annotations

import re
from typing import Final

import yaml

from dspylab.config.defect import Defect


class SyntaxProblem(Exception):  # it never leaves the package
    """The text can not be read on; carries why."""

    def __init__(self, defect: Defect) -> None:
        super().__init__(defect.problem)
        self.defect = defect


#: What YAML does not allow in a text, escaped or not; the parser does not say in which line it stands.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_CONFLICT = re.compile(r"^(?:<{7}|={7}|>{7})(?: |$)", re.MULTILINE)

_INDENTATION = "the line is not indented like the lines that it belongs to"
_ALIGN = "align it with them, and put text that holds ': ' or ' #' in quotes"
#: What the parser says, to what it means and what to do. `{line}` is where the thing began.
_EXPLANATIONS: Final = {
    "mapping values are not allowed": ("a ':' stands where none can be", _ALIGN),
    "could not find expected ':'": ("the line is neither 'key: value' nor '- item'", "write key: value"),
    "did not find expected ',' or ']'": (
        "the list that begins with [ in line {line} is not closed",
        "separate items with commas and close it with ]",
    ),
    "did not find expected ',' or '}'": (
        "the mapping that begins with {{ in line {line} is not closed",
        "separate entries with commas and close it with }",
    ),
    "found unexpected end of stream": ("the quotes that open in line {line} are not closed", "close them"),
    "found unexpected document indicator": (
        "the quotes that open in line {line} are not closed",
        "close them",
    ),
    "did not find expected '-' indicator": (_INDENTATION, _ALIGN),
    "did not find expected key": (_INDENTATION, _ALIGN),
    "did not find expected <document start>": (_INDENTATION, "keep one mapping of keys to a file"),
    "found unknown escape character": (
        "a backslash in double quotes begins an escape, and this is none",
        "use single quotes, or write the backslash twice",
    ),
    "found invalid Unicode character escape code": (
        "the escape stands for no character",
        "write the character itself",
    ),
    "did not find expected hexdecimal number": (
        "the escape is not complete",
        "use single quotes, or write the backslash twice",
    ),
    "did not find expected node content": ("a value is missing", "write it, or close the brackets"),
    "found undefined tag handle": ("the tag is not defined", "take it out, or put text with ! in quotes"),
    "found incompatible YAML document": ("the %YAML line asks for an unknown version", "take it out"),
    "found duplicate %YAML directive": ("there are two %YAML lines", "take them out"),
    "block sequence entries are not allowed": (
        "a '- item' stands where none can be",
        "put the list on lines of its own",
    ),
}


def find_control_character(text: str) -> Defect | None:
    """The first character that can not stand in YAML."""
    found = _FORBIDDEN.search(text)
    if found is None:
        return None
    line = text.count("\n", 0, found.start()) + 1
    problem = f"holds the control character U+{ord(found[0]):04X}"
    return Defect((), problem, "take it out, or save the file as plain UTF-8 text", line)


def explain_syntax(error: yaml.YAMLError, text: str) -> Defect:
    """Says what the parser could not read, and where."""
    conflict = _CONFLICT.search(text)
    if conflict is not None:
        line = text.count("\n", 0, conflict.start()) + 1
        return Defect((), "a merge conflict is not resolved", "resolve it, and take its markers out", line)
    problem = str(getattr(error, "problem", None) or error).strip()
    mark = getattr(error, "problem_mark", None)
    context = getattr(error, "context_mark", None)
    line = mark.line + 1 if mark is not None else 1
    began = context.line + 1 if context is not None else line
    lines = text.splitlines() or [""]
    if problem.startswith(
        ("found character that cannot start", "found a tab character", "found character '")
    ):
        return _bad_start(lines[min(line, len(lines)) - 1], mark.column if mark is not None else 0, line)
    for said, (meaning, remedy) in _EXPLANATIONS.items():
        if problem.startswith(said):
            # These are noticed at the end of the text, long after the place to mend.
            at_begin = problem.startswith(("could not find expected ':'", "found unexpected"))
            place = began if at_begin else min(line, len(lines))
            return Defect((), f"is no YAML: {meaning.format(line=began)}", remedy, place)
    return Defect((), f"is no YAML: {problem}", "correct the line", min(line, len(lines)))


def _bad_start(line_text: str, column: int, line: int) -> Defect:
    character = line_text[column : column + 1]
    if character == "\t" or "\t" in line_text[: len(line_text) - len(line_text.lstrip())]:
        return Defect((), "is no YAML: a tab indents the line", "indent with spaces", line)
    return Defect((), f"is no YAML: a value can not begin with {character!r}", "put it in quotes", line)
