"""`dspylab plan`: the runs of the matrix, and what would happen to each. Reads only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from dspylab.commands.console import console, note
from dspylab.commands.find import find_config
from dspylab.commands.outlook import Prospect, foresee
from dspylab.commands.programs import plan_compiles
from dspylab.commands.sync import pipeline_entry
from dspylab.config.wording import counted
from dspylab.errors import UsageError
from dspylab.jsonable import to_json
from dspylab.laboratory import Laboratory, open_laboratory
from dspylab.lm.routing import engine_for
from dspylab.report.programs import COMES_BACK, CompileRow, compiles_table
from dspylab.report.tables import PlanRow, plan_table


def show_plan(
    config: Path | None, pilot: int | None = None, form: Literal["table", "json"] = "table"
) -> None:
    """Prints a line for each run: its coordinates, its state and why, its model and engine.

    Args:
        config: The experiment file.
        pilot: Executes so many examples of each run that is not done and extrapolates.
        form: ``json``: programs and runs as one document, and no other line on standard output.

    Raises:
        UsageError: If a pilot is to be a document.
        DspylabError: If the experiment, its code or the repository is wrong, or if nothing could come of the
            runs that are to be executed.
    """
    from dspylab.pipeline.repo import open_repository

    if pilot is not None and form == "json":
        raise UsageError("a pilot is no document", where="--format", remedy="leave one of the two out")
    laboratory = open_laboratory(find_config(config))
    repository = open_repository(laboratory.layout.root)
    entry = pipeline_entry(laboratory)
    programs = plan_compiles(
        laboratory, repository.compile_states(entry, [spec.key for spec in laboratory.compiles])
    )
    prospects = foresee(laboratory, repository, entry, programs)
    if form == "json":
        print(json.dumps(_document(laboratory, programs, prospects), ensure_ascii=False, indent=2))
    else:
        if programs:
            console().print(compiles_table(programs))
        rows = [_row(laboratory, prospect) for prospect in prospects]
        console().print(plan_table(rows, laboratory.experiment.name))
        note("; ".join(_counts(laboratory, programs, prospects)))
    todo = [prospect.run for prospect in prospects if prospect.step in ("execute", "wait")]
    repository.refuse_tracked(entry, [run.key for run in todo])
    if todo:
        # Heavy: it imports dspy, which a plan with nothing to do does not need.
        from dspylab.execute.fit import refuse_misfits

        refuse_misfits(laboratory, todo)
    if pilot is not None and todo:
        from dspylab.commands.pilot import run_pilot

        run_pilot(laboratory, _able(prospects), pilot, _beyond(laboratory, programs, prospects))


def _document(
    laboratory: Laboratory, programs: Sequence[CompileRow], prospects: Sequence[Prospect]
) -> dict[str, Any]:
    """What the table says, for programs that follow."""
    return {
        "experiment": laboratory.experiment.name,
        "examples": len(laboratory.splits.test),
        "programs": [
            {
                "program": row.program,
                "state": row.state,
                "reasons": [*row.reasons],
                "optimizer": row.optimizer,
                "runs": row.runs,
            }
            for row in programs
        ],
        "runs": [
            {
                "run": prospect.run.key,
                "coordinates": to_json(prospect.run.coordinates),
                "step": prospect.step,
                "state": prospect.state,
                "reasons": [*prospect.reasons],
                "kept": prospect.kept,
                "answered": prospect.answered,
            }
            for prospect in prospects
        ],
    }


def _row(laboratory: Laboratory, prospect: Prospect) -> PlanRow:
    run = prospect.run
    model = laboratory.experiment.models[run.model]
    named = {"record": "to record", "restore": "to restore"}
    return PlanRow(
        run=run.key,
        coordinates=run.coordinates,
        state="half done" if prospect.kept else named.get(prospect.step, prospect.state),
        done=prospect.kept,
        total=len(laboratory.splits.test) if prospect.kept else None,
        reasons=prospect.reasons,
        model=model.model,
        engine=engine_for(run.model, model),
    )


def _counts(
    laboratory: Laboratory, programs: Sequence[CompileRow], prospects: Sequence[Prospect]
) -> Iterator[str]:
    """How many programs and runs there are, and what is to be done."""
    if programs:
        states = Counter(program.state for program in programs)
        restored = f", {states[COMES_BACK]} to restore" if states[COMES_BACK] else ""
        to_compile = len(programs) - states["done"] - states[COMES_BACK]
        yield f"{counted(len(programs), 'program')}, {to_compile} to compile{restored}"
    steps = Counter(prospect.step for prospect in prospects)
    todo = []
    if steps["restore"]:
        todo.append(f"{steps['restore']} to restore from DVC's cache")
    if steps["record"]:
        todo.append(f"{steps['record']} to record")
    back = _whose_program_comes_back(laboratory, programs, prospects)
    if to_execute := steps["execute"] + steps["wait"] - back:
        todo.append(f"{to_execute} to execute")
        begun = [prospect for prospect in prospects if prospect.kept or prospect.answered]
        total = len(laboratory.splits.test) if begun else 0
        if only := sum(prospect.kept + prospect.answered == total for prospect in begun):
            todo.append(f"{only} of these without calling the program")
    if back:
        once = "its program is" if back == 1 else "their programs are"
        todo.append(f"{back} to restore or execute once {once} back")
    yield ", ".join([counted(len(prospects), "run"), *(todo or ["nothing to do"])])


def _whose_program_comes_back(
    laboratory: Laboratory, programs: Sequence[CompileRow], prospects: Sequence[Prospect]
) -> int:
    """How many runs wait for a program that needs no compiling. Their results may come back with it."""
    come_back = {program.program for program in programs if program.state == COMES_BACK}
    waiting = [prospect.run.key for prospect in prospects if prospect.step == "wait"]
    return sum(laboratory.needed_compiles[key].key in come_back for key in waiting)


def _able(prospects: Sequence[Prospect]) -> list[str]:
    """The runs that a pilot can execute. To compile is the dear step that a pilot is made before.

    Raises:
        UsageError: If there are none.
    """
    able = [prospect.run.key for prospect in prospects if prospect.step == "execute"]
    if not able:
        raise UsageError(
            "no run can have a pilot: their programs are not compiled",
            where="--pilot",
            remedy="compile one first: `dspylab compile-one`",
        )
    return able


def _beyond(
    laboratory: Laboratory, programs: Sequence[CompileRow], prospects: Sequence[Prospect]
) -> list[str]:
    """What a pilot can say nothing about: the runs that wait for their program."""
    back = _whose_program_comes_back(laboratory, programs, prospects)
    beyond = []
    if compiled := sum(prospect.step == "wait" for prospect in prospects) - back:
        programs_are = "whose program is" if compiled == 1 else "whose programs are"
        beyond.append(f"{counted(compiled, 'run')} {programs_are} to be compiled, and the compiling")
    if back:
        programs_come = "whose program comes" if back == 1 else "whose programs come"
        beyond.append(f"{counted(back, 'run')} {programs_come} back first")
    return beyond
