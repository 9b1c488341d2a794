"""Compiled programs for the terminal: what is to be compiled, what a program says, what changed in it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dspylab.printable import printable
from dspylab.records import CompileRecord
from dspylab.report.compiled import CompiledPredictor, predictors
from dspylab.report.fitting import Column, FittingTable
from dspylab.report.numbers import NOTHING, cost, count, duration, estimate

#: State of a program that was set aside and that the next `run` puts back.
COMES_BACK = "to restore"

_STYLES = {"+": "green", "-": "red", "@": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRow:
    """One compile of a plan.

    Attributes:
        program: Key of the compile.
        state: ``done``, ``stale``, ``missing``, ``half done`` or `COMES_BACK`.
        reasons: Why it is to be compiled.
        optimizer: Type of the optimizer, or ``path:name``.
        runs: Runs that use it.
        record: What is recorded of it; None if it does not stand.
    """

    program: str
    state: str
    reasons: Sequence[str]
    optimizer: str
    runs: int
    record: CompileRecord | None


def compiles_table(rows: Sequence[CompileRow]) -> RenderableType:
    """The programs of an experiment and which of them are to be compiled.

    Args:
        rows: In the order of the matrix.

    Returns:
        A rich renderable that fits itself to the width of the terminal.
    """

    def spent(row: CompileRow) -> str:
        return NOTHING if row.record is None else cost(row.record.cost_usd)

    columns = (
        Column("program", lambda row: row.program, text=True),
        Column(
            "state", lambda row: row.state, text=True, style=lambda row: "" if row.state == "done" else "bold"
        ),
        Column("reasons", lambda row: "; ".join(row.reasons) or NOTHING, text=True),
        Column("optimizer", lambda row: row.optimizer, rank=2, text=True),
        Column("runs", lambda row: count(row.runs), rank=1),
        Column("cost", spent, rank=3),
    )
    return FittingTable("programs", columns, rows)


def program_view(key: str, state: Mapping[str, Any], record: CompileRecord | None) -> RenderableType:
    """The instructions and demonstrations of a compiled program.

    Args:
        key: Its key.
        state: Content of its file.
        record: What is recorded of it, if anything is.
    """
    lines = [Text(key, style="bold")]
    if record is not None:
        lines.append(Text(_made(record), style="dim"))
    for predictor in predictors(state):
        lines += [Text(), Text(predictor.name, style="bold")]
        lines += [Text(printable(line)) for line in _lines(predictor)]
    return Group(*lines)


def program_diff(
    first: tuple[str, Mapping[str, Any]], second: tuple[str, Mapping[str, Any]]
) -> RenderableType | None:
    """What is different between two programs, predictor by predictor; None if nothing is.

    Args:
        first: Name and state of one program.
        second: Name and state of the other.
    """
    both = [{part.name: part for part in predictors(state)} for _, state in (first, second)]
    lines: list[Text] = []
    for name in dict.fromkeys([*both[0], *both[1]]):
        before, after = ([printable(line) for line in _lines(program.get(name))] for program in both)
        changed = list(difflib.unified_diff(before, after, n=2, lineterm=""))[2:]
        if changed:
            lines += [Text(), Text(name, style="bold")]
            lines += [Text(line, style=_STYLES.get(line[:1], "")) for line in changed]
    if not lines:
        return None
    heads = [Text(f"--- {first[0]}", style="red"), Text(f"+++ {second[0]}", style="green")]
    return Group(*heads, *lines)


def _made(record: CompileRecord) -> str:
    parts = [
        f"{record.optimizer} for {record.metric} on {record.models['task']}",
        f"{count(record.train)} training examples",
        f"{count(record.calls)} calls",
        *([cost(record.cost_usd)] if record.cost_usd is not None else []),
        duration(record.compile_s),
    ]
    if record.validation_score is not None:
        score = record.validation_score.score
        parts.append(f"validation {estimate(score.mean, score.ci95)} of {count(record.validation)}")
    return ", ".join(parts)


def _lines(predictor: CompiledPredictor | None) -> Iterator[str]:
    """A predictor as lines: instructions, how its fields are called, demonstrations."""
    if predictor is None:
        return
    yield "instructions:"
    yield from (f"  {line}" for line in predictor.instructions.splitlines())
    yield f"fields: {', '.join(f'{prefix} {description}' for prefix, description in predictor.fields)}"
    if not predictor.demos:
        yield "no demonstrations"
    for number, demo in enumerate(predictor.demos, start=1):
        yield f"demonstration {number} ({'bootstrapped' if demo.bootstrapped else 'labeled'}):"
        for name, text in demo.fields:
            yield from (f"  {line}" for line in f"{name}: {text}".splitlines())
