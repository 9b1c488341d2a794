"""The terminal, as every command uses it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

#: Columns where neither a terminal nor COLUMNS says how many: wide enough for the tables, stable in logs.
_WIDTH_WITHOUT_TERMINAL = 140


def console() -> Console:
    """Standard output, as wide as COLUMNS says, with colours on a terminal but never against NO_COLOR."""
    from rich.console import Console

    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=_wanted_width())


def _wanted_width() -> int:
    wanted = os.environ.get("COLUMNS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else _WIDTH_WITHOUT_TERMINAL


def warn(texts: Iterable[str]) -> None:
    """Says on stderr, which no format is printed to, what works but is worth changing."""
    for text in texts:
        print(f"warning: {text}", file=sys.stderr, flush=True)


def note(text: str, silent: bool = False) -> None:
    """Prints a line for people, unless they asked for silence."""
    if not silent:
        print(text, flush=True)
