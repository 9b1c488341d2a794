"""What DVC leaves of an experiment file when it writes it back, as `dvc exp run -S` does. Pure.

DVC's writer (ruamel.yaml) drops the quotes of every text that it takes for plain text. Its reader (libyaml)
takes less for plain: inside ``{}`` and ``[]`` it refuses a colon or a question mark without quotes. So of
``{api_base: "http://localhost/v1"}`` DVC makes a file that it can not read any more.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from dspylab.config.wording import Address
from dspylab.printable import printable

#: Lines of the block that a warning proposes.
_MOST_LINES: Final = 20
#: Characters of a line before it is folded, which nothing in a file of this kind is to be.
_WIDTH: Final = 10_000
#: Text that the writer keeps in quotes inside of {} and []: for its first character, its ends, or a character
#: that has a meaning there.
_KEPT = re.compile(
    r"[#&*!|>'\"%@`]"  # begins like something else
    r"|[-:](?:\s|$)|\?$"
    r"|---|\.\.\."
    r"|\s|.*(?:[,\[\]{}\r\n\x85\u2028\u2029]|:\s|:$|\s#|\s$)",
    re.DOTALL,
)


def is_refused_in_flow(text: str) -> bool:
    """Whether DVC can not read a text without quotes inside of {} or []."""
    return ":" in text or "?" in text


def loses_quotes_in_flow(text: str) -> bool:
    """Whether DVC writes a text that needs its quotes inside of {} or [] without them."""
    return is_refused_in_flow(text) and _KEPT.match(text) is None


def as_block(address: Address, value: Any) -> str:
    """A value as YAML of one key a line, with the key or the dash that leads to it.

    Args:
        address: Where it stands; empty for the whole file.
        value: Plain JSON data.
    """
    last = address[-1] if address else None
    content = value if last is None else [value] if isinstance(last, int) else {last: value}
    text = yaml.dump(
        content,
        Dumper=_WithoutAliases,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=_WIDTH,
    )
    lines = [printable(line) for line in text.splitlines()]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], "…"]
    return "\n".join(lines)


class _WithoutAliases(yaml.SafeDumper):
    """Writes what an alias repeats once more."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never an alias."""
        return True
