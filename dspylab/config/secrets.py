"""Literal keys in an experiment file: it is kept in git and sent around, so there must be none in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from dspylab.config.defect import Defect
from dspylab.config.document import Document, Node
from dspylab.config.wording import Address
from dspylab.redact import UNMISTAKABLE

#: Shapes of keys and tokens that nothing else has. Bearer is also an English word.
_SHAPES: Final = re.compile(
    rf"{UNMISTAKABLE} | \b[Bb]earer\ (?=[\w.~+/=-]{{0,99}}[0-9])[\w.~+/=-]{{8,}}", re.VERBOSE
)
#: Names of keys whose value is a secret whatever it looks like.
_NAMES: Final = frozenset(
    {
        "accesskey", "accesstoken", "apikey", "apitoken", "authorization", "authtoken", "bearertoken",
        "clientsecret", "password", "passwd", "secret", "secretaccesskey", "secretkey", "token", "xapikey",
    }
)  # fmt: skip
#: A sentence under `password:` is about passwords; what is secret has no spaces in it.
_SECRET_VALUE: Final = re.compile(r"(?:(?:basic|bearer|token) +)?\S+", re.IGNORECASE)
#: Most findings of one kind: a file full of keys needs no longer list.
_MOST: Final = 50
_REMEDY: Final = (
    "take it out, put it into the environment or a .env file, "
    "and name its variable: api_key_env: OPENAI_API_KEY"
)


def find_secrets(document: Document, text: str) -> list[Defect]:
    """Finds keys, tokens and passwords in a file, comments included.

    Args:
        document: The file as data.
        text: The file as text.

    Returns:
        Where each stands; never what it is.
    """
    if document.root is None:
        return list(_in_text(text, set()))
    found = list(_in_node(document.root, (), named=False))
    return found + list(_in_text(text, {document.line(defect.address) for defect in found}))


def looks_secret(text: str) -> bool:
    """Whether a text has the shape of a key, a token, or a URL with a password."""
    return _SHAPES.search(text) is not None


def _in_node(node: Node, address: Address, *, named: bool) -> Iterator[Defect]:
    """Defects in a value; `named` when it stands under a key that names a secret."""
    if _is_secret(node.value, named=named):
        yield Defect(address, "holds what must be secret: a key, token or password", _REMEDY)
    for key, child in node.children.items():
        if isinstance(key, int):
            yield from _in_node(child, (*address, key), named=named)
        elif looks_secret(key):
            yield Defect((*address, key), "is a key or token", _REMEDY)
        else:
            name = re.sub(r"[-_\s]", "", key.rpartition(".")[2]).casefold()
            yield from _in_node(child, (*address, key), named=name in _NAMES)


def _is_secret(value: Any, *, named: bool) -> bool:
    if isinstance(value, str):
        return looks_secret(value) or (named and _SECRET_VALUE.fullmatch(value) is not None)
    return named and isinstance(value, int | float) and not isinstance(value, bool)


def _in_text(text: str, known_lines: set[int]) -> Iterator[Defect]:
    """Those outside of values: in comments, or in a file that is no YAML."""
    for found in islice(_SHAPES.finditer(text), _MOST):
        line = text.count("\n", 0, found.start()) + 1
        if line not in known_lines:
            known_lines.add(line)
            yield Defect((), "the line holds what looks like a key, token or password", _REMEDY, line)
