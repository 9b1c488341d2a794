"""Take secrets out of text before it is shown or written."""

from __future__ import annotations

import logging
import re

_MASK = "[secret]"
#: Shortest value that is masked wherever it stands: shorter ones would blank out ordinary words.
_SHORTEST = 6
#: Shapes of keys that providers echo, also masked in part (`sk-abc...xyz`), and authorization headers.
_SHAPES = re.compile(
    r"""(?ix)
    \b(?:sk|pk|rk|gsk|xai|hf|ghp|gho|ghs|github_pat|AKIA|AIza|ya29)[-_.]?[A-Za-z0-9*.\-_]{10,}
    | \bBearer\s+[^\s"',;]+
    | (?<=authorization["']:\s["'])[^"']+
    | \beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*
    """
)
_known: set[str] = set()


def remember(value: str | None) -> None:
    """Notes a secret of this process, so that `redact` masks it from now on."""
    if value and len(value) >= _SHORTEST:
        _known.add(value)


def redact(text: str) -> str:
    """The text with every known secret, and whatever looks like one, replaced by `[secret]`."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return _SHAPES.sub(_MASK, text)


class RedactingFormatter(logging.Formatter):
    """A log format without secrets, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return redact(super().format(record))
