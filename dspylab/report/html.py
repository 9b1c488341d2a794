"""The report as one HTML file that needs nothing else: no network, no library, no server. Pure.

What models and datasets said can not act in it: text is escaped, the examples are compressed data that the
page shows as text alone, and a Content-Security-Policy names the one script and the one style that may be.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspylab.report.compiled import CompiledProgram, Demonstration
from dspylab.report.explorer import Explorer, explorer, packed
from dspylab.report.formats import html_text
from dspylab.report.material import Material
from dspylab.report.numbers import count
from dspylab.report.plots import Plot
from dspylab.report.runs_table import runs_table
from dspylab.report.verdict import Verdict

_PLACE = re.compile(r"\{\{(\w+)\}\}")
_CODE = re.compile(r"`([^`]*)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a page is made from.

    Attributes:
        material: The figures.
        verdict: In words.
        plots: Pictures.
        programs: Key to compiled program.
        most_examples: How many examples the page has at most.
    """

    material: Material
    verdict: Verdict
    plots: Sequence[Plot]
    programs: Mapping[str, CompiledProgram]
    most_examples: int


def render_html(page: Page) -> str:
    """The page as text.

    Args:
        page: What it is made from.
    """
    summary = page.material.summary
    style, script = _file("report.css"), _file("report.js")
    data = explorer(page.material, page.most_examples)
    places = {
        "version": html_text(summary["versions"].get("dspylab", "")),
        "title": html_text(summary["experiment"]),
        "description": html_text(summary["description"]),
        "verdict": _verdict(page.verdict),
        "runs": runs_table(page.material),
        "plots": "\n".join(map(_plot, page.plots)),
        "examples_note": html_text(_examples_note(data)),
        "programs": _programs(page.programs),
        "made": _made(summary),
        "data": "\n".join(_blocks(data)),
        "style": style,
        "script": script,
        "style_hash": _hash(style),
        "script_hash": _hash(script),
    }
    # One pass: what is put in is never looked through for places.
    return _PLACE.sub(lambda match: places[match[1]], _file("page.html"))


def _file(name: str) -> str:
    return importlib.resources.files("dspylab.report").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """How a Content-Security-Policy names what may stand in the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _sentence(text: str) -> str:
    """A sentence with names in backticks."""
    return _CODE.sub(r"<code>\1</code>", html_text(text))


def _verdict(verdict: Verdict) -> str:
    points = "".join(f"<li>{_sentence(point)}</li>" for point in verdict.points)
    return f'<p class="headline">{_sentence(verdict.headline)}</p><ul>{points}</ul>'


def _plot(plot: Plot) -> str:
    return (
        f"<figure><figcaption><h3>{html_text(plot.title)}</h3><p>{html_text(plot.note)}</p></figcaption>"
        f"{plot.svg}</figure>"
    )


def _examples_note(data: Explorer) -> str:
    if not data.index["runs"]:
        return "The rows are not on this machine."
    shown, total = len(data.index["indexes"]), data.index["total"]
    if shown == total:
        return ""
    return (
        f"{count(shown)} of {count(total)} examples are in this page: failed ones, then those on which runs "
        "differ, then the first of the dataset. All figures above are over all examples."
    )


def _blocks(data: Explorer) -> Iterable[str]:
    yield _block("index", packed(data.index))
    yield _block("shared", packed(data.shared))
    for number, (answers, calls) in enumerate(zip(data.answers, data.calls, strict=True)):
        yield _block(f"answers-{number}", answers)
        yield _block(f"calls-{number}", calls)


def _block(name: str, content: str) -> str:
    return f'<script type="text/plain" id="data-{name}">{content}</script>'


def _programs(programs: Mapping[str, CompiledProgram]) -> str:
    if not programs:
        return ""
    shown = "".join(_program(key, program) for key, program in programs.items())
    return (
        '<section aria-labelledby="programs-title"><h2 id="programs-title">Compiled programs</h2>'
        f"{shown}</section>"
    )


def _program(key: str, program: CompiledProgram) -> str:
    facts = "".join(f"<dt>{html_text(name)}</dt><dd>{html_text(text)}</dd>" for name, text in program.facts)
    parts = [f"<p>{html_text(damage)}</p>" for damage in program.damage]
    for predictor in program.predictors:
        fields = "".join(
            f"<li><b>{html_text(name)}</b> {html_text(description)}</li>"
            for name, description in predictor.fields
        )
        demos = "".join(f"<pre>{_demonstration(demo)}</pre>" for demo in predictor.demos)
        noun = "demonstration" if len(predictor.demos) == 1 else "demonstrations"
        parts.append(
            f"<h4>{html_text(predictor.name)}</h4><pre>{_lines(predictor.instructions)}</pre>"
            f'<ul class="fields">{fields}</ul>'
            + (f"<details><summary>{len(predictor.demos)} {noun}</summary>{demos}</details>" if demos else "")
        )
    return (
        f'<details class="program"><summary><code>{html_text(key)}</code></summary>'
        f'<dl class="facts">{facts}</dl>{"".join(parts)}</details>'
    )


def _demonstration(demo: Demonstration) -> str:
    return _lines("\n".join(f"{name}: {text}" for name, text in demo.fields))


def _lines(text: str) -> str:
    """Text of several lines for HTML."""
    return "\n".join(html_text(line) for line in text.split("\n"))


def _made(summary: Mapping[str, Any]) -> str:
    git = summary["git"]
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    facts = [
        ("results of", summary["created_at"]),
        ("commit", _commit(git) if git else "none"),
        ("versions", versions),
        *((f"prices of {model}", _rates(rates)) for model, rates in summary["rates"].items()),
    ]
    rows = "".join(f"<dt>{html_text(name)}</dt><dd>{html_text(text)}</dd>" for name, text in facts)
    return f'<dl class="facts">{rows}</dl>'


def _commit(git: Mapping[str, Any]) -> str:
    changed = ", with changes that were not committed" if git["dirty"] else ""
    return f"{git['commit'][:12]} on {git['branch'] or 'no branch'}{changed}"


def _rates(rates: Mapping[str, Any] | None) -> str:
    if rates is None:
        return "not known"
    return (
        f"${rates['input_usd']:g} in, ${rates['output_usd']:g} out for a million tokens ({rates['source']})"
    )
