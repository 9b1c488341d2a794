"""From the path of an experiment file to the experiment, or to everything that is wrong with it."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from dspylab.config.defect import Defect
from dspylab.config.document import Document, parse
from dspylab.config.explain import MOST_DEFECTS, model_defects, schema_defects
from dspylab.config.files import check_files, other_file
from dspylab.config.models import Experiment
from dspylab.config.references import check_references
from dspylab.config.rewriting import as_block
from dspylab.config.secrets import find_secrets
from dspylab.config.sections import sound_sections
from dspylab.config.wording import Address, dotted
from dspylab.errors import Finding, InvalidExperiment
from dspylab.printable import printable

MAX_BYTES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class LoadedExperiment:
    """A validated experiment and the file that it was read from.

    Attributes:
        experiment: The experiment.
        path: Absolute path of the file.
        folder: Absolute path of its folder, which paths in the file are relative to.
        document: The file as plain JSON data. What aliases repeat is shared: do not change it.
        source: The file with its lines.
        given: The path as the user gave it, for messages.
    """

    experiment: Experiment
    path: Path
    folder: Path
    document: dict[str, Any]
    source: Document = field(repr=False)
    given: str

    def line(self, address: Address) -> int:
        """1-based line of an address, or of its nearest parent that stands in the file."""
        return self.source.line(address)

    def place(self, address: Address) -> str:
        """Where an address stands, as messages name it: ``file:line: address``."""
        return f"{printable(self.given)}:{self.line(address)}: {dotted(address)}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is right, but would not outlive `dvc exp run -S`: a line and what to write instead, each."""
        return tuple(map(self._fragile, self.source.fragile.items()))

    def _fragile(self, found: tuple[Address, int]) -> str:
        address, line = found
        value: Any = self.document
        for part in address:
            value = value[part]
        problem = "`dvc exp run -S` takes quotes out of this {} or [], after which DVC can not read the file"
        defect = Defect(address, problem, "write it one key a line", line)
        block = textwrap.indent(as_block(address, value), "    ")
        return f"{_finding(self.given, self.source, defect)}:\n{block}"

    def finding(self, address: Address, problem: str, remedy: str) -> Finding:
        """A finding about a place in the file, for what is noticed later.

        Args:
            address: Keys and positions that lead to it, such as ``("matrix", "include", 0)``.
            problem: What is wrong.
            remedy: What to do about it.
        """
        return _finding(self.given, self.source, Defect(address, problem, remedy))


def load(path: Path, *, with_files: bool = True) -> LoadedExperiment:
    """Reads and validates an experiment file.

    Args:
        path: The file, relative to the working directory or absolute.
        with_files: Whether the files that it names have to be there.

    Returns:
        The experiment. Whether its matrix expands is for `plan` to say.

    Raises:
        InvalidExperiment: If anything is wrong, with every finding.
    """
    given = str(path)
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  # links stay: paths in the file are meant beside the link
    text = _read(absolute, given)
    document = parse(text)
    defects = list(document.defects) + find_secrets(document, text)
    if document.root is None:
        raise _invalid(given, document, defects)
    data = document.root.value
    if not isinstance(data, dict):
        problem = "the file is empty" if data is None else "the file is no mapping of keys"
        raise _invalid(
            given, document, [*defects, Defect((), problem, "begin with name: <name of the experiment>", 1)]
        )
    hidden = document.unread | {defect.address for defect in defects if defect.address}
    defects += [defect for defect in schema_defects(data) if not _is_below(defect.address, hidden)]
    sections = sound_sections(data, [*(defect.address for defect in defects), *document.unread])
    files = check_files(sections, absolute.parent) if with_files else ()
    checks = chain(check_references(sections), files)
    defects += islice(checks, MOST_DEFECTS)
    if defects:
        raise _invalid(given, document, defects)
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        raise _invalid(given, document, model_defects(error)) from None
    return LoadedExperiment(experiment, absolute, absolute.parent, data, document, given)


def _read(path: Path, given: str) -> str:
    """The text of the file, without a byte order mark."""

    def refuse(problem: str, remedy: str, line: int | None = None) -> InvalidExperiment:
        return InvalidExperiment([Finding(printable(given), line, "", problem, remedy)])

    try:
        if path.is_dir():
            raise refuse("is a folder", "name the experiment file in it")
        if not path.exists():
            raise refuse("is not there", other_file(path, given, (".yaml", ".yml"), "correct the path"))
        if not path.is_file():
            raise refuse("is no regular file", "name an experiment file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "this is no path"
        raise refuse(f"can not be read: {reason}", "correct the path or its permissions") from None
    if len(content) > MAX_BYTES:
        remedy = "keep data in the dataset and long prompts in the program"
        raise refuse(f"is larger than {MAX_BYTES:,} bytes", remedy)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise refuse("is not UTF-8", "save the file as UTF-8", line) from None


def _is_below(address: Address, hidden: Iterable[Address]) -> bool:
    """Whether an address lies at or below one of which more need not be said."""
    return any(address[:depth] in hidden for depth in range(1, len(address) + 1))


def _invalid(given: str, document: Document, defects: Iterable[Defect]) -> InvalidExperiment:
    findings = list(dict.fromkeys(_finding(given, document, defect) for defect in defects))
    shortened = sorted(findings, key=lambda finding: finding.line or 0)[:MOST_DEFECTS]
    if len(findings) > len(shortened):
        more = f"there are {len(findings) - len(shortened)} more findings, or others once these are gone"
        # "…" sorts behind every address of the line.
        shortened.append(Finding(printable(given), shortened[-1].line, "…", more, "correct these first"))
    return InvalidExperiment(shortened)


def _finding(given: str, document: Document, defect: Defect) -> Finding:
    line = document.line(defect.address) if defect.line is None else defect.line
    # Whatever of the user's text is in a message, it must not talk to the terminal.
    return Finding(
        printable(given), line, dotted(defect.address), printable(defect.problem), printable(defect.remedy)
    )
