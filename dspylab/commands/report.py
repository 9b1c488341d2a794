"""`dspylab report`: the results as a page or as Markdown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from dspylab.commands.find import find_layout
from dspylab.commands.stale import Now
from dspylab.config.wording import counted, named
from dspylab.errors import DataError
from dspylab.places import shown_path
from dspylab.record.layout import Layout
from dspylab.record.publish import read_json, write_atomically
from dspylab.record.results import StoredResults
from dspylab.report.compiled import CompiledProgram, compiled_program
from dspylab.report.html import Page, render_html
from dspylab.report.markdown import render_markdown
from dspylab.report.material import Material, gather
from dspylab.report.plots import plots, require_packages
from dspylab.report.verdict import verdict

Format = Literal["html", "md"]


def write_report(config: Path | None, output: Path | None, form: Format, most_examples: int) -> None:
    """Writes the report of an experiment from the results that are there.

    Args:
        config: What `--config` says.
        output: Where it goes; default: `report.html` beside the experiment file, or standard output for
            Markdown.
        form: What it is.
        most_examples: How many examples a page has at most.

    Raises:
        EnvironmentProblem: If what draws the plots is not installed.
        DataError: If there are no results, or they were damaged.
    """
    if form == "html":
        require_packages()
    layout, now = find_layout(config), Now(config)
    results = now.results(layout)
    material = gather(results)
    now.tell_stale(results.summary)
    _tell_without_rows(results)
    if form == "md":
        text = render_markdown(material, verdict(material))
        if output is None:
            print(text, end="")
            return
    else:
        text = render_html(_page(material, layout, most_examples))
    path = output or layout.folder / "report.html"
    content = text.encode("utf-8", "backslashreplace")
    write_atomically(path, [content])
    print(f"{shown_path(path)}: {counted(len(material.runs), 'run')}, {len(content) / 1e6:.1f} MB")


def _tell_without_rows(results: StoredResults) -> None:
    """Says on stderr, which no report is printed to, what a report lacks that may replace a whole one."""
    if results.without_rows:
        print(
            "without a verdict and examples, as their rows are not here "
            f"({len(results.without_rows)} of {len(results.summary['runs'])} runs): "
            f"{named(results.without_rows)}: {results.remedy}",
            file=sys.stderr,
        )


def _page(material: Material, layout: Layout, most_examples: int) -> Page:
    return Page(
        material=material,
        verdict=verdict(material),
        plots=plots(material),
        programs=_programs(layout),
        most_examples=most_examples,
    )


def _programs(layout: Layout) -> dict[str, CompiledProgram]:
    """The compiled programs that lie there, by their keys; none when there is no such folder."""
    keys = sorted(path.stem for path in layout.programs.glob("*.json"))
    # The record of a program lies beside it, as a file of its own name and a further ending.
    return {key: _program(layout, key) for key in keys if not key.endswith(".record")}


def _program(layout: Layout, key: str) -> CompiledProgram:
    """A compiled program. That a file was damaged is no reason to show nothing: it says what is wrong."""
    (state, damage), (record, more) = map(_content, (layout.program(key), layout.compile_record(key)))
    return compiled_program(state, record, [*damage, *more])


def _content(path: Path) -> tuple[dict[str, Any], list[str]]:
    """What a JSON file holds, and what is wrong with it; nothing of both when there is none."""
    try:
        return read_json(path) if path.exists() else {}, []
    except DataError as error:
        return {}, [str(error)]
