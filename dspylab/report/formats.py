"""The tables of the terminal as Markdown and CSV, and text that Markdown and HTML show as it is. Pure."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from dspylab.printable import printable
from dspylab.redact import redact
from dspylab.report.fitting import FittingTable

#: What Markdown, or HTML in it, would take for more than text. @ and # would call people and issues.
_ACTIVE = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_[]<>|~"}
    | {"&": "&amp;", "@": "@\u200b", "#": "#\u200b"}
)


def markdown_table(table: FittingTable) -> str:
    """A table with all its columns in GitHub's Markdown, its notes below; text in it stays text.

    Args:
        table: The table.

    Returns:
        Markdown, ending with a line break.
    """
    lines = []
    if table.title:
        lines += [f"**{markdown_text(table.title)}**", ""]
    lines += [
        markdown_row([column.title.replace("\n", " ") for column in table.columns]),
        "|" + "|".join("---" if column.text else "---:" for column in table.columns) + "|",
    ]
    lines += [markdown_row([column.cell(row) for column in table.columns]) for row in table.rows]
    notes = [" ".join(column.legend for column in table.columns if column.legend), *table.notes]
    for note in filter(None, notes):
        lines += ["", markdown_text(note)]
    return "\n".join(lines) + "\n"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of one set of names as CSV with a header line; what does not exist is empty.

    Args:
        rows: All with the same names in the same order.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown_text(text: str) -> str:
    """Text on one line that Markdown shows as it is."""
    return printable(text).translate(_ACTIVE)


def html_text(value: object) -> str:
    """Text on one line that HTML shows as it is, without secrets."""
    return html.escape(printable(redact(str(value))))


def markdown_row(cells: Sequence[str]) -> str:
    """A row of a table, its cells as text."""
    return "| " + " | ".join(map(markdown_text, cells)) + " |"
