"""`dspylab plan`: the runs of the matrix, and what would happen to each. Reads only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from dspylab.commands.console import console, note
from dspylab.commands.find import find_config
from dspylab.commands.programs import plan_compiles
from dspylab.commands.sync import pipeline_entry
from dspylab.config.wording import counted
from dspylab.errors import UsageError
from dspylab.laboratory import Laboratory, open_laboratory
from dspylab.lm.routing import engine_for
from dspylab.pipeline.states import NEVER_RUN, RunState
from dspylab.record.answers import EarlierRows, inheritable, retired
from dspylab.record.journal import begins_anew, is_published, peek
from dspylab.records import RunSpec
from dspylab.report.programs import compiles_table
from dspylab.report.tables import PlanRow, plan_table

_ANEW = "to be executed anew (--fresh was interrupted)"


def show_plan(config: Path | None, pilot: int | None) -> None:
    """Prints a line for each run: its coordinates, its state and why, its model and engine.

    Args:
        config: The experiment file.
        pilot: Executes so many examples of each run that is not done and extrapolates.

    Raises:
        DspylabError: If the experiment, its code or the repository is wrong, or if nothing could come of the
            runs that are to be executed.
    """
    from dspylab.pipeline.repo import open_repository

    laboratory = open_laboratory(find_config(config))
    repository = open_repository(laboratory.layout.root)
    entry = pipeline_entry(laboratory)
    states = repository.states(entry, [run.key for run in laboratory.runs])
    programs = plan_compiles(
        laboratory, repository.compile_states(entry, [spec.key for spec in laboratory.compiles])
    )
    to_compile = {program.program for program in programs if program.state != "done"}
    rows: list[PlanRow] = []
    for run in laboratory.runs:
        state = states[run.key]
        needed = laboratory.needed_compiles.get(run.key)
        if needed is not None and needed.key in to_compile:
            reasons = (f"its program {needed.key} is to be compiled",)
            state = RunState("missing" if state.state == "missing" else "stale", reasons)
        rows.append(_row(laboratory, run, state))
    if programs:
        console().print(compiles_table(programs))
    console().print(plan_table(rows, laboratory.experiment.name))
    todo = [row.run for row in rows if row.state != "done"]
    first = f"{counted(len(programs), 'program')}, {len(to_compile)} to compile; " if programs else ""
    note(f"{first}{counted(len(rows), 'run')}, " + (f"{len(todo)} to execute" if todo else "nothing to do"))
    repository.refuse_tracked(entry, todo)
    if todo:
        # Heavy: it imports dspy, which a plan with nothing to do does not need.
        from dspylab.execute.fit import refuse_misfits

        refuse_misfits(laboratory, [laboratory.run(key) for key in todo])
    if pilot is not None and todo:
        from dspylab.commands.pilot import run_pilot

        run_pilot(laboratory, _with_program(laboratory, todo, to_compile), pilot)


def _with_program(laboratory: Laboratory, runs: Sequence[str], to_compile: Collection[str]) -> list[str]:
    """The runs that a pilot can execute. To compile is the dear step that a pilot is made before.

    Raises:
        UsageError: If there are none.
    """
    needed = laboratory.needed_compiles
    able = [run for run in runs if run not in needed or needed[run].key not in to_compile]
    if not able:
        raise UsageError(
            "no run can have a pilot: their programs are not compiled",
            where="--pilot",
            remedy="compile one first: `dspylab compile-one`",
        )
    if len(able) < len(runs):
        without = counted(len(runs) - len(able), "run")
        note(f"{without} without a pilot, as the programs are not compiled")
    return able


def _row(laboratory: Laboratory, run: RunSpec, state: RunState) -> PlanRow:
    """What would happen to a run, from what DVC thinks of it and what earlier sessions have left."""
    if _is_to_go_on_anew(laboratory, run, state):
        # `run` goes on with it, whatever DVC thinks of the results before it.
        state = RunState("missing" if state.state == "missing" else "stale", (_ANEW,))
    kept = 0 if state.state == "done" else _kept(laboratory.journal(run))
    model = laboratory.experiment.models[run.model]
    return PlanRow(
        run=run.key,
        coordinates=run.coordinates,
        state="half done" if kept else state.state,
        done=kept,
        total=len(laboratory.splits.test) if kept else None,
        reasons=state.reasons if kept or state.state == "done" else _with_answered(laboratory, run, state),
        model=model.model,
        engine=engine_for(run.model, model),
    )


def _is_to_go_on_anew(laboratory: Laboratory, run: RunSpec, state: RunState) -> bool:
    # Most often there is no journal, and then the digests of runs that are done need not be made.
    if not any(laboratory.layout.journals.glob("*.jsonl")):
        return False
    journal = laboratory.journal(run)
    return begins_anew(journal) and not (state.state == "done" and is_published(journal))


def _with_answered(laboratory: Laboratory, run: RunSpec, state: RunState) -> list[str]:
    """The reasons, and for how many examples the program need not be called, if for any."""
    own = laboratory.earlier_rows(run).indexes
    left = set() if begins_anew(laboratory.journal(run)) else _left_by_others(laboratory, run)
    answered = len(own | left)
    if not answered:
        return [*state.reasons]
    is_renamed = state == NEVER_RUN and not own
    reasons = ["never run under this name"] if is_renamed else [*state.reasons]
    return [*reasons, f"{answered} answers are kept, to be scored again"]


def _left_by_others(laboratory: Laboratory, run: RunSpec) -> set[int]:
    """Examples with an answer that the run will take over from runs that are no longer in the matrix."""
    folders = retired(laboratory.layout, {other.key for other in laboratory.runs})
    if not folders:
        return set()
    left = inheritable(laboratory.answers_hash(run), folders)
    return EarlierRows(left, laboratory.splits.test).indexes


def _kept(journal: Path) -> int:
    """Examples of an interrupted session that will not be called again."""
    finished, retryable = peek(journal)
    return finished - retryable
