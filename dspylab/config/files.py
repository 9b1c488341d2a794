"""Whether the files that an experiment names are there."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from dspylab.config.defect import Defect
from dspylab.config.optimizers import references_in
from dspylab.config.references import is_loader, names_file
from dspylab.config.sections import Sections
from dspylab.config.wording import Address, listed, near_miss, plain
from dspylab.printable import printable
from dspylab.redact import redact

logger = logging.getLogger(__name__)

#: Endings of files that can be read as a dataset.
DATASET_KINDS: Final = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
#: Most files of a folder that a near miss is looked for among.
_MOST_SIBLINGS: Final = 1000


def check_files(sections: Sections, folder: Path) -> Iterator[Defect]:
    """Checks that every file is there and can be what it is meant to be.

    Args:
        sections: The sound parts of the file.
        folder: Folder that paths are relative to.

    Yields:
        What is wrong.
    """
    for address, path in _code_files(sections):
        yield from _check_file(path, address, folder)
    for position, path in enumerate(sections.program.files if sections.program is not None else ()):
        is_folder = _is_folder(folder / path) and not PurePosixPath(path).is_absolute()
        check = _check_folder if is_folder else _check_file
        yield from check(path, ("program", "files", position), folder)
    dataset = sections.dataset
    for key in ("path", "train", "validation", "test") if dataset is not None else ():
        reference = getattr(dataset, key)
        if reference is None or is_loader(reference):
            continue
        kind = PurePosixPath(reference).suffix.lower()
        if kind not in DATASET_KINDS and not reference.endswith(("/", "\\")):
            problem = (
                f"{plain(kind)} is no kind of dataset" if kind else f"'{plain(reference)}' has no ending"
            )
            remedy = f"use {listed(DATASET_KINDS)}, or program.py:load for a callable"
            yield Defect(("dataset", key), problem, remedy)
        else:
            yield from _check_file(reference, ("dataset", key), folder)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _check_folder(path: str, address: Address, folder: Path) -> Iterator[Defect]:
    """What runs make, and what holds it, can be nothing that they depend on."""
    named, own = (Path(os.path.abspath(place)) for place in (folder / path, folder))  # noqa: PTH100 - links stay
    made = any(named.is_relative_to(own / name) for name in ("results", "programs", "plots"))
    if made or own.is_relative_to(named):
        problem = f"'{plain(path)}' holds what runs of this experiment make"
        yield Defect(address, problem, "name a folder of its own for what the code reads")


def _code_files(sections: Sections) -> Iterator[tuple[Address, str]]:
    """Addresses and paths of Python files, without those that name an importable module."""
    references: list[tuple[Address, str | None]] = []
    if sections.program is not None:
        if sections.program.path is not None:
            yield ("program", "path"), sections.program.path
        references.append((("program", "adapter"), sections.program.adapter))
    if sections.dataset is not None:
        references += [
            (("dataset", key), getattr(sections.dataset, key))
            for key in ("path", "train", "validation", "test")
        ]
    for name, optimizer in (sections.optimizers or {}).items():
        if optimizer is not None:
            references += [
                (("optimizers", name, "path" if named == optimizer.path else "params"), named)
                for named in references_in(optimizer)
            ]
    for name, metric in (sections.metrics or {}).items():
        references.append((("metrics", name, "ref"), metric.ref if metric is not None else None))
    adapters = sections.matrix.axes.get("adapter", []) if sections.matrix is not None else []
    references += [(("matrix", "adapter", position), adapter) for position, adapter in enumerate(adapters)]
    for address, reference in references:
        source = reference.rpartition(":")[0] if isinstance(reference, str) else ""
        if names_file(source):
            yield address, source


def _check_file(path: str, address: Address, folder: Path) -> Iterator[Defect]:
    name = plain(path)
    target = folder / path
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive:
        remedy = "write it relative to the experiment file, so that it holds in every clone"
        yield Defect(address, f"'{name}' is an absolute path", remedy)
        return
    problem, remedy = "can not be looked up", "correct the path or its permissions"
    # A null character is an error of its own to some calls of the system, and no file to others.
    if "\0" not in path:
        try:
            if target.is_file():
                return
            is_folder = target.is_dir()
            problem, remedy = (
                ("is a folder", "name a file") if is_folder else ("is not there", _remedy(target, path))
            )
        except (OSError, ValueError) as error:
            logger.debug("%s: %s", target, error)
    yield Defect(address, f"'{name}' {problem} (looked in {printable(str(folder))})", remedy)


def _remedy(target: Path, written: str) -> str:
    if target.with_name(target.name + ".dvc").is_file():
        return "get it with: dvc pull"
    otherwise = "correct the path: it is relative to the experiment file"
    return other_file(target, written, (target.suffix,), otherwise)


def other_file(target: Path, written: str, endings: Collection[str], otherwise: str) -> str:
    """What to name instead of a file that is not there.

    Args:
        target: The file.
        written: Its path as the user wrote it, whose folder stands in what is named, too.
        endings: Those that the other file may have.
        otherwise: What to say when none beside it has a name that is near.

    Raises:
        OSError: If the folder cannot be read.
    """
    if not target.parent.is_dir():
        return "correct the path: its folder is not there either"
    beside = islice(target.parent.iterdir(), _MOST_SIBLINGS)
    names = [file.name for file in beside if file.suffix in endings and file.is_file()]
    near = near_miss(target.name, names)
    if near is None:
        return otherwise
    return f"did you mean {redact(str(PurePosixPath(written).with_name(near)))}?"
