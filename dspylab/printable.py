"""Text from anywhere, made fit for a terminal or a page."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Text on one line, with every character that has no look of its own spelled out: it can not act.

    Terminal escapes, bidirectional overrides, line breaks and spaces other than the usual one become ``\x1b``
    and the like.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def shortened(text: str, most: int) -> str:
    """The text up to so many characters, with a mark where the rest of it was left out."""
    return text if len(text) <= most else f"{text[:most]} […]"


def in_a_line(text: str, most: int = 200) -> str:
    """The words of a text on one line of at most so many characters."""
    words = " ".join(text.split())
    return words if len(words) <= most else f"{words[: most - 1]}…"
