"""The terminal, as every command uses it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

#: Columns where there is no terminal to ask: wide enough for the tables, and stable in logs.
_WIDTH_WITHOUT_TERMINAL = 140


def console() -> Console:
    """Standard output, with colours only on a terminal and never against NO_COLOR."""
    from rich.console import Console

    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=_WIDTH_WITHOUT_TERMINAL)


def warn(texts: Iterable[str]) -> None:
    """Says on stderr, which no format is printed to, what works but is worth changing."""
    for text in texts:
        print(f"warning: {text}", file=sys.stderr, flush=True)


def note(text: str, silent: bool = False) -> None:
    """Prints a line for people, unless they asked for silence."""
    if not silent:
        print(text, flush=True)
