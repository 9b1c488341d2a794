"""`dspylab report`: the results as a page or as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dspylab.commands.find import find_layout
from dspylab.places import shown_path
from dspylab.record.layout import Layout
from dspylab.record.publish import read_json, write_atomically
from dspylab.record.results import workspace_results
from dspylab.report.compiled import CompiledProgram, compiled_program
from dspylab.report.html import Page, render_html
from dspylab.report.markdown import render_markdown
from dspylab.report.material import Material, gather
from dspylab.report.plots import plots, require_packages
from dspylab.report.verdict import verdict

Format = Literal["html", "md"]

#: How the name of what is noted of a compiled program ends.
_RECORD = ".record.json"


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
    layout = find_layout(config)
    material = gather(workspace_results(layout))
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
    print(f"{shown_path(path)}: {len(material.runs)} runs, {len(content) / 1e6:.1f} MB")


def _page(material: Material, layout: Layout, most_examples: int) -> Page:
    return Page(
        material=material,
        verdict=verdict(material),
        plots=plots(material),
        programs=_programs(layout.folder / "programs"),
        most_examples=most_examples,
    )


def _programs(folder: Path) -> dict[str, CompiledProgram]:
    """The compiled programs that lie in a folder, by their keys; none when there is no such folder."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        if not path.name.endswith(_RECORD):
            record = path.with_name(path.stem + _RECORD)
            said = read_json(record) if record.is_file() else None
            found[path.stem] = compiled_program(read_json(path), said)
    return found
