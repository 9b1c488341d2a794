"""Which files decide what the user's code does, and the digest of each: the code's footprint."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from dspylab.config.models import Experiment
from dspylab.errors import DspylabError
from dspylab.program.dataset import file_digest, is_loader
from dspylab.program.load import ADAPTERS, Code
from dspylab.record.publish import write_json
from dspylab.records import RunSpec


def code_references(experiment: Experiment, runs: Iterable[RunSpec]) -> list[str]:
    """The modules and files that the experiment refers to, its program first."""
    sources = [str(experiment.program.path or experiment.program.module)]
    references = [run.adapter for run in runs if run.adapter is not None and run.adapter not in ADAPTERS]
    references += [metric.ref for metric in experiment.metrics.values() if metric.ref and ":" in metric.ref]
    references += [optimizer.path for optimizer in experiment.optimizers.values() if optimizer.path]
    dataset = experiment.dataset
    references += [ref for ref in (dataset.path, dataset.train, dataset.test) if ref and is_loader(ref)]
    sources += [reference.rpartition(":")[0] for reference in references]
    return list(dict.fromkeys(sources))


def data_files(experiment: Experiment, folder: Path) -> list[Path]:
    """The dataset's files."""
    dataset = experiment.dataset
    named = [ref for ref in (dataset.path, dataset.train, dataset.test) if ref and not is_loader(ref)]
    return [(folder / name).resolve() for name in dict.fromkeys(named)]


def code_files(code: Code, references: list[str], memory: Path) -> dict[Path, str]:
    """Every file of the repository that the experiment's code consists of, with its digest.

    The files are found by importing the code, which takes seconds because it imports dspy. So what was
    found is remembered: as long as no file of it has changed, no import of it can have changed either.

    Args:
        code: The experiment's code.
        references: What to import.
        memory: Where the finding is remembered.

    Returns:
        Absolute path to SHA-256.

    Raises:
        ProgramError: If the code cannot be imported.
    """
    remembered = _remembered(code, references, memory)
    if remembered is not None:
        return remembered
    for reference in references:
        code.module(reference)
    found = {path: file_digest(path) for path in code.files()}
    listed = {_relative(path, code.root): digest for path, digest in found.items()}
    try:
        write_json(memory, {"references": references, "folder": str(code.folder), "files": listed})
    except DspylabError:
        # Remembering only saves time; a folder that cannot be written is told about when results are.
        return found
    return found


def _remembered(code: Code, references: list[str], memory: Path) -> dict[Path, str] | None:
    try:
        known = json.loads(memory.read_bytes())
        if known["references"] != references or known["folder"] != str(code.folder):
            return None
        files = {code.root / name: str(digest) for name, digest in known["files"].items()}
        return files if all(file_digest(path) == digest for path, digest in files.items()) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
