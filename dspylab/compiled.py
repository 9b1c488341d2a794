"""Which compiled programs stand: those that lie there as they were compiled, from what there is now."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from dspylab.errors import DataError
from dspylab.laboratory import Laboratory
from dspylab.program.dataset import file_digest
from dspylab.record.layout import Layout
from dspylab.record.publish import read_json, write_atomically
from dspylab.records import CompileRecord, CompileSpec, MetricSummary, Rates, ValidationScore

#: Lies in the folder of a compile that `--fresh` wanted, as long as it is not done.
_ANEW = "anew"


def standing(laboratory: Laboratory, spec: CompileSpec) -> CompileRecord | None:
    """The record of a compiled program that need not be compiled again; None if it has to be.

    Args:
        laboratory: The experiment.
        spec: The compile.

    Raises:
        ProgramError: If the user's code cannot be imported.
        DataError: If the dataset cannot be read.
    """
    if is_wanted_anew(laboratory, spec):
        return None
    record = recorded(laboratory.layout, spec.key)
    if record is None or record.compile_hash != laboratory.compile_hash(spec, record.versions):
        return None
    return record if is_untouched(laboratory.layout, record) else None


def want_anew(laboratory: Laboratory, spec: CompileSpec) -> None:
    """Notes that a program is to be compiled although it stands, also by a session after this one.

    What an earlier compile kept is dropped. The note goes with the folder that it lies in, once the program
    is done.
    """
    folder = laboratory.layout.compiling(laboratory.compile_hash(spec))
    shutil.rmtree(folder, ignore_errors=True)
    write_atomically(folder / _ANEW, [])


def is_wanted_anew(laboratory: Laboratory, spec: CompileSpec) -> bool:
    """Whether an interrupted `--fresh` wanted a program compiled anew."""
    if not any((laboratory.layout.private / "compile").glob(f"*/{_ANEW}")):
        return False
    return (laboratory.layout.compiling(laboratory.compile_hash(spec)) / _ANEW).is_file()


def is_untouched(layout: Layout, record: CompileRecord) -> bool:
    """Whether the program lies there as it was compiled."""
    path = layout.program(record.program)
    return path.is_file() and file_digest(path) == record.program_sha256


def recorded(layout: Layout, key: str) -> CompileRecord | None:
    """The record beside a compiled program; None if there is none that can be read."""
    try:
        return _record(read_json(layout.compile_record(key)))
    except (DataError, KeyError, TypeError, AttributeError):
        return None


def _record(value: Mapping[str, Any]) -> CompileRecord:
    rates = {name: None if entry is None else Rates(**entry) for name, entry in value["rates"].items()}
    validation = value["validation_score"]
    if validation is not None:
        ends = validation["score"]["ci95"]
        score = MetricSummary(**{**validation["score"], "ci95": ends and (ends[0], ends[1])})
        validation = ValidationScore(**{**validation, "score": score})
    return CompileRecord(**{**value, "rates": rates, "validation_score": validation})
