"""Which examples a comparison leaves out, and which are not quite the same on both sides, in words. Pure."""

from __future__ import annotations

from dspylab.aggregate.sides import Pairing
from dspylab.config.wording import named
from dspylab.report.numbers import count


def left_out(found: Pairing, a: str, b: str) -> str | None:
    """How many examples are not compared, and why; None when all are.

    Args:
        found: The pairing.
        a: What the baseline is called.
        b: What the other side is called.
    """
    if not found.lost:
        return None
    reasons = [
        f"{count(many)} {what} {side}"
        for many, what, side in (
            (found.failed_a, "failed in", a),
            (found.failed_b, "failed in", b),
            (found.absent_a, "not tried by", a),
            (found.absent_b, "not tried by", b),
        )
        if many
    ]
    why = "; ".join(reasons) or "the metric has no value for them"
    return f"{count(found.lost)} of {count(found.examples)} examples are not compared: {why}."


def changed(found: Pairing, a: str) -> list[str]:
    """Sentences on the examples whose data was edited between the sides: part of a difference is due to that.

    Args:
        found: The pairing.
        a: What the baseline is called.
    """
    lines = []
    if found.other_labels:
        has = "has another label" if found.other_labels == 1 else "have other labels"
        lines.append(
            f"{count(found.other_labels)} of {count(found.paired)} examples {has} than in {a} "
            f"({named(found.label_fields)}): the difference is partly that of the labels."
        )
    if found.other_inputs:
        has = "has" if found.other_inputs == 1 else "have"
        lines.append(
            f"{count(found.other_inputs)} of {count(found.paired)} examples {has} other inputs than in {a}, "
            "under the same id: the difference is partly that of the inputs."
        )
    return lines
