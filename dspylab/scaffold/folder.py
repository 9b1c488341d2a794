"""Files that are written where there are none, and lines that are added where they are missing."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Literal

from dspylab.errors import EnvironmentProblem
from dspylab.places import shown_path
from dspylab.record.publish import write_atomically


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a file.

    Attributes:
        path: The file.
        did: `wrote` it anew, `added` lines to it, `updated` what is ours, or `kept` it as it was.
    """

    path: Path
    did: Literal["wrote", "added", "updated", "kept"]


def template(name: str) -> Traversable:
    """A file or folder of `dspylab/templates`, which lies inside the package."""
    return importlib.resources.files("dspylab").joinpath("templates", *name.split("/"))


def filled(name: str, values: Mapping[str, str]) -> str:
    """The text of a template with its `$names` replaced."""
    return Template(template(name).read_text(encoding="utf-8")).substitute(values)


def write_missing(path: Path, text: str) -> Change:
    """Writes a file, unless there is one.

    Raises:
        EnvironmentProblem: If it cannot be written.
    """
    if path.exists():
        return Change(path, "kept")
    write_atomically(path, [text.encode()])
    return Change(path, "wrote")


def copy_missing(source: Traversable, folder: Path) -> list[Change]:
    """Copies the files of a folder of templates, each unless there is one.

    Raises:
        EnvironmentProblem: If one cannot be written.
    """
    names = sorted(file.name for file in source.iterdir() if file.is_file())
    return [write_missing(folder / name, source.joinpath(name).read_text(encoding="utf-8")) for name in names]


def add_lines(path: Path, text: str) -> Change:
    """Adds to a file the lines that it has not, in blocks as they stand in the text; comments come along.

    Raises:
        EnvironmentProblem: If it cannot be read or written.
    """
    if not path.exists():
        return write_missing(path, text)
    try:
        present = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentProblem(f"cannot be read: {error}", where=shown_path(path)) from error
    known = {line.strip().rstrip("/") for line in present.splitlines()}
    blocks = []
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        comments = [line for line in lines if line.startswith("#")]
        missing = [line for line in lines if line not in comments and line.rstrip("/") not in known]
        if missing:
            blocks.append("\n".join([*comments, *missing]))
    if not blocks:
        return Change(path, "kept")
    before = present if not present or present.endswith("\n") else f"{present}\n"
    gap = "\n" if before else ""
    write_atomically(path, [(before + gap + "\n\n".join(blocks) + "\n").encode()])
    return Change(path, "added")
