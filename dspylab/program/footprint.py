"""Which files decide what the user's code does, and the digest of each: the code's footprint."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from dspylab.config.axes import ADAPTERS
from dspylab.config.models import Dataset, Experiment
from dspylab.config.optimizers import references_in
from dspylab.config.references import is_loader
from dspylab.errors import DspylabError, EnvironmentProblem
from dspylab.plan.identity import digest
from dspylab.program.dataset import file_digest
from dspylab.program.load import Code
from dspylab.record.publish import write_json
from dspylab.records import RunSpec

_MODULE_SUFFIXES = (".py", *EXTENSION_SUFFIXES)
#: Changes when what is remembered is found or written in another way.
_MEMORY_VERSION = 1


def code_references(experiment: Experiment, runs: Iterable[RunSpec], *, metrics: bool = True) -> list[str]:
    """The modules and files that the experiment refers to, its program first, its metrics last.

    Args:
        experiment: The experiment.
        runs: Its runs.
        metrics: Whether to name those of the metrics, too.
    """
    sources = [str(experiment.program.path or experiment.program.module)]
    references = [run.adapter for run in runs if run.adapter is not None and run.adapter not in ADAPTERS]
    references += [ref for optimizer in experiment.optimizers.values() for ref in references_in(optimizer)]
    references += [ref for ref in _sources(experiment.dataset) if is_loader(ref)]
    if metrics:
        references += [metric.ref for metric in experiment.metrics.values() if metric.ref]
    sources += [reference.rpartition(":")[0] for reference in references]
    return list(dict.fromkeys(sources))


def data_files(experiment: Experiment, folder: Path) -> list[Path]:
    """The files of the dataset, and the files and folders that the program reads.

    Links stay: DVC itself may have made a data file a link into its cache.
    """
    found = [*_files(_sources(experiment.dataset), folder), *program_files(experiment, folder)]
    return list(dict.fromkeys(found))


def training_files(experiment: Experiment, folder: Path) -> list[Path]:
    """Those of the dataset's files that an optimizer's examples come from."""
    dataset = experiment.dataset
    return _files([ref for ref in (dataset.path, dataset.train, dataset.validation) if ref], folder)


def readable_files(experiment: Experiment, folder: Path) -> list[Path]:
    """What a program may read by itself: `program.files`, and separate training and validation examples."""
    read = program_files(experiment, folder)
    return read if experiment.dataset.path else [*read, *training_files(experiment, folder)]


def program_files(experiment: Experiment, folder: Path) -> list[Path]:
    """Files beside the dataset that the program reads, and folders whose every file it may read."""
    return [Path(os.path.abspath(folder / name)) for name in experiment.program.files]  # noqa: PTH100


def files_of(path: Path) -> list[Path]:
    """All files below a folder, sorted; of a file, itself."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def content_digest(path: Path) -> str:
    """Digest of a file's content, or of the names and contents of all files below a folder.

    Raises:
        DataError: If one cannot be read.
    """
    if not path.is_dir():
        return file_digest(path)
    return digest({file.relative_to(path).as_posix(): file_digest(file) for file in files_of(path)})


def _sources(dataset: Dataset) -> list[str]:
    return [ref for ref in (dataset.path, dataset.train, dataset.validation, dataset.test) if ref]


def _files(references: Iterable[str], folder: Path) -> list[Path]:
    named = dict.fromkeys(reference for reference in references if not is_loader(reference))
    return [Path(os.path.abspath(folder / name)) for name in named]  # noqa: PTH100


def code_files(code: Code, references: list[str], memory: Path) -> dict[Path, str]:
    """Every file of the repository that the experiment's code consists of, with its digest.

    The files are found by importing the code, which takes seconds because it imports dspy. So what was
    found is remembered, and holds until one of the files changes or a module comes or goes beside one of
    them, where an import could find it first.

    Args:
        code: The experiment's code.
        references: What to import.
        memory: Where the finding is remembered.

    Returns:
        Absolute path to SHA-256.

    Raises:
        ProgramError: If the code cannot be imported.
    """
    asked = {"version": _MEMORY_VERSION, "folder": str(code.folder), "references": references}
    remembered = _remembered(code.root, asked, memory)
    if remembered is not None:
        return remembered
    for reference in references:
        code.module(reference)
    found = {path: file_digest(path) for path in code.files()}
    files = {path.relative_to(code.root).as_posix(): digest for path, digest in found.items()}
    folders = sorted({code.root, code.folder, *(path.parent for path in found)})
    modules = {folder.relative_to(code.root).as_posix(): _modules_in(folder) for folder in folders}
    # Remembering only saves time; a folder that cannot be written is told about when results are.
    with contextlib.suppress(EnvironmentProblem):
        write_json(memory, {**asked, "files": files, "modules": modules})
    return found


def remembered_files(root: Path, memory: Path) -> dict[Path, str] | None:
    """The files that the code consisted of when it was last imported, with their digests of now.

    Imports nothing. A file that is gone has an empty digest.

    Args:
        root: The repository's root.
        memory: Where `code_files` remembers what it found.

    Returns:
        Absolute path to SHA-256; None if nothing is remembered, as in a fresh clone.
    """
    try:
        known = json.loads(memory.read_bytes())
        if known["version"] != _MEMORY_VERSION:
            return None
        paths = [root / name for name in known["files"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return {path: file_digest(path) if path.is_file() else "" for path in paths}


def _remembered(root: Path, asked: dict[str, Any], memory: Path) -> dict[Path, str] | None:
    """What was found when the same was asked; None if it holds no more or cannot be read."""
    try:
        known = json.loads(memory.read_bytes())
        if any(known[key] != value for key, value in asked.items()):
            return None
        if any(_modules_in(root / folder) != names for folder, names in known["modules"].items()):
            return None
        files = {root / name: digest for name, digest in known["files"].items()}
        return files if all(file_digest(path) == digest for path, digest in files.items()) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, DspylabError):
        return None


def _modules_in(folder: Path) -> list[str]:
    """Names of the modules and packages in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.endswith(_MODULE_SUFFIXES)
            or (entry.is_dir() and Path(entry.path, "__init__.py").is_file())
        )
