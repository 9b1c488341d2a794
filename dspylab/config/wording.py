"""How findings speak of addresses and values: short, on one line, and never with a secret in them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from dspylab.printable import printable
from dspylab.redact import redact

Address = tuple[str | int, ...]

#: Longest piece of the user's text that a message repeats, in characters.
_LONGEST = 60
#: Shortest beginning that stands for a name, in characters.
_SHORTEST = 3
#: Most names that a near miss is looked for among: each costs some microseconds.
_MOST_CANDIDATES = 1000
#: Most names that a message lists.
_MOST_NAMES = 30
_MOST_IN_A_SENTENCE = 8


def dotted(address: Address) -> str:
    """An address as people write it: ``matrix.include[0].model``."""
    text = ""
    for part in address:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + plain(part)
    return text


def plain(text: str) -> str:
    """The user's text without quotes, fit for a terminal: cut, on one line, without secrets."""
    # Cut before, too: what is masked in a megabyte nobody sees.
    text = redact(text[: 10 * _LONGEST])
    return printable(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def shown(value: Any) -> str:
    """A value of the file as a message names it."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"'{plain(value)}'"
    return "a list" if isinstance(value, list) else "a mapping"


def listed(names: Iterable[str]) -> str:
    """Names with commas between them; only the first ones of very many."""
    first = [plain(name) for name in islice(names, _MOST_NAMES + 1)]
    return ", ".join([*first[:_MOST_NAMES], "and so on"] if len(first) > _MOST_NAMES else first)


def named(names: Sequence[str]) -> str:
    """Names in a sentence, such as those of runs: a few, or the first and how many more there are."""
    shown = ", ".join(names[:_MOST_IN_A_SENTENCE])
    more = len(names) - _MOST_IN_A_SENTENCE
    return f"{shown} and {more} more" if more > 0 else shown


def counted(number: int, noun: str) -> str:
    """A number of things whose plural ends in s."""
    return f"{number} {noun}{'s' * (number != 1)}"


def near_miss(word: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one was meant to be; None when none is near."""
    names = {name.casefold(): name for name in islice(known, _MOST_CANDIDATES)}
    asked = word[:_LONGEST].casefold()
    # `temperature` for `lm.temperature` and `acc` for `accuracy` are near, though difflib does not think so.
    for name, original in names.items():
        if asked in (name, name.rpartition(".")[2]) or (len(asked) >= _SHORTEST and name.startswith(asked)):
            return original
    near = difflib.get_close_matches(asked, names, n=1, cutoff=0.6)
    return names[near[0]] if near else None


def choose(word: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """What to write instead of an unknown name.

    Args:
        word: The unknown name.
        known: All there are.
        otherwise: What to say when none of them is near; default: all of them.
    """
    names = list(known)
    near = near_miss(word, names)
    if near is not None:
        return f"did you mean {plain(near)}?"
    if otherwise is not None:
        return otherwise
    return f"there is: {listed(names)}" if names else "there is none"
