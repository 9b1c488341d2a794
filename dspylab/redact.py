"""Take secrets out of text before it is shown or written.

Two ways: values that this process knows to be secret are masked wherever they stand, also when only their
beginning is there; and text that has the shape of a key, a token or a password is masked in any case. Shapes
are narrow: a message full of `[secret]` helps nobody.
"""

from __future__ import annotations

import json
import logging
import re
import urllib.parse

_MASK = "[secret]"
#: Shortest value that is masked wherever it stands: shorter ones would blank out ordinary words.
_SHORTEST = 8
#: How much of the beginning of a known value gives it away when masking characters follow, in characters,
#: and how long the value must be: people do write `fake...`.
_BEGINNING, _LONG = 4, 16

_STARS = r"(?:\*{2,}|…|\.{3}|•{2,}|[xX]{4,})"
#: Keys and tokens by the prefixes that their issuers give them. Whatever is followed by more is bounded, and
#: a prefix inside a word is none: the time to search a hostile text stays linear.
_PREFIXES = r"""
    (?<![\w-])(?:
      sk-(?:ant|proj|or|svcacct|admin|lf|None)-[\w-]{8,}
    | sk-(?=[\w-]{0,99}\d)[\w-]{16,}
    | (?:sk|pk|rk)[-_](?:live|test|lf)[-_][\w-]{8,}
    | AIza[\w-]{20,}
    | ya29\.[\w-]{20,}
    | (?:AKIA|ASIA)[A-Z0-9]{16}
    | gh[pousr]_[A-Za-z0-9]{16,} | github_pat_\w{16,} | glpat-[\w-]{16,}
    | (?:gsk|hf|r8|isat)_(?=[a-z]{0,99}[0-9A-Z])[A-Za-z0-9]{20,}
    | (?:xai|pplx|nvapi|csk|tvly)-(?=[\w-]{0,99}\d)[\w-]{20,}
    | tgp_v1_(?=[\w-]{0,99}[0-9A-Z])[\w-]{20,}
    | xox[abeoprs]-[A-Za-z0-9-]{10,}
    | eyJ[\w-]{10,}\.[\w-]{5,}(?:\.[\w-]*)?
    )
"""
_QUERY = r"""(?i:[?&](?:
        (?:api|access)[-_]?(?:key|token)|key|token|sig|signature|password|secret|x-amz-signature))
    =(?P<query>[^\s&\"'<>]{6,})"""
_LOGIN = r"://(?P<login>[^\s/@:]{0,200}:[^\s/@]{1,500}|[^\s/@:]{20,500})@"
#: Shapes that are secrets wherever they stand, in an experiment file, too. Needs `re.VERBOSE`.
UNMISTAKABLE = rf"{_PREFIXES} | {_QUERY} | {_LOGIN} | -----BEGIN\ [A-Z\ ]{{0,30}}PRIVATE\ KEY"
#: Names under which a secret is sent or printed, with what stands between it and the value.
_API_KEY = r"(?:x[-_])?(?:goog[-_])?(?:api|secret|access)[-_ ]?key(?:[-_ ]id)?"
_TOKEN = r"(?:access|auth|refresh|session|id|api|security)[-_ ]?token|client[-_ ]?secret|passw(?:or)?d"
_SHAPES = tuple(
    re.compile(shape, re.VERBOSE)
    for shape in (
        # What a provider echoes: `sk-abc***xyz`, `sk-proj-12...89`, `****wxyz`.
        rf"(?<![\w-])(?:(?:sk|pk|rk|gsk|hf|xai|csk|pplx|nvapi)[-_]|AIza)[\w-]*{_STARS}[\w*-]*",
        r"(?<![\w*])\*{4,}\w{2,8}\b",
        _PREFIXES,
        # Headers as text, dict, JSON or a list of pairs. `Bearer` is also an English word.
        r"""(?i:(?<![\w-])(?:proxy-)?authorization)b?["']?\s*[:=,]\s*b?["']?
            (?:(?i:bearer|basic|token|digest|negotiate|apikey)\s+|(?=[^\s"',;)\]}]{0,200}\d))
            (?!\[secret\])(?P<authorization>[^\s"',;)\]}]{6,})""",
        r"(?<![\w-])(?i:bearer)\s+(?=[\w.~+/=-]*\d|[\w.~+/=-]{20})(?P<bearer>[\w.~+/=-]{8,})",
        rf"""(?<![A-Za-z0-9])(?i:{_API_KEY}|{_TOKEN})(?:\sprovided)?b?["']?\s*[:=,]\s*b?["']?
            (?=[^\s"',;&)\]}}]{{0,200}}[\d*])(?!\[secret\])(?P<named>[^\s"',;&)\]}}]{{6,}})""",
        _QUERY,
        _LOGIN,
        r"-----BEGIN\ [A-Z\ ]{0,30}PRIVATE\ KEY-----(?P<pem>[^-]{16,})",
    )
)
_known: tuple[str, ...] = ()


def remember(value: str | None) -> None:
    """Notes a secret of this process, so that `redact` masks it from now on."""
    global _known  # noqa: PLW0603 - replaced whole, so that other threads may redact meanwhile
    value = (value or "").strip()
    if len(value) < _SHORTEST or value in _known:
        return
    quoted = (json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value))
    forms = {value, urllib.parse.quote(value, safe=""), *(form[1:-1] for form in quoted)}
    _known = tuple(sorted({*_known, *forms}, key=lambda form: (-len(form), form)))


def without_known(text: str) -> str:
    """The text with every known secret replaced by `[secret]`: quick enough for every prompt."""
    for secret in _known:
        text = text.replace(secret, _MASK)
    return text


def redact(text: str) -> str:
    """The text with every known secret, and whatever looks like one, replaced by `[secret]`."""
    for secret in _known:
        text = text.replace(secret, _MASK)
        if len(secret) >= _LONG and secret[:_BEGINNING] in text:
            text = _without_echo(text, secret)
    for shape in _SHAPES:
        text = shape.sub(_masked, text)
    return text


def _without_echo(text: str, secret: str) -> str:
    """The text without what shows the beginning of a secret and stars, dots or crosses for its rest."""
    beginning = re.escape(secret[:_BEGINNING])
    return re.sub(
        rf"(?<![\w-])(?P<shown>{beginning}[\w-]*?){_STARS}[\w*-]*",
        lambda match: _MASK if secret.startswith(match["shown"]) else match.group(),
        text,
    )


def _masked(match: re.Match[str]) -> str:
    """The mask in place of the secret part, which is the named group if the shape has one."""
    whole = match.group()
    if match.lastgroup is None:
        return _MASK
    start, end = (position - match.start() for position in match.span(match.lastgroup))
    return whole[:start] + _MASK + whole[end:]


class RedactingFormatter(logging.Formatter):
    """A log format without secrets, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return redact(super().format(record))
