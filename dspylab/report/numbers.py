"""Numbers as people read them: three significant digits, a unit, a dash for what does not exist. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

#: What stands for a figure that does not exist.
NOTHING = "–"  # noqa: RUF001 - a dash is meant
#: Sizes of an estimate between which it is written without an exponent, and its most decimals.
_LEAST_FIXED, _MOST_FIXED = 1e-3, 1e9
_MOST_DECIMALS = 6


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, and all digits of its whole part: 0.812, 12.3, 1,234."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    size = abs(float(f"{value:.{digits}g}"))  # rounded: 0.9996 has as many decimals as 1.00
    if size < 1e-4 or size >= 1e9:
        return f"{value:.{digits - 1}e}"
    whole = len(f"{int(size)}") if size >= 1 else 0  # not rounded: 9.8 has one digit before the point
    # Leading zeros after the point are not significant: 0.00123 has three digits.
    leading = 0
    while size < 1 and size * 10 ** (leading + 1) < 1:
        leading += 1
    return f"{value:,.{max(0, digits - whole) + leading}f}"


def count(value: float | None) -> str:
    """A whole number with separators of thousands: 12,345."""
    return NOTHING if value is None else f"{value:,.0f}"


def estimate(mean: float | None, ends: Sequence[float] | None) -> str:
    """A mean and its interval, if it has one, all with the same decimals: 0.812 [0.720, 0.880]."""
    if mean is None:
        return NOTHING
    low, high = (mean, mean) if ends is None else ends
    size = max(abs(mean), abs(low), abs(high))
    if 0 < size < _LEAST_FIXED or size >= _MOST_FIXED:
        return number(mean) if ends is None else "{} [{}, {}]".format(*_alike([mean, low, high]))
    decimals = _decimals(size)
    # As many as tell the ends apart, or, without ends, as show two digits.
    width = size if ends is None else high - low
    while decimals < _MOST_DECIMALS and 0 < width * 10**decimals < 10:
        decimals += 1
    shown = [f"{value:,.{decimals}f}" for value in (mean, low, high)]
    return shown[0] if ends is None else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _alike(values: Sequence[float]) -> list[str]:
    """Very small or large numbers, all with an exponent when one needs it."""
    texts = [number(value) for value in values]
    if any("e" in text for text in texts):
        return [f"{value:.2e}" if value else "0" for value in values]
    return texts


def duration(seconds: float | None) -> str:
    """A duration in the unit that fits: 64.2 ms, 1.23 s, 2 min 05 s, 1 h 02 min."""
    if seconds is None:
        return NOTHING
    if seconds < 0.9995:
        return f"{number(seconds * 1000)} ms"
    if seconds < 59.95:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def cost(usd: float | None) -> str:
    """A price in US dollars: $0, $0.00123, $0.12, $3.40, $1,234."""
    if usd is None:
        return NOTHING
    if usd == 0:
        return "$0"
    if usd < 0.1:
        return f"${usd:.{2 - math.floor(math.log10(usd))}f}"
    return f"${usd:,.2f}" if usd < 1000 else f"${usd:,.0f}"


def in_unit(name: str, value: float, otherwise: Callable[[float], str] = number) -> str:
    """A figure in the unit that its name says: ``cost_usd.task`` as a price, ``ttft_s.p95`` as a duration.

    Args:
        name: Of a figure of `summary.json`.
        value: The figure.
        otherwise: How a figure of neither unit is written.
    """
    unit = name.partition(".")[0]
    if unit.endswith("_usd"):
        return cost(value)
    if unit.endswith("_s") and not unit.endswith("per_s"):
        return duration(value)
    return otherwise(value)


def difference(value: float | None, ends: Sequence[float] | None) -> str:
    """A difference with its sign and its interval, all with the same decimals: +0.250 [+0.109, +0.391]."""
    if value is None:
        return NOTHING
    low, high = (value, value) if ends is None else ends
    size = max(abs(value), abs(low), abs(high))
    if 0 < size < _LEAST_FIXED or size >= _MOST_FIXED:
        shown = [f"{part:+.2e}" for part in (value, low, high)]
    else:
        decimals = _decimals(size)
        shown = [f"{part:+,.{decimals}f}" for part in (value, low, high)]
    return shown[0] if ends is None else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def chance(p: float | None) -> str:
    """A p-value: 0.034, or < 0.001, below which its size says nothing more."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_value(p: float | None) -> str:
    """A p-value with its name: p = 0.034, p < 0.001."""
    shown = chance(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def _decimals(size: float) -> int:
    """Decimals that make four digits with those of the whole part: 9.812, 98.12, 981.2, 9,812."""
    return max(0, 4 - len(f"{int(float(f'{size:.4g}'))}"))
