"""Which compiled programs stand: those that lie there as they were compiled, from what there is now.

Beside them are programs that were set aside, since others took their place or nothing needs them any more.
They lie in the private folder, for DVC keeps nothing of a stage whose files persist, and are named by what
decided them. Whoever goes back to that has them again, under whatever key, and pays for no call. So it is
with a program that nothing needs any more and that still lies where it was.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dspylab.errors import DataError
from dspylab.jsonable import to_json
from dspylab.laboratory import Laboratory
from dspylab.program.dataset import file_digest
from dspylab.record.layout import Layout
from dspylab.record.publish import read_json, write_atomically, write_json
from dspylab.records import CompileRecord, CompileSpec, MetricSummary, Rates, ValidationScore

#: Lies in the folder of a compile that `--fresh` wanted, as long as it is not done.
_ANEW = "anew"
#: Names of the files of a program that was set aside.
_PROGRAM, _RECORD = "program.json", "record.json"


def valid_record(laboratory: Laboratory, spec: CompileSpec) -> CompileRecord | None:
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

    Raises:
        ProgramError: If the user's code cannot be imported.
        DataError: If the dataset cannot be read.
        EnvironmentProblem: If it cannot be noted.
    """
    folder = laboratory.layout.compiling(laboratory.compile_hash(spec))
    shutil.rmtree(folder, ignore_errors=True)
    write_atomically(folder / _ANEW, [])


def is_wanted_anew(laboratory: Laboratory, spec: CompileSpec) -> bool:
    """Whether an interrupted `--fresh` wanted a program compiled anew."""
    if not any(laboratory.layout.all_compiling.glob(f"*/{_ANEW}")):
        return False
    return (laboratory.layout.compiling(laboratory.compile_hash(spec)) / _ANEW).is_file()


def set_aside(layout: Layout, key: str) -> bool:
    """Keeps a copy of a program that is going to be replaced or removed.

    Args:
        layout: Where the experiment lies.
        key: Key of the program.

    Returns:
        Whether there is one that lies there as it was compiled; what somebody changed is nobody's to move.

    Raises:
        EnvironmentProblem: If the copy cannot be written.
    """
    record = _whole(layout, key)
    if record is None:
        return False
    layout.make_private()
    folder = layout.set_aside(record.compile_hash)
    write_atomically(folder / _PROGRAM, [layout.program(key).read_bytes()])
    write_atomically(folder / _RECORD, [layout.compile_record(key).read_bytes()])
    return True


def drop_set_aside(layout: Layout, compile_hash: str) -> None:
    """Removes what was set aside of a compile."""
    shutil.rmtree(layout.set_aside(compile_hash), ignore_errors=True)


def unneeded(laboratory: Laboratory) -> list[str]:
    """Keys of the programs in the workspace that no run of the matrix needs, damaged ones included."""
    layout = laboratory.layout
    needed = {path for spec in laboratory.compiles for path in layout.compiled(spec.key)}
    return [path.stem for path in sorted(layout.programs.glob("*.json")) if path not in needed]


def comes_back(laboratory: Laboratory, spec: CompileSpec) -> bool:
    """Whether `restore` would put a program into its place; otherwise like it."""
    return _kept(laboratory, spec) is not None


def restore(laboratory: Laboratory, spec: CompileSpec) -> bool:
    """Puts a program that was set aside, or that nothing needs, into its place, unless it is wanted anew.

    Args:
        laboratory: The experiment.
        spec: A compile whose program does not stand.

    Returns:
        Whether there was one. It stands now.

    Raises:
        ProgramError: If the user's code cannot be imported.
        DataError: If the dataset cannot be read.
        EnvironmentProblem: If it cannot be written.
    """
    found = _kept(laboratory, spec)
    if found is None:
        return False
    layout, (record, content) = laboratory.layout, found
    set_aside(layout, spec.key)
    write_atomically(layout.program(spec.key), [content])
    # Another axis in the matrix, and the same program is called otherwise.
    record = replace(record, program=spec.key, coordinates=spec.coordinates)
    write_json(layout.compile_record(spec.key), to_json(record))
    drop_set_aside(layout, record.compile_hash)
    return True


def _kept(laboratory: Laboratory, spec: CompileSpec) -> tuple[CompileRecord, bytes] | None:
    """What is kept of a compile, whole: its record and its program; None if it is wanted anew."""
    if is_wanted_anew(laboratory, spec):
        return None
    layout, compile_hash = laboratory.layout, laboratory.compile_hash(spec)
    folder = layout.set_aside(compile_hash)
    places = [(folder / _RECORD, folder / _PROGRAM)]
    places += [(layout.compile_record(key), layout.program(key)) for key in unneeded(laboratory)]
    for record_file, program in places:
        try:
            record, content = _record(read_json(record_file)), program.read_bytes()
        except (DataError, OSError, KeyError, TypeError, AttributeError):
            continue
        is_whole = record.program_sha256 == hashlib.sha256(content).hexdigest()
        if is_whole and record.compile_hash == compile_hash:
            return record, content
    return None


def _whole(layout: Layout, key: str) -> CompileRecord | None:
    """The record of a program that lies there as it was compiled under this key; None if it does not."""
    record = recorded(layout, key)
    return record if record is not None and record.program == key and is_untouched(layout, record) else None


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
