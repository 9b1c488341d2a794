"""Compiled programs: which stand, what one says (`show --program`), what differs (`diff-program`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dspylab.commands.console import console, note
from dspylab.commands.find import find_config
from dspylab.compiled import comes_back, is_untouched, recorded, valid_record
from dspylab.config.wording import choose
from dspylab.errors import UsageError
from dspylab.laboratory import Laboratory, open_laboratory
from dspylab.pipeline.states import RunState
from dspylab.record.publish import read_json
from dspylab.report.programs import COMES_BACK, CompileRow, program_diff, program_view

#: What `diff-program` takes for a program as the factory builds it.
_UNCOMPILED = "none"


def show_program(config: Path | None, key: str) -> None:
    """Prints the instructions and demonstrations of a program.

    Args:
        config: The experiment file.
        key: Key of a compiled program or of a run; one without an optimizer has what the factory builds.

    Raises:
        UsageError: If there is no such program.
        DataError: If its file is absent or damaged.
    """
    laboratory = open_laboratory(find_config(config))
    program = _program_key(laboratory, key)
    state = _state(laboratory, key, _UNCOMPILED)
    record = None if program is None else recorded(laboratory.layout, program)
    key = program or key
    if record is not None and not is_untouched(laboratory.layout, record):
        note(f"{key}: was changed since it was compiled")
    console().print(program_view(key, state, record))


def diff_programs(config: Path | None, first: str, second: str) -> None:
    """Prints what differs between two programs.

    Args:
        config: The experiment file.
        first: Key of a compiled program or of a run; `none` for the other one as the factory builds it. A run
            without an optimizer has what the factory builds, too.
        second: The same.

    Raises:
        UsageError: If there is no such program, or both are `none`.
        DataError: If a file is absent or damaged.
    """
    laboratory = open_laboratory(find_config(config))
    if first == second == _UNCOMPILED:
        raise UsageError("names no program", where="diff-program", remedy="name at least one compiled one")
    states = [(name, _state(laboratory, name, other)) for name, other in ((first, second), (second, first))]
    difference = program_diff(*states)
    if difference is None:
        note(f"{first} and {second} are the same")
    else:
        console().print(difference)


def plan_compiles(laboratory: Laboratory, states: Mapping[str, RunState]) -> list[CompileRow]:
    """The compiles of an experiment with what would happen to each.

    Args:
        laboratory: The experiment.
        states: Key of a compile to what DVC thinks of it.
    """
    users = [spec.key for spec in laboratory.needed_compiles.values()]
    rows = []
    for spec in laboratory.compiles:
        record = valid_record(laboratory, spec)
        state = RunState("done") if record is not None else states[spec.key]
        reasons = state.reasons
        if record is None and state.state == "done":
            state, reasons = RunState("stale"), ("was not compiled from what there is now",)
        compile_hash = None if record is not None else laboratory.compile_hash(spec)
        begun = compile_hash is not None and laboratory.layout.compiling(compile_hash).is_dir()
        is_back = record is None and comes_back(laboratory, spec)
        if is_back:
            reasons = (*reasons, "it was compiled before, and comes back without a call")
        entry = laboratory.experiment.optimizers[spec.optimizer]
        rows.append(
            CompileRow(
                program=spec.key,
                state=COMES_BACK if is_back else "half done" if begun else state.state,
                reasons=reasons,
                optimizer=str(entry.type or entry.path),
                runs=users.count(spec.key),
                record=record,
            )
        )
    return rows


def _program_key(laboratory: Laboratory, key: str) -> str | None:
    """Key of a compiled program, given that or the key of a run; None for a run without an optimizer.

    Raises:
        UsageError: If it is neither.
    """
    known: dict[str, str | None] = dict.fromkeys(run.key for run in laboratory.runs)
    known |= {run: spec.key for run, spec in laboratory.needed_compiles.items()}
    known |= {spec.key: spec.key for spec in laboratory.compiles}
    if key not in known:
        raise UsageError("there is no such program", where=key, remedy=choose(key, known))
    return known[key]


def _state(laboratory: Laboratory, name: str, other: str) -> dict[str, Any]:
    """The state of a program; `other` says which one is meant by `none`."""
    key = None if name == _UNCOMPILED else _program_key(laboratory, name)
    if key is not None:
        return read_json(laboratory.layout.program(key))
    from dspylab.optimize.state import program_state

    named = other if name == _UNCOMPILED else name
    key = _program_key(laboratory, named)
    compiled = next((spec for spec in laboratory.compiles if spec.key == key), None)
    return program_state(laboratory.code.build((compiled or laboratory.run(named)).program_args))
