"""Why a metric has no value for any example."""

from __future__ import annotations

from typing import Any

import pytest

from dspylab.unscored import parts_of, unscored_entry, unscored_rows


def row(*, failed: bool = False, errors: dict[str, str] | None = None, **metrics: float) -> dict[str, Any]:
    return {
        "example_id": "e1",
        "error": {"type": "ValueError"} if failed else None,
        "metrics": {name.replace("_", "."): value for name, value in metrics.items()},
        "metric_errors": errors or {},
    }


def entry(*, attempted: int = 2, failed: int = 0, first: str | None = None, **ns: int) -> dict[str, Any]:
    return {
        "examples": {"attempted": attempted, "failed": failed},
        "metrics": {name.replace("_", "."): {"n": n} for name, n in ns.items()},
        "first_metric_errors": {} if first is None else {"m": {"example_id": "e1", "message": first}},
    }


@pytest.mark.parametrize(
    ("metric", "rows", "said"),
    [
        ("m", [], None),
        ("m", [row(failed=True)], None),
        ("m", [row(failed=True), row(m=0.0)], None),
        ("m", [row(failed=True), row(other=1)], "m has no value for any example"),
        ("m", [row(), row(errors={"m": "A:\n b"}), row()], "m has no value for any example: A: b (on e1)"),
        ("m.a", [row(errors={"m": "A: b"})], "m.a has no value for any example: A: b (on e1)"),
        (
            "m",
            [row(m_a=1), row(m_b=2, mm_c=1)],
            "m has no value for any example: it gives m.a, m.b; name one of them, primary_metric: m.a",
        ),
        ("m", [row(errors={"m": "x" * 201})], f"m has no value for any example: {'x' * 199}… (on e1)"),
        ("m", [row(errors={"m": "x" * 200})], f"m has no value for any example: {'x' * 200} (on e1)"),
    ],
)
def test_rows_say_why_it_has_no_value(metric: str, rows: list[dict[str, Any]], said: str | None) -> None:
    assert unscored_rows(metric, rows) == said


@pytest.mark.parametrize(
    ("metric", "of", "said"),
    [
        ("m", entry(m=1), None),
        ("m", entry(attempted=0), None),
        ("m", entry(attempted=2, failed=2, m=0), None),
        ("m", entry(attempted=2, failed=1, m=0), "m has no value for any example"),
        ("m.a", entry(first="A: b", m=0), "m.a has no value for any example: A: b (on e1)"),
        (
            "m",
            entry(m_a=2, m_b=0),
            "m has no value for any example: it gives m.a; name one of them, primary_metric: m.a",
        ),
    ],
)
def test_a_summary_says_why_it_has_none(metric: str, of: dict[str, Any], said: str | None) -> None:
    assert unscored_entry(metric, of) == said


def test_parts_are_all_numbers_of_the_metric() -> None:
    assert parts_of("m.a", ["m", "m.a", "m.b", "mm", "mm.a"]) == ["m", "m.a", "m.b"]
