"""What every check of an experiment file finds."""

from __future__ import annotations

from dataclasses import dataclass

from dspylab.config.wording import Address


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that is wrong, before it is known what file it is in.

    Attributes:
        address: Keys and positions that lead to it; empty for the file as a whole.
        problem: What is wrong.
        remedy: What to do about it.
        line: 1-based line; None when the address says it.
    """

    address: Address
    problem: str
    remedy: str
    line: int | None = None
