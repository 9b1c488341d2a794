"""The report as Markdown, for a pull request: the verdict and the table of runs. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dspylab.printable import printable
from dspylab.redact import redact
from dspylab.report.entries import estimate_of
from dspylab.report.formats import markdown_text
from dspylab.report.material import Material, RunMaterial
from dspylab.report.numbers import cost, count, difference, duration
from dspylab.report.standing import WORDS, standing_of
from dspylab.report.verdict import Verdict

_CODE = re.compile(r"(`[^`]*`)")


def render_markdown(material: Material, said: Verdict) -> str:
    """The report.

    Args:
        material: The figures.
        said: In words.
    """
    summary = material.summary
    lines = [f"## {_text(summary['experiment'])}", ""]
    if summary["description"]:
        lines += [_text(" ".join(str(summary["description"]).split())), ""]
    lines += [f"**{_sentence(said.headline)}**", ""]
    lines += [f"- {_sentence(point)}" for point in said.points]
    lines += ["", *_table(material), "", _footer(material)]
    return "\n".join(lines) + "\n"


def _table(material: Material) -> list[str]:
    head = [
        "run",
        _text(material.primary),
        "against the best",
        "failed",
        "latency p50",
        "p95",
        "TTFT p50",
        "cost",
    ]
    lines = [_row(head), _row(["---", "---", "---", *["--:"] * 5])]
    return lines + [_row(_cells(material, run)) for run in material.runs]


def _cells(material: Material, run: RunMaterial) -> list[str]:
    figures = run.figures
    standing = standing_of(material, run)
    found = material.standing.comparisons.get(run.side)
    against = WORDS[standing]
    if found is not None and found.difference is not None:
        against += f", {difference(found.difference, found.ci95)}"
    name = _code(run.key) + ("" if figures["complete"] else " (incomplete)")
    return [
        f"**{name}**" if standing == "best" else name,
        _text(estimate_of(figures, material.primary)),
        _text(against),
        count(figures["examples"]["failed"]),
        duration(figures["latency_s"]["p50"]),
        duration(figures["latency_s"]["p95"]),
        duration(figures["ttft_s"]["p50"]),
        _text(cost(figures["cost_usd"]["total"])),
    ]


def _footer(material: Material) -> str:
    git = material.summary["git"]
    commit = f" at commit {git['commit'][:12]}{' with local changes' if git['dirty'] else ''}" if git else ""
    made = _text(f"Results of {material.summary['created_at']}{commit}.")
    return f"<sub>In brackets: 95% intervals. Differences are paired by example. {made}</sub>"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _sentence(text: str) -> str:
    """A sentence with names in backticks; the rest of it is no markup."""
    parts = _CODE.split(text)
    return "".join(_code(part[1:-1]) if part.startswith("`") else _text(part) for part in parts if part)


def _text(text: object) -> str:
    """Text that Markdown shows as it is."""
    return markdown_text(redact(str(text)))


def _code(text: str) -> str:
    """A name in code. A bar would end the cell of a table even there."""
    return f"`{printable(redact(text)).replace('`', chr(39)).replace('|', '¦')}`"
