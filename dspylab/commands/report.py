"""`dspylab report`: the results as a page or as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from dspylab.commands.find import find_layout
from dspylab.errors import DataError
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
    """The compiled programs that lie in a folder, by their keys; none when there is no such folder.

    A file that was damaged is no reason to show nothing: what is wrong stands where it would be shown.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        if not path.name.endswith(_RECORD):
            (state, damage), (record, more) = map(_content, (path, path.with_name(path.stem + _RECORD)))
            found[path.stem] = compiled_program(state, record, [*damage, *more])
    return found


def _content(path: Path) -> tuple[dict[str, Any], list[str]]:
    """What a JSON file holds, and what is wrong with it; nothing of both when there is none."""
    try:
        return read_json(path) if path.exists() else {}, []
    except DataError as error:
        return {}, [str(error)]
